"""What is said of a change: rows of trials with a sentence, and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.comparison import prices
from testbed.comparison.significance import Counts, Pairs
from testbed.comparison.verdicts import (
    Asked,
    Better,
    Comparison,
    Rule,
    Verdict,
    compare_pairs,
    compare_shares,
    compare_times,
    judge,
    overall,
)
from testbed.stats import Sample
from tools.simulation import DEADLINE, times, unimodal

WORSE, BETTER, SAME, OPEN = Verdict.REGRESSED, Verdict.IMPROVED, Verdict.NO_CHANGE, Verdict.INCONCLUSIVE
OPPOSITE = {WORSE: BETTER, BETTER: WORSE, SAME: SAME, OPEN: OPEN, None: None}


def spread(middle: float, width: float, n: int, censored: int = 0) -> Sample:
    """n times evenly about a middle, and some that never came."""
    values = np.linspace(middle - width / 2, middle + width / 2, n)
    return Sample(tuple(map(float, values)), (DEADLINE,) * censored)


def one(comparison: Comparison, rule: Rule = Rule.TESTED) -> Comparison:
    """As a family of its own."""
    return judge([comparison], Asked(rule=rule))[0]


@pytest.mark.parametrize(
    ("base", "new", "verdict"),
    [
        # a quarter slower, far beyond chance
        (spread(1, 0.2, 30), spread(1.25, 0.2, 30), WORSE),
        # and faster
        (spread(1.25, 0.2, 30), spread(1, 0.2, 30), BETTER),
        # the same, and narrow enough to say so
        (spread(1, 0.05, 30), spread(1, 0.05, 30), SAME),
        # the same, and too wide to say so
        (spread(1, 1, 30), spread(1, 1, 30), OPEN),
        # 3 %: certain, and below what matters
        (spread(1, 0.02, 30), spread(1.03, 0.02, 30), SAME),
        # 10 %, which chance explains as well
        (spread(1, 1, 30), spread(1.1, 1, 30), OPEN),
        # five trials can bound no median
        (spread(1, 0.1, 5), spread(2, 0.1, 5), OPEN),
        # most of new's never came: there is no median, and the success rate tells
        (spread(1, 0.1, 30), spread(1, 0.1, 10, 20), None),
        # half of them are enough for that
        (spread(1, 0.1, 30), spread(1, 0.1, 15, 15), None),
        # the slow ones were lost and the rest is as fast as before: no speed-up
        (spread(1, 1, 30), spread(0.9, 0.8, 24, 6), OPEN),
        # no trial on one side
        (spread(1, 0.1, 30), Sample(()), None),
    ],
)
def test_times(base: Sample, new: Sample, verdict: Verdict | None) -> None:
    found = one(compare_times([(base, new)], Better.SMALLER))
    assert found.verdict is verdict
    assert bool(found.warnings) is (verdict is None or min(base.n, new.n) < 6)
    assert one(compare_times([(new, base)], Better.SMALLER)).verdict is OPPOSITE[verdict]


@pytest.mark.parametrize(
    ("base", "new", "verdict", "needed"),
    [
        # 30 of 30 to 20 of 30
        (Counts(30, 30), Counts(20, 30), WORSE, None),
        (Counts(20, 30), Counts(30, 30), BETTER, None),
        # 30 of 30 twice leave 11 points open on each side; 150 trials leave 2.5
        (Counts(30, 30), Counts(30, 30), OPEN, 150),
        (Counts(150, 150), Counts(150, 150), SAME, None),
        # four of thirty lost may be chance; half as many trials more, and it is not
        (Counts(30, 30), Counts(26, 30), OPEN, 46),
        # 3 points, certain, and below what matters
        (Counts(9000, 10000), Counts(8700, 10000), SAME, None),
        # 5 points are not beyond 5 points
        (Counts(9000, 10000), Counts(8500, 10000), SAME, None),
        # nothing is known of one side
        (Counts(30, 30), Counts(0, 0), None, None),
    ],
)
def test_shares(base: Counts, new: Counts, verdict: Verdict | None, needed: int | None) -> None:
    found = one(compare_shares([(base, new)], Better.LARGER))
    assert (found.verdict, found.needed) == (verdict, needed)
    swapped = one(compare_shares([(new, base)], Better.LARGER))
    assert (swapped.verdict, swapped.needed) == (OPPOSITE[verdict], needed)


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        # six of sixty lost, none won: 2 / 2^6
        (Pairs(54, 6, 0, 0), WORSE),
        (Pairs(54, 0, 6, 0), BETTER),
        # five lost: 2 / 2^5 is more than 0.05
        (Pairs(55, 5, 0, 0), OPEN),
        # as many won as lost: not a change, and not known to be none
        (Pairs(40, 6, 6, 8), OPEN),
        # as many, of many
        (Pairs(4000, 60, 60, 800), SAME),
        (Pairs(0, 0, 0, 0), None),
    ],
)
def test_pairs(pairs: Pairs, verdict: Verdict | None) -> None:
    assert one(compare_pairs([pairs], Better.LARGER)).verdict is verdict


def test_pairs_tell_what_two_samples_do_not() -> None:
    pairs = Pairs(48, 6, 0, 6)
    assert one(compare_pairs([pairs], Better.LARGER)).verdict is WORSE
    assert one(compare_shares([pairs.sides], Better.LARGER)).verdict is OPEN


def test_what_has_no_direction_is_shown_and_not_judged() -> None:
    found = judge([compare_times([(spread(3, 1, 30), spread(30, 1, 30))], Better.NEITHER)], Asked())[0]
    assert found.verdict is None
    assert found.p_adjusted is None
    assert found.effect.value == pytest.approx(10)


def test_what_is_not_judged_makes_no_family_larger() -> None:
    judged = compare_shares([(Counts(30, 30), Counts(24, 30))], Better.LARGER)
    shown = compare_times([(spread(3, 1, 30), spread(3, 1, 30))], Better.NEITHER)
    assert judge([judged, *[shown] * 50], Asked())[0].p_adjusted == one(judged).p_adjusted


def test_a_larger_family_asks_for_more() -> None:
    """Among forty cells one of p = 0.01 is what chance gives; the trials that it needs grow with the family."""
    cell = compare_shares([(Counts(30, 30), Counts(24, 30))], Better.LARGER)
    still = compare_shares([(Counts(15, 30), Counts(15, 30))], Better.LARGER)
    few, many = (judge([cell, *[still] * others], Asked())[0] for others in (1, 100))
    assert (few.verdict, many.verdict) == (WORSE, OPEN)
    assert many.needed is not None
    assert many.needed > 30


def test_needed_is_enough() -> None:
    """Twice as many trials of the same kind as were needed, and it can be told."""
    for base, new in ((spread(1, 1, 40), spread(1.1, 1, 40)), (spread(1, 0.6, 40), spread(1, 0.6, 40))):
        found = one(compare_times([(base, new)], Better.SMALLER))
        assert found.verdict is OPEN
        assert found.needed is not None
        width = max(base.values) - min(base.values)
        a, b = (spread(float(np.median(side.values)), width, 2 * found.needed) for side in (base, new))
        assert one(compare_times([(a, b)], Better.SMALLER)).verdict is not OPEN


def test_many_cells_tell_what_none_of_them_does() -> None:
    """Each of twenty cells loses 2 of 30, which is nothing; together they lose 40 of 600."""
    cells = [(Counts(28, 30), Counts(26, 30))] * 20
    assert {c.verdict for c in judge([compare_shares([cell], Better.LARGER) for cell in cells], Asked())} == {OPEN}
    assert one(compare_shares(cells, Better.LARGER)).verdict is WORSE
    dice = np.random.default_rng(9)
    slower = [(unimodal(dice, 10), unimodal(dice, 10, 1.07)) for _ in range(20)]
    assert one(compare_times(slower, Better.SMALLER)).verdict is WORSE


def test_pairs_narrow_the_interval_over_all_cells_too() -> None:
    """Cells of 60 pairs at 80 %, of which two are lost and one is won."""
    strata = [Pairs(46, 2, 1, 11)] * 10
    paired = one(compare_pairs(strata, Better.LARGER))
    apart = one(compare_shares([pairs.sides for pairs in strata], Better.LARGER))
    assert paired.effect.value == apart.effect.value
    assert paired.effect.width < 0.6 * apart.effect.width


def test_a_headline_says_of_how_many_cells_its_ratio_is() -> None:
    cells = [(spread(1, 0.1, 30), spread(1, 0.1, 30)), (spread(1, 0.1, 30), spread(1, 0.1, 5, 25))]
    found = one(compare_times(cells, Better.SMALLER))
    assert found.warnings == ("the ratio is that of 1 of 2 cells: in the others a median is not known",)


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ([SAME, BETTER, OPEN, WORSE, None], WORSE),
        ([SAME, BETTER, OPEN, None], BETTER),
        ([SAME, OPEN, None], OPEN),
        ([SAME, SAME, None], SAME),
        ([None], OPEN),
        ([], OPEN),
    ],
)
def test_overall(verdicts: list[Verdict | None], worst: Verdict) -> None:
    assert overall(verdicts) is worst


# ---------------------------------------------------------------------------- the rule `point`


def test_the_point_rule_looks_at_the_point_alone() -> None:
    rule = Rule.POINT
    assert one(compare_times([(spread(1, 1, 30), spread(1.06, 1, 30))], Better.SMALLER), rule).verdict is WORSE
    assert one(compare_times([(spread(1, 1, 30), spread(1.04, 1, 30))], Better.SMALLER), rule).verdict is SAME
    assert one(compare_shares([(Counts(27, 30), Counts(29, 30))], Better.LARGER), rule).verdict is BETTER


def test_its_price_is_what_a_simulation_says() -> None:
    dice = np.random.default_rng(10)
    pool = times(dice, 20_000)
    told = prices.of_medians(pool, pool, 0.05)
    assert told == pytest.approx(0, abs=1e-3)  # of so many trials
    drawn = dice.choice(np.array([*pool.values, *[np.inf] * len(pool.censored)]), (2, 4000, 30))
    base, new = np.median(drawn, axis=2)
    flagged = np.mean(np.abs(np.log(new / base)) > np.log(1.05))
    sample = [prices.of_medians(times(dice, 30), times(dice, 30), 0.05) for _ in range(60)]
    assert np.mean([price for price in sample if price is not None]) == pytest.approx(flagged, abs=0.1)


@pytest.mark.parametrize(
    ("base", "new", "price"),
    [
        # one trial each at one half: they differ in half of all cases
        (Counts(1, 1), Counts(0, 1), 0.5),
        # nothing can vary
        (Counts(30, 30), Counts(30, 30), 0.0),
        (Counts(0, 0), Counts(30, 30), None),
    ],
)
def test_price_of_shares(base: Counts, new: Counts, price: float | None) -> None:
    assert prices.of_shares(base, new, 0.05) == pytest.approx(price)


def test_price_of_shares_is_what_a_simulation_says() -> None:
    dice = np.random.default_rng(11)
    a, b = dice.binomial(30, 0.9, 200_000) / 30, dice.binomial(40, 0.9, 200_000) / 40
    told = prices.of_shares(Counts(27, 30), Counts(36, 40), 0.05)
    assert told == pytest.approx(np.mean(np.abs(a - b) > 0.05 + 1e-9), abs=0.01)


@pytest.mark.parametrize(
    ("pairs", "price"),
    [
        # none differs: none will
        (Pairs(30, 0, 0, 0), 0.0),
        # two of ten differ: one of the four ways for both to be on each side is 20 points
        (Pairs(8, 1, 1, 0), 0.5),
        # one of thirty is 3 points
        (Pairs(29, 1, 0, 0), 0.0),
        (Pairs(0, 0, 0, 0), None),
    ],
)
def test_price_of_pairs(pairs: Pairs, price: float | None) -> None:
    assert prices.of_pairs(pairs, 0.05) == pytest.approx(price)


# ---------------------------------------------------------------------------- laws

SAMPLES = st.tuples(st.lists(st.floats(0.01, 10), min_size=0, max_size=20), st.integers(0, 10)).map(
    lambda drawn: Sample(tuple(drawn[0]), (DEADLINE,) * drawn[1])
)
COUNTS = st.integers(0, 60).flatmap(lambda n: st.integers(0, n).map(lambda k: Counts(k, n)))
PAIRS = st.tuples(*[st.integers(0, 30)] * 4).map(lambda drawn: Pairs(*drawn))


@given(st.lists(st.tuples(SAMPLES, SAMPLES), max_size=3), st.sampled_from(Rule))
def test_times_swapped_have_the_opposite_verdict(strata: list[tuple[Sample, Sample]], rule: Rule) -> None:
    there = one(compare_times(strata, Better.SMALLER), rule)
    back = one(compare_times([(new, base) for base, new in strata], Better.SMALLER), rule)
    assert back.verdict is OPPOSITE[there.verdict]
    assert back.p == (None if there.p is None else pytest.approx(there.p))


@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=3), st.sampled_from(Rule))
def test_shares_swapped_have_the_opposite_verdict(strata: list[tuple[Counts, Counts]], rule: Rule) -> None:
    there = one(compare_shares(strata, Better.LARGER), rule)
    back = one(compare_shares([(new, base) for base, new in strata], Better.LARGER), rule)
    assert back.verdict is OPPOSITE[there.verdict]


@given(st.lists(PAIRS, max_size=3))
def test_pairs_swapped_have_the_opposite_verdict(strata: list[Pairs]) -> None:
    there = one(compare_pairs(strata, Better.LARGER))
    back = one(compare_pairs([Pairs(p.both, p.new_only, p.base_only, p.neither) for p in strata], Better.LARGER))
    assert back.verdict is OPPOSITE[there.verdict]


@given(SAMPLES, COUNTS, st.sampled_from(Rule))
def test_nothing_changes_against_itself(sample: Sample, count: Counts, rule: Rule) -> None:
    family = [
        compare_times([(sample, sample)], Better.SMALLER),
        compare_shares([(count, count)], Better.LARGER),
        compare_pairs([Pairs(count.successes, 0, 0, count.n - count.successes)], Better.LARGER),
    ]
    assert {found.verdict for found in judge(family, Asked(rule=rule))} <= {SAME, OPEN, None}
