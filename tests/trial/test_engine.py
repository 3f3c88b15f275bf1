"""The engine: every task ends as one `Finished`, whatever becomes of its process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from testbed.trial.engine import Door, Engine, Finished
from testbed.trial.pace import Pace

Work = Callable[[str, Door], None]


def answer(task: str, door: Door) -> None:
    with door.building():
        pass
    door.result(task.encode())


def die(_: str, door: Door) -> None:
    with door.building():
        os.kill(os.getpid(), signal.SIGKILL)


def raise_error(_: str, door: Door) -> None:
    raise ValueError("no such luck")


def say_nothing(_: str, door: Door) -> None:
    os._exit(3)


def hang(_: str, door: Door) -> None:
    with door.building():
        signal.pause()


def run(work: Work, tasks: list[str], *, jobs: int = 4, builders: int = 2, limit: float = 30.0) -> list[Finished[str]]:
    engine: Engine[str] = Engine(
        work, pace=Pace(2, jobs), kind=str, builders=builders, limit=lambda _: limit, tick=0.01
    )
    return list(engine.run(tasks))


DEATHS: list[tuple[str, Work, float, str]] = [
    ("a worker that is killed says by which signal", die, 30.0, "died (signal 9)"),
    ("a worker that raises says what", raise_error, 30.0, "ValueError: no such luck"),
    ("a worker that leaves without a word says with which status", say_nothing, 30.0, "without a result (status 3)"),
    ("a worker that hangs is ended at its limit", hang, 0.05, "was stuck"),
]


@pytest.mark.parametrize(("sentence", "work", "limit", "reason"), DEATHS, ids=[row[0] for row in DEATHS])
def test_death(sentence: str, work: Work, limit: float, reason: str) -> None:
    found = run(work, ["a", "b", "c"], limit=limit)
    assert sorted(finished.task for finished in found) == ["a", "b", "c"]
    for finished in found:
        assert finished.payload is None
        assert finished.died is not None
        assert reason in finished.died, sentence


def test_every_task_gives_its_result() -> None:
    tasks = [str(number) for number in range(40)]
    found = run(answer, tasks)
    assert sorted(finished.payload or b"" for finished in found) == sorted(task.encode() for task in tasks)


def test_a_dead_builder_gives_its_token_back() -> None:
    def work(task: str, door: Door) -> None:
        (die if task == "dead" else answer)(task, door)

    found = run(work, ["dead", "dead", "dead", "alive"], builders=1)
    assert [finished.payload for finished in found if finished.task == "alive"] == [b"alive"]


def test_no_more_than_so_many_build_at_once() -> None:
    reading, writing = os.pipe()

    def work(_: str, door: Door) -> None:
        with door.building():
            os.write(writing, b"+")
            os.write(writing, b"-")
        door.result(b"")

    run(work, ["x"] * 30, jobs=8, builders=1)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert file.read() == b"+-" * 30


def test_leaving_early_ends_the_workers() -> None:
    pids: list[int] = []
    reading, writing = os.pipe()

    def work(task: str, door: Door) -> None:
        if task == "first":
            door.result(b"")
            return
        os.write(writing, os.getpid().to_bytes(4, "little"))
        hang(task, door)

    engine: Engine[str] = Engine(work, pace=Pace(2, 3), kind=str, builders=3, limit=lambda _: 30.0, tick=0.01)
    running = engine.run(["second", "third", "first"])
    next(running)
    pids += [int.from_bytes(os.read(reading, 4), "little") for _ in range(2)]
    running.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    os.close(reading)
    os.close(writing)
