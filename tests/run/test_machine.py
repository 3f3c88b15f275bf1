"""Full and read-only disks, closed pipes, no room for processes, mistakes of our own: each is said as what it is."""

from __future__ import annotations

import errno
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from testbed.lab.namespaces import mount, part_mounts
from testbed.plan.outcomes import Outcome
from testbed.trial import engine, work
from tests.run.command import SLOW, call, records, scenario, start, tree

pytestmark = pytest.mark.lab


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


def test_a_terminal_shows_a_live_table_and_may_go_away(tmp_path: Path) -> None:
    """It hangs up without a signal where it is not the one that controls us; then writing to it fails (EIO)."""
    scenario(tmp_path, SLOW)
    ours, its = pty.openpty()
    running = start("run", "own.yaml", "--trials", 3, "--out", "out", at=tmp_path, before=lambda: stderr_to(its))
    os.close(its)
    shown = b""
    while b"0/3 trials" not in shown:
        shown += os.read(ours, 1000)
    os.close(ours)
    assert running.wait().status == 0
    assert len(records(tmp_path / "out")) == 3


def stderr_to(fd: int) -> None:
    os.dup2(fd, 2)
    os.environ["TERM"] = "xterm"


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

        def start_refused(self: engine.Engine[Any], tasks: Sequence[object], number: int) -> None:
            setattr(os, "fork", fork)  # noqa: B010  # mypy knows that it is another function
            start_one(self, tasks, number)

        setattr(engine.Engine, "_start", start_refused)  # noqa: B010

    ran = call("run", "own.yaml", "--out", "out", at=tmp_path, before=refuse)
    assert ran.status == 3, ran.err
    assert "no process can be started for a trial: Resource temporarily unavailable" in ran.err
    assert "Traceback" not in ran.err
