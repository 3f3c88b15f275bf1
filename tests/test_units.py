"""Quantities: what is read, what is refused and with which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import units
from testbed.datagram import Endpoint

READ = [
    ("milliseconds", units.parse_duration, "20ms", 20_000_000),
    ("a fraction that is exact", units.parse_duration, "1.5s", 1_500_000_000),
    ("a space before the unit", units.parse_duration, "2 min", 120_000_000_000),
    ("micro with its own sign", units.parse_duration, "5µs", 5_000),
    ("nothing at all", units.parse_duration, "0s", 0),
    ("megabits", units.parse_rate, "10mbit", 10_000_000),
    ("a tenth of a percent", units.parse_probability, "0.1%", 1_000),
    ("the finest share", units.parse_probability, "0.0001%", 1),
    ("everything", units.parse_probability, "100%", 1_000_000),
    ("binary sizes", units.parse_size, "64KiB", 65_536),
]

REFUSED = [
    ("a bare number", units.parse_duration, "20", "20 has no unit: write for example 20ms"),
    ("words", units.parse_duration, "soon", "'soon' is not a duration: write a number and a unit, such as 20ms"),
    (
        "a negative time",
        units.parse_duration,
        "-1s",
        "'-1s' is not a duration: write a number and a unit, such as 20ms",
    ),
    ("a misspelt unit", units.parse_duration, "20mss", "unit 'mss' is not known, did you mean 'ms'?"),
    ("finer than a nanosecond", units.parse_duration, "0.5ns", "0.5ns is finer than a nanosecond"),
    (
        "tc's bytes",
        units.parse_rate,
        "10mbps",
        "unit 'mbps' is ambiguous (tc reads mbps as megaBYTES per second); write mbit",
    ),
    (
        "a closed line",
        units.parse_rate,
        "0mbit",
        "a rate of 0 lets nothing through; write loss: 100%, or leave rate out for no limit",
    ),
    ("a share above one", units.parse_probability, "101%", "101% is more than 100%"),
    ("a share without a sign", units.parse_probability, "0.1", "0.1 has no unit: write for example 0.1%"),
    (
        "finer than a millionth",
        units.parse_probability,
        "0.00001%",
        "0.00001% is finer than one part per million (0.0001%)",
    ),
]


@pytest.mark.parametrize(("parse", "text", "value"), [r[1:] for r in READ], ids=[r[0] for r in READ])
def test_read(parse: Callable[[str], int], text: str, value: int) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(("parse", "text", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused(parse: Callable[[str], int], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse(text)


@given(st.integers(0, 10**15))
def test_what_is_written_is_read_back(value: int) -> None:
    assert units.parse_duration(units.format_duration(value)) == value
    assert units.parse_size(units.format_size(value)) == value
    assert units.parse_rate(units.format_rate(value + 1)) == value + 1
    assert units.parse_probability(units.format_probability(value % (units.PPM + 1))) == value % (units.PPM + 1)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (units.parse_duration, units.parse_rate, units.parse_probability, units.parse_size):
        with suppress(ValueError):
            assert parse(text) >= 0


@pytest.mark.parametrize("text", ["11.0.0.6:5000", "[2001:db8::1]:80"])
def test_an_endpoint_is_read_back(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


@pytest.mark.parametrize("text", ["", "11.0.0.6", ":80", "11.0.0.6:http", "11.0.0.6:65536"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        Endpoint.parse(text)
