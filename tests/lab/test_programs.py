"""Programs in a box: how they are started, told to end, and what ends with them."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from testbed.lab.namespaces import Namespace, new_namespace
from testbed.lab.programs import Program, spawn

pytestmark = pytest.mark.lab


@pytest.fixture
def box() -> Iterator[Namespace]:
    namespace = new_namespace()
    yield namespace
    namespace.close()


@contextmanager
def running(box: Namespace, *command: str, environment: dict[str, str] | None = None) -> Iterator[Program]:
    program = spawn(box, command, {"PATH": os.environ["PATH"], **(environment or {})})
    try:
        yield program
    finally:
        program.kill()
        end(program)
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        program.stderr.close()


def end(program: Program) -> int:
    """Wait for the end, by its pidfd."""
    if (status := program.poll()) is not None:
        return status
    pidfd = os.pidfd_open(program.pid)
    select.select([pidfd], [], [], 20)
    os.close(pidfd)
    found = program.poll()
    assert found is not None, "the program has not ended"
    return found


def read_all(stream: object) -> bytes:
    assert hasattr(stream, "read")
    data = stream.read()
    assert isinstance(data, bytes)
    return data


STATUSES: list[tuple[str, Sequence[str], int]] = [
    ("a program that is content", ("true",), 0),
    ("a program that is not", ("sh", "-c", "exit 7"), 7),
    ("one that dies by a signal of its own", ("sh", "-c", "kill -USR1 $$"), -signal.SIGUSR1),
    ("even by SIGKILL", ("sh", "-c", "kill -9 $$"), -signal.SIGKILL),
]


@pytest.mark.parametrize(("sentence", "command", "status"), STATUSES, ids=[row[0] for row in STATUSES])
def test_how_it_ended(box: Namespace, sentence: str, command: Sequence[str], status: int) -> None:
    with running(box, *command) as program:
        assert end(program) == status, sentence


def test_it_sees_the_box_its_output_and_its_environment(box: Namespace) -> None:
    script = "import os, sys; print(sorted(os.listdir('/sys/class/net')), os.environ['WORD']); sys.stderr.write('oh')"
    with running(box, sys.executable, "-c", script, environment={"WORD": "hello"}) as program:
        assert read_all(program.stdout) == b"['lo'] hello\n"
        assert read_all(program.stderr) == b"oh"
        assert end(program) == 0


def test_it_sees_only_its_own_processes(box: Namespace) -> None:
    script = "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))"
    with running(box, sys.executable, "-c", script) as program:
        assert read_all(program.stdout) == b"[1, 2]\n"


REFUSALS = [
    ("there is no such program", ("no-such-program-at-all",), errno.ENOENT),
    ("it may not be executed", (os.devnull,), errno.EACCES),
]


@pytest.mark.parametrize(("sentence", "command", "number"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_what_cannot_be_started_is_an_error(box: Namespace, sentence: str, command: Sequence[str], number: int) -> None:
    with pytest.raises(OSError, match=r".") as raised:
        spawn(box, command, {"PATH": os.environ["PATH"]})
    assert raised.value.errno == number, sentence


def test_it_may_be_asked_to_end_and_may_tidy_up(box: Namespace) -> None:
    script = "trap 'echo tidy; exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    with running(box, "sh", "-c", script) as program:
        assert program.stdout is not None
        assert program.stdout.read(6) == b"ready\n"
        program.terminate()
        assert program.stdout.read(5) == b"tidy\n"
        assert end(program) == 3


def test_one_that_does_not_listen_is_killed_with_its_daemons(box: Namespace) -> None:
    script = "trap '' TERM; (setsid sleep 600 &); echo ready; sleep 600"
    with running(box, "sh", "-c", script) as program:
        assert program.stdout is not None
        assert program.stdout.read(6) == b"ready\n"
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        program.terminate()
        assert program.poll() is None
        program.kill()
        assert end(program) == -signal.SIGKILL
        assert program.stdout.read() == b"", "a daemon still holds the pipe"
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_it_starts_beside_the_threads_of_a_library(box: Namespace) -> None:
    """numpy's OpenBLAS stops its threads before a fork, if it hears of the fork; in a fork's fork it waits for them."""
    square = np.ones((400, 400))
    assert (square @ square)[0, 0] == 400
    with running(box, "sh", "-c", "exit 7") as program:
        assert end(program) == 7


def test_it_dies_with_whoever_started_it(box: Namespace) -> None:
    reading, writing = os.pipe()
    holder = os.fork()
    if holder == 0:
        program = spawn(box, ("sh", "-c", "echo ready; sleep 600"), {"PATH": os.environ["PATH"]})
        assert program.stdout is not None
        program.stdout.read(6)
        os.write(writing, program.pid.to_bytes(4, "little"))
        signal.pause()
        os._exit(0)
    pid = int.from_bytes(os.read(reading, 4), "little")
    pidfd = os.pidfd_open(pid)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert select.select([pidfd], [], [], 20)[0], "the program outlived the one who started it"
    for fd in (pidfd, reading, writing):
        os.close(fd)
