"""How often each rule cries wolf, and how often it finds one: a small simulation here, the large one as it is kept."""

from __future__ import annotations

import json
from functools import cache

import pytest

from tools.simulation import EVIDENCE, MATRIX, SHARES, TIMES, Row, simulate

MOST_ALARMS = 0.05


@cache
def simulated() -> tuple[Row, ...]:
    return tuple(simulate(120, 12))


def kept() -> list[Row]:
    return [Row(**value) for value in json.loads(EVIDENCE.read_bytes())]


def row(rows: list[Row] | tuple[Row, ...], rule: str, trials: str, change: str) -> Row:
    return next(r for r in rows if (r.rule, r.trials, r.change) == (rule, trials, change))


def is_ours(found: Row) -> bool:
    """What `compare` uses unless told otherwise."""
    return any(word in found.rule for word in ("--rule tested", "Fisher", "McNemar"))


def test_what_is_kept_is_of_every_rule() -> None:
    assert {found.rule for found in kept()} == {*TIMES, *SHARES, *MATRIX} == {found.rule for found in simulated()}


def test_our_rules_cry_wolf_in_at_most_a_twentieth() -> None:
    assert [r.rule for r in kept() if is_ours(r) and r.alarms / r.repetitions > MOST_ALARMS] == []
    # Of 120, 6 are a twentieth; 12 would be seen once in a hundred such tests of a rule that is just good enough.
    assert [r.rule for r in simulated() if is_ours(r) and r.alarms / r.repetitions > 2 * MOST_ALARMS] == []


@pytest.mark.parametrize(
    ("rule", "trials", "change", "least"),
    [
        # a quarter slower at 30 trials
        ("all three (`--rule tested`)", "30", "×1.25", 0.8),
        # a tenth at 100
        ("all three (`--rule tested`)", "100", "×1.10", 0.9),
        # a fifth of successes lost at 60
        ("McNemar, interval, > 5 points, the same seeds", "60", "20 % lost", 0.8),
        # one cell of fifteen
        ("anything changed, `--rule tested`", "30", "×1.25 in one", 0.9),
    ],
)
def test_they_find_what_is_worth_it(rule: str, trials: str, change: str, least: float) -> None:
    large, small = (row(rows, rule, trials, change) for rows in (kept(), simulated()))
    assert large.found / large.repetitions >= least
    assert small.found / small.repetitions >= least - 0.1


def test_pairs_find_more() -> None:
    """In the same trials McNemar finds twice as often what Fisher finds in others."""
    for rows in (kept(), simulated()):
        fisher, mcnemar = (row(rows, rule, "60", "10 % lost") for rule in list(SHARES)[1:])
        assert mcnemar.found > 1.5 * fisher.found


def test_a_point_alone_cries_wolf() -> None:
    for rows in (kept(), simulated()):
        assert row(rows, "mean changed > 5 %", "30", "×1.25").alarms > 0.25 * rows[0].repetitions
        assert row(rows, "median changed > 5 % (`--rule point`)", "30", "×1.25").alarms > 0.15 * rows[0].repetitions
        matrix = row(rows, "anything changed, `--rule point`", "30", "×1.25 in one")
        assert matrix.alarms > 0.9 * matrix.repetitions
