"""Without root, without a home folder, with PATH as the only variable: the same commands work in a user namespace."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.lab.namespaces import CLONE_NEWNET, Namespace, mount, new_namespace, part_mounts, setns
from testbed.lab.processes import become_nobody
from testbed.plan.outcomes import Outcome
from tests.rights import IS_ROOT_OF_ALL_USERS
from tests.run.command import call, lines, records, start, tree
from tests.spec.corpus import ROOT

NOBODY = 65534
MS_BIND = 0x1000  # linux/mount.h


pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not IS_ROOT_OF_ALL_USERS, reason="the whole suite runs without root then"),
]

SCENARIO = f"""
topology: two_homes
matrix:
  nat_a: [eim-apdf]
  nat_b: [eim-apdf]
  agent: [quic, udp, {{command: [{sys.executable}, {ROOT}/examples/punch.py]}}]
trials: 1
"""


def become_a_stranger() -> None:
    """Nobody, in a file system where nobody may enter the folders of Python and of this project."""
    open_the_way(Path(sys.base_prefix), Path(sys.prefix), ROOT)
    path = os.environ["PATH"]
    os.environ.clear()
    os.environ["PATH"] = path
    become_nobody()


def open_the_way(*folders: Path) -> None:
    """Put an open folder in the place of each closed one that is in the way, for this process only."""
    part_mounts()
    closed = {path: first for path in map(Path.resolve, folders) if (first := first_closed(path)) is not None}
    held = {path: os.open(path, os.O_PATH) for path in closed}
    for folder in set(closed.values()):
        mount("none", str(folder), "tmpfs")
    for path, fd in held.items():
        path.mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{fd}", str(path), None, MS_BIND)
        os.close(fd)


def first_closed(path: Path) -> Path | None:
    """The outermost folder on the way to `path` that a stranger may not enter."""
    way = (*reversed(path.parents), path)
    return next((folder for folder in way if not folder.stat().st_mode & stat.S_IXOTH), None)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that belongs to nobody; those of pytest let only us in."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        os.chown(path, NOBODY, NOBODY)
        (path / "own.yaml").write_text(SCENARIO)
        yield path


def test_a_run_works_and_its_results_are_nobodys(folder: Path) -> None:
    ran = call("run", "own.yaml", "--capture", "all", at=folder, before=become_a_stranger)
    assert ran.status == 0, ran.err
    (results,) = (folder / "results").iterdir()
    assert [record.outcome for record in records(results)] == [Outcome.DIRECT] * 3
    assert {"result.json", "trials.jsonl", "captures", "inputs"} <= set(tree(results))
    assert {path.stat().st_uid for path in results.rglob("*")} == {NOBODY}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_run_that_is_killed(number: signal.Signals, folder: Path) -> None:
    running = start("run", "own.yaml", "--trials", 20, "--out", "out", at=folder, before=become_a_stranger)
    running.until(lambda: lines(folder / "out") >= 1)
    running.kill(number)
    running.wait()
    running.gone()


def test_a_folder_that_nobody_may_write_is_said(folder: Path) -> None:
    (folder / "mine").mkdir()
    ran = call("run", "own.yaml", "--out", "mine/out", at=folder, before=become_a_stranger)
    assert ran.status == 3, ran.err
    assert "mine/out: permission denied" in ran.err
    assert "--out DIR" in ran.err


@pytest.fixture
def host() -> Iterator[Namespace]:
    """Labs of others are not to be seen."""
    namespace = new_namespace()
    yield namespace
    namespace.close()


def test_a_lab_is_held_and_entered(folder: Path, host: Namespace) -> None:
    def enter() -> None:
        setns(host.fd, CLONE_NEWNET)
        become_a_stranger()

    nats = ("--nat", "nat_a=eim-apdf", "--nat", "nat_b=apdm-apdf")
    running = start("up", "two_homes", *nats, "--json", at=folder, before=enter)
    running.until(lambda: running.out.text().endswith("\n"))
    (shown,) = json.loads(call("ls", "--json", at=folder, before=enter).out)["labs"]
    assert shown["pid"] == running.pid
    inside = call(
        "exec", "alice", "--", "sh", "-c", "ls /sys/class/net; cat /proc/net/fib_trie", at=folder, before=enter
    )
    assert inside.status == 0, inside.err
    assert "eth0\nlo\n" in inside.out
    assert "192.168.1.2" in inside.out

    as_root = call(
        "exec", "bob", "--", "cat", "/proc/net/fib_trie", at=folder, before=lambda: setns(host.fd, CLONE_NEWNET)
    )
    assert as_root.status == 0, as_root.err
    assert "192.168.2.2" in as_root.out

    running.kill(signal.SIGTERM)
    assert running.wait().status == 130
    running.gone()


def test_the_lab_of_root_is_not_a_strangers(folder: Path, host: Namespace) -> None:
    running = start(
        "up", "one_home", "--nat", "nat=eim-eif", "--json", at=folder, before=lambda: setns(host.fd, CLONE_NEWNET)
    )
    running.until(lambda: running.out.text().endswith("\n"))

    def enter() -> None:
        setns(host.fd, CLONE_NEWNET)
        become_a_stranger()

    ran = call("exec", "alice", "--", "true", at=folder, before=enter)
    assert ran.status == 125
    assert "is refused" in ran.err
    assert "with sudo" in ran.err
    running.kill()
    running.wait()
    running.gone()
