"""Quantities: text that people write <-> exact integers that the program computes with.

Rule 1: units are text only in YAML and on the command line; inside, one type per quantity:
        `Duration` in nanoseconds, `Rate` in bits per second, `Probability` in parts per million.
Rule 2: nothing is rounded. What cannot be said exactly is refused.
Rule 3: a bare number is refused, and so is a unit that two tools read differently
        (tc reads `mbps` as megabytes per second, people read it as megabits).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import NewType

Duration = NewType("Duration", int)
Rate = NewType("Rate", int)
Probability = NewType("Probability", int)

NS_PER_SECOND = 1_000_000_000
PPM = 1_000_000
MOST = 2**63 - 1
"""The largest quantity: what 64 bits with a sign hold, as in the kernel's own attributes."""

DURATION_UNITS: Mapping[str, int] = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_SECOND,
    "min": 60 * NS_PER_SECOND,
    "h": 3_600 * NS_PER_SECOND,
}
RATE_UNITS: Mapping[str, int] = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
SIZE_UNITS: Mapping[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_AMBIGUOUS_RATES: Mapping[str, tuple[str, str]] = {
    "bps": ("BYTES", "bit"),
    "kbps": ("kiloBYTES", "kbit"),
    "mbps": ("megaBYTES", "mbit"),
    "gbps": ("gigaBYTES", "gbit"),
}

_NUMBER_AND_UNIT = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-zµ%]*)")


def parse_duration(text: str) -> Duration:
    """`20ms`, `1.5s`, `2min` -> nanoseconds. Raises ValueError with the mend in its message."""
    number, unit = _split(text, "a duration", "20ms")
    return Duration(_exact(number * _factor(unit, DURATION_UNITS, "20ms"), text, "a nanosecond"))


def parse_rate(text: str) -> Rate:
    """`10mbit` -> bits per second; more than nothing. Raises ValueError."""
    number, unit = _split(text, "a rate", "10mbit")
    if unit.lower() in _AMBIGUOUS_RATES:
        meaning, better = _AMBIGUOUS_RATES[unit.lower()]
        raise ValueError(f"unit {unit!r} is ambiguous (tc reads {unit} as {meaning} per second); write {better}")
    rate = _exact(number * _factor(unit, RATE_UNITS, "10mbit"), text, "a bit per second")
    if rate == 0:
        raise ValueError("a rate of 0 lets nothing through; write loss: 100%, or leave rate out for no limit")
    return Rate(rate)


def parse_probability(text: str) -> Probability:
    """`0.1%` -> parts per million. Raises ValueError."""
    number, unit = _split(text, "a share", "0.1%")
    if unit != "%":
        raise ValueError(f"{text!r} is not a share: write a percentage such as 0.1%")
    ppm = _exact(number * 10_000, text, "one part per million (0.0001%)")
    if ppm > PPM:
        raise ValueError(f"{text} is more than 100%")
    return Probability(ppm)


def parse_size(text: str) -> int:
    """`64KiB` -> bytes. Raises ValueError."""
    number, unit = _split(text, "a size", "64KiB")
    return _exact(number * _factor(unit, SIZE_UNITS, "64KiB"), text, "a byte")


def format_duration(value: int) -> str:
    """The shortest exact text: 20_000_000 -> `20ms`, 120 s -> `2min`."""
    return _format(value, DURATION_UNITS, "0s")


def format_rate(value: int) -> str:
    """The shortest exact text: 10_000_000 -> `10mbit`."""
    return _format(value, RATE_UNITS, "0bit")


def format_size(value: int) -> str:
    """The shortest exact text: 65_536 -> `64KiB`."""
    return _format(value, SIZE_UNITS, "0B")


def format_probability(value: int) -> str:
    """The exact percentage: 1_000 -> `0.1%`."""
    return f"{_plain(Decimal(value) / 10_000)}%"


def seconds(value: int) -> float:
    """Nanoseconds as the float seconds of JSON documents and of aioquic's door."""
    return value / NS_PER_SECOND


def nanoseconds(value: float) -> Duration:
    """Float seconds, as aioquic gives them, as the nearest nanosecond."""
    return Duration(round(value * NS_PER_SECOND))


def _split(text: str, what: str, example: str) -> tuple[Decimal, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not {what}: write a number and a unit, such as {example}")
    if not match["unit"]:
        raise ValueError(f"{text} has no unit: write for example {example}")
    return Decimal(match["number"]), match["unit"]


def _factor(unit: str, units: Mapping[str, int], example: str) -> int:
    unit = "us" if unit == "µs" else unit
    if unit in units:
        return units[unit]
    near = get_close_matches(unit, units, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else f" (one of {', '.join(units)}; for example {example})"
    raise ValueError(f"unit {unit!r} is not known{hint}")


def _exact(value: Decimal, text: str, finest: str) -> int:
    if value != value.to_integral_value():
        raise ValueError(f"{text} is finer than {finest}")
    if value > MOST:
        raise ValueError(f"{text} is more than any network has")
    return int(value)


def _format(value: int, units: Mapping[str, int], zero: str) -> str:
    if value == 0:
        return zero
    texts = (f"{_plain(Decimal(value) / factor)}{unit}" for unit, factor in units.items())
    return min(texts, key=len)


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
