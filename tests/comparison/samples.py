"""Trials made up for tests of comparisons: times to traverse as labs have them, and coins that sides may share."""

from __future__ import annotations

import numpy as np

from testbed.comparison.significance import Counts, Pairs
from testbed.stats import Sample

DEADLINE = 10.0
ROUND = 1.0
"""Seconds from one round of checks to the next: what makes the distribution have several modes."""


def times(dice: np.random.Generator, n: int, factor: float = 1.0, rounds: float = 0.3, fails: float = 0.05) -> Sample:
    """n trials: a bulk at 120 ms with a tail; `rounds` of them take a round more, and so on; `fails` never succeed."""
    bulk = 0.1 + dice.gamma(4.0, 0.005, n)
    late = dice.geometric(1 - rounds, n) - 1
    found = factor * (bulk + ROUND * late)
    failed = (dice.random(n) < fails) | (found > DEADLINE)
    return Sample(tuple(map(float, found[~failed])), (DEADLINE,) * int(failed.sum()))


def unimodal(dice: np.random.Generator, n: int, factor: float = 1.0) -> Sample:
    """n trials of one mode: 120 ms, with a standard deviation of 12 ms."""
    return Sample(tuple(map(float, factor * dice.gamma(100.0, 0.0012, n))))


def counts(dice: np.random.Generator, n: int, rate: float) -> Counts:
    """n trials that succeed at this rate."""
    return Counts(int(dice.binomial(n, rate)), n)


def pairs(dice: np.random.Generator, n: int, rate: float, lost: float) -> Pairs:
    """n pairs: the new side succeeds where the base does, but for a share `lost` of these."""
    base = dice.random(n) < rate
    new = base & (dice.random(n) >= lost)
    both, base_only, new_only = (int(m.sum()) for m in (base & new, base & ~new, new & ~base))
    return Pairs(both, base_only, new_only, n - both - base_only - new_only)
