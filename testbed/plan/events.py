"""What the events of a scenario mean for a network: who gets which address, what a link does from when on.

Rule 1: nothing is drawn. The addresses that a nat gets are the next ones of the place where it is attached, in the
        order of the file, after all addresses that others have: an event moves nobody else (addressing.py).
Rule 2: events happen by time, and those of one time in the order of the file.
Rule 3: a link's event says all of what the link does from then on, what is as before too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any, TypeAlias

from testbed.plan.network import Network
from testbed.spec.event import Change, Event
from testbed.spec.event_rules import in_order
from testbed.spec.link import Link
from testbed.spec.model import CONTEXT_WRITTEN
from testbed.spec.presets import changed
from testbed.spec.written import WrittenChange


@dataclass(frozen=True, slots=True)
class NatEvent:
    """Something happens to a nat or a firewall."""

    at: int
    """Nanoseconds from the start of both ends."""
    node: str
    change: Change
    external: tuple[IPv4Address, ...] = ()
    """The external addresses that it has from then on, where they change."""

    @property
    def place(self) -> str:
        """What it happens to."""
        return self.node

    @property
    def text(self) -> str:
        """`restart`, `change-address to 11.128.0.1`."""
        return f"{self.change} to {self.external[0]}" if self.external else str(self.change)


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A link does something else from now on."""

    at: int
    cable: str
    link: Link
    """All of it."""
    said: str
    """What the file says of it: `loss: 100%`."""

    @property
    def place(self) -> str:
        """What it happens to."""
        return f"link {self.cable}"

    @property
    def text(self) -> str:
        """`loss: 100%`."""
        return self.said


PlannedEvent: TypeAlias = NatEvent | LinkEvent


def address_changes(events: Sequence[Event]) -> Counter[str]:
    """How often each nat gets another address."""
    return Counter(event.node for event in events if event.node is not None and event.do is Change.CHANGE_ADDRESS)


def plan_events(events: Sequence[Event], network: Network) -> tuple[PlannedEvent, ...]:
    """Every event in the order in which they happen. `network`: with the addresses to come (`Box.spare`)."""
    links = {cable.name: cable.link for cable in network.cables}
    spare = {name: iter(box.spare) for name, box in network.boxes.items()}
    planned: list[PlannedEvent] = []
    for _, event in in_order(events):
        if event.node is not None and event.do is not None:
            external = next(spare[event.node]) if event.do is Change.CHANGE_ADDRESS else ()
            planned.append(NatEvent(event.at, event.node, event.do, external))
        elif event.link is not None and event.set is not None:
            links[event.link] = changed(links[event.link], event.set)
            planned.append(LinkEvent(event.at, event.link, links[event.link], _said(event.set)))
    return tuple(planned)


def with_varying_links(network: Network, events: Sequence[PlannedEvent]) -> Network:
    """The same network, its cables marked that an event touches."""
    touched = {event.cable for event in events if isinstance(event, LinkEvent)}
    cables = tuple(replace(cable, varies=cable.name in touched) for cable in network.cables)
    return replace(network, cables=cables)


def describe(event: Event) -> str:
    """What a scenario says: `nat_a: restart`, `link nat_a: loss: 100%`."""
    if event.set is not None:
        return f"link {event.link}: {_said(event.set)}"
    return f"{event.node}: {event.do}"


def _said(change: WrittenChange) -> str:
    return _text(change.model_dump(mode="json", context=CONTEXT_WRITTEN, exclude_unset=True))


def _text(written: dict[str, Any]) -> str:
    """`loss: 100%, up {rate: 1mbit}`."""
    parts = [f"{k} {{{_text(v)}}}" if isinstance(v, dict) else f"{k}: {v}" for k, v in written.items()]
    return ", ".join(parts)


__all__ = ["LinkEvent", "NatEvent", "PlannedEvent", "address_changes", "describe", "plan_events", "with_varying_links"]
