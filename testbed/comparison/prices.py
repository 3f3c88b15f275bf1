"""What the rule `point` costs: how often it would call a change at these numbers of trials, had nothing changed.

Rule 1: what it is asked of is the caller's own data, not a distribution that somebody has assumed.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p

import numpy as np

from testbed.comparison import effects
from testbed.comparison.significance import Counts, Pairs
from testbed.stats import Sample


def of_medians(base: Sample, new: Sample, threshold: float) -> float | None:
    """How often the medians of as many trials differ by more than the threshold where both are drawn from `base`."""
    drawn = effects.log_ratios(base, base, (base.n, new.n))
    if drawn is None:
        return None
    known = np.where(np.isnan(drawn), 0.0, np.abs(drawn))
    return float((known > log(1 + threshold)).mean())


def of_shares(base: Counts, new: Counts, threshold: float) -> float | None:
    """How often shares of as many trials differ by more than the threshold where both have the rate of all. Exact."""
    if not base.n or not new.n:
        return None
    rate = (base.successes + new.successes) / (base.n + new.n)
    a, b = (np.array(_binomial(n, rate)) for n in (base.n, new.n))
    up_to = np.concatenate([[0.0], np.cumsum(b)])
    share = np.arange(base.n + 1) / base.n
    first = np.clip(np.ceil(new.n * (share - threshold) - 1e-9), 0, new.n + 1).astype(int)
    last = np.clip(np.floor(new.n * (share + threshold) + 1e-9), -1, new.n).astype(int)
    return min(1.0, max(0.0, 1 - float((a * (up_to[last + 1] - up_to[first])).sum())))


def of_pairs(pairs: Pairs, threshold: float) -> float | None:
    """How often the shares of so many pairs differ by more, where each pair that differs is a toss of a coin. Exact."""
    if not pairs.n:
        return None
    differ = pairs.base_only + pairs.new_only
    apart = np.abs(2 * np.arange(differ + 1) - differ) / pairs.n
    return float((np.array(_binomial(differ, 0.5)) * (apart > threshold + 1e-12)).sum())


def _binomial(n: int, p: float) -> list[float]:
    if p in (0.0, 1.0):
        return [float(k == n * p) for k in range(n + 1)]
    top = lgamma(n + 1)
    return [exp(top - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log1p(-p)) for k in range(n + 1)]
