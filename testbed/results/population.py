"""What a population's trials say together: the part of a result document that is about all cells at once.

Rule 1: a rate stands beside its prediction and beside the field's own figures. With the model it is compared; with the
        field a person compares it: those are rates of other things, measured among other people.
Rule 2: what a mix leaves out stands where its rate stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AllowInfNan, Field, JsonValue, NonNegativeInt

from testbed.plan.population import Condition, rate
from testbed.spec.factor_rules import text
from testbed.spec.model import Model
from testbed.spec.population import Published
from testbed.stats import CONFIDENCE, Proportion
from testbed.units import PPM

Share = Annotated[float, AllowInfNan(False), Field(ge=0, le=1)]
Form = Literal["weighted", "sampled"]


class PopulationRate(Model):
    """A share of all pairs of a population, with its interval."""

    value: Share | None
    """Null where a cell that counts has no trial yet."""
    low: Share
    high: Share
    confidence: Share
    method: Literal["stratified", "wilson"]
    """Of cells that are weighted, or of a sample of them."""
    n: NonNegativeInt
    """Trials behind it; of a prediction, trials of the model."""


class Figure(Model):
    """What the field has measured."""

    name: str
    success_rate: Share | None
    at_least: Share | None
    plus_or_minus: Share | None
    about: str
    source: str


class ConditionResult(Model):
    """One combination of the factors that the population does not mix; there is one where nothing else is varied."""

    factors: dict[str, JsonValue]
    cells: NonNegativeInt
    """How many combinations of profiles there are."""
    success_rate: PopulationRate
    prediction: PopulationRate | None
    """Null where the model cannot play one of the cells."""
    agrees: bool | None
    """Whether the two intervals meet."""


class Population(Model):
    """All conditions of a population."""

    form: Form
    weights: dict[str, dict[str, Share]]
    """Nat -> profile -> its share."""
    conditions: tuple[ConditionResult, ...]
    published: tuple[Figure, ...]
    leaves_out: str


@dataclass(frozen=True, slots=True)
class PlannedPopulation:
    """What is known of a population before its trials."""

    form: Form
    weights: Mapping[str, Mapping[str, float]]
    conditions: Sequence[Condition]
    published: Sequence[Published]
    leaves_out: str


def summarise_population(
    planned: PlannedPopulation, seen: Mapping[str, Proportion], predicted: Mapping[str, Proportion]
) -> Population:
    """The document's part. `seen`, `predicted`: of each cell that was tried, that was predicted."""
    return Population(
        form=planned.form,
        weights={name: {word: round(share, 6) for word, share in mix.items()} for name, mix in planned.weights.items()},
        conditions=tuple(_condition(planned, condition, seen, predicted) for condition in planned.conditions),
        published=tuple(map(_figure, planned.published)),
        leaves_out=planned.leaves_out,
    )


def _condition(
    planned: PlannedPopulation,
    condition: Condition,
    seen: Mapping[str, Proportion],
    predicted: Mapping[str, Proportion],
) -> ConditionResult:
    found = _rate(rate(condition, seen, is_sampled=planned.form == "sampled"))
    theory = None
    if condition.weights.keys() <= predicted.keys():
        theory = _rate(rate(condition, predicted, is_sampled=False))
    agrees = None
    if theory is not None and found.n:
        agrees = theory.low <= found.high and found.low <= theory.high
    return ConditionResult(
        factors={name: text(value) for name, value in condition.factors.items()},
        cells=len(condition.weights),
        success_rate=found,
        prediction=theory,
        agrees=agrees,
    )


def _rate(share: Proportion) -> PopulationRate:
    return PopulationRate(
        value=None if share.value is None else round(share.value, 6),
        low=round(share.low, 6),
        high=round(share.high, 6),
        confidence=CONFIDENCE,
        method="wilson" if share.method == "wilson" else "stratified",
        n=share.n,
    )


def _figure(figure: Published) -> Figure:
    rates = {
        name: None if (ppm := getattr(figure, name)) is None else ppm / PPM
        for name in ("success_rate", "at_least", "plus_or_minus")
    }
    return Figure.model_validate({**rates, "name": figure.name, "about": figure.about, "source": figure.source})
