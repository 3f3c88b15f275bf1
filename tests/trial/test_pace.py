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
    ("a new cell is taken for the mean of the others", None, NEW_CELL, 5),
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


def test_before_anything_is_known_there_are_six_a_core() -> None:
    one = Pace(2)
    assert one.allows([NEW_CELL] * 11, NEW_CELL)
    assert not one.allows([NEW_CELL] * 12, NEW_CELL)


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
    before = one.share(NEW_CELL)
    one.learn(NEW_CELL, 5, 0)
    assert one.share(NEW_CELL) == before


FIRST: list[tuple[str, list[str], int]] = [
    ("what takes longest goes first", [BUSY_CELL, WAITING_CELL, BUSY_CELL], 1),
    ("among equals the order stands", [BUSY_CELL, BUSY_CELL], 0),
    ("what nobody knows goes before all", [WAITING_CELL, NEW_CELL, WAITING_CELL], 1),
]


@pytest.mark.parametrize(("sentence", "cells", "number"), FIRST, ids=[row[0] for row in FIRST])
def test_which_starts_first(sentence: str, cells: list[str], number: int) -> None:
    assert pace().first(cells) == number, sentence
