"""Packets as a pcapng file: one interface block a capture point, comments on packets, TLS secrets.

Rule 1: times are nanoseconds since 1970, one clock for all points (if_tsresol 9).
Rule 2: TLS secrets are a block of the file, before the packets that they open, so that a reader needs no option for
        them. (What travels through the relay is inside TURN, where tshark looks for no QUIC: docs/design.md.)
Rule 3: what is read back is what was written, or it is refused: a file of another program, another clock, half a file.

Format: draft-ietf-opsawg-pcapng. Written here because what there is in Python writes a few thousand packets a second
or knows no secrets block; it is four kinds of blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from testbed.errors import UsageError

LINKTYPE_ETHERNET = 1
_SECTION, _INTERFACE, _PACKET, _SECRETS = 0x0A0D0D0A, 1, 6, 0x0000000A
_MAGIC = 0x1A2B3C4D
_TLS_KEY_LOG = 0x544C534B
_OPT_COMMENT, _IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL, _OPT_USER_APPLICATION = 1, 2, 3, 9, 4
_APPLICATION, _NANOSECONDS = b"testbed", b"\x09"


class Point(NamedTuple):
    """Where packets were captured."""

    name: str
    """`nat_a/wan0`."""
    description: str = ""
    largest: int = 65535


class Seen(NamedTuple):
    """One packet at one point."""

    point: int
    """Which, by its place in the list of points."""
    time: int
    """Nanoseconds since 1970."""
    length: int
    """Bytes on the wire."""
    data: bytes
    comment: str = ""


def encode(
    points: Sequence[Point], packets: Iterable[Seen], secrets: Sequence[str] = (), comment: str = ""
) -> Iterator[bytes]:
    """The file, block by block. `secrets`: lines of a TLS key log. `comment`: about the whole."""
    application = _option(_OPT_USER_APPLICATION, _APPLICATION)
    about = _option(_OPT_COMMENT, comment.encode()) if comment else b""
    yield _block(_SECTION, struct.pack("<IHHq", _MAGIC, 1, 0, -1) + _options(about + application))
    for point in points:
        options = _option(_IF_NAME, point.name.encode()) + _option(_IF_TSRESOL, _NANOSECONDS)
        if point.description:
            options += _option(_IF_DESCRIPTION, point.description.encode())
        yield _block(_INTERFACE, struct.pack("<HHI", LINKTYPE_ETHERNET, 0, point.largest) + _options(options))
    if secrets:
        text = "".join(f"{line.rstrip()}\n" for line in secrets).encode()
        yield _block(_SECRETS, struct.pack("<II", _TLS_KEY_LOG, len(text)) + _padded(text))
    for packet in packets:
        head = struct.pack(
            "<IIIII", packet.point, packet.time >> 32, packet.time & 0xFFFFFFFF, len(packet.data), packet.length
        )
        options = _options(_option(_OPT_COMMENT, packet.comment.encode())) if packet.comment else b""
        yield _block(_PACKET, head + _padded(packet.data) + options)


class Recorded(NamedTuple):
    """A file that was read."""

    points: tuple[Point, ...]
    packets: tuple[Seen, ...]
    secrets: tuple[str, ...] = ()
    comment: str = ""


def decode(data: bytes) -> Recorded:
    """The inverse of `encode`. Raises UsageError where `encode` has not written this, or not all of it is there."""
    points: list[Point] = []
    packets: list[Seen] = []
    secrets: list[str] = []
    comment, is_begun = "", False
    try:
        for kind, body in _blocks(data):
            if is_begun is (kind == _SECTION):
                raise UsageError("it does not begin with one section, which is the only one")
            if kind == _SECTION:
                comment, is_begun = _read_section(body), True
            elif kind == _INTERFACE:
                points.append(_read_point(body))
            elif kind == _SECRETS:
                secrets += _read_secrets(body)
            elif kind == _PACKET:
                packets.append(_read_packet(body, len(points)))
            else:
                raise UsageError(f"blocks of kind {kind:#x} are not read here")
        if not is_begun:
            raise UsageError("it is empty")
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise UsageError(f"a block makes no sense: {error}") from None
    return Recorded(tuple(points), tuple(packets), tuple(secrets), comment)


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        kind, length = struct.unpack_from("<II", data, offset)
        end = offset + length
        if length < 12 or length % 4 or end > len(data) or struct.unpack_from("<I", data, end - 4)[0] != length:
            raise UsageError(f"it breaks off in the block at byte {offset}")
        yield kind, data[offset + 8 : end - 4]
        offset = end


def _read_options(data: bytes) -> dict[int, bytes]:
    found, offset = {}, 0
    while offset < len(data):
        code, length = struct.unpack_from("<HH", data, offset)
        if code == 0:
            break
        if offset + 4 + length > len(data):
            raise UsageError("an option is longer than its block")
        found[code] = data[offset + 4 : offset + 4 + length]
        offset += 4 + length + -length % 4
    return found


def _read_section(body: bytes) -> str:
    magic, major, _, _ = struct.unpack_from("<IHHq", body)
    options = _read_options(body[16:])
    if magic != _MAGIC or major != 1 or options.get(_OPT_USER_APPLICATION) != _APPLICATION:
        raise UsageError("another program wrote it")
    return options.get(_OPT_COMMENT, b"").decode()


def _read_point(body: bytes) -> Point:
    link, _, largest = struct.unpack_from("<HHI", body)
    options = _read_options(body[8:])
    if link != LINKTYPE_ETHERNET or options.get(_IF_TSRESOL) != _NANOSECONDS:
        raise UsageError("its frames are not Ethernet's, or its clock does not count nanoseconds")
    return Point(options.get(_IF_NAME, b"").decode(), options.get(_IF_DESCRIPTION, b"").decode(), largest)


def _read_secrets(body: bytes) -> list[str]:
    kind, length = struct.unpack_from("<II", body)
    if kind != _TLS_KEY_LOG or 8 + length > len(body):
        raise UsageError("its secrets are not a TLS key log")
    return body[8 : 8 + length].decode().split("\n")[:-1]


def _read_packet(body: bytes, points: int) -> Seen:
    point, high, low, size, length = struct.unpack_from("<IIIII", body)
    if point >= points or 20 + size > len(body):
        raise UsageError("a packet is longer than its block, or of a point that is not there")
    options = _read_options(body[20 + size + -size % 4 :])
    return Seen(point, high << 32 | low, length, body[20 : 20 + size], options.get(_OPT_COMMENT, b"").decode())


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _options(options: bytes) -> bytes:
    return options + bytes(4) if options else b""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
