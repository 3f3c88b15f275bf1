"""Packets as a pcapng file: one interface block a capture point, comments on packets, TLS secrets.

Rule 1: times are nanoseconds since 1970, one clock for all points (if_tsresol 9).
Rule 2: a file can be opened by tshark and decrypted with no option: the secrets are a block in it, before the packets
        that they open.

Format: draft-ietf-opsawg-pcapng. Written here because what there is in Python writes a few thousand packets a second
or knows no secrets block; it is three kinds of blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

LINKTYPE_ETHERNET = 1
_SECTION, _INTERFACE, _PACKET, _SECRETS = 0x0A0D0D0A, 1, 6, 0x0000000A
_MAGIC = 0x1A2B3C4D
_TLS_KEY_LOG = 0x544C534B
_OPT_COMMENT, _IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL, _OPT_USER_APPLICATION = 1, 2, 3, 9, 4


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
    application = _option(_OPT_USER_APPLICATION, b"testbed")
    about = _option(_OPT_COMMENT, comment.encode()) if comment else b""
    yield _block(_SECTION, struct.pack("<IHHq", _MAGIC, 1, 0, -1) + _options(about + application))
    for point in points:
        options = _option(_IF_NAME, point.name.encode()) + _option(_IF_TSRESOL, b"\x09")
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


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _options(options: bytes) -> bytes:
    return options + bytes(4) if options else b""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
