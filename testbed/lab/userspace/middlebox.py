"""One box that the userspace engine plays: a router with a NAT, or a firewall, in it. Frames in, frames out.

Rule 1: what becomes of a packet is decided by `nat.Nat` alone, from the kernel's stamp of its arrival; here it is read,
        rewritten and routed. So a lab and a prediction drop the same packets for the same reasons.
Rule 2: it is a router as Linux is one: TTLs fall, what has none left or does not fit is told to its sender (RFC 792,
        RFC 1191), the box's own addresses answer pings, and everything else that is sent to them finds a closed port.
Rule 3: next hops are the plan's routes and permanent neighbours. A host that the plan does not know is where its
        packets come from.
Rule 4: a packet that is dropped leaves its reason, and its first bytes as they came in.

Nothing here opens or waits: tests push frames and look at what comes out. Not here: fragments. One that arrives, and a
packet that would have to be cut, is dropped as one that cannot be translated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import NamedTuple

from testbed.lab.drops import SNAP, Drop
from testbed.lab.userspace import headers
from testbed.nat.nat import Nat
from testbed.nat.packet import (
    AnyPacket,
    Delivered,
    Dropped,
    Echo,
    IcmpError,
    Packet,
    Reason,
    Transport,
    reset,
    unreachable,
)
from testbed.plan.forwarding import Forwarding
from testbed.plan.network import Box, Translation
from testbed.spec.profile import Dependence

MOST_DROPS = 1 << 15
"""Drops that are kept until they are read; counters go on."""
_REMEMBERED = 4096
_IPV4 = b"\x08\x00"


@dataclass(frozen=True, slots=True)
class Device:
    """One of the box's interfaces."""

    index: int
    name: str
    mac: bytes
    mtu: int
    address: str
    """The primary one."""


@dataclass(frozen=True, slots=True)
class Description:
    """A box as its plan has it."""

    box: Box
    translation: Translation
    devices: Mapping[int, Device]
    """By index."""

    @property
    def largest(self) -> int:
        """The largest mtu."""
        return max(device.mtu for device in self.devices.values())


class Outgoing(NamedTuple):
    """A frame to be sent."""

    device: int
    frame: bytes


