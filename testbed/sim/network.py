"""A planned network in virtual time: one heap of events, links and NATs as they are modelled, machines at the ends.

Rule 1: there is no clock. Time is that of the event at hand; events of one time happen in the order in which they
        were made. So a trial is a function of its plan and its seed.
Rule 2: every die is thrown from the seed that the lab would throw it from: a link's by its cable, a NAT's by its
        name. Each NAT, and each line that remembers anything, is offered a frame at the time when that gets there.
Rule 3: a line that only delays remembers nothing but how many frames wait on it. As long as fewer packets are under
        way in the whole network than it has room for, it cannot be full, and costs no event of its own. Where more
        are, `Crowded` is raised: the trial is then played with all lines as they are.
Rule 4: what a NAT or a line loses is noted with its reason.
Rule 5: events are planned before all else, so at their time they come before what packets do.
Rule 6: machines do here what they do behind sockets: a datagram comes in, then what they want to send leaves.

What is left out, because no end here would notice: ICMP (agents do not listen to it), falling TTLs, checksums (a frame
with a flipped bit is lost where it arrives), ARP (neighbours are planned). A datagram that does not fit a link's mtu is
lost, where a kernel would cut it into fragments at its first link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from sys import maxsize
from typing import NamedTuple, Protocol, TypeAlias

from testbed.datagram import Datagram, Endpoint
from testbed.link.model import LINK_HEADER, Direction, seeds_of_directions
from testbed.link.model import Lost as Fallen
from testbed.nat.packet import NO_FLAGS, Dropped, Forwarded, Hairpinned, Packet, Transport
from testbed.plan.events import LinkEvent, NatEvent, PlannedEvent
from testbed.plan.seeds import derive
from testbed.sim.nodes import node_of
from testbed.sim.routes import Leg, Line, Routes
from testbed.spec.link import Impairment

IP_AND_UDP = 28
"""Bytes of both headers."""

Certainty: TypeAlias = Callable[[Impairment], Impairment]


class Machine(Protocol):
    """The contract of `traversal`."""

    def receive(self, datagram: Datagram, now: int) -> object:
        """A datagram came in."""

    def next_timeout(self) -> int | None:
        """When `handle_timeout` is due."""

    def handle_timeout(self, now: int) -> None:
        """The time has come."""

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """What is to be sent now."""


class Lost(NamedTuple):
    """A packet that did not arrive."""

    time: int
    where: str
    """A NAT, a cable, a box."""
    reason: str
    packet: Packet


class Seen(NamedTuple):
    """A datagram at the interface of an end."""

    is_outgoing: bool
    datagram: Datagram


class Crowded(Exception):
    """So many packets are under way that a line which only delays might be full."""


@dataclass(slots=True, eq=False)
class Attached:
    """A machine in its box."""

    machine: Machine
    box: str
    after: Callable[[int], object]
    """Called after each thing that happens to the machine, before what it wants to send leaves."""
    due: int | None = None
    """When its timer rings."""
    seen: list[Seen] = field(default_factory=list)


class VirtualNetwork:
    """The network of one trial."""

    def __init__(
        self, routes: Routes, seed: int, *, certainty: Certainty | None = None, exact_lines: bool = False
    ) -> None:
        """`certainty`: what to make of each line's impairment; as it is, unless said. `exact_lines`: see Rule 3."""
        self._routes, self.now = routes, 0
        impairments = [line.impairment if certainty is None else certainty(line.impairment) for line in routes.lines]
        self._certainty = certainty
        varies = [line.cable.varies for line in routes.lines]
        plain = [not exact_lines and not (i.is_random or i.rate or v) for i, v in zip(impairments, varies, strict=True)]
        self._delays = [i.delay if p else None for i, p in zip(impairments, plain, strict=True)]
        self._room = min((i.limit for i, p in zip(impairments, plain, strict=True) if p), default=maxsize)
        self._directions = {
            number: Direction(impairment, link_seed(routes.lines[number], seed), varies=varies[number])
            for number, impairment in enumerate(impairments)
            if not plain[number]
        }
        self._nodes = {name: node_of(box, derive(seed, "nat", name)) for name, box in routes.network.boxes.items()}
        self._sockets: dict[tuple[str, Endpoint], Attached] = {}
        self._heap: list[tuple[int, int, Attached | Leg | NatEvent | LinkEvent, int, Packet | None]] = []
        self._count = 0
        self._is_over = False
        self.lost: list[Lost] = []
        self.happened: list[PlannedEvent] = []
        self.offered = [0] * len(routes.lines)
        """Frames that each line was offered."""

    def attach(
        self, machine: Machine, box: str, locals_: Iterable[Endpoint], after: Callable[[int], object]
    ) -> Attached:
        """Put a machine into a box; see Attached for `after`."""
        attached = Attached(machine, box, after)
        for local in locals_:
            self.open(attached, local)
        return attached

    def open(self, attached: Attached, local: Endpoint) -> bool:
        """One more socket of a machine; whether it could be had."""
        return self._sockets.setdefault((attached.box, local), attached) is attached

    def close(self, attached: Attached, local: Endpoint) -> None:
        """Close it."""
        self._sockets.pop((attached.box, local), None)

    def plan(self, events: Iterable[PlannedEvent]) -> None:
        """Let these happen at their time. Before anything else does."""
        for event in events:
            self._push(event.at, event, 0, None)

    def stop(self) -> None:
        """Make `run` return."""
        self._is_over = True

    def run(self, until: int) -> None:
        """Let events happen until a time, or until `stop` is called. Raises Crowded."""
        heap = self._heap
        while heap and not self._is_over:
            time, _, subject, stage, packet = heappop(heap)
            if time > until:
                return
            self.now = time
            if isinstance(subject, Attached):
                self._ring(subject)
            elif isinstance(subject, (NatEvent, LinkEvent)):
                self._happen(subject)
            elif packet is not None:
                self._travel(subject, stage, packet, time)

    # ---- events

    def _happen(self, event: PlannedEvent) -> None:
        self.happened.append(event)
        if isinstance(event, LinkEvent):
            for number, line in enumerate(self._routes.lines):
                if line.cable.name == event.cable:
                    impairment = event.link.up if line.is_up else event.link.down
                    after = impairment if self._certainty is None else self._certainty(impairment)
                    self._directions[number].change(after)
            return
        self._nodes[event.node] = self._nodes[event.node].after(event)

    # ---- machines

    def flush(self, attached: Attached) -> None:
        """Let what a machine wants to send leave, and arm its timer."""
        attached.after(self.now)
        machine, node = attached.machine, self._nodes[attached.box]
        for datagram in machine.datagrams_to_send(self.now):
            attached.seen.append(Seen(True, datagram))
            packet = Packet(Transport.UDP, datagram.source, datagram.destination, NO_FLAGS, datagram.data)
            if datagram.destination.host in node.addresses:
                self._deliver(attached.box, packet)
            else:
                self._send(attached.box, packet)
        due = machine.next_timeout()
        if due is not None and due < self.now:
            due = self.now
        if due != attached.due:
            attached.due = due
            if due is not None:
                self._push(due, attached, 0, None)

    def _ring(self, attached: Attached) -> None:
        if attached.due == self.now:  # else it was set to another time since
            attached.due = None
            attached.machine.handle_timeout(self.now)
            self.flush(attached)

    def _deliver(self, box: str, packet: Packet) -> None:
        attached = self._sockets.get((box, packet.destination))
        if attached is None:
            self._lose(box, "closed", packet)
            return
        assert isinstance(packet.payload, bytes)
        datagram = Datagram(packet.source, packet.destination, packet.payload)
        attached.seen.append(Seen(False, datagram))
        attached.machine.receive(datagram, self.now)
        self.flush(attached)

    # ---- packets

    def _send(self, box: str, packet: Packet) -> None:
        leg = self._routes.leg(box, packet.source.host, packet.destination.host)
        assert isinstance(packet.payload, bytes)
        if leg is None:
            self._lose(box, "no route", packet)
        elif IP_AND_UDP + len(packet.payload) > leg.mtu:
            self._lose(box, "too big", packet)
        else:
            self._travel(leg, 0, packet, self.now)

    def _travel(self, leg: Leg, stage: int, packet: Packet, time: int) -> None:
        """Pass the lines of the leg from `stage` on, as far as nothing has to wait for its time."""
        now, lines, delays = self.now, leg.lines, self._delays
        while stage < len(lines):
            number = lines[stage]
            delay = delays[number]
            if delay is None and time > now:
                break
            self.offered[number] += 1
            if delay is not None:
                time += delay
                stage += 1
                continue
            stage += 1
            times = self._pass(number, packet)
            if len(times) != 1:
                for one in times:
                    self._travel(leg, stage, packet, one)
                return
            time = times[0]
        if time == now and stage == len(lines):
            self._arrive(leg, packet)
        else:
            self._push(time, leg, stage, packet)

    def _pass(self, number: int, packet: Packet) -> list[int]:
        """When the copies of a frame that enters a line now leave it; nothing where all are lost."""
        assert isinstance(packet.payload, bytes)
        times: list[int] = []
        for fate in self._directions[number].offer(LINK_HEADER + IP_AND_UDP + len(packet.payload), self.now):
            if isinstance(fate, Fallen):
                self._lose(self._routes.lines[number].cable.name, fate.cause, packet)
            elif fate.flipped is not None:
                self._lose(self._routes.lines[number].cable.name, "corrupt", packet)
            else:
                times.append(fate.time)
        return times

    def _arrive(self, leg: Leg, packet: Packet) -> None:
        box, node, host = leg.box, self._nodes[leg.box], packet.destination.host
        if node.nat is None:
            if host in node.addresses:
                self._deliver(box, packet)
            else:
                self._lose(box, "no route" if node.forwards else "not its address", packet)
            return
        if host in node.addresses and host not in node.external:
            self._lose(box, "closed", packet)
            return
        decide = node.nat.inbound if leg.interface == node.wan else node.nat.outbound
        decision = decide(packet, self.now)
        if isinstance(decision, (Forwarded, Hairpinned)):
            assert isinstance(decision.packet, Packet)
            self._send(box, decision.packet)
        else:
            self._lose(box, decision.reason if isinstance(decision, Dropped) else "taken by its own stack", packet)

    def _lose(self, where: str, reason: str, packet: Packet) -> None:
        self.lost.append(Lost(self.now, where, reason, packet))

    def _push(self, time: int, subject: Attached | Leg | PlannedEvent, stage: int, packet: Packet | None) -> None:
        self._count += 1
        heappush(self._heap, (time, self._count, subject, stage, packet))
        if len(self._heap) >= self._room:
            raise Crowded


def link_seed(line: Line, seed: int) -> int:
    """The seed of a direction in a trial with this seed, as a lab has it."""
    link, name = line.cable.link, line.cable.name
    up, down = seeds_of_directions(link.seed if link.seed is not None else derive(seed, "link", name))
    return up if line.is_up else down
