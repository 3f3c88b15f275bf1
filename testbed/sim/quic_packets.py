"""The packets of modelled QUIC connections, as bytes that the network of a prediction carries.

Rule 1: a packet is its connection's id, a number, the address that it is sent to (for OBSERVED_ADDRESS) and frames, as
        JSON.
Rule 2: it begins as a packet of QUIC does, and handshake packets and probes are as long as QUIC's
        (RFC 9000 §8.2.1, §14.1). Others have the size that they have here, some tens of bytes more than QUIC's.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from testbed.datagram import Endpoint

FIRST_BYTE = b"\x50"
"""One of QUIC's short headers (RFC 9443), for whoever tells protocols apart."""
FULL = 1200
"""Bytes of a packet that is padded."""
Frame: TypeAlias = "list[Any]"


def encode(identity: str, number: int, remote: Endpoint, frames: list[Frame], *, is_full: bool) -> bytes:
    """The bytes of a packet."""
    body = json.dumps([identity, number, str(remote), frames], separators=(",", ":")).encode()
    return (FIRST_BYTE + body).ljust(FULL, b" ") if is_full else FIRST_BYTE + body


def opening(identity: str) -> bytes:
    """What every packet of this connection begins with."""
    return FIRST_BYTE + f'["{identity}",'.encode()


def decode(data: bytes) -> tuple[str, int, str, list[Frame]]:
    """The connection's id, the number, the address that it was sent to and the frames of a packet."""
    identity, number, observed, frames = json.loads(data[1:])
    return identity, number, observed, frames
