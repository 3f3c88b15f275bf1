"""IPv4, UDP, TCP and ICMP as bytes: what a NAT reads of them, what it changes, what it says itself.

Rule 1: a packet is bytes from its IP header on, without what pads a short frame.
Rule 2: what is changed changes its checksum by the difference (RFC 1624): whatever else is in a packet stays as it is.
        One's complement sums are remainders by 65535, since 65536 leaves 1.
Rule 3: a packet whose checksums are wrong is no packet: like connection tracking, we look before we touch. A UDP
        datagram without a checksum (RFC 768) stays without one.
Rule 4: of fragments, and of what is neither UDP, TCP, a ping nor an error about one of these, nothing is read.
"""

from __future__ import annotations

import struct
from socket import inet_aton, inet_ntoa

from testbed.datagram import Endpoint
from testbed.nat.packet import AnyPacket, Echo, Flag, IcmpError, Packet, Transport

TIME_EXCEEDED, FRAGMENTATION_NEEDED = (11, 0), (3, 4)
"""ICMP type and code (RFC 792, RFC 1191)."""
TTL, DONT_FRAGMENT = 8, 0x40
"""Where the TTL stands; the flag, in the byte at `FLAGS`."""
FLAGS = 6
_PLAIN, _ICMP_HEADER = 20, 8
_ICMP, _TCP, _UDP = 1, 6, 17
_TRANSPORTS = {_TCP: Transport.TCP, _UDP: Transport.UDP}
_CHECKSUM_AT = {_TCP: 16, _UDP: 6}
_SHORTEST = {_TCP: 20, _UDP: 8, _ICMP: _ICMP_HEADER}
_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_ERRORS = (3, 11, 12)
_FRAGMENT = 0x3FFF
"""More fragments, or an offset."""
_ALL = 0xFFFF
_FLAGS_OF_TCP = tuple(Flag(number & 0x17) for number in range(256))
_HOME_TTL = 64
_QUOTED = 548
"""Bytes of a packet that an error carries: 576 in all (RFC 1812 §4.3.2.3)."""


def packet_of(frame: bytes) -> bytes | None:
    """The IP packet in an Ethernet frame; None where there is no whole one with a right header."""
    if frame[12:14] != b"\x08\x00" or len(frame) < 34 or frame[14] >> 4 != 4:
        return None
    start = (frame[14] & 15) * 4
    length = int.from_bytes(frame[16:18], "big")
    ip = frame[14 : 14 + length]
    if start < _PLAIN or length < start or len(ip) < length or int.from_bytes(ip[:start], "big") % _ALL:
        return None
    return ip


def source_of(ip: bytes) -> str:
    """The address that a packet comes from."""
    return inet_ntoa(ip[12:16])


def destination_of(ip: bytes) -> str:
    """The address that a packet is for."""
    return inet_ntoa(ip[16:20])


def read(ip: bytes) -> AnyPacket | None:
    """What a packet is to a NAT; None where it is nothing that can be translated."""
    start, protocol = (ip[0] & 15) * 4, ip[9]
    if (ip[6] << 8 | ip[7]) & _FRAGMENT or len(ip) < start + _SHORTEST.get(protocol, _ALL):
        return None
    if protocol == _ICMP:
        return _read_icmp(ip, start) if _sum(ip[start:]) == 0 else None
    if (protocol == _TCP or ip[start + 6 : start + 8] != b"\0\0") and _sum_with_pseudo_header(ip, start):
        return None
    flags = _FLAGS_OF_TCP[ip[start + 13] if protocol == _TCP else 0]
    return Packet(_TRANSPORTS[protocol], *_ends(ip, start), flags)


def rewritten(ip: bytes, packet: AnyPacket) -> bytes:
    """The same packet with the addresses and ports of `packet`, one hop further on."""
    out, start = bytearray(ip), (ip[0] & 15) * 4
    out[TTL] -= 1
    _adjust(out, 10, -0x100)
    if isinstance(packet, Packet):
        _readdress(out, 0, packet.source, packet.destination)
    elif isinstance(packet, Echo):
        _change(out, 12, inet_aton(packet.source) + inet_aton(packet.destination), 10)
        _change(out, start + 4, packet.identifier.to_bytes(2, "big"), start + 2)
    else:
        _change(out, 12, inet_aton(packet.source) + inet_aton(packet.destination), 10)
        _rewrite_quoted(out, start + _ICMP_HEADER, packet.inner)
        out[start + 2 : start + 4] = bytes(2)
        out[start + 2 : start + 4] = _checksum(_sum(bytes(out[start:])))
    return bytes(out)


def answer(packet: AnyPacket, ip: bytes) -> bytes:
    """What a NAT says itself to who sent `ip`: an error about it, a RST, or the reply to a ping."""
    match packet:
        case IcmpError():
            return icmp_error(packet.source, packet.destination, (packet.type, packet.code), ip)
        case Echo():
            out = bytearray(ip)
            out[TTL] = _HOME_TTL
            out[12:20] = inet_aton(packet.source) + inet_aton(packet.destination)
            start = (ip[0] & 15) * 4
            out[10:12] = bytes(2)
            out[10:12] = _checksum(_sum(bytes(out[:start])))
            _change(out, start, bytes((_ECHO_REPLY, ip[start + 1])), start + 2)
            return bytes(out)
        case _:
            return _reset(packet, ip)


def icmp_error(source: str, destination: str, kind: tuple[int, int], ip: bytes, *, mtu: int = 0) -> bytes:
    """An error about `ip`. `mtu`: of the link that it did not fit (RFC 1191)."""
    body = bytearray(struct.pack("!BBHHH", *kind, 0, 0, mtu) + ip[:_QUOTED])
    body[2:4] = _checksum(_sum(bytes(body)))
    return _header(source, destination, _ICMP, len(body)) + bytes(body)


