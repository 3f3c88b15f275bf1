"""The tests: how likely chance alone makes a change as large as the one that was seen. All are two-sided.

Rule 1: a censored time is larger than every time that was measured, and equal to every other censored one.
Rule 2: what holds no information (no trial, no difference at all) has p = 1 and raises nothing.

Of one cell: Fisher's exact test, McNemar's exact test for pairs, Mann and Whitney's. Of all cells together: Cochran,
Mantel and Haenszel's test, McNemar's over all pairs, and van Elteren's, each of which compares only within a cell, so
that cells which differ from each other, or weigh differently on the two sides, make no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from testbed.stats import Sample

Ranked: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Counts:
    """Successes among the trials that count."""

    successes: int
    n: int


@dataclass(frozen=True, slots=True)
class Pairs:
    """Trials of the same seed on both sides, by which of them succeeded."""

    both: int
    base_only: int
    new_only: int
    neither: int

    @property
    def n(self) -> int:
        """All pairs."""
        return self.both + self.base_only + self.new_only + self.neither

    @property
    def sides(self) -> tuple[Counts, Counts]:
        """Base and new, each for itself."""
        return Counts(self.both + self.base_only, self.n), Counts(self.both + self.new_only, self.n)


def fisher(base: Counts, new: Counts) -> float:
    """Fisher's exact test of two shares (1935). Tables no likelier than the one seen count."""
    if not base.n or not new.n:
        return 1.0
    from scipy.stats import fisher_exact

    table = [[c.successes, c.n - c.successes] for c in (base, new)]
    return float(fisher_exact(table).pvalue)


def mcnemar(pairs: Sequence[Pairs]) -> float:
    """McNemar's test, exact: of the pairs that differ, is one side the better half the time? (1947)

    Pairs of several cells are counted together: without a change each of those that differ is a toss of a fair coin,
    whatever its cell.
    """
    base = sum(p.base_only for p in pairs)
    new = sum(p.new_only for p in pairs)
    if not base + new:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(base, base + new, 0.5).pvalue)


def mann_whitney(base: Sample, new: Sample) -> float:
    """Mann and Whitney's test (1947): exact up to eight values without ties, else normal, corrected for ties."""
    a, b = with_infinity(base), with_infinity(new)
    if not len(a) or not len(b) or min(a.min(), b.min()) == max(a.max(), b.max()):
        return 1.0
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(a, b).pvalue)


def cochran_mantel_haenszel(strata: Sequence[tuple[Counts, Counts]]) -> float:
    """Whether shares differ in the same direction, cell by cell (Cochran 1954; Mantel and Haenszel 1959).

    With the correction for continuity of 1959. A cell in which all succeed, or none, on both sides says nothing.
    """
    excess, variance = 0.0, 0.0
    for base, new in strata:
        n, hits = base.n + new.n, base.successes + new.successes
        if base.n and new.n:
            excess += base.successes - base.n * hits / n
            variance += base.n * new.n * hits * (n - hits) / (n * n * (n - 1))
    if variance <= 0:
        return 1.0
    return _two_sided(max(0.0, abs(excess) - 0.5) / sqrt(variance))


def van_elteren(strata: Sequence[tuple[Sample, Sample]]) -> float:
    """Whether times differ in the same direction, cell by cell: Wilcoxon's rank sums, joined (van Elteren 1960).

    A cell weighs 1 / (n + 1), which is best where the shift is the same in all. Normal, corrected for ties.
    """
    excess, variance = 0.0, 0.0
    for base, new in strata:
        a, b = with_infinity(base), with_infinity(new)
        m, n = len(a), len(a) + len(b)
        if not m or m == n:
            continue
        _, place, tied = np.unique(np.concatenate([a, b]), return_inverse=True, return_counts=True)
        middle = np.cumsum(tied) - (tied - 1) / 2
        ranks = middle[place]
        ties = float((tied.astype(float) ** 3 - tied).sum()) / (n * (n - 1))
        weight = 1 / (n + 1)
        excess += weight * (float(ranks[:m].sum()) - m * (n + 1) / 2)
        variance += weight**2 * m * (n - m) / 12 * (n + 1 - ties)
    if variance <= 1e-12:
        return 1.0
    return _two_sided(abs(excess) / sqrt(variance))


def adjusted(p: Sequence[float]) -> list[float]:
    """Each p as Benjamini and Hochberg (1995) have it: calling those below q changes, at most q of them is none."""
    if not p:
        return []
    from scipy.stats import false_discovery_control

    return [float(value) for value in false_discovery_control(list(p), method="bh")]


def with_infinity(sample: Sample) -> Ranked:
    """The values of a sample in order, those censored as infinite (rule 1)."""
    return np.array(sorted(sample.values) + [inf] * len(sample.censored))


def _two_sided(z: float) -> float:
    return min(1.0, 2 * NormalDist().cdf(-z))
