"""Wire formats of the two QUIC extensions, as pure functions of bytes.

    draft-ietf-quic-address-discovery-00    OBSERVED_ADDRESS: how the other end sees us on this path
    draft-seemann-quic-nat-traversal-02     ADD_ADDRESS, PUNCH_ME_NOW, REMOVE_ADDRESS: candidates and rounds

Rule 1: integers are the variable-length ones of RFC 9000 §16; a frame's type is one too, and takes four bytes.
Rule 2: an address is 4 or 16 bytes and a port in network byte order; the last bit of the type says which.
Rule 3: what comes from the other end is hostile until read: `FrameFormatError` and nothing else is raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from testbed.datagram import Endpoint

NAT_TRAVERSAL_PARAMETER = 0x3D7E9F0BCA12FEA6
"""Empty from a client; from a server how many pairs it probes in a round, at least one."""
ADDRESS_DISCOVERY_PARAMETER = 0x9F81A176

OBSERVED_ADDRESS, ADD_ADDRESS, PUNCH_ME_NOW, REMOVE_ADDRESS = 0x9F81A6, 0x3D7E90, 0x3D7E92, 0x3D7E94
"""Frame types. With an address in them: plus one for IPv6."""
OBSERVED_ADDRESS_TYPES = frozenset({OBSERVED_ADDRESS, OBSERVED_ADDRESS + 1})
FRAME_TYPES = OBSERVED_ADDRESS_TYPES | frozenset(range(ADD_ADDRESS, REMOVE_ADDRESS + 1))

_VARINT_SIZES = ((1 << 6, 1), (1 << 14, 2), (1 << 30, 4), (1 << 62, 8))


class FrameFormatError(ValueError):
    """These bytes are not the frame or the parameter that they should be."""


class Discovery(IntEnum):
    """What an end says of OBSERVED_ADDRESS in its transport parameter."""

    PROVIDES = 0
    WANTS = 1
    BOTH = 2

    @property
    def provides(self) -> bool:
        """Whether this end sends the frame to one that wants it."""
        return self is not Discovery.WANTS

    @property
    def wants(self) -> bool:
        """Whether this end may be sent the frame."""
        return self is not Discovery.PROVIDES


@dataclass(frozen=True, slots=True)
class ObservedAddress:
    """Either way: the receiver's address as the sender sees it on the path that this comes by."""

    sequence: int
    address: Endpoint


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Server to client: a candidate of the server."""

    sequence: int
    address: Endpoint


@dataclass(frozen=True, slots=True)
class PunchMeNow:
    """Client to server: probe this address of mine at once, from your candidate of that number."""

    round: int
    paired_with: int
    address: Endpoint


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Server to client: the candidate of that number is gone."""

    sequence: int


Frame: TypeAlias = "ObservedAddress | AddAddress | PunchMeNow | RemoveAddress"


def encode_varint(value: int) -> bytes:
    """The shortest form. Raises FrameFormatError where it does not fit."""
    for limit, size in _VARINT_SIZES:
        if 0 <= value < limit:
            return (value | (size.bit_length() - 1) << (8 * size - 2)).to_bytes(size, "big")
    raise FrameFormatError(f"{value} does not fit into 62 bits")


def decode_varint(data: bytes, offset: int) -> tuple[int, int]:
    """(value, offset behind it)."""
    if offset >= len(data):
        raise FrameFormatError("the bytes end where an integer should begin")
    size = 1 << (data[offset] >> 6)
    if offset + size > len(data):
        raise FrameFormatError("the bytes end within an integer")
    return int.from_bytes(data[offset : offset + size], "big") & (1 << (8 * size - 2)) - 1, offset + size


def type_of(frame: Frame) -> int:
    """The frame's type."""
    match frame:
        case ObservedAddress(address=address):
            return OBSERVED_ADDRESS + _is_ipv6(address)
        case AddAddress(address=address):
            return ADD_ADDRESS + _is_ipv6(address)
        case PunchMeNow(address=address):
            return PUNCH_ME_NOW + _is_ipv6(address)
        case RemoveAddress():
            return REMOVE_ADDRESS


def encode_body(frame: Frame) -> bytes:
    """What follows the type."""
    match frame:
        case ObservedAddress(sequence, address) | AddAddress(sequence, address):
            return encode_varint(sequence) + _encode_address(address)
        case PunchMeNow(number, paired_with, address):
            return encode_varint(number) + encode_varint(paired_with) + _encode_address(address)
        case RemoveAddress(sequence):
            return encode_varint(sequence)


def encode(frame: Frame) -> bytes:
    """The whole frame."""
    return encode_varint(type_of(frame)) + encode_body(frame)


def decode_body(frame_type: int, data: bytes) -> tuple[Frame, int]:
    """The frame of a type in `FRAME_TYPES` whose body begins *data*, and the body's length."""
    if frame_type not in FRAME_TYPES:
        raise FrameFormatError(f"0x{frame_type:x} is none of these frames")
    number, offset = decode_varint(data, 0)
    if frame_type == REMOVE_ADDRESS:
        return RemoveAddress(number), offset
    base = frame_type & ~1
    paired_with = 0
    if base == PUNCH_ME_NOW:
        paired_with, offset = decode_varint(data, offset)
    address, offset = _decode_address(data, offset, is_ipv6=bool(frame_type & 1))
    if base == PUNCH_ME_NOW:
        return PunchMeNow(number, paired_with, address), offset
    kind = AddAddress if base == ADD_ADDRESS else ObservedAddress
    return kind(number, address), offset


def encode_parameter(identifier: int, value: bytes) -> bytes:
    """One transport parameter (RFC 9000 §18)."""
    return encode_varint(identifier) + encode_varint(len(value)) + value


def decode_parameters(data: bytes) -> dict[int, bytes]:
    """All transport parameters by their identifier. One that comes twice is an error (RFC 9000 §7.4)."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset < len(data):
        identifier, offset = decode_varint(data, offset)
        length, offset = decode_varint(data, offset)
        if identifier in found or offset + length > len(data):
            raise FrameFormatError(f"transport parameter 0x{identifier:x} comes twice or is cut off")
        found[identifier] = data[offset : offset + length]
        offset += length
    return found


def decode_integer(value: bytes) -> int:
    """A transport parameter that is one integer and nothing else."""
    number, end = decode_varint(value, 0)
    if end != len(value):
        raise FrameFormatError(f"{value.hex()} is more than one integer")
    return number


def _is_ipv6(address: Endpoint) -> bool:
    return ":" in address.host


def _encode_address(address: Endpoint) -> bytes:
    packed = IPv6Address(address.host).packed if _is_ipv6(address) else IPv4Address(address.host).packed
    return packed + address.port.to_bytes(2, "big")


def _decode_address(data: bytes, offset: int, *, is_ipv6: bool) -> tuple[Endpoint, int]:
    end = offset + (16 if is_ipv6 else 4)
    if end + 2 > len(data):
        raise FrameFormatError("the bytes end within an address")
    packed, port = data[offset:end], int.from_bytes(data[end : end + 2], "big")
    if port == 0:
        raise FrameFormatError("nothing can be sent to port 0")
    return Endpoint(str(IPv6Address(packed)) if is_ipv6 else str(IPv4Address(packed)), port), end + 2
