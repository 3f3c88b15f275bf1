"""How large a change is: the ratio of two medians or the difference of two shares, with its interval of 95 %.

Rule 1: a ratio is new / base, and lies as far from 1 as its inverse does: sizes are compared as logarithms. Shares are
        compared by their difference, because a share may be 0.
Rule 2: an end that the trials leave open is None.

The interval of a ratio is the percentile bootstrap's (Efron 1979). The median of a resample needs no resample: it is
the sample's value at a rank, and the rank follows from the order statistics of n uniform numbers, which are Beta. So
10 000 resamples cost the same for 30 trials and for 100 000, and each n is prepared once. The two sides draw from two
streams, and each ratio is taken twice, with the streams exchanged: swap the sides, and the interval is its inverse.

The interval of a difference joins Wilson's intervals of both shares by squares: Newcombe 1998, Statistics in Medicine
17, page 873 (method 10) and, for pairs, page 2635 (method 10, with its correction of the correlation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import exp, inf, isfinite, log, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from testbed import stats
from testbed.comparison.significance import Counts, Pairs, with_infinity
from testbed.stats import CONFIDENCE, Proportion, Sample

RESAMPLES = 10_000
"""Half of them are the other half with the streams exchanged."""
_SEED = 20261124

Numbers: TypeAlias = NDArray[np.float64]


class Kind(StrEnum):
    """What a change is measured by."""

    RATIO = "ratio"
    DIFFERENCE = "difference"


@dataclass(frozen=True, slots=True)
class Effect:
    """A change with its interval; `value` is None where one of the medians is not known."""

    kind: Kind
    value: float | None
    low: float | None
    high: float | None
    method: str
    confidence: float = CONFIDENCE

    def size(self, value: float) -> float:
        """A value of this kind on the scale on which sizes are compared; 0 is no change."""
        return value if self.kind is Kind.DIFFERENCE else log(value) if value > 0 else -inf

    def limit(self, threshold: float) -> float:
        """A threshold on the same scale."""
        return threshold if self.kind is Kind.DIFFERENCE else log(1 + threshold)

    @property
    def width(self) -> float:
        """Of the interval; infinite where an end is open."""
        if self.low is None or self.high is None:
            return inf
        return self.size(self.high) - self.size(self.low)

    @property
    def beyond(self) -> int:
        """-1 or 1 where the whole interval lies below or above no change, else 0."""
        if self.low is not None and self.size(self.low) > 0:
            return 1
        return -1 if self.high is not None and self.size(self.high) < 0 else 0


def median_ratio(base: Sample, new: Sample) -> Effect:
    """New's median / base's; the value is None where a median lies among the censored."""
    resampled = log_ratios(base, new)
    return ratio([(_median(base), _median(new), resampled)] if resampled is not None else [])


def pooled_ratio(strata: Sequence[tuple[Sample, Sample]]) -> tuple[Effect, int]:
    """The geometric mean of the cells' ratios, each cell with dice of its own; and of how many cells it is.

    A cell in which a median is not known has no ratio, and no part in the mean.
    """
    known = []
    order = np.random.default_rng(_SEED + 1)
    for base, new in with_medians(strata):
        resampled = log_ratios(base, new)
        assert resampled is not None
        known.append((_median(base), _median(new), resampled[:, order.permutation(resampled.shape[1])]))
    return ratio(known), len(known)


def with_medians(strata: Sequence[tuple[Sample, Sample]]) -> list[tuple[Sample, Sample]]:
    """The cells in which both medians are known, not 0, and can be bounded."""
    least = stats.smallest_n(0.5)
    return [pair for pair in strata if all(side.n >= least and 0 < _median(side) < inf for side in pair)]


def mean_median(samples: Sequence[Sample]) -> Effect:
    """The geometric mean of medians: what `pooled_ratio` has above a base in which every value is 1."""
    return pooled_ratio([(Sample((1.0,) * side.n), side) for side in samples])[0]


def ratio(strata: Sequence[tuple[float, float, Numbers]]) -> Effect:
    """The geometric mean of ratios: of each, the medians of base and of new, and its resamples' logarithms."""
    method = "bootstrap"
    if not strata or not all(isfinite(m) and m > 0 for base, new, _ in strata for m in (base, new)):
        return Effect(Kind.RATIO, None, None, None, method)
    value = exp(sum(log(new) - log(base) for base, new, _ in strata) / len(strata))
    with np.errstate(invalid="ignore"):
        mean = np.mean([resampled for _, _, resampled in strata], axis=0)
    tail = (1 - CONFIDENCE) / 2
    # Infinity over infinity may be anything, and so may a mean of 0 and infinity: it counts against both ends.
    low = _quantile(np.where(np.isnan(mean), -inf, mean), tail)
    high = -_quantile(-np.where(np.isnan(mean), inf, mean), tail)
    return Effect(Kind.RATIO, value, exp(low) if isfinite(low) else None, exp(high) if isfinite(high) else None, method)


