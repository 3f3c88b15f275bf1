"""How many trials run at once, as a table."""

from __future__ import annotations

import pytest

from testbed.trial.pace import MOST_PER_CORE, Pace

MS = 1_000_000
BUSY_CELL, WAITING_CELL, NEW_CELL = "busy", "waiting", "new"


def pace(jobs: int | None = None) -> Pace:
    """On two cores; one cell needs half a core a trial, another a twentieth."""
    found = Pace(2, jobs)
    found.learn(BUSY_CELL, 250 * MS, 500 * MS)
    found.learn(WAITING_CELL, 100 * MS, 2000 * MS)
    return found


ROWS: list[tuple[str, int | None, str, int]] = [
    ("before anything is known, four a core", None, NEW_CELL, 8),
    ("busy trials are few, but never so few that a core would wait", None, BUSY_CELL, 4),
    ("waiting ones are many", None, WAITING_CELL, 32),
    ("a number that was asked for is the number", 5, WAITING_CELL, 5),
    ("even where it is too many", 20, BUSY_CELL, 20),
]


@pytest.mark.parametrize(("sentence", "jobs", "cell", "most"), ROWS, ids=[row[0] for row in ROWS])
def test_most_at_once(sentence: str, jobs: int | None, cell: str, most: int) -> None:
    one = pace(jobs)
    running: list[str] = []
    while one.allows(running, cell):
        running.append(cell)
    assert len(running) == most, sentence


def test_never_more_than_so_many_a_core() -> None:
    one = Pace(2)
    one.learn(WAITING_CELL, 0, 1000 * MS)
    assert not one.allows([WAITING_CELL] * 2 * MOST_PER_CORE, WAITING_CELL)


def test_an_estimate_follows_what_is_seen_and_forgets_a_single_outlier() -> None:
    one = pace()
    before = one.share(WAITING_CELL)
    one.learn(WAITING_CELL, 900 * MS, 1000 * MS)
    assert before < one.share(WAITING_CELL) < 0.5
    for _ in range(20):
        one.learn(WAITING_CELL, 100 * MS, 2000 * MS)
    assert one.share(WAITING_CELL) == pytest.approx(before, rel=0.05)


def test_a_trial_that_took_no_time_teaches_nothing() -> None:
    one = pace()
    one.learn(NEW_CELL, 5, 0)
    assert one.share(NEW_CELL) == Pace(2).share(NEW_CELL)
