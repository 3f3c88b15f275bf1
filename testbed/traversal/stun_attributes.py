"""The attributes of STUN messages: numbers, and formats as data (RFC 8489, RFC 5780, RFC 8656, RFC 8445).

Rule 1: an attribute's format is one row of `_FORMATS`. An attribute that has no row is kept as its bytes.
Rule 2: `mask` is the cookie and the transaction id, which XOR addresses are hidden with (RFC 8489 §14.2).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum, IntFlag
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeAlias

from testbed.datagram import Endpoint

ATTRIBUTE_HEADER = struct.Struct("!HH")
"""Number, and size of the value without its padding."""


class StunFormatError(ValueError):
    """These bytes are not a STUN message, or not a well-formed one."""


class Attribute(IntEnum):
    """Attributes that have a format of their own here; the rest are kept as bytes."""

    MAPPED_ADDRESS = 0x0001
    CHANGE_REQUEST = 0x0003
    USERNAME = 0x0006
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    EVEN_PORT = 0x0018
    REQUESTED_TRANSPORT = 0x0019
    DONT_FRAGMENT = 0x001A
    XOR_MAPPED_ADDRESS = 0x0020
    RESERVATION_TOKEN = 0x0022
    PRIORITY = 0x0024
    USE_CANDIDATE = 0x0025
    PADDING = 0x0026
    RESPONSE_PORT = 0x0027
    ADDITIONAL_ADDRESS_FAMILY = 0x8000
    SOFTWARE = 0x8022
    ALTERNATE_SERVER = 0x8023
    ICE_CONTROLLED = 0x8029
    ICE_CONTROLLING = 0x802A
    RESPONSE_ORIGIN = 0x802B
    OTHER_ADDRESS = 0x802C


class Change(IntFlag):
    """The bits of CHANGE-REQUEST (RFC 5780 §7.2): which part of its address the server answers from another of."""

    NOTHING = 0
    PORT = 0x02
    ADDRESS = 0x04


class ErrorCode(NamedTuple):
    """ERROR-CODE: a number of 300 to 699 and a phrase for people (RFC 8489 §14.8)."""

    code: int
    phrase: str = ""


Value: TypeAlias = "Endpoint | ErrorCode | str | bytes | int | tuple[int, ...] | None"


def encode_attribute(number: int, value: Value, mask: bytes) -> bytes:
    """The attribute with its header and padding. Raises TypeError where it cannot hold the value."""
    row = _FORMATS.get(number)
    data = value if row is None and isinstance(value, bytes) else row.encode(value, mask) if row is not None else None
    if data is None:
        raise TypeError(f"attribute 0x{number:04x} cannot hold {value!r}")
    return ATTRIBUTE_HEADER.pack(number, len(data)) + data + bytes(-len(data) % 4)


def decode_attribute(number: int, data: bytes, mask: bytes) -> Value:
    """The value behind a header. Raises StunFormatError."""
    row = _FORMATS.get(number)
    if row is None:
        return data
    try:
        return row.decode(data, mask)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        raise StunFormatError(f"{Attribute(number).name} is malformed: {error}") from error


def is_known(number: int) -> bool:
    """Whether the attribute has a format."""
    return number in _FORMATS


class _Format(NamedTuple):
    encode: Callable[[Value, bytes], bytes | None]
    decode: Callable[[bytes, bytes], Value]


def _encode_address(value: Value, mask: bytes = bytes(16)) -> bytes | None:
    if not isinstance(value, Endpoint):
        return None
    address = _packed(value.host)
    family = 1 if len(address) == 4 else 2
    port = value.port ^ int.from_bytes(mask[:2], "big")
    return struct.pack("!BBH", 0, family, port) + _xor(address, mask)


def _decode_address(data: bytes, mask: bytes = bytes(16)) -> Endpoint:
    _, family, port = struct.unpack_from("!BBH", data)
    size = {1: 4, 2: 16}.get(family)
    if size is None or len(data) != 4 + size:
        raise ValueError(f"family {family} in {len(data)} bytes")
    address = _xor(data[4:], mask)
    return Endpoint(_text(address), port ^ int.from_bytes(mask[:2], "big"))


@lru_cache(maxsize=1024)
def _packed(host: str) -> bytes:
    return ip_address(host).packed


@lru_cache(maxsize=1024)
def _text(address: bytes) -> str:
    return str(IPv4Address(address) if len(address) == 4 else IPv6Address(address))


def _xor(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes(mask[:size], "big")).to_bytes(size, "big")


def _encode_error(value: Value, mask: bytes) -> bytes | None:
    if not isinstance(value, ErrorCode):
        return None
    return struct.pack("!HBB", 0, value.code // 100, value.code % 100) + value.phrase.encode()


def _decode_error(data: bytes, mask: bytes) -> ErrorCode:
    _, hundreds, rest = struct.unpack_from("!HBB", data)
    code = (hundreds & 7) * 100 + rest
    if not 300 <= code <= 699 or rest > 99:
        raise ValueError(f"error code {code}")
    return ErrorCode(code, data[4:].decode())


def _encode_list(value: Value, mask: bytes) -> bytes | None:
    if not isinstance(value, tuple) or isinstance(value, (Endpoint, ErrorCode)):
        return None
    return struct.pack(f"!{len(value)}H", *value)


def _decode_list(data: bytes, mask: bytes) -> tuple[int, ...]:
    return struct.unpack(f"!{len(data) // 2}H", data)


def _number(layout: str) -> _Format:
    """A number at the front; what is reserved behind it is sent as zero and ignored."""
    packer = struct.Struct(layout)

    def read(data: bytes, mask: bytes) -> int:
        if len(data) != packer.size:
            raise ValueError(f"{len(data)} bytes instead of {packer.size}")
        return int(packer.unpack(data)[0])

    return _Format(lambda value, mask: packer.pack(value) if isinstance(value, int) else None, read)


def _decode_flag(data: bytes, mask: bytes) -> None:
    if data:
        raise ValueError("a flag has no value")


_PLAIN_ADDRESS = _Format(lambda value, mask: _encode_address(value), lambda data, mask: _decode_address(data))
_XOR_ADDRESS = _Format(_encode_address, _decode_address)
_TEXT = _Format(lambda v, mask: v.encode() if isinstance(v, str) else None, lambda data, mask: data.decode())
_BYTES = _Format(lambda v, mask: v if isinstance(v, bytes) else None, lambda data, mask: data)
_FLAG = _Format(lambda v, mask: b"" if v is None else None, _decode_flag)
_U8, _U8_PADDED, _U16_PADDED, _U32, _U64 = map(_number, ("!B", "!B3x", "!H2x", "!I", "!Q"))

_FORMATS: dict[int, _Format] = {
    Attribute.MAPPED_ADDRESS: _PLAIN_ADDRESS,
    Attribute.CHANGE_REQUEST: _U32,
    Attribute.USERNAME: _TEXT,
    Attribute.ERROR_CODE: _Format(_encode_error, _decode_error),
    Attribute.UNKNOWN_ATTRIBUTES: _Format(_encode_list, _decode_list),
    Attribute.CHANNEL_NUMBER: _U16_PADDED,
    Attribute.LIFETIME: _U32,
    Attribute.XOR_PEER_ADDRESS: _XOR_ADDRESS,
    Attribute.DATA: _BYTES,
    Attribute.REALM: _TEXT,
    Attribute.NONCE: _TEXT,
    Attribute.XOR_RELAYED_ADDRESS: _XOR_ADDRESS,
    Attribute.REQUESTED_ADDRESS_FAMILY: _U8_PADDED,
    Attribute.EVEN_PORT: _U8,
    Attribute.REQUESTED_TRANSPORT: _U8_PADDED,
    Attribute.DONT_FRAGMENT: _FLAG,
    Attribute.XOR_MAPPED_ADDRESS: _XOR_ADDRESS,
    Attribute.RESERVATION_TOKEN: _BYTES,
    Attribute.PRIORITY: _U32,
    Attribute.USE_CANDIDATE: _FLAG,
    Attribute.PADDING: _BYTES,
    Attribute.RESPONSE_PORT: _U16_PADDED,
    Attribute.ADDITIONAL_ADDRESS_FAMILY: _U8_PADDED,
    Attribute.SOFTWARE: _TEXT,
    Attribute.ALTERNATE_SERVER: _PLAIN_ADDRESS,
    Attribute.ICE_CONTROLLED: _U64,
    Attribute.ICE_CONTROLLING: _U64,
    Attribute.RESPONSE_ORIGIN: _PLAIN_ADDRESS,
    Attribute.OTHER_ADDRESS: _PLAIN_ADDRESS,
}
