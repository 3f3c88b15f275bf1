"""Crafted packets: what is read is what was written, and checksums are right."""

from __future__ import annotations

import struct

import pytest

from testbed.datagram import Endpoint
from testbed.lab import packets

HERE, THERE = Endpoint("192.168.1.2", 5000), Endpoint("11.0.0.2", 3478)


def ones_complement(data: bytes) -> int:
    """The sum of 16-bit words that a checksum completes to 0xFFFF (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("data", [b"", b"x", b"some words", bytes(range(255))])
def test_datagrams_have_their_own_source_and_checksum(data: bytes) -> None:
    sources = [HERE, Endpoint("192.168.1.254", 1), Endpoint("255.255.255.255", 65535), Endpoint("0.0.0.0", 0)]
    for source, packet in zip(sources, packets.datagrams(sources, THERE, data), strict=True):
        assert packet[28:] == data
        assert struct.unpack("!HHH", packet[20:26]) == (source.port, THERE.port, 8 + len(data))
        pseudo = packet[12:20] + struct.pack("!HH", 17, 8 + len(data))
        assert ones_complement(pseudo + packet[20:]) == 0xFFFF
        assert packet[26:28] != b"\0\0", "a checksum of zero means that there is none (RFC 768)"


@pytest.mark.parametrize("flags", [packets.SYN, packets.ACK, packets.SYN_ACK])
def test_segments_are_read_as_they_were_written(flags: str) -> None:
    packet = packets.segment(HERE, THERE, flags, 0xFFFF_FFFF, 7)
    assert packets.read_segment(packet) == packets.Segment(HERE, THERE, flags, 0xFFFF_FFFF, 7)
    assert packets.read_icmp_error(packet) is None


def test_an_error_names_the_packet_that_it_is_about() -> None:
    packet = packets.time_exceeded("11.0.0.1", HERE, THERE)
    assert packets.read_icmp_error(packet) == packets.IcmpError(packets.TIME_EXCEEDED, "11.0.0.1", HERE, THERE)
    assert packets.read_segment(packet) is None
    assert ones_complement(packet[20:]) == 0xFFFF


@pytest.mark.parametrize("length", range(0, 60, 3))
def test_what_is_cut_off_is_no_error(length: int) -> None:
    packet = packets.time_exceeded("11.0.0.1", HERE, THERE)[:length]
    found = packets.read_icmp_error(packet)
    assert found is None or length >= 52
