"""The way of each packet of a trial: from who sent it to where it ended.

Rule 1: a NAT rewrites addresses but not payloads: the sightings of one payload, in order, are one packet's journey.
        Where two packets have the same payload, a link keeps addresses, so that each sighting finds its journey.
Rule 2: a drop is the NAT's own word, from the comment on the packet. What was seen to leave, and was not seen where it
        should have come in next, the links between have lost; what no table routes from there had no route.
Rule 3: of the model the same is known without sightings: it notes what it loses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from testbed.datagram import Datagram, Endpoint
from testbed.lab.capture import UdpPacket, read_udp
from testbed.lab.pcapng import Recorded
from testbed.lab.tap import OUTGOING, Packet
from testbed.nat.behaviour import is_native
from testbed.plan.network import Network
from testbed.plan.trials import CellPlan
from testbed.results import explanation as words
from testbed.sim.routes import Line, Routes
from testbed.sim.trial import Played
from testbed.spec.profile import Dependence, Unsolicited
from testbed.traversal.demultiplex import Protocol, classify

_COMMENT = "dropped by "
_BINDING_REQUEST = b"\x00\x01"
_MODEL_WORDS: Mapping[str, str] = {
    "queue full": words.QUEUE_FULL,
    "no route": words.NO_ROUTE,
    "not its address": words.NO_ROUTE,
    "too big": words.TOO_BIG,
    "taken by its own stack": words.OWN_STACK,
}
"""What the model calls a loss, where that is another word."""


@dataclass(frozen=True, slots=True)
class Journey:
    """One datagram."""

    sender: str
    at: int | None
    """When it left, by CLOCK_MONOTONIC; the model does not say."""
    local: Endpoint
    remote: Endpoint
    """Both as the sender sees them."""
    external: Endpoint | None
    """Where it came from outside of the sender's NATs; None where it did not get there."""
    where: str
    reason: str
    """How it ended (results/explanation.py)."""
    is_request: bool = False
    """Whether it is a STUN Binding request."""
    seen_as: Endpoint | None = None
    """Its source where it ended, whether or not that is outside."""


class Sighting(NamedTuple):
    """A datagram at one point of the capture."""

    box: str
    packet: UdpPacket
    comment: str = ""


# ---------------------------------------------------------------------------- of the lab


def sightings(recorded: Recorded, shift: int, network: Network) -> list[Sighting]:
    """Every UDP datagram of a capture, in order. `shift`: from its clock to CLOCK_MONOTONIC.

    A frame goes out where its source is the interface's own MAC address.
    """
    places = [point.name.partition("/")[::2] for point in recorded.points]
    macs = {(box.name, device.name): device.mac for box in network.boxes.values() for device in box.interfaces}
    own = [bytes.fromhex(macs.get(place, "").replace(":", "")) for place in places]
    found = []
    for seen in recorded.packets:
        kind = OUTGOING if seen.data[6:12] == own[seen.point] else 0
        packet = read_udp(Packet(seen.time + shift, seen.point, kind, seen.length, seen.data))
        if packet is not None:
            found.append(Sighting(places[seen.point][0], packet, seen.comment))
    return found


def captured(seen: Sequence[Sighting], plan: CellPlan, given_up: Mapping[str, int]) -> list[Journey]:
    """The journeys of what ends and rendezvous sent, in order. `given_up`: when an end said its last word."""
    by_payload: dict[int, list[Sighting]] = {}
    for sighting in seen:
        by_payload.setdefault(sighting.packet.digest, []).append(sighting)
    last = seen[-1].packet.time if seen else 0
    judge = _Judge(plan, Routes(plan.network), given_up, last)
    starts = {*plan.ends, plan.rendezvous}
    chains = [chain for same in by_payload.values() for chain in _chains(same, starts, judge.routes)]
    return sorted((judge.journey(chain) for chain in chains), key=lambda journey: journey.at or 0)


def _chains(same: Sequence[Sighting], starts: set[str], routes: Routes) -> Iterator[list[Sighting]]:
    """The sightings of one payload, a list for each packet; second copies that a link made belong to none."""
    found: list[list[Sighting]] = []
    for sighting in same:
        if sighting.packet.is_outgoing and sighting.box in starts:
            found.append([sighting])
            continue
        before = [chain for chain in found if _may_follow(chain[-1], sighting, routes)]
        if before:
            max(before, key=lambda chain: _is_kept(chain[-1].packet, sighting.packet)).append(sighting)
    yield from found


def _is_kept(one: UdpPacket, other: UdpPacket) -> bool:
    """Whether a box has left one of the two addresses as it was: NATs do, but those that hairpin."""
    return one.source == other.source or one.destination == other.destination


def _may_follow(before: Sighting, after: Sighting, routes: Routes) -> bool:
    """Whether the one may be the same packet, later: on in the same box, or in at the next one on its way."""
    one, other = before.packet, after.packet
    if before.comment or one.is_outgoing is other.is_outgoing:
        return False
    if not one.is_outgoing:
        return before.box == after.box
    if (one.source, one.destination) != (other.source, other.destination):
        return False
    leg, box = routes.leg(before.box, one.source.host, one.destination.host), routes.network.boxes[after.box]
    return leg is not None and (leg.box == after.box or (box.forwards and box.translation is None))


