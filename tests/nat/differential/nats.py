"""The three NATs that are shown the same packets: the model, the userspace engine, rules of the kernel.

Rule 1: each is given the bytes of a packet and the time, and gives back what became of it: the reason of a drop, and
        every packet that came out on either side, in words.
Rule 2: time is virtual for all three. A pause lets the entries of the kernel's maps, and of connection tracking,
        have so much less time left, or none.
Rule 3: the namespaces around the kernel's NAT have no stack of their own: frames are pushed into cables and read from
        them. A ping that follows a packet by the same way tells when it has arrived or was dropped.
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import NamedTuple, Protocol

from testbed.lab import netlink, sysctl
from testbed.lab.namespaces import Namespace, new_namespace
from testbed.lab.netlink import Batch, End, Netlink
from testbed.lab.nftables import upkeep
from testbed.lab.nftables.droplog import PacketLog
from testbed.lab.nftables.netfilter import NESTED, Netfilter, Request, attribute, attributes, batch, text
from testbed.lab.nftables.prepare import prepare
from testbed.lab.tap import OUTGOING, Tap, address_of
from testbed.lab.userspace import headers
from testbed.lab.userspace.middlebox import Description, Device, Middlebox
from testbed.nat.nat import Nat
from testbed.nat.packet import AnyPacket, Delivered, Dropped, Echo, IcmpError, Packet
from testbed.plan.network import Box, Interface, Neighbour, Route, Translation
from testbed.spec.profile import SECOND, NatProfile
from testbed.spec.topology import NodeKind
from tests.nat.differential.script import HOSTS

INSIDE, ANYWHERE = IPv4Network("192.168.1.0/24"), IPv4Network("0.0.0.0/0")
GATEWAY, EXTERNAL = IPv4Address("192.168.1.1"), IPv4Address("11.0.0.1")
OWN, UPSTREAM = IPv4Address("11.0.255.1"), IPv4Address("11.0.255.2")
"""An address of the NAT that it does not map to, and the router that all remotes are behind."""
LAN, WAN, NEIGHBOUR = 10, 11, 10
MACS = {"lan": "02:00:00:00:00:01", "wan": "02:00:00:00:00:02", "in": "02:00:00:00:00:03", "out": "02:00:00:00:00:04"}
_BARRIER = 0xBEEF
PATIENCE = 5.0


class Outcome(NamedTuple):
    """What became of one packet."""

    reason: str | None
    packets: tuple[str, ...]
    """Those that came out, in words, sorted."""

    def __str__(self) -> str:
        return "; ".join([*self.packets, *([f"dropped: {self.reason}"] if self.reason else [])]) or "nothing"


class SomeNat(Protocol):
    """One of the three."""

    def start(self, seed: int) -> None:
        """Begin anew."""

    def send(self, ip: bytes, *, is_outbound: bool, now: int) -> Outcome:
        """Show it a packet."""

    def pause(self, duration: int) -> None:
        """Let time pass."""


def translation(profile: NatProfile) -> Translation:
    """The profile between the two sides."""
    return Translation(profile, tuple(EXTERNAL + n for n in range(profile.external_addresses)), (INSIDE,))


def said(packet: AnyPacket) -> str:
    """A packet in words."""
    match packet:
        case IcmpError():
            about = said(packet.inner).partition(" ")[2].rpartition(" [")[0] or said(packet.inner).partition(" ")[2]
            return f"icmp {packet.type}/{packet.code} {packet.source} > {packet.destination} about {about}"
        case Echo():
            return f"ping {packet.source} > {packet.destination}"
        case _:
            flags = f" [{packet.flags.name}]" if packet.flags else ""
            return f"{packet.transport} {packet.source} > {packet.destination}{flags}"


def _outcome(reason: str | None, packets: Sequence[bytes]) -> Outcome:
    read = [headers.read(packet) for packet in packets]
    return Outcome(reason, tuple(sorted(said(one) if one is not None else "nothing readable" for one in read)))


# ---------------------------------------------------------------------------- the model


class Model:
    """nat.Nat itself."""

    def __init__(self, profile: NatProfile) -> None:
        self._translation = translation(profile)

    def start(self, seed: int) -> None:
        self._nat = Nat(self._translation, seed)

    def pause(self, duration: int) -> None:
        """Its time is an argument."""

    def send(self, ip: bytes, *, is_outbound: bool, now: int) -> Outcome:
        packet = headers.read(ip)
        assert packet is not None
        decision = (self._nat.outbound if is_outbound else self._nat.inbound)(packet, now)
        if not isinstance(decision, (Dropped, Delivered)):
            return Outcome(None, (said(decision.packet),))
        answers = (said(decision.answer),) if decision.answer is not None else ()
        return Outcome(str(decision.reason) if isinstance(decision, Dropped) else None, answers)


# ---------------------------------------------------------------------------- the userspace engine


def box(made: Translation) -> Box:
    """The NAT's box, as the other two are told of it."""
    external = tuple(IPv4Interface(f"{address}/32") for address in made.external)
    return Box(
        "nat",
        NodeKind.NAT,
        (
            Interface("lan0", MACS["lan"], (IPv4Interface(f"{GATEWAY}/24"),)),
            Interface("wan0", MACS["wan"], (*external, IPv4Interface(f"{OWN}/32"))),
        ),
        (
            Route(INSIDE, None, "lan0"),
            Route(IPv4Network("11.0.255.0/30"), None, "wan0"),
            Route(ANYWHERE, UPSTREAM, "wan0"),
        ),
        neighbours=(
            *(Neighbour("lan0", IPv4Address(host), MACS["in"]) for host in HOSTS),
            Neighbour("wan0", UPSTREAM, MACS["out"]),
        ),
        translation=made,
    )


