"""What a datagram is, by its first byte: one socket carries STUN, TURN, signalling, QUIC and application bytes.

Rule 1: the ranges are those of RFC 9443 §3. The two formats of our own lie in 4..15, which no protocol has: a
        program that follows the RFC drops them.
"""

from __future__ import annotations

from enum import Enum, auto

SIGNALLING_MAGIC = 0x0E
APPLICATION_MAGIC = 0x0F


class Protocol(Enum):
    """Who a datagram is for."""

    STUN = auto()
    SIGNALLING = auto()
    APPLICATION = auto()
    CHANNEL = auto()
    QUIC = auto()
    UNKNOWN = auto()


def classify(data: bytes) -> Protocol:
    """The protocol that the first byte belongs to; an empty datagram belongs to none."""
    first = data[0] if data else 256
    if first < 4:
        return Protocol.STUN
    if first == SIGNALLING_MAGIC:
        return Protocol.SIGNALLING
    if first == APPLICATION_MAGIC:
        return Protocol.APPLICATION
    if 64 <= first <= 79:
        return Protocol.CHANNEL
    if 80 <= first <= 127 or 192 <= first <= 255:
        return Protocol.QUIC
    return Protocol.UNKNOWN
