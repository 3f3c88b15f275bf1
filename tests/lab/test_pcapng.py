"""The pcapng that we write, read back by a reader that others wrote."""

from __future__ import annotations

import struct
from io import BytesIO

from scapy.utils import RawPcapNgReader

from testbed.lab.pcapng import Point, Seen, encode

POINTS = [Point("alice/eth0"), Point("nat_a/wan0", "outside")]
SECOND = 1_000_000_000
PACKETS = [
    Seen(0, 1_790_000_000 * SECOND + 1, 60, b"\x02" * 60),
    Seen(1, 1_790_000_000 * SECOND + 999_999_999, 1514, b"\x03" * 61, "dropped by nat_a: no-permission"),
    Seen(0, 1_790_000_001 * SECOND, 3, b"\x04\x05\x06"),
]


def read_back(data: bytes) -> list[tuple[bytes, int, int, bytes, bytes | None]]:
    found = []
    with BytesIO(data) as file:
        for packet, about in RawPcapNgReader(file):
            time = (about.tshigh << 32) + about.tslow
            found.append((packet, time, about.wirelen, about.ifname, about.comments[0] if about.comments else None))
    return found


def test_every_packet_is_there_with_its_point_time_length_and_comment() -> None:
    names = [point.name.encode() for point in POINTS]
    assert read_back(b"".join(encode(POINTS, PACKETS))) == [
        (seen.data, seen.time, seen.length, names[seen.point], seen.comment.encode() or None) for seen in PACKETS
    ]


def test_secrets_stand_before_the_packets_that_they_open() -> None:
    line = "CLIENT_TRAFFIC_SECRET_0 00 11"
    blocks = list(encode(POINTS, PACKETS, [line], "about the whole"))
    kinds = [struct.unpack_from("<I", block)[0] for block in blocks]
    assert kinds == [0x0A0D0D0A, 1, 1, 0x0A, 6, 6, 6]
    assert f"{line}\n".encode() in blocks[3]
    assert b"about the whole" in blocks[0]
    assert len(read_back(b"".join(blocks))) == len(PACKETS)


def test_every_block_says_its_length_twice_in_whole_words() -> None:
    for block in encode(POINTS, PACKETS, ["a b c"], "x"):
        (length,) = struct.unpack_from("<I", block, 4)
        assert length == len(block) == struct.unpack("<I", block[-4:])[0]
        assert length % 4 == 0
