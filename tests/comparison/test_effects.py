"""Sizes and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import stats
from testbed.comparison.effects import (
    Effect,
    Kind,
    difference,
    joined,
    log_ratios,
    median_ratio,
    paired_difference,
    pooled_ratio,
)
from testbed.comparison.significance import Counts, Pairs
from testbed.stats import Sample
from tools.simulation import times, unimodal


@pytest.mark.parametrize(
    ("effect", "value", "low", "high"),
    [
        # Newcombe 1998 (page 873), table II, contrast (a), method 10: 56/70 - 48/80
        (difference(Counts(48, 80), Counts(56, 70)), 0.2, 0.0524, 0.3339),
        # Altman, Machin, Bryant and Gardner 2000, Statistics with confidence, table 6.2, page 52
        (paired_difference(Pairs(14, 0, 5, 22)), 0.122, 0.011, 0.226),
        # no difference in sight, and yet the interval is open to both sides: Wilson's width of 30 of 30
        (difference(Counts(30, 30), Counts(30, 30)), 0.0, -0.1135, 0.1135),
    ],
)
def test_differences_as_published(effect: Effect, value: float, low: float, high: float) -> None:
    decimals = 5e-4 if value == 0.122 else 6e-5
    assert [effect.value, effect.low, effect.high] == pytest.approx([value, low, high], abs=decimals)


def test_pairs_without_correlation_are_two_samples() -> None:
    pairs = Pairs(9, 9, 9, 9)
    paired, apart = paired_difference(pairs), difference(*pairs.sides)
    assert (paired.low, paired.high) == (apart.low, apart.high)


def test_pairs_that_agree_narrow_the_interval() -> None:
    pairs = Pairs(40, 5, 1, 14)
    assert paired_difference(pairs).width < difference(*pairs.sides).width


def test_the_bootstrap_is_that_of_resamples() -> None:
    """The shortcut by order statistics against resamples that are drawn; a twentieth of the width is their noise."""
    dice = np.random.default_rng(4)
    for n, m in ((30, 30), (29, 30), (31, 17)):
        base, new = unimodal(dice, n), unimodal(dice, m, 1.1)
        medians = [np.median(dice.choice(side.values, (20_000, side.n)), axis=1) for side in (base, new)]
        low, high = np.quantile(medians[1] / medians[0], [0.025, 0.975])
        found = median_ratio(base, new)
        assert [found.low, found.high] == pytest.approx([low, high], abs=(high - low) / 20)


def test_the_interval_covers_a_ratio() -> None:
    """Of 400 intervals at 95 %, 380 are to hold the true ratio; 93 % is two standard deviations below."""
    dice = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        found = median_ratio(unimodal(dice, 30), unimodal(dice, 30, 1.2))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.2 <= found.high
    assert held / 400 >= 0.93


@pytest.mark.parametrize(
    ("base", "new", "known", "low", "high"),
    [
        # five trials cannot bound a median: no interval, and then no ratio
        ([1.0] * 5, [1.0] * 9, False, False, False),
        # a median among the censored has no ratio
        ([1.0] * 9, [1.0] * 3 + [None] * 6, False, False, False),
        # where almost half are censored, many a resample's median is: the ratio may be as large as you like
        ([1.0] * 20, [1.0] * 11 + [None] * 9, True, True, False),
        # and the other way round as small
        ([1.0] * 11 + [None] * 9, [1.0] * 20, True, False, True),
        # on both sides: nothing is bounded
        ([1.0] * 11 + [None] * 9, [1.0] * 11 + [None] * 9, True, False, False),
    ],
)
def test_what_is_open_stays_open(
    base: list[float | None], new: list[float | None], known: bool, low: bool, high: bool
) -> None:
    def sample(values: list[float | None]) -> Sample:
        return Sample(tuple(v for v in values if v is not None), (10.0,) * values.count(None))

    found = median_ratio(sample(base), sample(new))
    assert (found.value is not None, found.low is not None, found.high is not None) == (known, low, high)


SAMPLES = st.lists(st.floats(0.01, 10), min_size=6, max_size=40).map(lambda v: Sample(tuple(v)))


@given(SAMPLES, SAMPLES)
def test_sides_swapped_give_the_inverse(base: Sample, new: Sample) -> None:
    one, other = median_ratio(base, new), median_ratio(new, base)
    assert one.value is not None
    assert one.low is not None
    assert one.high is not None
    assert [other.value, other.low, other.high] == pytest.approx([1 / one.value, 1 / one.high, 1 / one.low])


@given(SAMPLES, SAMPLES, st.floats(0.1, 10))
def test_units_do_not_matter(base: Sample, new: Sample, factor: float) -> None:
    scaled = [Sample(tuple(factor * v for v in side.values)) for side in (base, new)]
    one, other = median_ratio(base, new), median_ratio(*scaled)
    assert [other.value, other.low, other.high] == pytest.approx([one.value, one.low, one.high])


def test_several_cells_narrow_the_interval_as_their_number_says() -> None:
    """Sixteen cells are four times as good as one: their dice are not the same ones."""
    dice = np.random.default_rng(6)
    strata = [(unimodal(dice, 30), unimodal(dice, 30, 1.1)) for _ in range(16)]
    pooled, cells = pooled_ratio(strata)
    mean = sum(median_ratio(*pair).width for pair in strata) / len(strata)
    assert cells == 16
    assert pooled.width == pytest.approx(mean / 4, rel=0.15)
    assert pooled.value == pytest.approx(1.1, rel=0.02)


def test_a_cell_without_a_median_has_no_part() -> None:
    dice = np.random.default_rng(7)
    lost = (times(dice, 30, fails=1.0), times(dice, 30))
    alone = (times(dice, 30, fails=0.0), times(dice, 30, fails=0.0))
    pooled, cells = pooled_ratio([alone, lost])
    assert cells == 1
    assert pooled.value == median_ratio(*alone).value
    assert pooled_ratio([lost])[0].value is None


def test_draws_of_other_numbers() -> None:
    """Medians of more trials vary less."""
    dice = np.random.default_rng(8)
    base = unimodal(dice, 50)
    few, many = (log_ratios(base, base, (n, n)) for n in (20, 500))
    assert few is not None
    assert many is not None
    assert np.std(many) < np.std(few) / 3
    assert log_ratios(base, base, (5, 50)) is None


def test_differences_are_joined_from_intervals() -> None:
    """A share that is known exactly leaves the other's interval."""
    known = stats.Proportion(0.5, 0.5, 0.5, 0.95, "exact", 1)
    other = stats.wilson(20, 30)
    found = joined(known, other)
    assert found.kind is Kind.DIFFERENCE
    assert [found.low, found.high] == pytest.approx([other.low - 0.5, other.high - 0.5])
