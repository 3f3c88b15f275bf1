"""A NAT on a table: three hosts inside, remotes outside, and what becomes of each packet. Time is what a test says."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from testbed.datagram import Endpoint
from testbed.nat.nat import Nat
from testbed.nat.packet import (
    NO_FLAGS,
    AnyPacket,
    Decision,
    Delivered,
    Dropped,
    Flag,
    Forwarded,
    Hairpinned,
    IcmpError,
    Packet,
    Reason,
    Transport,
)
from testbed.plan.network import Translation
from testbed.spec.profile import NatProfile

INSIDE = IPv4Network("192.168.1.0/24")
EXTERNAL = IPv4Address("11.0.0.1")
SECOND = 1_000_000_000
SYN, SYN_ACK, ACK, FIN, RST = Flag.SYN, Flag.SYN | Flag.ACK, Flag.ACK, Flag.FIN | Flag.ACK, Flag.RST


def host(port: int = 5000, number: int = 0) -> Endpoint:
    """An inside endpoint; each number is another host."""
    return Endpoint(f"192.168.1.{10 + number}", port)


def remote(port: int = 7000, number: int = 0) -> Endpoint:
    """An outside endpoint; each number is another address."""
    return Endpoint(f"12.0.0.{1 + number}", port)


def external(port: int = 5000, number: int = 0) -> Endpoint:
    """An endpoint of the NAT."""
    return Endpoint(str(EXTERNAL + number), port)


class Bench:
    """A NAT and the time."""

    def __init__(self, profile: NatProfile, seed: int = 1, inside: IPv4Network = INSIDE) -> None:
        addresses = tuple(EXTERNAL + number for number in range(profile.external_addresses))
        self.nat = Nat(Translation(profile, addresses, (inside,)), seed)
        self.now = 1000 * SECOND

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    def send(
        self,
        source: Endpoint,
        destination: Endpoint,
        flags: Flag = NO_FLAGS,
        transport: Transport = Transport.UDP,
    ) -> Decision:
        """One packet; the side that it comes from is the source's."""
        packet = Packet(transport, source, destination, flags, payload=b"untouched")
        is_inside = source.host.startswith("192.168.")
        return (self.nat.outbound if is_inside else self.nat.inbound)(packet, self.now)

    def tcp(self, source: Endpoint, destination: Endpoint, flags: Flag) -> Decision:
        return self.send(source, destination, flags, Transport.TCP)

    def out(self, source: Endpoint, destination: Endpoint, transport: Transport = Transport.UDP) -> Endpoint:
        """Send from inside to outside; the external endpoint that is seen there."""
        flags = SYN if transport is Transport.TCP else NO_FLAGS
        packet = forwarded(self.send(source, destination, flags, transport))
        assert isinstance(packet, Packet)
        assert (packet.destination, packet.payload) == (destination, b"untouched")
        return packet.source

    def comes_to(self, source: Endpoint, destination: Endpoint) -> Endpoint | Reason:
        """Send from outside; the inside endpoint that gets it, or why none does."""
        decision = self.send(source, destination)
        if isinstance(decision, Dropped):
            return decision.reason
        packet = forwarded(decision)
        assert isinstance(packet, Packet)
        assert (packet.source, packet.payload) == (source, b"untouched")
        return packet.destination

    def admits(self, source: Endpoint, destination: Endpoint) -> bool:
        return isinstance(self.comes_to(source, destination), Endpoint)

    def fate(self, source: Endpoint, destination: Endpoint) -> Reason | None:
        """Why a packet ends here; None where it goes on."""
        return reason(self.send(source, destination))


def reason(decision: Decision) -> Reason | None:
    return decision.reason if isinstance(decision, Dropped) else None


def forwarded(decision: Decision) -> AnyPacket:
    assert isinstance(decision, (Forwarded, Hairpinned)), decision
    return decision.packet


def answer(decision: Decision) -> AnyPacket | None:
    """What the sender of a packet that ends here is told."""
    assert isinstance(decision, (Dropped, Delivered)), decision
    return decision.answer


def error(source: str, destination: str, inner: Packet) -> IcmpError:
    return IcmpError(source, destination, inner)
