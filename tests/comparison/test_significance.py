"""The tests against closed forms, published tables and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from testbed.comparison.significance import (
    Counts,
    Pairs,
    adjusted,
    cochran_mantel_haenszel,
    fisher,
    mann_whitney,
    mcnemar,
    van_elteren,
)
from testbed.stats import Sample
from tools.simulation import times


@pytest.mark.parametrize(
    ("base", "new", "p"),
    [
        # Fisher's lady, who guessed 3 of 4 cups each: (1 + 16 + 16 + 1) / 70
        (Counts(3, 4), Counts(1, 4), 34 / 70),
        # all against none, 2 of C(10, 5) arrangements
        (Counts(5, 5), Counts(0, 5), 2 / 252),
        # the same on both sides
        (Counts(9, 10), Counts(9, 10), 1.0),
        # no trial on one side
        (Counts(0, 0), Counts(5, 5), 1.0),
    ],
)
def test_fisher(base: Counts, new: Counts, p: float) -> None:
    assert fisher(base, new) == pytest.approx(p)
    assert fisher(new, base) == pytest.approx(p)


@pytest.mark.parametrize(
    ("pairs", "p"),
    [
        # six coins on one side: 2 / 2^6
        ([Pairs(54, 6, 0, 0)], 2**-5),
        # the same six, of three cells
        ([Pairs(20, 2, 0, 0)] * 3, 2**-5),
        # 1 of 8: 2 (1 + 8) / 2^8
        ([Pairs(3, 7, 1, 9)], 18 / 256),
        # pairs that do not differ say nothing
        ([Pairs(30, 0, 0, 30)], 1.0),
        # as many one way as the other
        ([Pairs(0, 4, 4, 0)], 1.0),
    ],
)
def test_mcnemar(pairs: list[Pairs], p: float) -> None:
    assert mcnemar(pairs) == pytest.approx(p)
    swapped = [Pairs(one.both, one.new_only, one.base_only, one.neither) for one in pairs]
    assert mcnemar(swapped) == pytest.approx(p)


@pytest.mark.parametrize(
    ("base", "new", "p"),
    [
        # wholly apart: 2 / C(6, 3)
        (Sample((1, 2, 3)), Sample((4, 5, 6)), 2 / 20),
        # 2 / C(10, 5)
        (Sample((1, 2, 3, 4, 5)), Sample((6, 7, 8, 9, 10)), 2 / 252),
        # one censored trial is larger than all that were measured: the same as a 6
        (Sample((1, 2, 3)), Sample((4, 5), (10.0,)), 2 / 20),
        # all the same
        (Sample((1, 1, 1)), Sample((1, 1, 1)), 1.0),
        # all censored, whatever the deadlines are
        (Sample((), (10.0,) * 5), Sample((), (10.0,) * 7), 1.0),
        # nothing on one side
        (Sample((1, 2)), Sample(()), 1.0),
    ],
)
def test_mann_whitney(base: Sample, new: Sample, p: float) -> None:
    assert mann_whitney(base, new) == pytest.approx(p)
    assert mann_whitney(new, base) == pytest.approx(p)


def test_censored_trials_are_ties_at_infinity() -> None:
    """Any number beyond all others in their place gives the same p."""
    dice = np.random.default_rng(1)
    base, new = times(dice, 40, fails=0.2), times(dice, 50, fails=0.3)
    finite = [[*side.values, *[99.0] * len(side.censored)] for side in (base, new)]
    assert mann_whitney(base, new) == pytest.approx(float(scipy_stats.mannwhitneyu(*finite).pvalue))


BERKELEY = [
    ((512, 825), (89, 108)),
    ((353, 560), (17, 25)),
    ((120, 325), (202, 593)),
    ((138, 417), (131, 375)),
    ((53, 191), (94, 393)),
    ((22, 373), (24, 341)),
]
"""Admissions to six departments in 1973, men and women (Bickel, Hammel and O'Connell 1975)."""


def test_cochran_mantel_haenszel_as_published() -> None:
    """R's `mantelhaen.test(UCBAdmissions)`: p = 0.2323; the departments lumped together say p < 1e-20."""
    strata = [(Counts(*men), Counts(*women)) for men, women in BERKELEY]
    assert cochran_mantel_haenszel(strata) == pytest.approx(0.2323, abs=5e-5)
    lumped = [Counts(*map(sum, zip(*side, strict=True))) for side in zip(*BERKELEY, strict=True)]
    assert fisher(*lumped) < 1e-20


def test_cells_without_information_do_not_move_it() -> None:
    telling = [(Counts(20, 30), Counts(10, 30))]
    silent = [(Counts(30, 30), Counts(30, 30)), (Counts(0, 30), Counts(0, 30)), (Counts(0, 0), Counts(3, 9))]
    assert cochran_mantel_haenszel(telling + silent) == cochran_mantel_haenszel(telling)
    assert cochran_mantel_haenszel(silent) == 1.0


def test_van_elteren_of_one_cell_is_wilcoxons() -> None:
    dice = np.random.default_rng(2)
    base, new = times(dice, 40, fails=0.0), times(dice, 30, 1.1, fails=0.0)
    known = scipy_stats.mannwhitneyu(base.values, new.values, method="asymptotic", use_continuity=False)
    assert van_elteren([(base, new)]) == pytest.approx(float(known.pvalue))


def test_van_elteren_compares_within_cells_only() -> None:
    """One cell is slow and one is fast, and the sides have them in other numbers: no change, though lumped there is."""
    dice = np.random.default_rng(3)
    strata = [(times(dice, 40), times(dice, 10)), (times(dice, 10, 5.0), times(dice, 40, 5.0))]
    lumped = [Sample(a.values + b.values, a.censored + b.censored) for a, b in zip(*strata, strict=True)]
    assert mann_whitney(*lumped) < 1e-3
    assert van_elteren(strata) > 0.05
    assert van_elteren([(Sample((1.0, 1.0)), Sample((1.0,)))]) == 1.0


def test_benjamini_and_hochbergs_own_example() -> None:
    """Table of 15 hypotheses, Benjamini and Hochberg 1995, section 3.2: at q = 0.05 the first four are rejected."""
    p = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
        0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
    ]  # fmt: skip
    found = adjusted(p)
    assert [q < 0.05 for q in found] == [True] * 4 + [False] * 11
    assert found[3] == pytest.approx(0.0095 * 15 / 4)
    assert adjusted([0.03]) == [0.03]
    assert adjusted([]) == []