# ---------------------------------------------------------------------------- reading


def _read_icmp(ip: bytes, start: int) -> AnyPacket | None:
    kind, code = ip[start], ip[start + 1]
    source, destination = inet_ntoa(ip[12:16]), inet_ntoa(ip[16:20])
    if kind in (_ECHO_REQUEST, _ECHO_REPLY):
        identifier = int.from_bytes(ip[start + 4 : start + 6], "big")
        return Echo(source, destination, identifier, kind == _ECHO_REQUEST)
    if kind not in _ERRORS:
        return None
    inner = _read_quoted(ip[start + _ICMP_HEADER :])
    return IcmpError(source, destination, inner, kind, code) if inner is not None else None


def _read_quoted(ip: bytes) -> Packet | Echo | None:
    """The packet that an error carries: its header and at least eight bytes."""
    start = (ip[0] & 15) * 4 if ip else 0
    if start < _PLAIN or len(ip) < start + 8 or int.from_bytes(ip[6:8], "big") & _FRAGMENT:
        return None
    if ip[9] == _ICMP:
        if ip[start] != _ECHO_REQUEST:
            return None
        identifier = int.from_bytes(ip[start + 4 : start + 6], "big")
        return Echo(inet_ntoa(ip[12:16]), inet_ntoa(ip[16:20]), identifier)
    transport = _TRANSPORTS.get(ip[9])
    return Packet(transport, *_ends(ip, start)) if transport is not None else None


def _ends(ip: bytes, start: int) -> tuple[Endpoint, Endpoint]:
    source, destination = struct.unpack_from("!HH", ip, start)
    return Endpoint(inet_ntoa(ip[12:16]), source), Endpoint(inet_ntoa(ip[16:20]), destination)


# ---------------------------------------------------------------------------- changing


def _readdress(out: bytearray, at: int, source: Endpoint, destination: Endpoint) -> None:
    """Give the packet whose IP header is at `at` other ends, and the checksums that go with them."""
    start, addresses = at + (out[at] & 15) * 4, inet_aton(source.host) + inet_aton(destination.host)
    ports = struct.pack("!HH", source.port, destination.port)
    difference = _number(addresses + ports) - _number(out[at + 12 : at + 20]) - _number(out[start : start + 4])
    _change(out, at + 12, addresses, at + 10)
    out[start : start + 4] = ports
    place = start + _CHECKSUM_AT[out[at + 9]]
    if place + 2 > len(out):  # an error may carry no more than eight bytes of a segment
        return
    if out[at + 9] != _UDP:
        _adjust(out, place, difference)
    elif out[place : place + 2] != b"\0\0":
        _adjust(out, place, difference)
        if out[place : place + 2] == b"\0\0":
            out[place : place + 2] = b"\xff\xff"


def _rewrite_quoted(out: bytearray, at: int, inner: Packet | Echo) -> None:
    if isinstance(inner, Packet):
        _readdress(out, at, inner.source, inner.destination)
        return
    start = at + (out[at] & 15) * 4
    _change(out, at + 12, inet_aton(inner.source) + inet_aton(inner.destination), at + 10)
    _change(out, start + 4, inner.identifier.to_bytes(2, "big"), start + 2)


def _change(out: bytearray, at: int, data: bytes, checksum_at: int) -> None:
    """Put other bytes in a place of even length, and let the checksum follow."""
    difference = _number(data) - _number(out[at : at + len(data)])
    out[at : at + len(data)] = data
    _adjust(out, checksum_at, difference)


def _adjust(out: bytearray, at: int, difference: int) -> None:
    old = _ALL - (out[at] << 8 | out[at + 1])
    out[at : at + 2] = _checksum(old + difference)


# ---------------------------------------------------------------------------- what is made


def _reset(packet: Packet, ip: bytes) -> bytes:
    """RFC 9293 §3.10.7.1: the RST that a closed port answers with."""
    start = (ip[0] & 15) * 4
    sequence, acknowledged = struct.unpack_from("!II", ip, start + 4)
    offset, flags = ip[start + 12] >> 4, _FLAGS_OF_TCP[ip[start + 13]]
    length = len(ip) - start - offset * 4 + bool(flags & Flag.SYN) + bool(flags & Flag.FIN)
    own, answered = (acknowledged, 0) if flags & Flag.ACK else (0, (sequence + length) & 0xFFFF_FFFF)
    ports = (packet.source.port, packet.destination.port)
    segment = struct.pack("!HHIIBBHHH", *ports, own, answered, 5 << 4, packet.flags, 0, 0, 0)
    made = bytearray(_header(packet.source.host, packet.destination.host, _TCP, len(segment)) + segment)
    made[36:38] = _checksum(_sum_with_pseudo_header(bytes(made), _PLAIN))
    return bytes(made)


def _header(source: str, destination: str, protocol: int, length: int) -> bytes:
    addresses = inet_aton(source) + inet_aton(destination)
    made = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, _PLAIN + length, 0, 0, _HOME_TTL, protocol, 0) + addresses)
    made[10:12] = _checksum(_sum(bytes(made)))
    return bytes(made)


def _number(data: bytes | bytearray) -> int:
    return int.from_bytes(data, "big")


def _sum(data: bytes) -> int:
    """The one's complement sum of 16-bit words."""
    return _number(data if len(data) % 2 == 0 else data + b"\0") % _ALL


def _sum_with_pseudo_header(ip: bytes, start: int) -> int:
    return (_number(ip[12:20]) + ip[9] + len(ip) - start + _sum(ip[start:])) % _ALL


def _checksum(total: int) -> bytes:
    """What completes a sum."""
    return ((_ALL - total) % _ALL).to_bytes(2, "big")
