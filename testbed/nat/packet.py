"""What a NAT is shown, and what it decides.

Rule 1: a packet is a value. A NAT that translates one makes another; `payload` goes through unread.
Rule 2: a decision says all that happens: where the packet goes on, or why it does not, and what its sender is told.
Rule 3: reasons are the words that the kernel's rules count by (a test compares them).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import NamedTuple, TypeAlias

from testbed.datagram import Endpoint

DESTINATION_UNREACHABLE = 3
"""ICMP type (RFC 792)."""
PORT_UNREACHABLE = 3
"""Code of that type."""


class Transport(StrEnum):
    """What has ports."""

    UDP = "udp"
    TCP = "tcp"


class Flag(IntFlag):
    """TCP's flags that a NAT looks at, as they stand in the header."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    ACK = 0x10


NO_FLAGS = Flag(0)


class Packet(NamedTuple):
    """A UDP datagram or a TCP segment. A named tuple, because a prediction makes a hundred thousand of them."""

    transport: Transport
    source: Endpoint
    destination: Endpoint
    flags: Flag = NO_FLAGS
    """Of a TCP segment."""
    payload: object = None
    """Whatever the caller wants to find again behind the NAT."""

    def sent_from(self, source: Endpoint) -> Packet:
        """The same packet from another source."""
        return Packet(self.transport, source, self.destination, self.flags, self.payload)

    def sent_to(self, destination: Endpoint) -> Packet:
        """The same packet to another destination."""
        return Packet(self.transport, self.source, destination, self.flags, self.payload)


@dataclass(frozen=True, slots=True)
class Echo:
    """A ping, or the answer to one (RFC 792)."""

    source: str
    destination: str
    identifier: int
    """What tells one asker's pings from another's."""
    is_request: bool = True

    def seen_as(self, *, source: str | None = None, destination: str | None = None, identifier: int) -> Echo:
        """The same from or to somebody else."""
        return Echo(source or self.source, destination or self.destination, identifier, self.is_request)

    def answered(self) -> Echo:
        """The reply to it."""
        return Echo(self.destination, self.source, self.identifier, is_request=False)


@dataclass(frozen=True, slots=True)
class IcmpError:
    """What became of a packet, told to its sender: destination unreachable, time exceeded, parameter problem."""

    source: str
    """Address of who tells."""
    destination: str
    """Address of who sent the packet."""
    inner: Packet | Echo
    """The packet, as it was where the error arose."""
    type: int = DESTINATION_UNREACHABLE
    code: int = PORT_UNREACHABLE
    payload: object = None


AnyPacket: TypeAlias = "Packet | Echo | IcmpError"


class Reason(StrEnum):
    """Why a packet is dropped."""

    NO_MAPPING = "no-mapping"
    """It came from outside, for an endpoint that is assigned to nobody."""
    NO_PERMISSION = "no-permission"
    """There is a mapping, but its filter does not admit this remote."""
    PORT_EXHAUSTED = "port-exhausted"
    """No external port is free for a new mapping."""
    TABLE_FULL = "table-full"
    """There are as many mappings as the profile allows."""
    UDP_BLOCKED = "udp-blocked"
    """The network forwards no UDP."""
    NOT_TRANSLATED = "not-translated"
    """It is nothing that can be translated: a stranger's source address, a segment or an error of no connection."""
    HAIRPIN_REFUSED = "hairpin-refused"
    """An inside host asks for an external endpoint of its own NAT."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """It goes on to the other side."""

    packet: AnyPacket


@dataclass(frozen=True, slots=True)
class Hairpinned:
    """It goes back to the side that it came from, to another inside host."""

    packet: Packet


@dataclass(frozen=True, slots=True)
class Delivered:
    """The NAT's own stack takes it; nobody listens there, and `answer` goes back to the sender."""

    answer: AnyPacket | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """It ends here."""

    reason: Reason
    answer: AnyPacket | None = None
    """What goes back to the sender; None where it is left in the dark."""


Decision: TypeAlias = "Forwarded | Hairpinned | Delivered | Dropped"


def unreachable(packet: Packet) -> IcmpError:
    """`Port unreachable`, from the address that was asked."""
    return IcmpError(packet.destination.host, packet.source.host, packet)


def reset(packet: Packet) -> Packet | None:
    """The RST that answers a segment; a RST has no answer (RFC 9293 §3.5.2), and an ACK is not acknowledged."""
    if Flag.RST in packet.flags:
        return None
    flags = Flag.RST if Flag.ACK in packet.flags else Flag.RST | Flag.ACK
    return Packet(packet.transport, packet.destination, packet.source, flags)
