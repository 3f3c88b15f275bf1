"""Packets that no socket would send, and what raw sockets hear: the one door to scapy.

Rule 1: scapy is imported when the first packet is made (a third of a second); whoever forks calls `warm` before.
Rule 2: packets are bytes from the IP header on; scapy computes lengths and checksums, and sends nothing itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from ipaddress import IPv4Address
from typing import Any

from testbed.datagram import Endpoint

TIME_EXCEEDED = 11
"""The ICMP error of a router on the way (RFC 792)."""
_ERRORS = (3, TIME_EXCEEDED, 12)
"""Destination unreachable, time exceeded, parameter problem."""
_IP, _ICMP = 20, 8
_PROTOCOL, _SOURCE, _DESTINATION, _UDP_CHECKSUM = 9, 12, 16, 26
SYN, ACK, SYN_ACK = "S", "A", "SA"


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment, as far as anybody here looks."""

    source: Endpoint
    destination: Endpoint
    flags: str
    """As scapy writes them: `S`, `SA`, `PA`, `R`."""
    sequence: int
    acknowledged: int


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error, and which packet it is about."""

    kind: int
    reporter: str
    source: Endpoint
    """Of the packet that it is about."""
    destination: Endpoint


def warm() -> None:
    """Import scapy now."""
    _layers()


def segment(source: Endpoint, destination: Endpoint, flags: str, sequence: int, acknowledged: int = 0) -> bytes:
    """A TCP segment without data and options."""
    layers = _layers()
    tcp = layers.TCP(sport=source.port, dport=destination.port, flags=flags, seq=sequence, ack=acknowledged)
    return bytes(layers.IP(src=source.host, dst=destination.host) / tcp)


def time_exceeded(reporter: str, source: Endpoint, destination: Endpoint) -> bytes:
    """What a router at `reporter` tells `source` of a UDP datagram to `destination`, as the router saw it."""
    layers = _layers()
    about = layers.IP(src=source.host, dst=destination.host, ttl=1) / layers.UDP(
        sport=source.port, dport=destination.port
    )
    return bytes(layers.IP(src=reporter, dst=source.host) / layers.ICMP(type=TIME_EXCEEDED) / about / bytes(8))


def datagrams(sources: Iterable[Endpoint], destination: Endpoint, data: bytes) -> list[bytes]:
    """UDP datagrams from any addresses: one is made, the others differ by source and checksum (RFC 1624).

    The checksum of the IP header is the kernel's to fill in (raw(7)).
    """
    layers = _layers()
    udp = layers.UDP(sport=0, dport=destination.port)
    pattern = bytearray(bytes(layers.IP(src="0.0.0.0", dst=destination.host) / udp / data))
    (base,) = struct.unpack_from("!H", pattern, _UDP_CHECKSUM)
    packets = []
    for source in sources:
        address = IPv4Address(source.host).packed
        total = (~base & 0xFFFF) + sum(struct.unpack("!HH", address)) + source.port
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        pattern[_SOURCE : _SOURCE + 4] = address
        struct.pack_into("!H", pattern, _IP, source.port)
        struct.pack_into("!H", pattern, _UDP_CHECKSUM, ~total & 0xFFFF or 0xFFFF)
        packets.append(bytes(pattern))
    return packets


def read_segment(packet: bytes) -> Segment | None:
    """The TCP segment in a packet; None where there is none."""
    layers = _layers()
    ip = layers.IP(packet)
    if not ip.haslayer(layers.TCP):
        return None
    tcp = ip[layers.TCP]
    return Segment(Endpoint(ip.src, tcp.sport), Endpoint(ip.dst, tcp.dport), str(tcp.flags), int(tcp.seq), int(tcp.ack))


def read_icmp_error(packet: bytes) -> IcmpError | None:
    """The ICMP error about a UDP or TCP packet; None where it is something else. Needs no scapy.

    Neither IP header has options: nobody in a lab sends any.
    """
    if len(packet) < _IP + _ICMP + _IP + 4 or packet[_PROTOCOL] != 1 or packet[_IP] not in _ERRORS:
        return None
    about = packet[_IP + _ICMP :]
    if about[_PROTOCOL] not in (6, 17):
        return None
    source_port, destination_port = struct.unpack_from("!HH", about, _IP)
    return IcmpError(
        packet[_IP],
        _address(packet, _SOURCE),
        Endpoint(_address(about, _SOURCE), source_port),
        Endpoint(_address(about, _DESTINATION), destination_port),
    )


def _address(packet: bytes, at: int) -> str:
    return str(IPv4Address(packet[at : at + 4]))


def _layers() -> Any:
    return import_module("scapy.layers.inet")
