"""A scenario: what is varied, how often, and what is expected."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from testbed.spec.model import Duration, Model, Probability

SECOND = 1_000_000_000


class Links(StrEnum):
    """What makes the impairments of a lab's links."""

    AUTO = "auto"
    NETEM = "netem"
    WIRE = "wire"


class Command(Model):
    """An external program that runs an end, under the contract of docs/agents.md."""

    command: tuple[str, ...]
    """The program and its arguments."""


Agent = str | Command
"""A reference agent's name (`quic`, `udp`), or an external program."""

FactorValue = str | int | float | bool | Command
"""One value of a factor, as written."""


class Bound(Model):
    """An interval that a rate must lie in."""

    at_least: Probability | None = None
    at_most: Probability | None = None


class Expectation(Model):
    """A gate: the success rate of some cells, pooled. See DESIGN on met, missed, inconclusive."""

    where: dict[str, FactorValue] = {}
    """Factors that select cells; all cells if empty."""
    success_rate: Bound


class LabChoice(Model):
    """What the lab is made with."""

    links: Links = Links.AUTO


class Scenario(Model):
    """Which cells there are, and how often each is tried."""

    name: str = "unnamed"
    description: str = ""
    topology: str
    agent: Agent = "quic"
    matrix: tuple[dict[str, tuple[FactorValue, ...]], ...] = ({},)
    """Products of factors; their union, in order, is the list of cells."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Which peers try to meet; the first of a pair is the QUIC client. Needed beyond two peers."""
    parameters: dict[str, Any] = {}
    """Parameters of the strategy."""
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    deadline: Duration = 10 * SECOND
    setup_deadline: Duration = 10 * SECOND
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    expect: tuple[Expectation, ...] = ()
    lab: LabChoice = LabChoice()
