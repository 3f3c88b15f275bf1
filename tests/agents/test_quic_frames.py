"""The drafts' wire formats against bytes worked out by hand from their figures, and against hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.agents import quic_frames as frames
from testbed.agents.quic_frames import (
    AddAddress,
    Discovery,
    Frame,
    FrameFormatError,
    ObservedAddress,
    PunchMeNow,
    RemoveAddress,
)
from testbed.datagram import Endpoint

V4, V6 = Endpoint("192.0.2.1", 4433), Endpoint("2001:db8::1", 443)
V4_BYTES, V6_BYTES = "c0000201 1151", "20010db8 00000000 00000000 00000001 01bb"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        # 0x9f81a6 needs the four-byte form: its two leading bits become 10
        pytest.param(ObservedAddress(5, V4), f"809f81a6 05 {V4_BYTES}", id="OBSERVED_ADDRESS, IPv4"),
        pytest.param(ObservedAddress(5, V6), f"809f81a7 05 {V6_BYTES}", id="OBSERVED_ADDRESS, IPv6: type plus one"),
        pytest.param(AddAddress(63, V4), f"803d7e90 3f {V4_BYTES}", id="ADD_ADDRESS, the last one-byte number"),
        pytest.param(AddAddress(64, V6), f"803d7e91 4040 {V6_BYTES}", id="ADD_ADDRESS, the first two-byte number"),
        pytest.param(PunchMeNow(1, 100, V4), f"803d7e92 01 4064 {V4_BYTES}", id="PUNCH_ME_NOW: round, pair, address"),
        pytest.param(PunchMeNow(2, 0, V6), f"803d7e93 02 00 {V6_BYTES}", id="PUNCH_ME_NOW, IPv6"),
        pytest.param(RemoveAddress(16384), "803d7e94 80004000", id="REMOVE_ADDRESS, the first four-byte number"),
    ],
)
def test_a_frame_is_these_bytes(frame: Frame, expected: str) -> None:
    data = bytes.fromhex(expected)
    assert frames.encode(frame) == data
    frame_type, offset = frames.decode_varint(data, 0)
    assert frames.decode_body(frame_type, data[offset:] + b"what follows") == (frame, len(data) - offset)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # the examples of RFC 9000 §A.1
        (151288809941952652, "c2197c5eff14e88c"),
        (494878333, "9d7f3e7d"),
        (15293, "7bbd"),
        (37, "25"),
    ],
)
def test_integers_are_those_of_rfc_9000(value: int, expected: str) -> None:
    assert frames.encode_varint(value).hex() == expected
    assert frames.decode_varint(bytes.fromhex(expected), 0) == (value, len(expected) // 2)


def test_an_integer_may_be_longer_than_it_must() -> None:
    assert frames.decode_varint(bytes.fromhex("4025"), 0) == (37, 2)


@pytest.mark.parametrize("value", [-1, 1 << 62])
def test_an_integer_that_does_not_fit_is_refused(value: int) -> None:
    with pytest.raises(FrameFormatError, match="62 bits"):
        frames.encode_varint(value)


@pytest.mark.parametrize(
    ("identifier", "value", "expected"),
    [
        pytest.param(frames.NAT_TRAVERSAL_PARAMETER, b"", "fd7e9f0bca12fea6 00", id="a client's NAT traversal: empty"),
        pytest.param(frames.NAT_TRAVERSAL_PARAMETER, b"\x10", "fd7e9f0bca12fea6 01 10", id="a server's: its limit"),
        # 0x9f81a176 is above 2^30 and takes eight bytes
        pytest.param(frames.ADDRESS_DISCOVERY_PARAMETER, b"\x02", "c00000009f81a176 01 02", id="address discovery"),
    ],
)
def test_a_transport_parameter_is_these_bytes(identifier: int, value: bytes, expected: str) -> None:
    data = bytes.fromhex(expected)
    assert frames.encode_parameter(identifier, value) == data
    assert frames.decode_parameters(data) == {identifier: value}


@pytest.mark.parametrize(
    ("role", "provides", "wants"),
    [(Discovery.PROVIDES, True, False), (Discovery.WANTS, False, True), (Discovery.BOTH, True, True)],
)
def test_what_the_three_values_of_address_discovery_mean(role: Discovery, provides: bool, wants: bool) -> None:
    assert (role.provides, role.wants) == (provides, wants)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param("01 01 aa 01 01 bb", "comes twice", id="a parameter that comes twice"),
        pytest.param("01 05 aa", "cut off", id="a value shorter than its length"),
        pytest.param("01", "should begin", id="no length"),
        pytest.param("c000", "within an integer", id="half an identifier"),
    ],
)
def test_parameters_that_are_none(data: str, message: str) -> None:
    with pytest.raises(FrameFormatError, match=message):
        frames.decode_parameters(bytes.fromhex(data))


def test_an_integer_and_something_more_is_no_integer() -> None:
    with pytest.raises(FrameFormatError, match="more than one"):
        frames.decode_integer(b"\x01\x02")


@pytest.mark.parametrize(
    ("frame_type", "data", "message"),
    [
        pytest.param(0x1A, "00" * 8, "none of these", id="PATH_CHALLENGE is not ours"),
        pytest.param(frames.ADD_ADDRESS, "", "should begin", id="nothing"),
        pytest.param(frames.ADD_ADDRESS, "00 c00002 1151", "within an address", id="an address cut off"),
        pytest.param(frames.ADD_ADDRESS + 1, f"00 {V4_BYTES}", "within an address", id="IPv4 where IPv6 is announced"),
        pytest.param(frames.PUNCH_ME_NOW, "01", "should begin", id="no pair"),
        pytest.param(frames.OBSERVED_ADDRESS, "00 c0000201 0000", "port 0", id="port 0 is no port"),
    ],
)
def test_frames_that_are_none(frame_type: int, data: str, message: str) -> None:
    with pytest.raises(FrameFormatError, match=message):
        frames.decode_body(frame_type, bytes.fromhex(data))


@given(frame_type=st.sampled_from(sorted(frames.FRAME_TYPES)), data=st.binary(max_size=40))
def test_hostile_bytes_raise_nothing_else_and_what_is_read_is_written_back(frame_type: int, data: bytes) -> None:
    try:
        frame, length = frames.decode_body(frame_type, data)
    except FrameFormatError:
        return
    assert length <= len(data)
    assert frames.type_of(frame) == frame_type
    assert frames.decode_body(frame_type, frames.encode_body(frame))[0] == frame