def log_ratios(base: Sample, new: Sample, draws: tuple[int, int] | None = None) -> Numbers | None:
    """Logarithms of new's median / base's in every resample; None where n is too small to bound a median (6).

    `draws`: how many trials a resample of each side has; as many as the side, unless said.
    """
    draws = draws or (base.n, new.n)
    if min(base.n, new.n, *draws) < stats.smallest_n(0.5):
        return None
    a, b = (_resampled_medians(side, n) for side, n in zip((base, new), draws, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(b[::-1]) - np.log(a)


def difference(base: Counts, new: Counts) -> Effect:
    """New's share - base's, of two sets of trials that have nothing to do with each other."""
    if not base.n or not new.n:
        return Effect(Kind.DIFFERENCE, None, None, None, "newcombe")
    return joined(stats.wilson(base.successes, base.n), stats.wilson(new.successes, new.n))


def paired_difference(pairs: Pairs) -> Effect:
    """New's share - base's, of pairs of trials."""
    n = pairs.n
    if not n:
        return Effect(Kind.DIFFERENCE, None, None, None, "newcombe-paired")
    base, new = (stats.wilson(side.successes, n) for side in pairs.sides)
    return joined(base, new, correlation(pairs), "newcombe-paired")


def joined(base: Proportion, new: Proportion, correlation: float = 0.0, method: str = "newcombe") -> Effect:
    """The difference of two shares from the interval of each: Newcombe's squares."""
    assert base.value is not None
    assert new.value is not None

    def reach(one: float, other: float) -> float:
        return sqrt(max(0.0, one * one + other * other - 2 * correlation * one * other))

    value = new.value - base.value
    down = reach(new.value - new.low, base.high - base.value)
    up = reach(new.high - new.value, base.value - base.low)
    return Effect(Kind.DIFFERENCE, value, value - down, value + up, method)


def correlation(pairs: Pairs) -> float:
    """Of success on both sides; made smaller where positive, as Newcombe does, lest it be overrated."""
    margins = 1
    for side in pairs.sides:
        margins *= side.successes * (side.n - side.successes)
    if margins == 0:
        return 0.0
    found = pairs.both * pairs.neither - pairs.base_only * pairs.new_only
    return (max(0.0, found - pairs.n / 2) if found > 0 else found) / sqrt(margins)


def pooled_correlation(strata: Sequence[Pairs]) -> float:
    """Of success on both sides, within cells: their covariances over their variances, each cell weighing alike."""
    covariance, variances = 0.0, [0.0, 0.0]
    for pairs in strata:
        spreads = [sqrt(side.successes * (side.n - side.successes)) / side.n for side in pairs.sides]
        covariance += correlation(pairs) * spreads[0] * spreads[1]
        variances = [sum_ + spread**2 for sum_, spread in zip(variances, spreads, strict=True)]
    return covariance / sqrt(variances[0] * variances[1]) if all(variances) else 0.0


def _median(sample: Sample) -> float:
    """Infinite where it lies among the censored."""
    ordered = with_infinity(sample)
    low, high = (len(ordered) - 1) // 2, len(ordered) // 2
    return float((ordered[low] + ordered[high]) / 2)


def _resampled_medians(sample: Sample, n: int) -> Numbers:
    """Medians of resamples of n; one row a stream."""
    ordered = with_infinity(sample)
    lower, upper = (np.minimum((len(ordered) * at).astype(np.intp), len(ordered) - 1) for at in _middle_of_uniform(n))
    found: Numbers = (ordered[lower] + ordered[upper]) / 2
    return found


@lru_cache(maxsize=256)
def _middle_of_uniform(n: int) -> tuple[Numbers, Numbers]:
    """The two values that make the median of n uniform numbers; one row a stream, the same for every n.

    The k-th smallest of n is Beta(k, n+1-k); given it, the next one lies above it by what remains times Beta(1, n-k).
    """
    from scipy.special import betaincinv

    dice = np.random.default_rng(_SEED).random((2, 2, RESAMPLES // 2))
    k = (n + 1) // 2
    first = betaincinv(k, n + 1 - k, dice[0])
    return first, first if n % 2 else first + (1 - first) * (1 - (1 - dice[1]) ** (1 / (n - k)))


def _quantile(values: Numbers, p: float) -> float:
    """The lower of the two neighbours: no mean of a number and an infinite one."""
    rank = int(p * values.size)
    return float(np.partition(values.ravel(), rank)[rank])
