"""STUN messages: bytes <-> values (RFC 8489, and the attributes of RFC 5780, RFC 8656 and RFC 8445).

Rule 1: hostile bytes raise `StunFormatError` and nothing else.
Rule 2: an attribute's format is data: one row of `_FORMATS`. An attribute that has no row is kept as its bytes, and
        `unknown_required` names it when its number says that it may not be skipped (RFC 8489 §14).
Rule 3: MESSAGE-INTEGRITY and FINGERPRINT are computed over bytes, so they are no attributes here: `encode` adds
        them, `Message.verify` checks the first against the bytes as they came, `decode` checks the second.

Passwords go into keys as they are: OpaqueString preparation (RFC 8265) is left out, because every name and password
of this testbed is ASCII that it made itself.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeAlias
from zlib import crc32

from testbed.datagram import Endpoint

MAGIC_COOKIE = 0x2112A442
HEADER_SIZE = 20
TRANSACTION_ID_SIZE = 12
_COOKIE = MAGIC_COOKIE.to_bytes(4, "big")
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_INTEGRITY, _FINGERPRINT = 0x0008, 0x8028
_INTEGRITY_SIZE, _FINGERPRINT_SIZE = 24, 8
_FINGERPRINT_XOR = 0x5354554E  # "STUN" (RFC 8489 §14.7)


class StunFormatError(ValueError):
    """These bytes are not a STUN message, or not a well-formed one."""


class Kind(IntEnum):
    """The class of a message (RFC 8489 §5)."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class Method(IntEnum):
    """RFC 8489 §3 and RFC 8656 §17."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009


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
Attributes: TypeAlias = "tuple[tuple[int, Value], ...]"


@dataclass(frozen=True, slots=True)
class Message:
    """One STUN message. Of an attribute that stands twice, the first counts (RFC 8489 §14)."""

    kind: Kind
    method: int
    transaction_id: bytes
    attributes: Attributes = ()
    raw: bytes = field(default=b"", compare=False, repr=False)
    """The bytes it was decoded from; empty on a message that was made here."""

    def has(self, attribute: Attribute) -> bool:
        """Whether it is there at all; all there is to say of a flag."""
        return any(number == attribute for number, _ in self.attributes)

    def endpoint(self, attribute: Attribute) -> Endpoint | None:
        """An address attribute, or None."""
        value = self._value(attribute)
        return value if isinstance(value, Endpoint) else None

    def text(self, attribute: Attribute) -> str | None:
        """A text attribute, or None."""
        value = self._value(attribute)
        return value if isinstance(value, str) else None

    def number(self, attribute: Attribute) -> int | None:
        """A numeric attribute, or None."""
        value = self._value(attribute)
        return value if isinstance(value, int) else None

    def data(self, attribute: Attribute) -> bytes | None:
        """An attribute of bytes, or None."""
        value = self._value(attribute)
        return value if isinstance(value, bytes) else None

    @property
    def error(self) -> ErrorCode | None:
        """ERROR-CODE, or None."""
        value = self._value(Attribute.ERROR_CODE)
        return value if isinstance(value, ErrorCode) else None

    @property
    def unknown_required(self) -> tuple[int, ...]:
        """Attributes that must be understood (numbers below 0x8000) and are not: answered with 420."""
        return tuple(number for number, _ in self.attributes if number < 0x8000 and number not in _FORMATS)

    def verify(self, key: bytes) -> bool:
        """Whether the bytes it came from carry MESSAGE-INTEGRITY made with this key (RFC 8489 §14.5)."""
        found = _find(self.raw, _INTEGRITY)
        if found is None:
            return False
        start, value = found
        signed = _with_length(self.raw[:start], start + _INTEGRITY_SIZE)
        return hmac.compare_digest(hmac.digest(key, signed, "sha1"), value)

    @property
    def has_integrity(self) -> bool:
        """Whether the bytes it came from carry MESSAGE-INTEGRITY, of whatever key."""
        return _find(self.raw, _INTEGRITY) is not None

    def _value(self, attribute: Attribute) -> Value:
        return next((value for number, value in self.attributes if number == attribute), None)


def request(method: Method, transaction_id: bytes, *attributes: tuple[Attribute, Value]) -> Message:
    """A request to be encoded."""
    return Message(Kind.REQUEST, method, transaction_id, attributes)


def answer(to: Message, *attributes: tuple[Attribute, Value]) -> Message:
    """The success response to a request."""
    return Message(Kind.SUCCESS, to.method, to.transaction_id, attributes)


def refusal(to: Message, code: int, phrase: str, *attributes: tuple[Attribute, Value]) -> Message:
    """The error response to a request."""
    error = (Attribute.ERROR_CODE, ErrorCode(code, phrase))
    return Message(Kind.ERROR, to.method, to.transaction_id, (error, *attributes))


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """The key of long-term credentials, by MD5 (RFC 8489 §9.2.2)."""
    return hashlib.md5(f"{username}:{realm}:{password}".encode(), usedforsecurity=False).digest()


def is_stun(data: bytes) -> bool:
    """Whether the first bytes are those of STUN (RFC 8489 §5, RFC 9443); the rest may still be malformed."""
    return len(data) >= HEADER_SIZE and data[0] < 4 and data[4:8] == _COOKIE


def encode(message: Message, *, key: bytes | None = None, fingerprint: bool = True) -> bytes:
    """Bytes of the message, with MESSAGE-INTEGRITY if there is a key."""
    mask = _COOKIE + message.transaction_id
    parts = [_encode_attribute(number, value, mask) for number, value in message.attributes]
    body = b"".join(parts)
    kind = message.kind
    number = (
        (message.method & 0xF80) << 2
        | (message.method & 0x070) << 1
        | (message.method & 0x00F)
        | (kind & 2) << 7
        | (kind & 1) << 4
    )
    data = _HEADER.pack(number, len(body), MAGIC_COOKIE, message.transaction_id) + body
    if key is not None:
        data = _with_length(data, len(data) + _INTEGRITY_SIZE)
        data += _ATTRIBUTE.pack(_INTEGRITY, 20) + hmac.digest(key, data, "sha1")
    if fingerprint:
        data = _with_length(data, len(data) + _FINGERPRINT_SIZE)
        data += _ATTRIBUTE.pack(_FINGERPRINT, 4) + (crc32(data) ^ _FINGERPRINT_XOR).to_bytes(4, "big")
    return data


def decode(data: bytes) -> Message:
    """The message in these bytes. Raises StunFormatError."""
    if not is_stun(data):
        raise StunFormatError("no STUN header")
    number, length, _, transaction_id = _HEADER.unpack_from(data)
    if length % 4 or length != len(data) - HEADER_SIZE:
        raise StunFormatError(f"the header says {length} bytes of attributes, {len(data) - HEADER_SIZE} are there")
    kind = Kind((number >> 7 & 2) | (number >> 4 & 1))
    method = (number >> 2 & 0xF80) | (number >> 1 & 0x070) | (number & 0x00F)
    mask = _COOKIE + transaction_id
    attributes: list[tuple[int, Value]] = []
    signed = False
    for start, attribute, value in _walk(data):
        if attribute == _FINGERPRINT:
            _check_fingerprint(data, start, value)
            break  # it is the last attribute (RFC 8489 §14.7)
        if signed:
            continue  # what follows MESSAGE-INTEGRITY is not covered by it, and ignored (RFC 8489 §14.5)
        if attribute == _INTEGRITY:
            signed = True
            if len(value) != 20:
                raise StunFormatError("MESSAGE-INTEGRITY is not 20 bytes")
            continue
        attributes.append((attribute, _decode_attribute(attribute, value, mask)))
    return Message(kind, method, transaction_id, tuple(attributes), data)


def _walk(data: bytes) -> Iterable[tuple[int, int, bytes]]:
    """(where it starts, number, value) of each attribute. Raises StunFormatError where one runs over the end."""
    position = HEADER_SIZE
    while position < len(data):
        attribute, size = _ATTRIBUTE.unpack_from(data, position)
        end = position + 4 + size
        if end > len(data):
            raise StunFormatError(f"attribute 0x{attribute:04x} runs over the end of the message")
        yield position, attribute, data[position + 4 : end]
        position = end + -size % 4


def _find(data: bytes, wanted: int) -> tuple[int, bytes] | None:
    return next(((start, value) for start, attribute, value in _walk(data) if attribute == wanted), None)


def _with_length(data: bytes, size: int) -> bytes:
    """The same bytes, their header saying that the message is *size* bytes long."""
    return data[:2] + (size - HEADER_SIZE).to_bytes(2, "big") + data[4:]


def _check_fingerprint(data: bytes, start: int, value: bytes) -> None:
    covered = _with_length(data[:start], start + _FINGERPRINT_SIZE)
    if value != (crc32(covered) ^ _FINGERPRINT_XOR).to_bytes(4, "big"):
        raise StunFormatError("FINGERPRINT does not fit")


# ---- the formats of attributes; `mask` is the cookie and the transaction id, which XOR addresses are hidden with


def _encode_attribute(number: int, value: Value, mask: bytes) -> bytes:
    row = _FORMATS.get(number)
    data = value if row is None and isinstance(value, bytes) else row.encode(value, mask) if row is not None else None
    if data is None:
        raise TypeError(f"attribute 0x{number:04x} cannot hold {value!r}")
    return _ATTRIBUTE.pack(number, len(data)) + data + bytes(-len(data) % 4)


def _decode_attribute(number: int, data: bytes, mask: bytes) -> Value:
    row = _FORMATS.get(number)
    if row is None:
        return data
    try:
        return row.decode(data, mask)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        raise StunFormatError(f"{Attribute(number).name} is malformed: {error}") from error


class _Format(NamedTuple):
    encode: Callable[[Value, bytes], bytes | None]
    decode: Callable[[bytes, bytes], Value]


def _encode_address(value: Value, mask: bytes = bytes(16)) -> bytes | None:
    if not isinstance(value, Endpoint):
        return None
    address = ip_address(value.host).packed
    family = 1 if len(address) == 4 else 2
    port = value.port ^ int.from_bytes(mask[:2], "big")
    return struct.pack("!BBH", 0, family, port) + _xor(address, mask)


def _decode_address(data: bytes, mask: bytes = bytes(16)) -> Endpoint:
    _, family, port = struct.unpack_from("!BBH", data)
    size = {1: 4, 2: 16}.get(family)
    if size is None or len(data) != 4 + size:
        raise ValueError(f"family {family} in {len(data)} bytes")
    address = _xor(data[4:], mask)
    host = IPv4Address(address) if size == 4 else IPv6Address(address)
    return Endpoint(str(host), port ^ int.from_bytes(mask[:2], "big"))


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