class Userspace:
    """The userspace engine's middlebox: all of that engine but its sockets."""

    def __init__(self, profile: NatProfile) -> None:
        made = translation(profile)
        devices = {
            LAN: Device(LAN, "lan0", bytes.fromhex(MACS["lan"].replace(":", "")), 1500, str(GATEWAY)),
            WAN: Device(WAN, "wan0", bytes.fromhex(MACS["wan"].replace(":", "")), 1500, str(EXTERNAL)),
        }
        self._description = Description(box(made), made, devices)

    def start(self, seed: int) -> None:
        self._box = Middlebox(self._description, seed)

    def pause(self, duration: int) -> None:
        """Its time is an argument."""

    def send(self, ip: bytes, *, is_outbound: bool, now: int) -> Outcome:
        frame = bytes(12) + b"\x08\x00" + ip
        out = list(self._box.receive(LAN if is_outbound else WAN, frame, now))
        reasons = [drop.reason for drop in self._box.read_drops()]
        return _outcome(reasons[0] if reasons else None, [sent.frame[14:] for sent in out])


# ---------------------------------------------------------------------------- rules of the kernel


class Kernel:
    """The NAT of nftables rules, in a namespace between two cables."""

    def __init__(self, profile: NatProfile, scope: ExitStack) -> None:
        self._translation = translation(profile)
        self._prepared = prepare(self._translation)
        self._nat, *sides = (self._namespace(scope) for _ in range(3))
        self._connect(*sides)
        self._taps = []
        for side in sides:
            with side:
                tap = Tap()
            scope.callback(tap.close)
            self._taps.append(tap)
        self._poll = select.poll()
        for tap in self._taps:
            self._poll.register(tap, select.POLLIN)
        with self._nat:
            self._log = scope.enter_context(PacketLog())
            self._netfilter = scope.enter_context(Netfilter())
        self._is_loaded = False

    @staticmethod
    def _namespace(scope: ExitStack) -> Namespace:
        namespace = new_namespace()
        scope.callback(namespace.close)
        return namespace

    def _connect(self, inside: Namespace, outside: Namespace) -> None:
        plan, messages = box(self._translation), [netlink.up("lo", netlink.LOOPBACK)]
        places = {"lan0": (LAN, "in", inside), "wan0": (WAN, "out", outside)}
        for interface in plan.interfaces:
            index, name, side = places[interface.name]
            near = End(interface.name, index, interface.mac, self._nat.fd)
            far = End("eth0", NEIGHBOUR, MACS[name], side.fd)
            with Netlink() as link:
                link.send(Batch([netlink.veth(name, near, far, mtu=1500, up=True)]))
            with side, Netlink() as link:
                sysctl.configure(forwards=False)
                link.send(Batch([netlink.up("eth0", NEIGHBOUR)]))
            messages.append(netlink.up(interface.name, index))
            messages += [netlink.address(interface.name, index, address) for address in interface.addresses]
        messages += [netlink.neighbour("nat", places[n.interface][0], n) for n in plan.neighbours]
        messages += [netlink.route("nat", places[r.interface][0], r) for r in plan.routes]
        with self._nat, Netlink() as link:
            sysctl.configure(forwards=True)
            sysctl.write({"ipv4/icmp_ratelimit": "0", "netfilter/nf_conntrack_tcp_be_liberal": "1"})
            for name in ("lan0", "wan0"):
                link.switch_offloads_off(name)
            link.send(Batch(messages))
            for name in ("lan0", "wan0"):
                assert link.finish_carrier(name)

    def start(self, seed: int) -> None:
        with self._nat:
            if self._is_loaded:
                upkeep.forget()
            self._prepared.load(seed)
        self._is_loaded = True
        self._log.read()

    def send(self, ip: bytes, *, is_outbound: bool, now: int) -> Outcome:
        near, far = (MACS["lan"], MACS["in"]) if is_outbound else (MACS["wan"], MACS["out"])
        tap, head = self._taps[0 if is_outbound else 1], bytes.fromhex((near + far).replace(":", "")) + b"\x08\x00"
        assert tap.send(address_of(NEIGHBOUR), head + ip) == 0
        whom = (HOSTS[0], str(GATEWAY)) if is_outbound else ("12.0.0.1", str(OWN))
        assert tap.send(address_of(NEIGHBOUR), head + _ping(*whom)) == 0
        came = list(self._came())
        reasons = [drop.reason for drop in self._log.read()]
        return _outcome(reasons[0] if reasons else None, came)

    def _came(self) -> Iterator[bytes]:
        """What comes out, until the ping is answered."""
        while True:
            assert self._poll.poll(PATIENCE * 1000), "a ping to the NAT was not answered"
            is_over = False
            for tap in self._taps:
                for packet in tap.read():
                    ip = headers.packet_of(packet.data)
                    if packet.kind == OUTGOING or ip is None:
                        continue
                    read = headers.read(ip)
                    if isinstance(read, Echo) and read.identifier == _BARRIER:
                        is_over = True
                    else:
                        yield ip
            if is_over:
                return

    def pause(self, duration: int) -> None:
        """Take so much from the time that everything has left."""
        sets = [dict(attributes(body)) for body in self._netfilter.dump(10)]
        for name in (parts[2].rstrip(b"\0").decode() for parts in sets):
            self._age(name, duration // 1_000_000)
        for body in list(self._netfilter.dump(1, subsystem=1)):
            parts = dict(attributes(body))
            left = struct.unpack(">I", parts[7])[0] - duration // SECOND
            flow = attribute(1 | NESTED, parts[1]) + (attribute(18, parts[18]) if 18 in parts else b"")
            if left <= 0:
                self._netfilter.ask(1, 2, flow, family=2)
            else:
                self._netfilter.ask(1, 0, flow + attribute(7, struct.pack(">I", left)), family=2)

    def _age(self, name: str, milliseconds: int) -> None:
        where = attribute(1, text("testbed")) + attribute(2, text(name))
        if name.startswith("hot_"):  # flows are hot for a moment of real time: one may have run out since it was read
            self._netfilter.send(batch([Request(14, 0, where)]))
            return
        requests = []
        for body in self._netfilter.dump(13, where):
            for part in attributes(body):
                for element in attributes(part.value) if part.kind == 3 else ():
                    parts = dict(attributes(element.value))
                    if 5 not in parts:
                        continue
                    old = {kind: value for kind, value in parts.items() if kind in (1, 2)}
                    requests.append(Request(14, 0, where + _element(old)))
                    left = struct.unpack(">Q", parts[5])[0] - milliseconds
                    if left > 0:
                        # nobody may have more time left (5) than its timer says (4)
                        aged = where + _element(old | {4: struct.pack(">Q", left), 5: struct.pack(">Q", left)})
                        requests.append(Request(12, 0x400, aged))
        if requests:
            self._netfilter.send(batch(requests))


def _element(parts: dict[int, bytes]) -> bytes:
    """Key and data (1, 2) are nested attributes of an element."""
    body = b"".join(attribute(kind | (NESTED if kind in (1, 2) else 0), value) for kind, value in parts.items())
    return attribute(3 | NESTED, attribute(1 | NESTED, body))


def _ping(source: str, destination: str) -> bytes:
    body = bytearray(struct.pack("!BBHHH", 8, 0, 0, _BARRIER, 0))
    ip = headers.icmp_error(source, destination, (8, 0), b"")
    made = bytearray(ip)
    made[24:26] = struct.pack("!H", _BARRIER)
    total = sum(struct.unpack("!4H", bytes(body)))
    made[22:24] = struct.pack("!H", ~(total % 0xFFFF) & 0xFFFF)
    return bytes(made)


def stay_on_one_cpu(scope: ExitStack) -> None:
    """Packets of one CPU keep their order."""
    cpus = os.sched_getaffinity(0)
    scope.callback(os.sched_setaffinity, 0, cpus)
    os.sched_setaffinity(0, {min(cpus)})


__all__ = ["Kernel", "Model", "Outcome", "Packet", "SomeNat", "Userspace", "stay_on_one_cpu", "translation"]
