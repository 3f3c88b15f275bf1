"""A scenario: what is varied, how often, and what is expected."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import Discriminator, Field, Tag, WithJsonSchema

from testbed.spec.event import Event
from testbed.spec.model import Duration, Model, OneOrMore, Probability, Whole
from testbed.spec.population import Mix, Published

SECOND = 1_000_000_000

AGENTS: Mapping[str, str] = {
    "quic": "a QUIC connection through the relay, then NAT traversal with path probes, validation and migration",
    "udp": "the same rounds without QUIC: STUN connectivity checks, then application bytes",
}
"""The reference agents: name -> what it does."""


class Parameter(NamedTuple):
    """A whole number that a strategy may be given."""

    least: int
    most: int
    default: int
    about: str


_ROUNDS = Parameter(1, 10, 3, "rounds of checks")
_WINDOW = Parameter(1, 64, 16, "addresses that an end tells the other beforehand")
_BIRTHDAY = {
    "ports": Parameter(1, 400, 256, "ports that one end opens, each with a socket of its own"),
    "probes": Parameter(1, 8192, 1024, "ports that the other end tries, drawn at random from 1 to 65535"),
    "rate": Parameter(1, 4096, 256, "probes a second"),
}

STRATEGIES: Mapping[str, Mapping[str, Parameter]] = {
    "reflexive": {"rounds": _ROUNDS},
    "port-prediction": {"rounds": _ROUNDS, "window": _WINDOW},
    "birthday": _BIRTHDAY,
    "relay-only": {},
    "all": {
        "rounds": Parameter(1, 10, 2, "rounds of checks without, then as many with prediction"),
        "window": _WINDOW,
        **_BIRTHDAY,
    },
}
"""Name -> its parameters. What they do is in traversal/strategies.py, which has the same numbers."""

ABOUT_STRATEGIES: Mapping[str, str] = {
    "reflexive": "rounds of checks to the addresses that servers saw, and to host addresses",
    "port-prediction": "right before each round, an end whose mapping depends on the remote measures how its ports are "
    "assigned, and tells the other end its next addresses",
    "birthday": "an end whose mapping depends on the remote opens many ports; the other tries ports at random, once",
    "relay-only": "nothing is checked: the attempt stays at the relay",
    "all": "`reflexive`, then `port-prediction`, then `birthday`, within one deadline",
}
"""Name -> what it does."""

DEFAULT_STRATEGY = "reflexive"

NOT_YET = (("bench",), ("lab", "kernel"), ("lab", "time"))
"""Keys that later versions of this format have: refused by name, not as a spelling mistake."""

MOST_TRIALS = 1_000_000
SEEDS = 2**63
"""A seed is less than this."""


class Links(StrEnum):
    """What makes the impairments of a lab's links."""

    AUTO = "auto"
    NETEM = "netem"
    WIRE = "wire"


class Command(Model):
    """An external program that runs an end, under the contract of docs/agents.md."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """The program and its arguments."""


def _shape(value: Any) -> str | None:
    """Which member of the union below a value is; told apart by shape, so that a mistake gets one message."""
    match value:
        case dict() | Command():
            return "program"
        case bool():
            return "flag"
        case int():
            return "whole"
        case float():
            return "number"
        case str():
            return "text"
        case _:
            return None


def _agent_shape(value: Any) -> str | None:
    """The same for an agent, which is a name or a program."""
    shape = _shape(value)
    return shape if shape in ("program", "text") else None


_Text = Annotated[str, Tag("text")]
_AgentName = Annotated[str, WithJsonSchema({"type": "string", "enum": list(AGENTS)}), Tag("text")]
_Program = Annotated[Command, Tag("program")]

Agent = Annotated[_AgentName | _Program, Discriminator(_agent_shape)]
"""A reference agent's name (`quic`, `udp`), or an external program."""

FactorValue = Annotated[
    _Text | Annotated[int, Tag("whole")] | Annotated[float, Tag("number")] | Annotated[bool, Tag("flag")] | _Program,
    Discriminator(_shape),
]
"""One value of a factor, as written."""

Product = dict[str, Annotated[tuple[FactorValue, ...], Field(min_length=1), OneOrMore()]]
"""Factor -> its values."""


class Bound(Model):
    """An interval that a rate must lie in."""

    at_least: Probability | None = None
    """The least rate that is good enough."""
    at_most: Probability | None = None
    """The highest rate that is still right."""


class Expectation(Model):
    """A gate: the success rate of some cells, pooled.

    Met when the whole Clopper-Pearson interval is on its side, missed when it is on the other, else inconclusive.
    """

    where: dict[str, FactorValue] = Field(default_factory=dict)
    """Factors that select cells; all cells if empty."""
    success_rate: Bound
    """direct / (direct + relayed + failed), as an interval of it."""


def _parameters_schema() -> dict[str, Any]:
    known = {name: bounds for parameters in STRATEGIES.values() for name, bounds in parameters.items()}
    whole = {name: {"type": "integer", "minimum": least, "maximum": most} for name, (least, most, *_) in known.items()}
    return {"properties": whole, "additionalProperties": False}


class LabChoice(Model):
    """What the lab is made with."""

    links: Links = Links.AUTO
    """netem, our own wire, or netem where the kernel has it."""


class Scenario(Model):
    """Which cells there are, and how often each is tried."""

    name: str = "unnamed"
    """As its file is called."""
    description: str = ""
    """What question this answers; `testbed list` shows it."""
    topology: str
    """A topology's name, or the path of its file."""
    agent: Agent = "quic"
    """What runs at both ends, unless the matrix varies it."""
    matrix: Annotated[tuple[Product, ...], Field(min_length=1), OneOrMore()] = ({},)
    """Products of factors; their union, in order, is the list of cells. A factor is a nat or router (its profile),
    `strategy`, `agent`, or a dotted path into the topology such as `nodes.alice.link.loss`."""
    population: dict[str, Mix] = Field(default_factory=dict)
    """Nat -> {profile: weight}: how common each profile is there. Each combination is a cell, beside the factors of the
    matrix, and the run gives one success rate of all of them, weighted."""
    published: tuple[Published, ...] = ()
    """Figures of the field to be shown beside that rate."""
    leaves_out: str = ""
    """What the population leaves out, for whoever reads its rate."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Which peers try to meet; the first of a pair is the QUIC client. Needed beyond two peers."""
    parameters: Annotated[dict[str, Any], Field(json_schema_extra=_parameters_schema())] = Field(default_factory=dict)
    """Parameters of the strategy."""
    trials: Annotated[Whole, Field(ge=1, le=MOST_TRIALS)] = 30
    """How often each cell is tried."""
    deadline: Duration = 10 * SECOND
    """From the first connectivity check to application bytes over the direct path."""
    setup_deadline: Duration = 10 * SECOND
    """For what comes before: gathering, signalling, relay."""
    seed: Annotated[Whole, Field(ge=0, lt=SEEDS)] = 1
    """What every die of a run is thrown from."""
    events: tuple[Event, ...] = ()
    """What happens to nats and links while a trial runs."""
    expect: tuple[Expectation, ...] = ()
    """Gates; a missed one makes the exit status 1."""
    lab: LabChoice = LabChoice()
    """What the lab is made with."""
