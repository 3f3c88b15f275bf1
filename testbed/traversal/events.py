"""What an end reports of an attempt: the one vocabulary of reference agents, external programs and simulations.

Rule 1: a report is a value with `t`, the monotonic clock in integer nanoseconds; every duration is in nanoseconds too.
Rule 2: one row of `_READERS` a field type: the JSON of docs/agents.md is made and read by the same table.
Rule 3: an external program's line is hostile until read: `from_json` raises `EventError` and nothing else. Keys that
        the vocabulary does not have are dropped: a program may say more than we ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar

from testbed.datagram import Endpoint
from testbed.traversal.candidates import CandidateType, JsonObject, Role, read_endpoint

TEXT_LIMIT = 400
"""Characters of a reason that are kept."""


class EventError(ValueError):
    """No event of the vocabulary reads like that."""


@dataclass(frozen=True, slots=True)
class Event:
    """The root: when it happened."""

    word: ClassVar[str]
    t: int


@dataclass(frozen=True, slots=True)
class Start(Event):
    """The agent runs. The clock of `candidate_discovery_time` and `connect_time` starts here."""

    word = "start"
    name: str | None = None
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class CandidateFound(Event):
    """An own candidate was learnt."""

    word = "candidate"
    type: CandidateType
    address: Endpoint
    base: Endpoint | None = None
    server: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Gathered(Event):
    """Every server that was asked has answered or was given up."""

    word = "gathered"
    given_up: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Registered(Event):
    """Signalling knows this end."""

    word = "registered"


@dataclass(frozen=True, slots=True)
class Relay(Event):
    """Application bytes have gone to the other end and back through the relay."""

    word = "relay"
    rtt: int | None = None
    local: Endpoint | None = None
    remote: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class RoundOfChecks(Event):
    """A round of checks began."""

    word = "round"
    round: int


@dataclass(frozen=True, slots=True)
class Prediction(Event):
    """How the NAT assigns ports was measured, from one new socket."""

    word = "prediction"
    observed: tuple[Endpoint, ...] = ()
    """Its mappings, in the order in which they were made."""
    predicted: tuple[Endpoint, ...] = ()
    """Addresses that it will probably have next; none where that cannot be said."""
    reason: str | None = None
    """Why it cannot."""


@dataclass(frozen=True, slots=True)
class Check(Event):
    """A connectivity check left towards a candidate that is not relayed, or a burst of them."""

    word = "check"
    remote: Endpoint
    local: Endpoint | None = None
    round: int | None = None
    attempt: int | None = None
    count: int | None = None
    """How many checks the burst was, to as many ports of `remote` or from as many of `local`: the addresses are those
    of the first. One where it is missing."""


@dataclass(frozen=True, slots=True)
class Data(Event):
    """The first application bytes arrived on this path."""

    word = "data"
    local: Endpoint
    remote: Endpoint
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """Application bytes went both ways between this end and the other on this path, which is not relayed."""

    word = "connected"
    local: Endpoint
    remote: Endpoint
    """Where our packets go to."""
    received_from: Endpoint | None = None
    """Where the other's packets come from, if that is another address: two NATs that map by address and port and
    filter by less give each direction a mapping of its own."""
    types: tuple[CandidateType, ...] = ()
    """Of the local and the remote candidate."""
    rtt: int | None = None


@dataclass(frozen=True, slots=True)
class Exhausted(Event):
    """The strategy has no more rounds."""

    word = "exhausted"
    rounds: int | None = None


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The end has given up, and why."""

    word = "failed"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Unsupported(Event):
    """The program cannot do what is asked, and why."""

    word = "unsupported"
    reason: str = ""


VOCABULARY: Mapping[str, type[Event]] = {
    kind.word: kind
    for kind in (
        Start,
        CandidateFound,
        Gathered,
        Registered,
        Relay,
        RoundOfChecks,
        Prediction,
        Check,
        Data,
        Connected,
        Exhausted,
        Failed,
        Unsupported,
    )
}


def to_json(event: Event) -> JsonObject:
    """`{"t": …, "event": "check", …}`; what is not known is left out."""
    document: JsonObject = {"t": event.t, "event": event.word}
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name != "t" and value is not None:
            document[field.name] = _plain(value)
    return document


def from_json(value: object) -> Event:
    """The event that an object of JSON means. Raises EventError."""
    if not isinstance(value, dict):
        raise EventError("not an object")
    kind = VOCABULARY.get(str(value.get("event")))
    if kind is None:
        raise EventError(f"event {value.get('event')!r} is not known: one of {', '.join(VOCABULARY)}")
    arguments: dict[str, Any] = {}
    for field in fields(kind):
        if value.get(field.name) is not None:
            try:
                arguments[field.name] = _READERS[str(field.type).removesuffix(" | None")](value[field.name])
            except ValueError as error:
                raise EventError(f"{kind.word}: {field.name}: {error}") from error
        elif field.default is MISSING:
            raise EventError(f"{kind.word}: {field.name} is missing")
    return kind(**arguments)


def _plain(value: object) -> object:
    if isinstance(value, Endpoint):
        return str(value)
    if isinstance(value, StrEnum):
        return value.value
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _read_number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise EventError(f"{value!r} is not a whole number")
    return value


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise EventError(f"{value!r} is not a text")
    return value[:TEXT_LIMIT]


def _read_tuple(read: Callable[[object], object]) -> Callable[[object], object]:
    def read_all(value: object) -> object:
        if not isinstance(value, list) or len(value) > 64:
            raise EventError(f"{value!r} is not a short list")
        return tuple(map(read, value))

    return read_all


_READERS: Mapping[str, Callable[[object], object]] = {
    "int": _read_number,
    "str": _read_text,
    "Endpoint": read_endpoint,
    "CandidateType": lambda value: CandidateType(_read_text(value)),
    "Role": lambda value: Role(_read_text(value)),
    "tuple[Endpoint, ...]": _read_tuple(read_endpoint),
    "tuple[CandidateType, ...]": _read_tuple(lambda value: CandidateType(_read_text(value))),
}
