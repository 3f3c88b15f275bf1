"""What a QUIC connection can be asked to do by its end. aioquic's is one (agents), the model's another (sim).

What it says by itself are `quic_happenings`. Each machine here knows only these words, so an agent and its prediction
are the same machine over different connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from testbed.datagram import Endpoint
from testbed.traversal.quic_happenings import Happening, Path

PAIR_LIMIT = 16
"""Pairs that a server of ours probes in one round: what it says in its transport parameter."""


class Prober(Protocol):
    """The half of a connection that finds paths."""

    @property
    def candidates(self) -> Mapping[int, Endpoint]:
        """The server's by their number: what it added, or what the client was told."""

    def punch(self, number: int, paired_with: int, address: Endpoint) -> bool:
        """Client: ask for a probe of our *address* from the server's candidate of that number, in round *number*.
        False once the round has as many pairs as the server takes.
        """

    def probe(self, path: Path) -> bool:
        """Challenge a path; whether that can be, and is of use."""

    def migrate(self, path: Path) -> None:
        """Client: use this path from now on."""

    def cancel_probes(self) -> None:
        """Forget the probes that were not sent yet."""


class Connection(Prober, Protocol):
    """One connection of an end."""

    is_admitting: bool
    """Whether a client takes packets from addresses that it does not know, if they are the other end's."""

    @property
    def active(self) -> Path | None:
        """The path in use."""

    @property
    def is_confirmed(self) -> bool:
        """Whether the handshake is confirmed: a client may migrate only then (RFC 9000 §9)."""

    @property
    def peer_fingerprint(self) -> str | None:
        """Of the server's certificate, at the client, once the handshake is complete."""

    def observed(self, path: Path) -> Endpoint | None:
        """Our own address as the other end sees it on this path."""

    def add_candidate(self, address: Endpoint) -> None:
        """Server: tell the client of a candidate, if it speaks NAT traversal."""

    def send(self, data: bytes) -> None:
        """Send application bytes, as a DATAGRAM frame (RFC 9221): they go by one path once, and are not sent again."""

    def refuse(self, reason: str) -> None:
        """Close the connection: the other end is not who it should be."""

    def owns(self, data: bytes) -> bool:
        """Whether a datagram is for this connection."""

    def receive(self, data: bytes, path: Path, now: int) -> None:
        """A datagram that this connection owns came by *path*."""

    def next_timeout(self) -> int | None:
        """When `handle_timeout` is due."""

    def handle_timeout(self, now: int) -> None:
        """Do what is due."""

    def datagrams_to_send(self, now: int) -> list[tuple[bytes, Path]]:
        """Datagrams and the paths that they go by."""

    def happenings(self) -> list[Happening]:
        """What happened since the last call."""


class Connector(Protocol):
    """How an end's connections begin."""

    @property
    def fingerprint(self) -> str:
        """Of the certificate that this end shows as a server."""

    def dial(self, path: Path, token: bytes, now: int, *, source: Path | None = None) -> Connection:
        """Client: begin by this path. Until the handshake is confirmed there is one path (RFC 9000 §9): packets that
        come by *source*, because the other end's NAT gives each direction a mapping of its own, count as come by it.
        """

    def accept(self, data: bytes, path: Path, token: bytes, now: int) -> Connection | None:
        """Server: begin with this datagram; None where it is not the beginning of the other end's connection."""
