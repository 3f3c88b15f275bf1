"""Samples, proportions and their intervals: what may be said of n trials, and no more.

Rule 1: no number without its n, its interval and its warnings; they travel together as one value.
Rule 2: the datum is the trial, never the packet.
Rule 3: a time that was not reached is *censored*, known only to exceed its limit; it is never dropped,
        because losing the slow trials must not look like a speed-up.
Rule 4: nothing is made up. What n cannot bound is None, and a warning says which n could.

Proportions are shown with Wilson's interval (its coverage is near its name) and judged by Clopper and
Pearson's (its coverage is never below its name). Percentiles have intervals of order statistics, which
assume nothing of the distribution: the count B of values below the p-quantile is Binomial(n, p), so
`a <= B <= b` is the same event as "the quantile lies between the a-th and the (b+1)-th smallest value".

scipy is imported by the one function that needs it: a run must not pay for it before its first trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property, lru_cache
from math import ceil, exp, inf, isfinite, lgamma, log, log1p, sqrt
from statistics import NormalDist

CONFIDENCE = 0.95
MOST_TRIALS = 10_000_000
"""Beyond this, more trials are no answer, and `needed_trials` says None."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of n trials. `value` is None where no trial counted: then nothing is known, [0, 1]."""

    value: float | None
    low: float
    high: float
    confidence: float
    method: str
    n: int


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile of a sample, in the sample's unit.

    `value` is None where it falls among censored values; then `exceeds` is what it is known to exceed.
    `low` or `high` is None where this n, or the censoring, leaves that side open.
    """

    value: float | None
    low: float | None
    high: float | None
    exceeds: float | None = None
    confidence: float | None = None
    """The actual one, at least what was asked for; None where a side is open for lack of trials."""
    warnings: tuple[str, ...] = ()


class Verdict(StrEnum):
    """What an interval says about a bound."""

    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"


def wilson(k: float, n: int, confidence: float = CONFIDENCE) -> Proportion:
    """Wilson's score interval of k successes in n (Wilson 1927; Newcombe 1998, method 3).

    k need not be whole, for those who ask what more trials of the same rate would tell.
    """
    _check_counts(k, n)
    if n == 0:
        return Proportion(None, 0.0, 1.0, confidence, "wilson", 0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends one bound is exact; subtraction would leave 1e-17 of noise there.
    low = 0.0 if k == 0 else middle - half
    high = 1.0 if k == n else middle + half
    return Proportion(p, low, high, confidence, "wilson", n)


def clopper_pearson(k: int, n: int, confidence: float = CONFIDENCE) -> Proportion:
    """Clopper and Pearson's exact interval of k successes in n (Biometrika 26, 1934)."""
    _check_counts(k, n)
    if n == 0:
        return Proportion(None, 0.0, 1.0, confidence, "clopper-pearson", 0)
    low, high = _exact_bounds(k, n, confidence)
    return Proportion(k / n, low, high, confidence, "clopper-pearson", n)


def weighted(parts: Sequence[tuple[float, Proportion]]) -> Proportion:
    """The weighted sum of shares that were estimated apart: what a population does, stratum by stratum.

    `parts`: (weight, share) of each stratum, weights in any unit, the intervals of one confidence. The sum is taken for
    normal; its variance is the largest that the strata's own intervals allow, p(1-p)/n at the p of each that is nearest
    to one half. So strata of 0/n or n/n count as uncertain as n leaves them, and few trials in each are enough. (What
    is known for such sums does not hold there: sample variances call them certain, and intervals that are put together
    from those of the strata, MOVER after Newcombe 1998 and Zou, Huang and Zhang 2009, cover 73 to 90 % with one to
    five trials a stratum.) A stratum whose share is known exactly (a prediction's) adds nothing to it. One in which no
    trial counted may be anything, and then the value is None.
    """
    total = sum(weight for weight, _ in parts)
    if not total:
        return Proportion(None, 0.0, 1.0, CONFIDENCE, "stratified", 0)
    confidence = parts[0][1].confidence
    value, unknown, variance = 0.0, 0.0, 0.0
    for weight, share in ((weight / total, share) for weight, share in parts):
        if share.value is None:
            unknown += weight
            continue
        value += weight * share.value
        if share.low < share.high:
            nearest = min(max(0.5, share.low), share.high)
            variance += weight**2 * nearest * (1 - nearest) / share.n
    half = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(variance)
    return Proportion(
        None if unknown else value,
        max(0.0, value - half),
        min(1.0, value + half + unknown),
        confidence,
        "stratified",
        sum(share.n for _, share in parts),
    )


def judge(share: Proportion, at_least: float | None = None, at_most: float | None = None) -> Verdict:
    """Met when the whole interval is within the bounds, missed when it is wholly beyond one of them."""
    return _judge(share.low, share.high, at_least, at_most)


def needed_trials(
    value: float, at_least: float | None = None, at_most: float | None = None, confidence: float = CONFIDENCE
) -> int | None:
    """The smallest n at which a rate of `value` would be judged one way or the other.

    30 of 30 proves 88 %; 95 % needs 72 of 72. None where no number of trials can tell: a rate that
    lies on its bound, and a demand for 100 % or 0 %, which an interval approaches and never reaches.
    """

    def decided(n: int) -> bool:
        return _judge(*_exact_bounds(value * n, n, confidence), at_least, at_most) is not Verdict.INCONCLUSIVE

    return smallest(decided, 1, MOST_TRIALS)


