"""The command line in a process of its own, forked from the warm one of the tests, and what it leaves.

Each command gets a session of its own: whatever it starts is found by that, and told from what others start.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import testbed.cli.exec_
import testbed.cli.ls
import testbed.cli.run
import testbed.cli.up
import testbed.lab.registry
import testbed.plan.engines
import testbed.report.page
import testbed.report.progress
import testbed.spec.load
import testbed.trial.campaign
import testbed.trial.hold  # noqa: F401  # all that commands import when they are called: a fork has it already
from testbed import cli, stats
from testbed.results.document import Document
from testbed.results.folder import read_records
from testbed.results.record import Record

PATIENCE = 60
"""Seconds after which a test gives up on what must happen."""
SLOW = """
topology: two_homes
agent: udp
matrix: {nat_a: [eim-apdf], nat_b: [apdm-apdf]}
trials: 4
deadline: 1s
"""
"""No trial of it ends early: whatever is killed, is killed in the middle of one."""


stats.wilson(1, 2)
stats.clopper_pearson(1, 2)


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Document:
        """Of `--json`."""
        return Document.from_json(self.out)


class Output:
    """What a command writes, in a file without a name."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("output")

    def text(self) -> str:
        """So far."""
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0).decode()

    def __del__(self) -> None:
        os.close(self.fd)


@dataclass
class Running:
    """A command that runs."""

    pid: int
    out: Output = field(default_factory=lambda: Output())
    err: Output = field(default_factory=lambda: Output())
    _status: int | None = None

    def wait(self) -> Ran:
        """Its end."""
        if self._status is None:
            wait_for_end(self.pid)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return Ran(self._status, self.out.text(), self.err.text())

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def until(self, what: Callable[[], object]) -> None:
        """Until `what` is true, looked at whenever a few milliseconds have passed or the command ends."""
        pidfd = os.pidfd_open(self.pid)
        try:
            for _ in range(PATIENCE * 200):
                if what():
                    return
                if select.select([pidfd], [], [], 0.005)[0]:
                    break
            assert what(), f"it did not come to that:\n{self.out.text()}{self.err.text()}"
        finally:
            os.close(pidfd)

    def outlive(self, time: float) -> None:
        """Let some seconds pass, or fewer where it ends before."""
        pidfd = os.pidfd_open(self.pid)
        select.select([pidfd], [], [], time)
        os.close(pidfd)

    def processes(self) -> dict[int, str]:
        """Those of its session: id -> name."""
        return session(self.pid)

    def gone(self) -> None:
        """Until no process of its session is left; fails where one stays."""
        while left := self.processes():
            for pid in left:
                wait_for_end(pid)


def session(leader: int) -> dict[int, str]:
    """Living processes of a session: id -> name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            state, _, _, of = rest.split()[:4]
            if int(of) == leader and state not in "ZX":
                found[int(entry.name)] = name
    return found


def named_namespaces() -> list[str]:
    """Mounts that keep a namespace alive without a process."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - nsfs " in line]


def wait_for_end(pid: int) -> None:
    """Until a process has ended, ours or not."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], PATIENCE)[0], f"process {pid} does not end"
    finally:
        os.close(pidfd)


def children(pid: int) -> list[int]:
    """Of the only thread of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def start(
    *arguments: object, at: Path, env: Mapping[str, str] | None = None, before: Callable[[], None] = lambda: None
) -> Running:
    """Start `testbed ARGUMENTS` in the folder `at`; `before` is called in its process first."""
    running = Running(0)
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of numeric libraries, which a child does not need
        pid = os.fork()
    if pid == 0:
        _become(list(map(str, arguments)), at, running, env, before)
    running.pid = pid
    return running


def call(
    *arguments: object, at: Path, env: Mapping[str, str] | None = None, before: Callable[[], None] = lambda: None
) -> Ran:
    """Run it to its end; nothing of it may be left then."""
    running = start(*arguments, at=at, env=env, before=before)
    ran = running.wait()
    running.gone()
    return ran


def _become(
    arguments: list[str], at: Path, running: Running, env: Mapping[str, str] | None, before: Callable[[], None]
) -> NoReturn:
    status = 70
    try:
        os.setsid()
        os.chdir(at)
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, target in ((null, 0), (running.out.fd, 1), (running.err.fd, 2)):
            os.dup2(fd, target)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(fd, "w"), encoding="utf-8") for fd in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.simplefilter("ignore")
        sys.argv = ["testbed", *arguments]
        os.environ.update(env or {})
        before()
        os.closerange(3, 1024)
        try:
            cli.main()
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else 71
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def records(folder: Path) -> list[Record]:
    """The trials of a results folder, in the file's order."""
    return read_records(folder)[0]


def lines(folder: Path) -> int:
    """Finished trials in a folder that somebody may be writing."""
    try:
        return (folder / "trials.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def tree(folder: Path) -> list[str]:
    """Every file and folder below it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def scenario(at: Path, text: str, name: str = "own") -> Path:
    """A scenario file."""
    path = at / f"{name}.yaml"
    path.write_text(text)
    return path


def said(record: Record, node: str, event: str) -> Iterator[dict[str, object]]:
    """The events of one kind of one node."""
    for entry in record.agents[node]:
        if entry.event == event:
            yield entry.model_dump()
