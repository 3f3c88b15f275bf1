"""STUN messages: bytes <-> values (RFC 8489, and the attributes of RFC 5780, RFC 8656 and RFC 8445).

Rule 1: hostile bytes raise `StunFormatError` and nothing else.
Rule 2: an attribute that has no format in `stun_attributes` is kept as its bytes, and `unknown_required` names it when
        its number says that it may not be skipped (RFC 8489 §14).
Rule 3: MESSAGE-INTEGRITY and FINGERPRINT are computed over bytes, so they are no attributes here: `encode` adds
        them, `Message.verify` checks the first against the bytes as they came, `decode` checks the second.

Passwords go into keys as they are: OpaqueString preparation (RFC 8265) is left out, because every name and password
of this testbed is ASCII that it made itself.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias
from zlib import crc32

from testbed.datagram import Endpoint
from testbed.traversal.stun_attributes import (
    ATTRIBUTE_HEADER,
    Attribute,
    ErrorCode,
    StunFormatError,
    Value,
    decode_attribute,
    encode_attribute,
    is_known,
)

MAGIC_COOKIE = 0x2112A442
HEADER_SIZE = 20
TRANSACTION_ID_SIZE = 12
_COOKIE = MAGIC_COOKIE.to_bytes(4, "big")
_HEADER = struct.Struct("!HHI12s")
_INTEGRITY, _FINGERPRINT = 0x0008, 0x8028
_INTEGRITY_SIZE, _FINGERPRINT_SIZE = 24, 8
_FINGERPRINT_XOR = 0x5354554E  # "STUN" (RFC 8489 §14.7)


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
        return tuple(number for number, _ in self.attributes if number < 0x8000 and not is_known(number))

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
    parts = [encode_attribute(number, value, mask) for number, value in message.attributes]
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
        data += ATTRIBUTE_HEADER.pack(_INTEGRITY, 20) + hmac.digest(key, data, "sha1")
    if fingerprint:
        data = _with_length(data, len(data) + _FINGERPRINT_SIZE)
        data += ATTRIBUTE_HEADER.pack(_FINGERPRINT, 4) + (crc32(data) ^ _FINGERPRINT_XOR).to_bytes(4, "big")
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
        attributes.append((attribute, decode_attribute(attribute, value, mask)))
    return Message(kind, method, transaction_id, tuple(attributes), data)


def _walk(data: bytes) -> Iterable[tuple[int, int, bytes]]:
    """(where it starts, number, value) of each attribute. Raises StunFormatError where one runs over the end."""
    position = HEADER_SIZE
    while position < len(data):
        attribute, size = ATTRIBUTE_HEADER.unpack_from(data, position)
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
