"""What is killed, full or closed: nothing lost, nothing left, and the blame where it belongs.

Each moment of a kill is drawn from a seed; what must hold, must hold at every moment.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from testbed.lab.namespaces import mount, part_mounts
from testbed.plan.outcomes import Outcome
from testbed.results.record import Record
from testbed.trial import engine, work
from tests.run.command import (
    Ran,
    Running,
    call,
    children,
    lines,
    named_namespaces,
    records,
    scenario,
    start,
    tree,
    wait_for_end,
)

pytestmark = pytest.mark.lab

CELL = "nat_a=eim-apdf,nat_b=apdm-apdf"
SLOW = """
topology: two_homes
agent: udp
matrix: {nat_a: [eim-apdf], nat_b: [apdm-apdf]}
trials: 4
deadline: 1s
"""
"""No trial of it ends early: whatever is killed, is killed in the middle of one."""
SLEEPER = """#!/bin/sh
echo '{"event": "start"}'
(setsid sleep 1000 &)
echo ready > "$READY"
exec sleep 1000
"""


def check_nothing_left(running: Running, folder: Path) -> None:
    """A namespace lives by a process, a descriptor in one, or a mount."""
    running.gone()
    assert named_namespaces() == []
    assert not [name for name in tree(folder.parent) if "draft" in name]


# ---------------------------------------------------------------------------- SIGKILL


@pytest.mark.parametrize("moment", range(3))
def test_a_killed_run_keeps_what_is_done_and_can_be_resumed(moment: int, tmp_path: Path) -> None:
    scenario(tmp_path, SLOW)
    die = Random(moment)
    done, wait = die.randrange(3), die.random() * 0.5
    running = start("run", "own.yaml", "--out", "out", "--jobs", 2, at=tmp_path)
    running.until(lambda: (tmp_path / "out/trials.jsonl").exists() and lines(tmp_path / "out") >= done)
    running.outlive(wait)
    running.kill()
    running.wait()
    check_nothing_left(running, tmp_path / "out")
    kept = records(tmp_path / "out")
    assert len(kept) >= done
    assert "out/result.json" not in tree(tmp_path)

    refused = call("run", "own.yaml", "--out", "out", at=tmp_path)
    assert refused.status == 2
    assert "--resume" in refused.err

    resumed = call("run", "own.yaml", "--out", "out", "--resume", "--json", at=tmp_path)
    assert resumed.status == 0, resumed.err
    assert [(r.index, r.outcome) for r in records(tmp_path / "out")] == [(i, Outcome.RELAYED) for i in range(4)]
    assert {r.index: r for r in kept} == {
        r.index: r for r in records(tmp_path / "out") if r.index in {k.index for k in kept}
    }


def run_and_hit(at: Path, text: str, victim: Callable[[Running], int], moment: float) -> tuple[Ran, list[Record]]:
    """A run of one trial in which one process is killed."""
    scenario(at, text)
    running = start("run", "own.yaml", "--trials", 1, "--out", "out", at=at)
    running.until(lambda: children(running.pid) and len(running.processes()) >= 3)
    running.outlive(moment)
    os.kill(victim(running), signal.SIGKILL)
    ran = running.wait()
    check_nothing_left(running, at / "out")
    return ran, records(at / "out")


def trial_of(running: Running) -> int:
    (trial,) = children(running.pid)
    return trial


def wire_of(running: Running) -> int:
    return children(trial_of(running))[0]


@pytest.mark.parametrize("moment", range(2))
@pytest.mark.parametrize(
    ("victim", "words"),
    [(trial_of, "the trial's process died (signal 9)"), (wire_of, "the wire process died (signal 9)")],
)
def test_a_killed_part_of_ours_is_broken(
    victim: Callable[[Running], int], words: str, moment: int, tmp_path: Path
) -> None:
    ran, (record,) = run_and_hit(tmp_path, SLOW, victim, Random(f"{words}/{moment}").random() * 0.6)
    assert ran.status == 4, ran.err
    assert record.outcome is Outcome.BROKEN
    assert record.reason is not None
    assert words in record.reason
    assert words in ran.out, "the report shows it"
    again = call("run", "own.yaml", "--trials", 1, "--out", "out", "--resume", at=tmp_path)
    assert again.status == 0, again.err
    assert [(r.attempt, r.outcome) for r in records(tmp_path / "out")][-1] == (2, Outcome.RELAYED)


def external(at: Path) -> tuple[str, dict[str, str]]:
    """A scenario whose ends are programs that wait, and have daemons."""
    program = at / "sleeper"
    program.write_text(SLEEPER)
    program.chmod(0o755)
    text = SLOW.replace("agent: udp", f"setup_deadline: 2s\nagent: {{command: [{program}]}}")
    return text, {"READY": str(at / "ready")}


def inside(running: Running) -> dict[int, int]:
    """Processes in PID namespaces below the run's: what they are called there -> one that is called so."""
    found = {}
    for pid in all_below(running.pid):
        with suppress(OSError):
            numbers = re.search(r"^NSpid:(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            if numbers is not None and len(own := numbers[1].split()) == len(outside()) + 1:
                found[int(own[-1])] = pid
    return found


def outside() -> list[str]:
    numbers = re.search(r"^NSpid:(.*)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert numbers is not None
    return numbers[1].split()


def first_of_pids(running: Running) -> int:
    return inside(running)[1]


def program_of(running: Running) -> int:
    return inside(running)[2]


@pytest.mark.parametrize("victim", [first_of_pids, program_of])
def test_a_killed_program_has_failed(victim: Callable[[Running], int], tmp_path: Path) -> None:
    text, env = external(tmp_path)
    scenario(tmp_path, text)
    running = start("run", "own.yaml", "--trials", 1, "--out", "out", at=tmp_path, env=env)
    running.until(lambda: (tmp_path / "ready").exists())
    running.until(lambda: {1, 2} <= inside(running).keys())
    everybody = all_below(running.pid)
    os.kill(victim(running), signal.SIGKILL)
    ran = running.wait()
    for pid in everybody:
        wait_for_end(pid)
    assert ran.status == 0, ran.err
    (record,) = records(tmp_path / "out")
    assert record.outcome is Outcome.FAILED
    reasons = [
        entry.model_dump()["reason"] for said in record.agents.values() for entry in said if entry.event == "failed"
    ]
    assert "the program ended by signal 9" in reasons


def all_below(pid: int) -> set[int]:
    found = set(children(pid))
    for child in children(pid):
        found |= all_below(child)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_programs_and_their_daemons_end_with_the_run(number: signal.Signals, tmp_path: Path) -> None:
    text, env = external(tmp_path)
    scenario(tmp_path, text)
    running = start("run", "own.yaml", "--out", "out", at=tmp_path, env=env)
    running.until(lambda: (tmp_path / "ready").exists())
    everybody = all_below(running.pid)
    assert len(everybody) > 4
    running.kill(number)
    running.wait()
    for pid in everybody:
        wait_for_end(pid)
    running.gone()


def test_a_run_that_is_stopped_for_a_while_takes_no_harm(tmp_path: Path) -> None:
    """Ctrl-Z reaches every process of the terminal; only the parent stops, and trials go on without it."""
    scenario(tmp_path, SLOW.replace("[apdm-apdf]", "[eim-eif]"))
    running = start("run", "own.yaml", "--trials", 12, "--out", "out", at=tmp_path)
    running.until(lambda: lines(tmp_path / "out") >= 2)
    running.kill(signal.SIGSTOP)
    for pid in running.processes().keys() - {running.pid}:
        os.kill(pid, signal.SIGTSTP)
    running.outlive(1.5)
    running.kill(signal.SIGCONT)
    assert running.wait().status == 0
    found = records(tmp_path / "out")
    assert {record.outcome for record in found} == {Outcome.DIRECT}
    assert not [text for record in found for text in record.warnings if "late" in text and "1." in text.split("ms")[0]]


def test_a_mistake_of_ours_says_where_it_is(tmp_path: Path) -> None:
    """The record has the line that went wrong, stderr has the rest, once."""
    scenario(tmp_path, SLOW)

    def spoil() -> None:
        def judge(*_: object) -> None:
            raise ExceptionGroup("several", [ZeroDivisionError("by nought")])

        setattr(work, "judge", judge)  # noqa: B010  # mypy knows that it is another function

    ran = call("run", "own.yaml", "--out", "out", at=tmp_path, before=spoil)
    assert ran.status == 4
    for record in records(tmp_path / "out"):
        assert record.outcome is Outcome.BROKEN
        assert record.reason is not None
        assert record.reason.startswith("ZeroDivisionError: by nought")
    assert ran.err.count("Traceback") == 1


def test_a_machine_without_room_for_processes_is_said(tmp_path: Path) -> None:
    scenario(tmp_path, SLOW)

    def refuse() -> None:
        def fork() -> int:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        start_one = engine.Engine._start

        def start_refused(self: engine.Engine[Any], task: object) -> None:
            setattr(os, "fork", fork)  # noqa: B010  # mypy knows that it is another function
            start_one(self, task)

        setattr(engine.Engine, "_start", start_refused)  # noqa: B010

    ran = call("run", "own.yaml", "--out", "out", at=tmp_path, before=refuse)
    assert ran.status == 3, ran.err
    assert "no process can be started for a trial: Resource temporarily unavailable" in ran.err
    assert "Traceback" not in ran.err


# ---------------------------------------------------------------------------- resuming


CHANGES = [
    ("another seed", ("--seed", 2), None, "seed: 1 then, 2 now"),
    ("other cells", ("--only", "nat_b=apdm-apdf"), None, "cells:"),
    ("another file", (), "deadline: 2s", "line 6: 'deadline: 1s' then, 'deadline: 2s' now"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("finished")
    scenario(at, SLOW.replace("[apdm-apdf]", "[apdm-apdf, eim-eif]"))
    assert call("run", "own.yaml", "--trials", 1, "--out", "out", at=at).status == 0
    return at


@pytest.mark.parametrize(("sentence", "more", "line", "words"), CHANGES, ids=[row[0] for row in CHANGES])
def test_a_run_of_other_things_is_not_resumed(
    sentence: str, more: tuple[object, ...], line: str | None, words: str, finished: Path
) -> None:
    path = finished / "own.yaml"
    before, kept = path.read_text(), (finished / "out/trials.jsonl").read_bytes()
    if line is not None:
        path.write_text(before.replace("deadline: 1s", line))
    try:
        ran = call("run", "own.yaml", "--trials", 1, "--out", "out", "--resume", *more, at=finished)
    finally:
        path.write_text(before)
    assert ran.status == 2
    assert words in ran.err
    assert (finished / "out/trials.jsonl").read_bytes() == kept


def test_another_version_does_not_go_on(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.trial.campaign.__version__", "99.0")
    ran = call("run", "own.yaml", "--trials", 1, "--out", "out", "--resume", at=finished)
    assert ran.status == 2
    assert "99.0 now" in ran.err


def test_a_finished_run_is_resumed_by_more_trials(finished: Path, tmp_path: Path) -> None:
    ran = call("run", "own.yaml", "--trials", 2, "--out", "out", "--resume", "--json", at=finished)
    assert ran.status == 0, ran.err
    assert [(r.cell.rpartition("=")[2], r.index) for r in records(finished / "out")] == [
        (nat, index) for nat in ("apdm-apdf", "eim-eif") for index in (0, 1)
    ]


# ---------------------------------------------------------------------------- disks and pipes


def small_disk(at: Path, size: str) -> Callable[[], None]:
    """To be called in the run's process: mounts of its own, and a small disk in the place of `at`."""

    def go() -> None:
        part_mounts()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(at)], check=True)

    return go


def test_a_full_disk_is_said_and_status_3(tmp_path: Path) -> None:
    scenario(tmp_path, SLOW)
    (tmp_path / "disk").mkdir()
    ran = call("run", "own.yaml", "--out", "disk/out", at=tmp_path, before=small_disk(tmp_path / "disk", "20k"))
    assert ran.status == 3, ran.err
    assert "the disk is full" in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_disk_that_holds_records_but_no_captures_ends_the_run(tmp_path: Path) -> None:
    scenario(tmp_path, SLOW)
    (tmp_path / "disk").mkdir()
    disk = small_disk(tmp_path / "disk", "64k")
    ran = call("run", "own.yaml", "--jobs", 1, "--out", "disk/out", at=tmp_path, before=disk)
    assert ran.status == 3, ran.err
    assert "captures" in ran.err
    assert "the disk is full" in ran.err
    assert "--capture none" in ran.err


def test_a_read_only_folder_is_said_before_anything_runs(tmp_path: Path) -> None:
    scenario(tmp_path, SLOW)
    (tmp_path / "disk").mkdir()

    def read_only() -> None:
        part_mounts()
        mount(str(tmp_path / "disk"), str(tmp_path / "disk"), None, 0x1000)  # MS_BIND
        mount("none", str(tmp_path / "disk"), None, 0x1000 | 0x20 | 0x1)  # MS_BIND, MS_REMOUNT, MS_RDONLY

    ran = call("run", "own.yaml", "--out", "disk/out", at=tmp_path, before=read_only)
    assert ran.status == 3, ran.err
    assert "read-only" in ran.err
    assert "--out DIR" in ran.err
    assert tree(tmp_path / "disk") == []


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_run_outlives_its_readers(closed: str, tmp_path: Path) -> None:
    scenario(tmp_path, SLOW + "expect: [{success_rate: {at_least: 99%}}]\n")
    reading, writing = os.pipe()
    os.close(reading)
    ends = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, closed: writing}
    command = [
        sys.executable,
        "-m",
        "testbed",
        "run",
        "own.yaml",
        "--trials",
        "3",
        "--out",
        "out",
        "--progress",
        "plain",
    ]
    done = subprocess.run(command, cwd=tmp_path, check=False, **ends)  # type: ignore[call-overload]
    os.close(writing)
    assert done.returncode == 1, "the expectation is missed, whoever looks"
    assert len(records(tmp_path / "out")) == 3
    assert (tmp_path / "out/result.json").exists()


def test_a_result_that_stdout_cannot_take_is_an_error(tmp_path: Path) -> None:
    scenario(tmp_path, SLOW)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "testbed", "run", "own.yaml", "--trials", "1", "--out", "out", "--json"],
            cwd=tmp_path,
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 3
    assert "it is in out" in done.stderr
    assert "Traceback" not in done.stderr
