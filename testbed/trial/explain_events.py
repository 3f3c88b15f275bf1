"""What happened to the network during a trial, as far as it explains where packets ended.

Rule 1: an event explains only what came after it: the last one of a nat before a packet left, the state of a link at
        that time. Of packets whose time is not known (the model's) nothing is said of times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from testbed.datagram import Endpoint
from testbed.plan.events import LinkEvent, NatEvent, PlannedEvent
from testbed.plan.network import Cable
from testbed.plan.trials import CellPlan
from testbed.results.record import Record
from testbed.sim.trial import Played
from testbed.spec.event import Change
from testbed.spec.link import Link
from testbed.units import NS_PER_SECOND

_HAS: dict[Change, str] = {
    Change.RESTART: "was restarted",
    Change.FLUSH: "lost its mappings",
    Change.CHANGE_ADDRESS: "got another address",
}


@dataclass(frozen=True, slots=True)
class Happened:
    """An event that was done."""

    event: PlannedEvent
    t: int
    """On the clock of the agents' events, in nanoseconds."""

    @property
    def text(self) -> str:
        """`nat_a: restart`."""
        return f"{self.event.place}: {self.event.text}"


def in_lab(record: Record, plan: CellPlan) -> tuple[Happened, ...]:
    """Those that a record has a time for."""
    pairs = zip(plan.events, record.events, strict=False)
    return tuple(Happened(event, told.t) for event, told in pairs if told.t is not None)


def in_model(played: Played) -> tuple[Happened, ...]:
    """Those that a trial of the model lasted for."""
    return tuple(Happened(event, event.at) for event in played.happened)


def not_applied(record: Record) -> Iterator[str]:
    """What did not happen, for a person."""
    for told in record.events:
        if told.t is None:
            yield f"{told.what}, due at {told.at / NS_PER_SECOND:g} s, did not happen: {told.not_applied}"


def last_of(happened: Sequence[Happened], nats: Collection[str], before: int | None) -> Happened | None:
    """The last thing that had happened to one of these nats."""
    found = [
        one
        for one in happened
        if isinstance(one.event, NatEvent) and one.event.node in nats and (before is None or one.t <= before)
    ]
    return found[-1] if found else None


def lost_what_was_told(happened: Happened, remotes: Sequence[Endpoint], left: int | None) -> str:
    """The clause: why a nat has no mapping for addresses that were told before."""
    event = happened.event
    assert isinstance(event, NatEvent)
    ago = "" if left is None else f" {max(0, left - happened.t) / NS_PER_SECOND:.1f} s before"
    if event.change is Change.CHANGE_ADDRESS:
        now = f"{_HAS[event.change]}, {event.external[0]},"
        return f"because {event.node} {now}{ago} and answers at {_old(remotes)} no more"
    that = "" if event.change is Change.FLUSH else " and lost its mappings"
    return f"because {event.node} {_HAS[event.change]}{ago}{that}"


def moved(happened: Happened) -> str:
    """The remark: why packets come from an address that nobody was told."""
    event = happened.event
    assert isinstance(event, NatEvent)
    return f"{event.node} {_HAS[event.change]}"


def link_at(happened: Sequence[Happened], cable: Cable, time: int | None) -> Link:
    """What a link did at a time; as it was planned where the time is not known."""
    states = [
        one.event.link
        for one in happened
        if isinstance(one.event, LinkEvent) and one.event.cable == cable.name and time is not None and one.t <= time
    ]
    return states[-1] if states else cable.link


def _old(remotes: Sequence[Endpoint]) -> str:
    return " and ".join(dict.fromkeys(remote.host for remote in remotes))