@dataclass(frozen=True, slots=True)
class _Judge:
    """Says how journeys ended."""

    plan: CellPlan
    routes: Routes
    given_up: Mapping[str, int]
    last: int
    """When the capture saw its last packet."""

    def journey(self, chain: Sequence[Sighting]) -> Journey:
        first, last = chain[0].packet, chain[-1].packet
        where, reason = self._ending(chain[-1])
        return Journey(
            chain[0].box,
            first.time,
            first.source,
            first.destination,
            outside(self.plan.network, chain[0].box, last.source),
            where,
            reason,
            _is_request(first.payload),
            last.source,
        )

    def _ending(self, at: Sighting) -> tuple[str, str]:
        if at.comment.startswith(_COMMENT):
            where, _, reason = at.comment.removeprefix(_COMMENT).partition(": ")
            return where, reason
        box = self.plan.network.boxes[at.box]
        if at.packet.is_outgoing:
            return self._on_the_way(at)
        if at.box in (*self.plan.ends, self.plan.rendezvous):
            late = at.packet.time > self.given_up.get(at.box, self.last)
            return at.box, words.LATE if late else words.ARRIVED
        if box.translation is not None:
            profile = box.translation.profile
            accepts = profile.unsolicited is Unsolicited.ACCEPT or is_native(profile)
            return at.box, words.OWN_STACK if accepts else words.UNEXPLAINED
        return at.box, words.NO_ROUTE

    def _on_the_way(self, at: Sighting) -> tuple[str, str]:
        source, destination = at.packet.source.host, at.packet.destination.host
        leg = self.routes.leg(at.box, source, destination)
        if leg is None:
            return at.box, words.NO_ROUTE
        end = self.plan.network.boxes[leg.box]
        if end.translation is None and destination not in map(str, end.possible_addresses()):
            return leg.box, words.NO_ROUTE
        lines = [self.routes.lines[number] for number in leg.lines]
        longest = sum(line.impairment.delay + line.impairment.jitter for line in lines)
        if at.packet.time + longest > self.last:
            return leg.box, words.UNDER_WAY
        losers = [line for line in lines if _may_lose(line)] or lines
        return " or ".join(line.cable.name for line in losers), words.LOSS


def _may_lose(line: Line) -> bool:
    return bool(line.cable.varies or line.impairment.loss or line.impairment.corrupt or line.impairment.rate)


def _is_request(payload: bytes) -> bool:
    return classify(payload) is Protocol.STUN and payload.startswith(_BINDING_REQUEST)


# ---------------------------------------------------------------------------- of the model


class _Ended(NamedTuple):
    where: str
    reason: str
    source: Endpoint
    destination: Endpoint
    """Both as they were there."""


def modelled(played: Played, plan: CellPlan) -> list[Journey]:
    """The journeys of what both ends sent in the model, each end's in order."""
    ended: dict[object, list[_Ended]] = {}
    for where, reason, packet in ((entry.where, entry.reason, entry.packet) for entry in played.lost):
        known = _Ended(where, _MODEL_WORDS.get(reason, str(reason)), packet.source, packet.destination)
        ended.setdefault(packet.payload, []).append(known)
    for name, seen in played.seen.items():
        for is_outgoing, datagram in seen:
            if not is_outgoing:
                arrived = _Ended(name, words.ARRIVED, datagram.source, datagram.destination)
                ended.setdefault(datagram.data, []).append(arrived)
    return [
        _modelled(name, datagram, ended.get(datagram.data, []), plan)
        for name, seen in played.seen.items()
        for is_outgoing, datagram in seen
        if is_outgoing
    ]


def _modelled(name: str, datagram: Datagram, ended: list[_Ended], plan: CellPlan) -> Journey:
    """The journey of one datagram; `ended`: those of its payload, which may be both ends' own."""
    other = next(end for end in plan.ends if end != name)
    theirs = {other, *nats_of(plan.network, other)}.difference(nats_of(plan.network, name))
    beyond = {str(address) for box in theirs for address in plan.network.boxes[box].possible_addresses()}
    found = next((e for e in ended if e.destination == datagram.destination or e.destination.host in beyond), None)
    if found is not None:
        ended.remove(found)
    elif datagram.destination.host in plan.servers:
        found = _Ended(plan.rendezvous, words.ARRIVED, datagram.source, datagram.destination)
    else:
        found = _Ended("the way", words.UNDER_WAY, datagram.source, datagram.destination)
    external, is_request = outside(plan.network, name, found.source), _is_request(datagram.data)
    ends = datagram.source, datagram.destination
    return Journey(name, None, *ends, external, found.where, found.reason, is_request, found.source)


# ---------------------------------------------------------------------------- of the network


def nats_of(network: Network, box: str) -> list[str]:
    """What filters or translates what a box sends, from the box outwards."""
    found: list[str] = []
    below = [box]
    while below:
        here = below.pop(0)
        for above in (cable.upper.box for cable in network.cables if cable.lower.box == here):
            if network.boxes[above].kind is not None:
                below.append(above)
                found += [above] if network.boxes[above].translation is not None else []
    return list(dict.fromkeys(found))


def outside(network: Network, box: str, source: Endpoint) -> Endpoint | None:
    """The source of a packet of this box, if that is an address beyond all of its NATs."""
    address = IPv4Address(source.host)
    for name in nats_of(network, box):
        translation = network.boxes[name].translation
        translates = translation is not None and translation.profile.mapping is not Dependence.NONE
        if translation is not None and translates and any(address in prefix for prefix in translation.inside):
            return None
    return source
