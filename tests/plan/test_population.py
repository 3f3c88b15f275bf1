"""What a population means: weights, conditions, draws, and one rate of many cells."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.plan.population import conditions, draw, rate, trials_of
from testbed.spec.load import load_scenario
from testbed.spec.loader import LoadedScenario
from testbed.stats import Proportion, wilson

MIX = """\
topology: two_homes
population:
  nat_a: &mix {eim-eif: 6, apdm-apdf: 2, udp-blocked: 2}
  nat_b: *mix
trials: 3
"""


def load(at: Path, text: str = MIX, *only: str) -> LoadedScenario:
    (at / "mix.yaml").write_text(text)
    return load_scenario(str(at / "mix.yaml"), only=only)


def test_a_cells_weight_is_the_product_of_its_shares(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    (condition,) = conditions(loaded.scenario, loaded.cells)
    assert condition.factors == {}
    assert condition.weights["nat_a=eim-eif,nat_b=eim-eif"] == pytest.approx(0.36)
    assert condition.weights["nat_a=eim-eif,nat_b=udp-blocked"] == pytest.approx(0.12)
    assert sum(condition.weights.values()) == pytest.approx(1)
    assert len(condition.weights) == len(loaded.cells) == 9


def test_what_the_matrix_varies_makes_conditions(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"{MIX}matrix: {{strategy: [reflexive, birthday]}}\npairs: [[alice, bob], [bob, alice]]\n")
    found = conditions(loaded.scenario, loaded.cells)
    assert [condition.factors for condition in found] == [
        {"strategy": strategy, "pair": pair}
        for strategy in ("reflexive", "birthday")
        for pair in ("alice-bob", "bob-alice")
    ]
    assert [sum(condition.weights.values()) for condition in found] == pytest.approx([1.0] * 4)


def test_what_only_leaves_is_a_population_of_its_own(tmp_path: Path) -> None:
    loaded = load(tmp_path, MIX, "nat_a=apdm-apdf", "nat_a=udp-blocked", "nat_b=eim-eif")
    (condition,) = conditions(loaded.scenario, loaded.cells)
    assert list(condition.weights.values()) == pytest.approx([0.5, 0.5])


def test_without_a_population_there_is_none(tmp_path: Path) -> None:
    loaded = load(tmp_path, "topology: two_homes\nmatrix: {nat_a: [eim-eif], nat_b: [eim-eif]}\n")
    assert conditions(loaded.scenario, loaded.cells) == ()
    assert trials_of(loaded.scenario, loaded.cells, (), None) == {"nat_a=eim-eif,nat_b=eim-eif": 30}
    with pytest.raises(UsageError, match=r"--sample 5: the scenario has no population"):
        trials_of(loaded.scenario, loaded.cells, (), 5)


# ---------------------------------------------------------------------------- draws


def test_draws_are_the_seeds_and_come_by_weight(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    found = conditions(loaded.scenario, loaded.cells)
    drawn = draw(found, 4000, 1)
    assert drawn == draw(found, 4000, 1) != draw(found, 4000, 2)
    assert sum(drawn.values()) == 4000
    for cell, weight in found[0].weights.items():
        assert abs(drawn[cell] - 4000 * weight) <= 4 * sqrt(4000 * weight * (1 - weight)), cell


def test_more_draws_begin_with_the_same_ones_and_conditions_share_them(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"{MIX}matrix: {{strategy: [reflexive, birthday]}}\n")
    one, other = conditions(loaded.scenario, loaded.cells)
    few, more = draw([one], 10, 7), draw([one], 50, 7)
    assert all(few[cell] <= more[cell] for cell in few)
    assert list(draw([one], 50, 7).values()) == list(draw([other], 50, 7).values())


def test_cells_to_which_no_trial_falls_are_not_tried(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    found = conditions(loaded.scenario, loaded.cells)
    tried = trials_of(loaded.scenario, loaded.cells, found, 2)
    assert sum(tried.values()) == 2
    assert list(tried) == [cell.id for cell in loaded.cells if cell.id in tried]
    assert trials_of(loaded.scenario, loaded.cells, found, None) == {cell.id: 3 for cell in loaded.cells}


# ---------------------------------------------------------------------------- one rate


def test_the_rate_of_a_sample_is_that_of_its_trials(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    (condition,) = conditions(loaded.scenario, loaded.cells)
    first, second, *_ = condition.weights
    assert rate(condition, {first: wilson(5, 5), second: wilson(0, 3)}, is_sampled=True) == wilson(5, 8)


def test_the_rate_of_weighted_cells_is_weighted(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    (condition,) = conditions(loaded.scenario, loaded.cells)

    def certain_of(cell: str) -> Proportion:
        at = float("blocked" not in cell)
        return Proportion(at, at, at, 0.95, "exact", 1)

    certain = {cell: certain_of(cell) for cell in condition.weights}
    found = rate(condition, certain, is_sampled=False)
    assert (found.value, found.low, found.high) == pytest.approx((0.64, 0.64, 0.64))
    missing = {cell: share for cell, share in certain.items() if cell != "nat_a=eim-eif,nat_b=eim-eif"}
    found = rate(condition, missing, is_sampled=False)
    assert found.value is None
    assert (found.low, found.high) == pytest.approx((0.28, 0.64)), "a cell that was not tried may be anything"
