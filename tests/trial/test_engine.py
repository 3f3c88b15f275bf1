"""The engine: every task ends as one `Finished`, whatever becomes of its process."""

from __future__ import annotations

import os
import select
import signal

import pytest

from testbed.trial.door import Door, Work
from testbed.trial.engine import Engine, Finished
from testbed.trial.pace import Pace


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


def run(
    work: Work[str], tasks: list[str], *, jobs: int = 4, builders: int = 2, limit: float = 30.0
) -> list[Finished[str]]:
    engine: Engine[str] = Engine(
        lambda: work, pace=Pace(2, jobs), kind=str, builders=builders, limit=lambda _: limit, tick=0.01
    )
    return list(engine.run(tasks))


DEATHS: list[tuple[str, Work[str], float, str]] = [
    ("a worker that is killed says by which signal", die, 30.0, "died (signal 9)"),
    ("a worker that raises says what", raise_error, 30.0, "ValueError: no such luck"),
    ("a worker that leaves without a word says with which status", say_nothing, 30.0, "without a result (status 3)"),
    ("a worker that hangs is ended at its limit", hang, 0.05, "was stuck"),
]


@pytest.mark.parametrize(("sentence", "work", "limit", "reason"), DEATHS, ids=[row[0] for row in DEATHS])
def test_death(sentence: str, work: Work[str], limit: float, reason: str) -> None:
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

    engine: Engine[str] = Engine(lambda: work, pace=Pace(2, 3), kind=str, builders=3, limit=lambda _: 30.0, tick=0.01)
    running = engine.run(["second", "third", "first"])
    next(running)
    pids += [int.from_bytes(os.read(reading, 4), "little") for _ in range(2)]
    running.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    os.close(reading)
    os.close(writing)


def test_a_process_runs_task_after_task_and_keeps_its_workshop() -> None:
    """One task runs at a time; while its process cleans up, up to three others may be cleaning up as well."""

    def workshop() -> Work[str]:
        done: list[str] = []

        def work(task: str, door: Door) -> None:
            done.append(task)
            answer(f"{os.getpid()} {' '.join(done)}", door)

        return work

    tasks = [str(number) for number in range(40)]
    engine: Engine[str] = Engine(workshop, pace=Pace(2, 1), kind=str, builders=1, limit=lambda _: 30.0, tick=0.01)
    said = dict((finished.payload or b"").decode().split(" ", 1) for finished in engine.run(tasks))
    assert len(said) <= 4
    assert sorted(" ".join(said.values()).split()) == sorted(tasks)


def test_a_process_that_is_killed_between_two_tasks_takes_none_with_it() -> None:
    engine: Engine[str] = Engine(
        lambda: lambda _, door: answer(str(os.getpid()), door),
        pace=Pace(2, 1),
        kind=str,
        builders=1,
        limit=lambda _: 30.0,
        tick=0.01,
    )
    running, ended = engine.run(["a", "b"]), []
    ended.append(next(running))
    pid = int(ended[0].payload or b"0")
    watching = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([watching], [], [])
    os.close(watching)
    ended += running
    assert [finished.died for finished in ended] == [None, None]
    assert ended[0].payload != ended[1].payload
