"""What a NAT dropped and why, whatever makes the NAT: the one shape of it that trials read.

Rule 1: each reason has a counter, which is exact; packets are shown as far as there is room for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

SNAP = 128
"""Bytes of a dropped packet that are kept, from its IP header on."""


@dataclass(frozen=True, slots=True)
class Drop:
    """One packet that a NAT did not forward."""

    time: int
    """Nanoseconds of CLOCK_MONOTONIC."""
    reason: str
    """One of `nat.packet.Reason`."""
    packet: bytes
    """Its first bytes, from the IP header on, as it came in."""


class DropLog(Protocol):
    """What a box says of its drops."""

    def counters(self) -> Mapping[str, int]:
        """How many packets were dropped for each reason, since the NAT was made; only those that were."""

    def read(self) -> list[Drop]:
        """The drops since the last call, the oldest first."""