@dataclass(frozen=True)
class Sample:
    """The values of one metric, one per trial; `censored` holds, for the others, what they exceed."""

    values: tuple[float, ...]
    censored: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(map(isfinite, self.values + self.censored)):
            raise ValueError("a sample holds finite numbers; a value that is not known is censored at a known one")

    @property
    def n(self) -> int:
        """All trials, the censored ones too."""
        return len(self.values) + len(self.censored)

    def censored_at(self, limit: float) -> Sample:
        """The sample as it were had nobody waited longer than this."""
        if limit >= max((*self.values, *self.censored), default=limit):
            return self
        kept = tuple(value for value in self.values if value <= limit)
        known = tuple(min(value, limit) for value in self.censored)
        return Sample(kept, known + (limit,) * (len(self.values) - len(kept)))

    @cached_property
    def _at_least(self) -> list[float]:
        """Each value at the least that it can be."""
        return sorted(self.values + self.censored)

    @cached_property
    def _at_most(self) -> list[float]:
        """Each value at the most that it can be."""
        return sorted(self.values) + [inf] * len(self.censored)

    def percentile(self, p: float, confidence: float = CONFIDENCE) -> Percentile:
        """The p-quantile, 0 < p < 1, with its interval; the mean of two neighbours where it lies between them.

        A censored value may be anything from its limit up, so each statistic is taken twice, at the
        least and at the most that the sample can be; where the two differ, the value is not known.
        """
        if self.n == 0:
            return Percentile(None, None, None)
        least, most = _quantile(self._at_least, p), _quantile(self._at_most, p)
        known = least == most
        a, b, actual = quantile_ranks(self.n, p, confidence)
        high = self._at_most[b] if b < self.n else inf
        bounded = a > 0 and b < self.n
        warnings = []
        if not bounded:
            warnings.append(f"n = {self.n} is too small to bound it ({smallest_n(p, confidence)} needed)")
        if not known:
            warnings.append("it falls among censored values")
        return Percentile(
            value=least if known else None,
            low=self._at_least[a - 1] if a > 0 else None,
            high=high if isfinite(high) else None,
            exceeds=None if known else least,
            confidence=actual if bounded else None,
            warnings=tuple(warnings),
        )


@lru_cache(maxsize=4096)
def quantile_ranks(n: int, p: float, confidence: float = CONFIDENCE) -> tuple[int, int, float]:
    """The narrowest a <= b with P(a <= B <= b) >= confidence for B ~ Binomial(n, p), and that probability.

    The p-quantile of a sample of n lies between its a-th and its (b+1)-th smallest value (counted from
    1); a = 0 or b = n means that the interval is open on that side. Grown from the mode towards the
    likelier neighbour, both where they are equally likely.
    """
    a = b = min(n, int((n + 1) * p))
    odds = p / (1 - p)
    mode = exp(lgamma(n + 1) - lgamma(a + 1) - lgamma(n - a + 1) + a * log(p) + (n - a) * log1p(-p))
    total = mode
    below = mode * a / (n - a + 1) / odds
    above = mode * (n - a) / (a + 1) * odds
    while total < confidence and (a > 0 or b < n):
        alike = abs(below - above) <= 1e-9 * above
        go_down, go_up = alike or below > above, alike or above > below
        if go_down:
            total, a = total + below, a - 1
            below *= a / (n - a + 1) / odds
        if go_up:
            total, b = total + above, b + 1
            above *= (n - b) / (b + 1) * odds
    return a, b, min(total, 1.0)


@lru_cache(maxsize=64)
def smallest_n(p: float, confidence: float = CONFIDENCE) -> int:
    """The fewest trials whose interval of the p-quantile is bounded on both sides: p50 6, p90 34, p95 76, p99 377."""

    def bounded(n: int) -> bool:
        a, b, _ = quantile_ranks(n, p, confidence)
        return a > 0 and b < n

    # What a bounded interval leaves out beyond its nearer end alone is p^n, or (1-p)^n: start where that is enough.
    n = max(1, ceil(log(1 - confidence) / log(max(p, 1 - p))))
    while not bounded(n):
        n += 1
    return n


def smallest(holds: Callable[[int], bool], start: int, limit: int) -> int | None:
    """The smallest n in [start, limit] for which `holds`, which once true stays true; None where there is none."""
    low, high = start - 1, start
    while not holds(high):
        if high >= limit:
            return None
        low, high = high, min(2 * high, limit)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _quantile(ordered: list[float], p: float) -> float:
    position = Fraction(p).limit_denominator(10_000) * len(ordered)
    rank = ceil(position)
    if position.denominator == 1 and 0 < rank < len(ordered):
        return (ordered[rank - 1] + ordered[rank]) / 2
    return ordered[rank - 1]


def _exact_bounds(k: float, n: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds; k need not be whole, so that they move evenly with n."""
    # Here, not above: half a second that only a gate is worth.
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if k <= 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k >= n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def _judge(low: float, high: float, at_least: float | None, at_most: float | None) -> Verdict:
    floor = 0.0 if at_least is None else at_least
    ceiling = 1.0 if at_most is None else at_most
    if low >= floor and high <= ceiling:
        return Verdict.MET
    if high < floor or low > ceiling:
        return Verdict.MISSED
    return Verdict.INCONCLUSIVE


def _check_counts(k: float, n: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes in {n} trials cannot be")
