"""Where a packet goes next in a planned network: the routing tables, segments and cables of `plan.network`, looked up.

Rule 1: nothing is decided here that a plan does not say: the longest prefix of the table that the source's rule
        names, then of the main table; of neighbours, whoever has the address.
Rule 2: a segment is one: between two of its members a frame crosses two cables and no router.
Rule 3: what is looked up once is remembered. Routes belong to a plan, so all trials of a cell share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from testbed.plan.forwarding import Forwarding
from testbed.plan.network import LAN, Cable, Network, Port
from testbed.spec.link import Impairment

MOST_HOPS = 64
"""Linux's default TTL."""


class Leg(NamedTuple):
    """The way from a box to the next one that does more than to forward: a NAT, or where the packet is for."""

    lines: tuple[int, ...]
    """Directions of cables, one after the other, as they stand in `Routes.lines`."""
    mtu: int
    """Of the narrowest of them."""
    box: str
    interface: str
    """Where it comes in there."""


@dataclass(frozen=True, slots=True)
class Line:
    """One direction of a cable."""

    cable: Cable
    is_up: bool

    @property
    def impairment(self) -> Impairment:
        """What frames meet."""
        return self.cable.link.up if self.is_up else self.cable.link.down


class _Hop(NamedTuple):
    lines: tuple[int, ...]
    box: str
    interface: str


class Routes:
    """The way through one network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.lines = tuple(Line(cable, is_up) for cable in network.cables for is_up in (True, False))
        self._own = {name: frozenset(map(str, box.addresses())) for name, box in network.boxes.items()}
        self._forwarding = {name: Forwarding(box) for name, box in network.boxes.items()}
        self._ends: dict[tuple[str, str], tuple[int, Port]] = {}
        self._members: dict[str, dict[str, tuple[int, Port]]] = {}
        for number, cable in enumerate(network.cables):
            self._ends[cable.lower.box, cable.lower.interface] = (2 * number, cable.upper)
            if cable.upper.bridge is None:
                self._ends[cable.upper.box, cable.upper.interface] = (2 * number + 1, cable.lower)
            else:
                for host in self._addresses(cable.lower.box, cable.lower.interface):
                    self._members.setdefault(cable.upper.box, {})[host] = (2 * number + 1, cable.lower)
        self._legs: dict[tuple[str, str, str], Leg | None] = {}

    def leg(self, box: str, source: str, destination: str) -> Leg | None:
        """The way on from a box; None where there is none. It may end at a router that has no way to go on."""
        key = (box, source, destination)
        if key not in self._legs:
            self._legs[key] = self._look_up(*key)
        return self._legs[key]

    def _look_up(self, box: str, source: str, destination: str) -> Leg | None:
        lines: list[int] = []
        interface = ""
        for _ in range(MOST_HOPS):
            hop = self._hop(box, source, destination)
            if hop is None:
                break
            lines += hop.lines
            box, interface = hop.box, hop.interface
            found = self.network.boxes[box]
            if not found.forwards or found.translation is not None or destination in self._own[box]:
                break
        if not lines:
            return None
        return Leg(tuple(lines), min(self.lines[line].cable.link.mtu for line in lines), box, interface)

    def _hop(self, box: str, source: str, destination: str) -> _Hop | None:
        route = self._forwarding[box].way(source, destination)
        if route is None:
            return None
        next_host = route.via or destination
        if route.interface == LAN and box in self._members:
            return self._to_member(box, next_host, ())
        line, end = self._ends[box, route.interface]
        if end.bridge is None:
            is_there = route.via is not None or next_host in self._addresses(end.box, end.interface)
            return _Hop((line,), end.box, end.interface) if is_there else None
        if next_host in self._addresses(end.box, LAN):
            return _Hop((line,), end.box, LAN)
        return self._to_member(end.box, next_host, (line,))

    def _to_member(self, router: str, host: str, before: tuple[int, ...]) -> _Hop | None:
        if host not in self._members.get(router, {}):
            return None
        line, end = self._members[router][host]
        return _Hop((*before, line), end.box, end.interface)

    def _addresses(self, box: str, interface: str) -> tuple[str, ...]:
        found = self.network.boxes[box]
        own = tuple(str(a.ip) for i in found.interfaces if i.name == interface for a in i.addresses)
        is_outside = found.translation is not None and interface == found.translation.wan
        return own + tuple(str(a) for later in found.spare for a in later) if is_outside else own
