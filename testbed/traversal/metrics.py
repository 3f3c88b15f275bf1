"""From what both ends said to the numbers of a trial (DESIGN of each metric: docs/concepts.md).

Rule 1: a time is the difference of two events of one clock; the slower end counts where both have one.
Rule 2: a time that was not reached is censored at the limit that ended the waiting, never left out.
Rule 3: a trial is over when neither end has anything more to find out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from testbed.traversal.events import (
    Check,
    Connected,
    Data,
    Event,
    Exhausted,
    Failed,
    Gathered,
    Relay,
    RoundOfChecks,
    Start,
    Unsupported,
)
from testbed.units import seconds

E = TypeVar("E", bound=Event)
Events = Mapping[str, Sequence[Event]]
Kinds = tuple[type[Event], ...]
_LAST_WORDS: frozenset[type[Event]] = frozenset({Connected, Failed, Unsupported})


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends the waiting, in nanoseconds."""

    setup_deadline: int
    deadline: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Values by the names of `results.record.METRICS`, and what the missing ones are known to exceed."""

    metrics: dict[str, float | None]
    censored: dict[str, float]


def is_over(events: Events) -> bool:
    """Whether both ends may be stopped.

    An end whose rounds are exhausted still waits for its relay until the deadline (relayed or failed is the question),
    and for the other end's last probes, where that one says that it is connected.
    """
    kinds = [{type(event) for event in said} for said in events.values()]
    if all(seen & _LAST_WORDS for seen in kinds):
        return True
    return all(seen & _LAST_WORDS or {Exhausted, Relay} <= seen for seen in kinds) and not any(
        Connected in seen for seen in kinds
    )


def measure(events: Events, controlling: str, relays: frozenset[str], limits: Limits, *, direct: bool) -> Measured:
    """The metrics of a trial that counts. `events`: of both ends. `relays`: addresses of the relay."""
    metrics: dict[str, float | None] = {
        "candidate_discovery_time": _seconds(discovery_time(events)),
        "time_to_traverse": _seconds(traversal_time(events, relays)) if direct else None,
        "connect_time": _seconds(
            _slower(_between(said, (Start,), (Data, Relay, Connected)) for said in events.values())
        ),
        "relay_rtt": _rtt(events, controlling, Relay),
        "direct_rtt": _rtt(events, controlling, Connected) if direct else None,
        "probes_sent": float(sum(_checks(said) for said in events.values())),
        "attempts": float(max((e.round for said in events.values() for e in _of(said, RoundOfChecks)), default=0)),
    }
    limit_of = {
        "candidate_discovery_time": limits.setup_deadline,
        "time_to_traverse": None if direct else limits.deadline,
        "connect_time": limits.setup_deadline + limits.deadline,
    }
    censored = {name: seconds(limit) for name, limit in limit_of.items() if metrics[name] is None and limit is not None}
    return Measured(metrics, censored)


def discovery_time(events: Events) -> int | None:
    """Nanoseconds from the start until every server had answered or was given up, of the slower end."""
    return _slower(_between(said, (Start,), (Gathered,)) for said in events.values())


def traversal_time(events: Events, relays: frozenset[str]) -> int | None:
    """Nanoseconds from the first check of either end until application bytes had arrived directly at both."""
    starts = [start for said in events.values() if (start := _first(said, Check)) is not None]
    arrivals = [first_direct_data(said, relays) for said in events.values()]
    end = _slower(arrival.t if arrival is not None else None for arrival in arrivals)
    return max(0, end - min(starts)) if starts and end is not None else None


def _connect_time(events: Events) -> int | None:
    return _slower(_between(said, (Start,), (Data, Relay, Connected)) for said in events.values())


def first_direct_data(said: Sequence[Event], relays: frozenset[str]) -> Data | None:
    """The first application bytes that arrived over a path that is not the relay's."""
    return next((e for e in _of(said, Data) if not {e.local.host, e.remote.host} & relays), None)


def _of(said: Iterable[Event], kind: type[E]) -> Iterable[E]:
    return (event for event in said if isinstance(event, kind))


def _checks(said: Sequence[Event]) -> int:
    """How many checks left: an event may stand for a burst of them."""
    return sum(1 if event.count is None else event.count for event in _of(said, Check))


def _first(said: Sequence[Event], *kinds: type[Event]) -> int | None:
    return next((event.t for event in said if isinstance(event, kinds)), None)


def _between(said: Sequence[Event], starts: Kinds, ends: Kinds) -> int | None:
    start, end = _first(said, *starts), _first(said, *ends)
    return None if start is None or end is None else max(0, end - start)


def _slower(times: Iterable[int | None]) -> int | None:
    found = list(times)
    return None if None in found else max((time for time in found if time is not None), default=None)


def _seconds(time: int | None) -> float | None:
    return None if time is None else seconds(time)


def _rtt(events: Events, controlling: str, kind: type[Relay | Connected]) -> float | None:
    """As the controlling end measured it, else as the other did."""
    for name in sorted(events, key=lambda name: name != controlling):
        for event in _of(events[name], kind):
            if event.rtt is not None:
                return seconds(event.rtt)
    return None
