"""From tests and effects to verdicts.

Rule 1: a metric has a direction, or it is shown and not judged: nobody can say whether more attempts are worse.
Rule 2: `regressed` and `improved` need all three: the adjusted p below 0.05, the whole interval beyond no change, the
        change itself beyond the threshold. Each alone cries wolf (docs/comparing.md has the numbers).
Rule 3: `no-change` needs an interval no wider than the threshold, and the change within it. All else is `inconclusive`,
        with the trials a side that would tell: an estimate, from the change seen.
Rule 4: p is adjusted within one family: all that is judged of all cells; of the tests over all cells, another.
Rule 5: a median among censored values is not judged: it is a success rate below one half, and that rate is.

The rule `point` calls every change beyond the threshold one; `prices` has what that costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import ceil, inf, isfinite
from statistics import NormalDist
from typing import TypeAlias

from testbed import stats
from testbed.comparison import effects, significance
from testbed.comparison.effects import Effect
from testbed.comparison.significance import Counts, Pairs
from testbed.stats import Proportion, Sample

ALPHA = 0.05
"""The share of false alarms among the changes that are called (q), and of 1 minus the confidence of intervals."""
THRESHOLD = 0.05
"""The smallest change that matters, unless said: 5 % of a time, 5 percentage points of a share."""


class Better(StrEnum):
    """Which direction is the better one."""

    SMALLER = "smaller"
    LARGER = "larger"
    NEITHER = "neither"


class Rule(StrEnum):
    """What makes a change a regression or an improvement."""

    TESTED = "tested"
    POINT = "point"


class Verdict(StrEnum):
    """What is said of a change."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    NO_CHANGE = "no-change"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller wants to be told."""

    threshold: float = THRESHOLD
    rule: Rule = Rule.TESTED


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity on both sides: its change, and what is to be said of it."""

    better: Better
    effect: Effect
    test: str
    p: float | None
    n: int
    """Trials of the smaller side."""
    p_adjusted: float | None = None
    verdict: Verdict | None = None
    """None where it is not judged; a warning says why, unless nobody could."""
    needed: int | None = None
    """Where inconclusive: trials a side that would tell; None where that cannot be said."""
    false_alarms: float | None = None
    """Under the rule `point`: how often it would call a change, had nothing changed."""
    warnings: tuple[str, ...] = ()
    at: Callable[[int], Effect] | None = field(default=None, compare=False, repr=False)
    """The effect that so many trials a side would have, where they show the same shares."""

    @property
    def is_judged(self) -> bool:
        """Whether it takes part in the verdicts."""
        return self.better is not Better.NEITHER and self.p is not None


Strata: TypeAlias = Sequence[tuple[Sample, Sample]]


def compare_times(strata: Strata, better: Better) -> Comparison:
    """A metric of one cell, or of several cells together."""
    strata = [pair for pair in strata if all(side.n for side in pair)]
    n = min((sum(side.n for side in sides) for sides in zip(*strata, strict=True)), default=0)
    if len(strata) == 1:
        (base, new), test = strata[0], "mann-whitney"
        p, effect = significance.mann_whitney(base, new), effects.median_ratio(base, new)
        counted = 1
    else:
        test = "van-elteren"
        effect, counted = effects.pooled_ratio(strata)
        p = significance.van_elteren(effects.with_medians(strata) or strata)  # of the same cells as the ratio
    if not strata:
        return Comparison(better, effect, test, None, 0, warnings=("no trial has a value on one of the sides",))
    warnings = tuple(_about_times(strata, counted))
    if effect.value is None and _among_censored(strata):
        return Comparison(better, effect, test, None, n, warnings=warnings)
    return Comparison(better, effect, test, p, n, warnings=warnings)


def compare_shares(strata: Sequence[tuple[Counts, Counts]], better: Better) -> Comparison:
    """A share of trials that are not paired, of one cell, or of several cells together, which weigh alike."""
    strata = [(base, new) for base, new in strata if base.n and new.n]
    if not strata:
        empty = effects.difference(Counts(0, 0), Counts(0, 0))
        return Comparison(better, empty, "fisher", None, 0, warnings=("no trial counts on one of the sides",))
    n = min(sum(base.n for base, _ in strata), sum(new.n for _, new in strata))
    if len(strata) == 1:
        base, new = strata[0]
        effect = effects.difference(base, new)
        return Comparison(better, effect, "fisher", significance.fisher(base, new), n, at=_at(strata))
    p = significance.cochran_mantel_haenszel(strata)
    return Comparison(better, _pooled_difference(strata), "cochran-mantel-haenszel", p, n, at=_at(strata))


def compare_pairs(strata: Sequence[Pairs], better: Better) -> Comparison:
    """A share of pairs of trials, of one cell, or of several cells together, which weigh alike."""
    strata = [pairs for pairs in strata if pairs.n]
    if not strata:
        return compare_shares([], better)
    p = significance.mcnemar(strata)
    sides = [pairs.sides for pairs in strata]
    if len(strata) == 1:
        at = _at(sides, effects.correlation(strata[0]))
        return Comparison(better, effects.paired_difference(strata[0]), "mcnemar", p, strata[0].n, at=at)
    correlation = effects.pooled_correlation(strata)
    effect = _pooled_difference(sides, correlation)
    return Comparison(better, effect, "mcnemar", p, sum(pairs.n for pairs in strata), at=_at(sides, correlation))


def judge(family: Sequence[Comparison], asked: Asked) -> list[Comparison]:
    """All comparisons of one family with their verdicts, in the same order."""
    judged = [c.p for c in family if c.is_judged and c.p is not None]
    p_adjusted = iter(significance.adjusted(judged))
    found = []
    for one in family:
        if not one.is_judged:
            found.append(one)
            continue
        one = replace(one, p_adjusted=next(p_adjusted))
        verdict = _point(one, asked) if asked.rule is Rule.POINT else _tested(one, asked)
        needed = _needed(one, asked) if verdict is Verdict.INCONCLUSIVE else None
        found.append(replace(one, verdict=verdict, needed=needed))
    return found


def overall(verdicts: Sequence[Verdict | None]) -> Verdict:
    """The worst that is known: regressed, improved; no-change only where that is known of everything judged."""
    for verdict in (Verdict.REGRESSED, Verdict.IMPROVED, Verdict.INCONCLUSIVE, Verdict.NO_CHANGE):
        if verdict in verdicts:
            return verdict
    return Verdict.INCONCLUSIVE


def _tested(one: Comparison, asked: Asked) -> Verdict:
    effect = one.effect
    if effect.value is None or one.p_adjusted is None:
        return Verdict.INCONCLUSIVE
    large = _is_large(effect, asked.threshold)
    if one.p_adjusted < ALPHA and effect.beyond and large:
        return _named(one)
    if large or effect.width > effect.limit(asked.threshold):
        return Verdict.INCONCLUSIVE
    return Verdict.NO_CHANGE


def _point(one: Comparison, asked: Asked) -> Verdict:
    if one.effect.value is None:
        return Verdict.INCONCLUSIVE
    return _named(one) if _is_large(one.effect, asked.threshold) else Verdict.NO_CHANGE


def _is_large(effect: Effect, threshold: float) -> bool:
    """Beyond the threshold by more than the last digits of a float: 90 of 100 and 85 of 100 differ by 5 points."""
    assert effect.value is not None
    return abs(effect.size(effect.value)) > effect.limit(threshold) + 1e-12


def _named(one: Comparison) -> Verdict:
    assert one.effect.value is not None
    grew = one.effect.size(one.effect.value) > 0
    return Verdict.IMPROVED if grew is (one.better is Better.LARGER) else Verdict.REGRESSED


def _needed(one: Comparison, asked: Asked) -> int | None:
    """Trials a side, of all cells of the comparison, at which the same change would have another verdict."""
    effect = one.effect
    if effect.value is None:
        return stats.smallest_n(0.5) if one.n < stats.smallest_n(0.5) else None
    size = effect.size(effect.value)
    if _is_large(effect, asked.threshold):  # it is to be told from chance, by the interval's nearer end and by p
        nearer = effect.low if size > 0 else effect.high
        if nearer is None:
            return None
        needed = _grown(one, lambda e: e.beyond != 0, abs(size - effect.size(nearer)) / abs(size))
        from_p = _most(one.n * _growth_of_z(one))
        return None if needed is None or from_p is None else max(needed, from_p, one.n + 1)
    limit = effect.limit(asked.threshold)
    return _grown(one, lambda e: e.width <= limit, effect.width / limit)


def _grown(one: Comparison, holds: Callable[[Effect], bool], shrink: float) -> int | None:
    """The trials of which the effect is one that `holds`; where they cannot be told, those that shrink it so much."""
    at = one.at
    if at is not None:
        return stats.smallest(lambda n: holds(at(n)), one.n + 1, stats.MOST_TRIALS)
    needed = _most(one.n * shrink**2)  # a width shrinks with the root of n
    return None if needed is None else max(needed, one.n + 1)


def _most(n: float) -> int | None:
    return ceil(n) if isfinite(n) and n <= stats.MOST_TRIALS else None


def _at(strata: Sequence[tuple[Counts, Counts]], correlation: float = 0.0) -> Callable[[int], Effect]:
    shares = [(base.successes / base.n, new.successes / new.n) for base, new in strata]

    def effect(n: int) -> Effect:
        each = max(n // len(shares), 1)
        if len(shares) == 1:
            base, new = (stats.wilson(share * n, n) for share in shares[0])
            return effects.joined(base, new, correlation)
        return _joined([(stats.wilson(a * each, each), stats.wilson(b * each, each)) for a, b in shares], correlation)

    return effect


def _growth_of_z(one: Comparison) -> float:
    assert one.p is not None
    assert one.p_adjusted is not None
    normal = NormalDist()
    if one.p_adjusted < ALPHA or one.p <= 0:
        return 1.0
    if one.p >= 1:
        return inf
    wanted = ALPHA * one.p / one.p_adjusted
    return (normal.inv_cdf(wanted / 2) / normal.inv_cdf(one.p / 2)) ** 2


def _pooled_difference(strata: Sequence[tuple[Counts, Counts]], correlation: float = 0.0) -> Effect:
    shares = [(stats.wilson(base.successes, base.n), stats.wilson(new.successes, new.n)) for base, new in strata]
    return _joined(shares, correlation)


def _joined(strata: Sequence[tuple[Proportion, Proportion]], correlation: float) -> Effect:
    """Of shares of cells that weigh alike."""
    base, new = (stats.weighted([(1.0, share) for share in side]) for side in zip(*strata, strict=True))
    return effects.joined(base, new, correlation, "newcombe-stratified")


def _among_censored(strata: Strata) -> bool:
    return any(2 * len(side.censored) >= side.n for pair in strata for side in pair)


def _about_times(strata: Strata, counted: int) -> Iterator[str]:
    if len(strata) == 1:
        few = min(side.n for side in strata[0])
        if few < stats.smallest_n(0.5):
            yield f"n = {few} is too small to bound a median ({stats.smallest_n(0.5)} needed)"
        elif _among_censored(strata):
            yield "a median lies among the censored: it is the success rate that tells"
    elif counted < len(strata):
        yield f"the ratio is that of {counted} of {len(strata)} cells: in the others a median is not known"
