"""A population: which NATs there are, how common each is, and which figures of the field are to be shown beside it.

    population:
      nat_a: &mix {linux-masquerade: 80, pfsense: 15, udp-blocked: 5}
      nat_b: *mix
    published:
      - {name: DCUtR, success_rate: 70%, plus_or_minus: 7.1%, source: arXiv 2510.27500}

A cell's weight is the product of its profiles' shares: which NAT one end has says nothing about the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from testbed.spec.model import Model, Probability, describe
from testbed.units import format_probability


def _read_weight(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{describe(value)} where a weight is due: a number greater than 0, such as 40")
    return float(value)


Weight = Annotated[
    float, BeforeValidator(_read_weight), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "examples": [40]})
]
"""How common a profile is, in any unit: only the ratios count."""
Mix = Annotated[dict[str, Weight], Field(min_length=1)]
"""Profile -> its weight."""


class Published(Model):
    """A figure of the field, shown beside a population's success rate. No program compares the two."""

    name: str
    """Who measured it, and when."""
    success_rate: Probability | None = None
    """What was measured; or else `at_least`."""
    at_least: Probability | None = None
    """What it is said to exceed."""
    plus_or_minus: Probability | None = None
    """Its own interval, as half of its width."""
    about: str = ""
    """What it is a rate of, which is seldom what a scenario's is."""
    source: str
    """Where it stands."""

    @property
    def text(self) -> str:
        """`DCUtR: 70% ± 7.1%`."""
        if self.success_rate is None:
            return f"{self.name}: at least {format_probability(self.at_least or 0)}"
        within = "" if self.plus_or_minus is None else f" ± {format_probability(self.plus_or_minus)}"
        return f"{self.name}: {format_probability(self.success_rate)}{within}"


def shares(population: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The weights of each node, so that they sum to 1."""
    totals = {name: sum(mix.values()) for name, mix in population.items()}
    return {name: {word: weight / totals[name] for word, weight in mix.items()} for name, mix in population.items()}
