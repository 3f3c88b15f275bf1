"""The pcapng that we write, read back by a reader that others wrote, and by our own."""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader

from testbed.errors import UsageError
from testbed.lab.pcapng import Point, Recorded, Seen, decode, encode

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


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LINE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40).map(str.rstrip)


@st.composite
def recordings(draw: st.DrawFn) -> Recorded:
    points = draw(st.lists(st.builds(Point, TEXT, TEXT, st.integers(0, 2**32 - 1)), max_size=4))
    packets = st.builds(
        Seen, st.integers(0, len(points) - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.binary(), TEXT
    )
    seen = draw(st.lists(packets, max_size=6)) if points else []
    return Recorded(tuple(points), tuple(seen), tuple(draw(st.lists(LINE, max_size=3))), draw(TEXT))


@given(recordings())
def test_what_is_written_is_read_back(recorded: Recorded) -> None:
    assert decode(b"".join(encode(recorded.points, recorded.packets, recorded.secrets, recorded.comment))) == recorded


WHOLE = b"".join(encode(POINTS, PACKETS, ["a b c"], "x"))
NOT_OURS = [
    ("nothing", b"", "empty"),
    ("half of it", WHOLE[:-7], "breaks off"),
    ("what follows it is no block", WHOLE + b"\0" * 12, "breaks off"),
    ("two files in one", WHOLE + WHOLE, "one section"),
    ("without its first block", WHOLE[struct.unpack_from("<I", WHOLE, 4)[0] :], "one section"),
    ("another program's", WHOLE.replace(b"testbed", b"dumpcap", 1), "another program"),
    ("a text", b"not a capture at all", "breaks off"),
]


@pytest.mark.parametrize(("sentence", "data", "words"), NOT_OURS, ids=[row[0] for row in NOT_OURS])
def test_what_we_have_not_written_is_refused(sentence: str, data: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        decode(data)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_damaged_file_is_refused_or_read_and_nothing_else(at: int, byte: int) -> None:
    damaged = WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]
    with suppress(UsageError):
        decode(damaged)