class Middlebox:
    """A running one."""

    def __init__(self, description: Description, seed: int) -> None:
        self._box, self._devices = description.box, description.devices
        self._forwarding = Forwarding(description.box)
        self._by_name = {device.name: device for device in description.devices.values()}
        self._macs = {
            (n.interface, str(n.address)): bytes.fromhex(n.mac.replace(":", "")) for n in self._box.neighbours
        }
        self._hops: dict[tuple[str, str], tuple[Device, bytes] | None] = {}
        self._now = 0
        self.counters: Counter[str] = Counter()
        self._drops: list[Drop] = []
        self.become(description.translation, seed)

    def become(self, translation: Translation, seed: int) -> None:
        """Be another NAT from now on, with nothing known."""
        self._sides = tuple(
            device.index for device in self._devices.values() if device.name in (translation.wan, translation.lan)
        )
        self._wan = self._by_name[translation.wan].index
        is_nat = translation.profile.mapping is not Dependence.NONE
        self._external = frozenset(map(str, translation.external)) if is_nat else frozenset()
        self._own = frozenset(map(str, self._box.addresses())) - self._external
        self.nat = Nat(translation, seed)

    def restart(self) -> None:
        """Power off and on."""
        self.nat.restart()

    def flush(self) -> None:
        """Lose all mappings."""
        self.nat.flush()

    def change_address(self, external: Sequence[IPv4Address]) -> None:
        """Map to other addresses from now on. Raises ValueError where they are not as many."""
        self.nat.change_address(external)
        if self._external:
            self._external = frozenset(map(str, external))
            moved = replace(self._devices[self._wan], address=str(external[0]))
            self._devices = {**self._devices, self._wan: moved}
            self._by_name = {device.name: device for device in self._devices.values()}
            self._hops.clear()

    def time_left(self, transport: Transport, now: int) -> list[int]:
        """Nanoseconds that each mapping of a transport has left."""
        return [mapping.expires - now for mapping in self.nat.mappings(now) if mapping.transport is transport]

    def read_drops(self) -> list[Drop]:
        """The drops since the last call."""
        drops, self._drops = self._drops, []
        return drops

    # ---- frames

    def receive(self, device: int, frame: bytes, now: int) -> Iterator[Outgoing]:
        """A frame for us came in by a device; what is to be sent."""
        here, ip = self._devices.get(device), headers.packet_of(frame)
        if here is None or ip is None:
            return
        self._now = now = max(now, self._now)  # stamps of two CPUs may differ by a little
        packet = headers.read(ip)
        if packet is None:
            if headers.destination_of(ip) not in self._own:
                self._drop(Reason.NOT_TRANSLATED, ip)
            return
        is_outbound = device != self._wan
        if is_outbound:
            self._learn(here, headers.source_of(ip), frame[6:12])
        answer = self._decide(packet, ip, here, is_outbound=is_outbound)
        if isinstance(answer, bytes):
            yield from self._say(answer)
        elif answer is not None:
            yield from self._forward(answer, ip, here)

    def _decide(self, packet: AnyPacket, ip: bytes, here: Device, *, is_outbound: bool) -> AnyPacket | bytes | None:
        """The packet that goes on, or what we say about it, or nothing."""
        if isinstance(packet, Packet):
            source, destination = packet.source.host, packet.destination.host
        else:
            source, destination = packet.source, packet.destination
        if destination in self._own:
            taken = _taken(packet)
            return headers.answer(taken, ip) if taken is not None else None
        if here.index not in self._sides:  # another uplink, which the NAT has no part in
            self._drop(Reason.NO_MAPPING, ip)
            return None
        if is_outbound and ip[headers.TTL] <= 1 and destination not in self._external:
            return self._exceeded(packet, source, ip, here)
        decision = (self.nat.outbound if is_outbound else self.nat.inbound)(packet, self._now)
        if isinstance(decision, Dropped):
            self._drop(decision.reason, ip)
        if isinstance(decision, (Dropped, Delivered)):
            return headers.answer(decision.answer, ip) if decision.answer is not None else None
        if ip[headers.TTL] <= 1:
            return self._exceeded(packet, source, ip, here)
        return decision.packet

    def _forward(self, packet: AnyPacket, ip: bytes, here: Device) -> Iterator[Outgoing]:
        out = headers.rewritten(ip, packet)
        hop = self._hop(headers.source_of(out), headers.destination_of(out))
        if hop is None:
            return
        device, mac = hop
        if len(out) <= device.mtu:
            yield Outgoing(device.index, mac + device.mac + _IPV4 + out)
        elif ip[headers.FLAGS] & headers.DONT_FRAGMENT:
            kind = headers.FRAGMENTATION_NEEDED
            yield from self._say(headers.icmp_error(here.address, headers.source_of(ip), kind, ip, mtu=device.mtu))
        else:
            self._drop(Reason.NOT_TRANSLATED, ip)

    def _exceeded(self, packet: AnyPacket, source: str, ip: bytes, here: Device) -> bytes | None:
        if isinstance(packet, IcmpError):  # no error about an error (RFC 1122 §3.2.2)
            return None
        return headers.icmp_error(here.address, source, headers.TIME_EXCEEDED, ip)

    def _say(self, ip: bytes) -> Iterator[Outgoing]:
        hop = self._hop(headers.source_of(ip), headers.destination_of(ip))
        if hop is not None:
            device, mac = hop
            yield Outgoing(device.index, mac + device.mac + _IPV4 + ip)

    def _drop(self, reason: Reason, ip: bytes) -> None:
        self.counters[reason.value] += 1
        if len(self._drops) < MOST_DROPS:
            self._drops.append(Drop(self._now, reason.value, ip[:SNAP]))

    # ---- addresses

    def _learn(self, device: Device, host: str, mac: bytes) -> None:
        if (device.name, host) not in self._macs and len(self._macs) < _REMEMBERED:
            self._macs[device.name, host] = mac
            self._hops.clear()

    def _hop(self, source: str, destination: str) -> tuple[Device, bytes] | None:
        """The device and the neighbour that lead to an address; None where the plan knows no way."""
        key = (source, destination)
        if key not in self._hops:
            if len(self._hops) >= _REMEMBERED:
                self._hops.clear()
            way = self._forwarding.way(source, destination)
            mac = self._macs.get((way.interface, way.via or destination)) if way is not None else None
            self._hops[key] = (self._by_name[way.interface], mac) if way is not None and mac is not None else None
        return self._hops[key]


def _taken(packet: AnyPacket) -> AnyPacket | None:
    """What the box's own stack says, in which nobody listens."""
    match packet:
        case Echo(is_request=True):
            return packet.answered()
        case Packet(transport=Transport.UDP):
            return unreachable(packet)
        case Packet():
            return reset(packet)
        case _:
            return None
