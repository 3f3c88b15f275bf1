"""Paths, and what a QUIC connection says of them and of itself: the words between adapter and machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from testbed.datagram import Endpoint


class Path(NamedTuple):
    """A way to the other end: an own address and one of the other's. At a relay both are addresses of the relay."""

    local: Endpoint
    remote: Endpoint


class Happening:
    """The root."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Completed(Happening):
    """The handshake is complete: the other end's transport parameters and certificate are known."""


@dataclass(frozen=True, slots=True)
class Received(Happening):
    """A DATAGRAM frame came by this path."""

    path: Path
    data: bytes


@dataclass(frozen=True, slots=True)
class Challenged(Happening):
    """A PATH_CHALLENGE came by this path."""

    path: Path


@dataclass(frozen=True, slots=True)
class Answered(Happening):
    """A PATH_RESPONSE validated a path. Its answer may have come by another one, *source* (RFC 9000 §8.2.3)."""

    path: Path
    source: Path
    rtt: int
    """Nanoseconds."""


@dataclass(frozen=True, slots=True)
class Moved(Happening):
    """Another path is in use now: the server followed the client, or left a path that did not validate."""

    path: Path
    is_validated: bool


@dataclass(frozen=True, slots=True)
class Terminated(Happening):
    """The connection is no more."""

    reason: str


@dataclass(frozen=True, slots=True)
class CandidateAdded(Happening):
    """ADD_ADDRESS: the server may be reached there."""

    address: Endpoint


@dataclass(frozen=True, slots=True)
class Punched(Happening):
    """PUNCH_ME_NOW: the client begins this round and wants its address probed from our candidate."""

    round: int
    candidate: Endpoint
    address: Endpoint
