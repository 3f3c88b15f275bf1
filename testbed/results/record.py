"""The trial record: all that is kept of one trial, one line of `trials.jsonl`.

Rule 1: a record is written once and never changed. The key (cell, index, attempt) is its name; where a
        file holds a name twice, the last line wins.
Rule 2: reading is strict. An unknown key, a metric without a name in `METRICS` or another version is
        refused: a number that is silently lost is worse than a file that cannot be read.
Rule 3: a metric is a number, or None. None with an entry in `censored` is a time known to exceed that
        limit; None without one was not measured or has no meaning in this trial.
Rule 4: durations of metrics are float seconds, times of events integer nanoseconds (see `units`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AllowInfNan,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
)
from pydantic_core import from_json

from testbed.datagram import Endpoint
from testbed.errors import UsageError
from testbed.plan.outcomes import Outcome
from testbed.spec.model import Model
from testbed.stats import Sample

VERSION: Literal[1] = 1

METRICS: Mapping[str, str] = {
    "candidate_discovery_time": "s",
    "time_to_traverse": "s",
    "connect_time": "s",
    "relay_rtt": "s",
    "direct_rtt": "s",
    "probes_sent": "1",
    "attempts": "1",
}
"""Name -> unit; `1` is a plain count."""

LATE_EVENT_LOOP = "late_event_loop"
CAPTURE_DROPS = "capture_drops"
CAPTURE_LOST = "capture_lost"
BUSY_MACHINE = "busy_machine"
LATE_EVENT = "late_event"
"""Kinds of warnings that a record may carry, beside the notes of `plan.outcomes`."""

Number = Annotated[float, AllowInfNan(False), Field(ge=0)]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The name of a record."""

    cell: str
    index: int
    attempt: int


class Event(Model):
    """Something that an agent said, and when."""

    model_config = ConfigDict(extra="allow")

    t: NonNegativeInt
    """Monotonic nanoseconds."""
    event: str


class NatReport(Model):
    """What one NAT did in this trial."""

    dropped: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """Reason -> packets."""


class Happening(Model):
    """An event of the scenario, and when it was done."""

    at: NonNegativeInt
    """When it was due, in nanoseconds from the start of both ends."""
    t: NonNegativeInt | None
    """When it was done, in monotonic nanoseconds; null where it was not."""
    what: str
    """`nat_a: restart`, `link nat_a: loss: 100%`."""
    not_applied: str | None = None
    """Why it was not done."""


class Record(Model):
    """One trial."""

    v: Literal[1] = VERSION
    cell: str
    index: NonNegativeInt
    """The trial's number in its cell, from 0."""
    attempt: PositiveInt = 1
    seed: NonNegativeInt
    factors: dict[str, JsonValue]
    outcome: Outcome
    reason: str | None = None
    """Why the outcome is not a better one."""
    metrics: dict[str, Number | None] = Field(default_factory=dict)
    """By the names of `METRICS`."""
    censored: dict[str, Number] = Field(default_factory=dict)
    """Metric -> what it is known to exceed, where it was not reached."""
    path: dict[str, tuple[str, ...]] | None = None
    """The direct path: node -> its local and its remote address; `types` -> the candidate type at each end."""
    agents: dict[str, tuple[Event, ...]] = Field(default_factory=dict)
    nats: dict[str, NatReport] = Field(default_factory=dict)
    events: tuple[Happening, ...] = ()
    """What happened to the network, in that order; every event of the scenario is there."""
    warnings: tuple[str, ...] = ()
    """`kind` or `kind: detail`; kinds are words that a summary can count."""

    @property
    def key(self) -> Key:
        """The record's name."""
        return Key(self.cell, self.index, self.attempt)

    @field_validator("metrics", "censored")
    @classmethod
    def _known_metrics(cls, value: dict[str, float | None]) -> dict[str, float | None]:
        unknown = sorted(value.keys() - METRICS.keys())
        if unknown:
            raise ValueError(f"no metric is called {unknown[0]!r} (there are {', '.join(METRICS)})")
        return value

    @field_validator("censored")
    @classmethod
    def _censored_or_measured(cls, value: dict[str, float], info: Any) -> dict[str, float]:
        measured = info.data.get("metrics") or {}
        both = [name for name in value if measured.get(name) is not None]
        if both:
            raise ValueError(f"{both[0]} is both measured and censored")
        return value

    @field_validator("path")
    @classmethod
    def _addresses(cls, value: dict[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]] | None:
        if value is None:
            return None
        if "types" not in value:
            raise ValueError("a path names the candidate types of its ends, under 'types'")
        for node, addresses in value.items():
            if node == "types":
                continue
            if len(addresses) != 2:
                raise ValueError(f"{node} has two addresses on a path: its own and the other's")
            for address in addresses:
                Endpoint.parse(address)
        return value

    def without_events(self) -> Record:
        """What is summed up of it: a long run's events would not fit into memory."""
        return self.model_copy(update={"agents": {}, "nats": {}, "path": None, "factors": {}})

    def to_line(self) -> bytes:
        """The line of `trials.jsonl`, with its newline."""
        return self.model_dump_json().encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes | str) -> Record:
        """The inverse. Raises UsageError, which says what is wrong but not where: the caller knows the line."""
        try:
            value = from_json(line)
        except ValueError as error:
            raise UsageError(f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise UsageError("a trial is a JSON object")
        if value.get("v") != VERSION:
            raise UsageError(f"trial records of version {value.get('v')!r} cannot be read, only of version {VERSION}")
        try:
            return cls.model_validate_json(line, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UsageError(f"{where}: {first['msg']}") from None


def warning(kind: str, detail: str = "") -> str:
    """The text of one warning of a record."""
    return f"{kind}: {detail}" if detail else kind


def warning_kind(text: str) -> str:
    """Its kind."""
    return text.partition(":")[0]


def sample(records: Sequence[Record], metric: str) -> Sample:
    """The values of one metric over these records; those censored at their limits, those without meaning left out."""
    values = [value for r in records if (value := r.metrics.get(metric)) is not None]
    return Sample(tuple(values), tuple(r.censored[metric] for r in records if metric in r.censored))


def key_of(line: bytes) -> Key:
    """The name of the record on this line, without reading the rest strictly. Raises ValueError, KeyError."""
    value = from_json(line)
    return Key(value["cell"], value["index"], value["attempt"])
