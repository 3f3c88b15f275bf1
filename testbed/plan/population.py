"""What a population means for a run: how often each of its cells is tried, and what its trials say together.

Rule 1: cells whose other factors are the same are one *condition*; a population has one rate in each. Within a
        condition the weights are made to sum to 1, so what `--only` leaves is a population of its own.
Rule 2: *weighted* (the default): each cell is tried as often as the scenario says, and its rate counts by its weight.
        *Sampled* (`--sample N`): N trials are drawn, each cell with its weight as its chance, with replacement. So the
        trials of a condition are one plain sample, and its interval is that of n trials of one rate. Drawing by strata
        would need as many trials as there are cells before it is worth anything; that is what the first form is for.
Rule 3: the n-th draw depends on the run's seed and n alone: every condition tries the same homes.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any

from testbed.errors import UsageError
from testbed.plan.seeds import derive
from testbed.spec.factor_rules import text
from testbed.spec.matrix import CellSpec
from testbed.spec.scenario import Scenario
from testbed.stats import Proportion, weighted, wilson

PLAYED = 100
"""At least so many trials of a cell in which chance decides are played in the model: it has few of its own."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Cells that differ in the population's factors only."""

    factors: Mapping[str, Any]
    """What they have in common."""
    weights: Mapping[str, float]
    """Cell -> its share."""


def conditions(scenario: Scenario, cells: Sequence[CellSpec]) -> tuple[Condition, ...]:
    """All of them, in the order of the cells; none where there is no population."""
    if not scenario.population:
        return ()
    groups: dict[tuple[tuple[str, str], ...], list[CellSpec]] = {}
    for cell in cells:
        groups.setdefault(tuple((n, text(v)) for n, v in _common(scenario, cell).items()), []).append(cell)
    found = []
    for group in groups.values():
        total = sum(cell.weight for cell in group)
        found.append(Condition(_common(scenario, group[0]), {cell.id: cell.weight / total for cell in group}))
    return tuple(found)


def trials_of(
    scenario: Scenario, cells: Sequence[CellSpec], found: Sequence[Condition], sample: int | None
) -> Mapping[str, int]:
    """How often each cell is tried, in the order of the cells; those that are not tried are left out.

    `sample`: how many trials of each condition are drawn, where they are. Raises UsageError where there is no
    population to draw from.
    """
    if sample is None:
        return {cell.id: scenario.trials for cell in cells}
    if not found:
        raise UsageError(f"--sample {sample}: the scenario has no population: to draw from")
    drawn = draw(found, sample, scenario.seed)
    return {cell.id: drawn[cell.id] for cell in cells if cell.id in drawn}


def _common(scenario: Scenario, cell: CellSpec) -> dict[str, Any]:
    return {name: value for name, value in cell.factors.items() if name not in scenario.population}


def draw(found: Sequence[Condition], count: int, seed: int) -> Mapping[str, int]:
    """How many of `count` trials of each condition fall to each cell; those to which none falls are left out."""
    drawn: Counter[str] = Counter()
    for condition in found:
        names, bounds = list(condition.weights), list(accumulate(condition.weights.values()))
        for number in range(count):
            at = Random(derive(seed, "population", number)).random() * bounds[-1]
            drawn[names[min(bisect(bounds, at), len(names) - 1)]] += 1
    return drawn


def rate(condition: Condition, shares: Mapping[str, Proportion], *, is_sampled: bool) -> Proportion:
    """What the trials of a condition say. `shares`: of its cells, those that were tried."""
    if is_sampled:
        kept = [shares[cell] for cell in condition.weights if cell in shares]
        direct = sum(round((share.value or 0) * share.n) for share in kept)
        return wilson(direct, sum(share.n for share in kept))
    nothing = wilson(0, 0)
    return weighted([(weight, shares.get(cell, nothing)) for cell, weight in condition.weights.items()])
