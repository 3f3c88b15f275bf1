"""One QUIC connection of an end as a machine: how it begins, which datagrams are its own, when its timer is due.

Rule 1: a server takes an Initial packet only by its token (traversal/quic_switch.py).
Rule 2: until the handshake is confirmed there is one path (RFC 9000 §9). Where the other end's packets come from
        another address than it is dialled at, because its NAT gives each direction a mapping of its own, that address
        counts as the dialled one.
Rule 3: the timer is not due twice within aioquic's granularity: what it cannot do now, it cannot do sooner.
"""

from __future__ import annotations

import hmac
import io
from collections.abc import Mapping
from dataclasses import dataclass

from aioquic._buffer import Buffer
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    pull_quic_header,
)

from testbed.agents.quic_connection import TraversalConnection
from testbed.agents.quic_tls import DATAGRAM_SIZE, certificate, client_configuration, server_configuration
from testbed.datagram import Endpoint
from testbed.traversal.quic_happenings import Happening, Path, Received

GRANULARITY = 1_000_000
"""Nanoseconds (RFC 9002 §6.1.2)."""


@dataclass(frozen=True, slots=True)
class Initial:
    """What is in the open in a client's first packet."""

    destination: bytes
    token: bytes


def read_initial(data: bytes) -> Initial | None:
    """The Initial packet of version 1 that begins a datagram of full size (RFC 9000 §14.1); None where it does not."""
    if len(data) < DATAGRAM_SIZE:
        return None
    try:
        header = pull_quic_header(Buffer(data=data), host_cid_length=0)
    except ValueError:
        return None
    if header.packet_type is not QuicPacketType.INITIAL or header.version != QuicProtocolVersion.VERSION_1:
        return None
    return Initial(header.destination_cid, header.token)


class Session:
    """A connection in use: a `traversal.quic_connection.Connection`."""

    def __init__(self, connection: TraversalConnection, original_destination: bytes) -> None:
        self.connection = connection
        self._original_destination = original_destination
        self._aliases: dict[Path, Path] = {}
        self._happenings: list[Happening] = []
        self._has_work = True
        self._fired_at = -GRANULARITY

    @classmethod
    def dial(cls, path: Path, token: bytes, secrets: io.StringIO, now: int, *, source: Path | None = None) -> Session:
        """Client: begin. `source`: where the other end's packets come from, if not from where it is dialled at."""
        connection = TraversalConnection(client_configuration(token, secrets))
        session = cls(connection, connection.original_destination_connection_id)
        if source is not None:
            session._aliases[source] = path
        connection.dial(path, now)
        return session

    @classmethod
    def accept(cls, data: bytes, path: Path, token: bytes, secrets: io.StringIO, now: int) -> Session | None:
        """Server: begin with this datagram; None where it is not the beginning of the other end's connection."""
        initial = read_initial(data)
        if initial is None or not hmac.compare_digest(initial.token, token):
            return None
        session = cls(TraversalConnection(server_configuration(secrets), initial.destination), initial.destination)
        session.receive(data, path, now)
        return session if session.connection.is_begun else None

    # ---- what is known

    @property
    def active(self) -> Path | None:
        """The path in use."""
        return self.connection.active

    @property
    def is_confirmed(self) -> bool:
        """Whether the handshake is confirmed."""
        return self.connection.is_confirmed

    @property
    def is_admitting(self) -> bool:
        """Whether a client takes packets from addresses that it does not know, if they are the other end's."""
        return self.connection.is_admitting

    @is_admitting.setter
    def is_admitting(self, is_admitting: bool) -> None:
        self.connection.is_admitting = is_admitting

    @property
    def candidates(self) -> Mapping[int, Endpoint]:
        """The server's by their number."""
        return self.connection.candidates

    @property
    def peer_fingerprint(self) -> str | None:
        """Of the server's certificate."""
        return self.connection.peer_fingerprint

    def observed(self, path: Path) -> Endpoint | None:
        """Our own address as the other end sees it on this path."""
        return self.connection.observed(path)

    def owns(self, data: bytes) -> bool:
        """Whether a datagram is for this connection, by the connection id that it goes to."""
        if data[0] & 0x80:
            destination = data[6 : 6 + data[5]] if len(data) > 5 else b""
        else:
            destination = data[1 : 1 + self.connection.configuration.connection_id_length]
        return destination == self._original_destination or self.connection.owns(destination)

    # ---- what an end does; each leaves something to be sent

    def add_candidate(self, address: Endpoint) -> None:
        """Server: tell the client of a candidate, if it speaks NAT traversal."""
        if self.connection.peer_pair_limit is not None:
            self.connection.add_candidate(address)
            self._has_work = True

    def punch(self, number: int, paired_with: int, address: Endpoint) -> bool:
        """Client: ask for a probe; False once the round has as many pairs as the server takes."""
        self._has_work = True
        return self.connection.punch(number, paired_with, address)

    def probe(self, path: Path) -> bool:
        """Challenge a path; whether that can be, and is of use."""
        self._has_work = True
        return self.connection.probe(path)

    def migrate(self, path: Path) -> None:
        """Client: use this path from now on."""
        self._has_work = True
        self.connection.migrate(path)

    def cancel_probes(self) -> None:
        """Forget the probes that were not sent yet."""
        self.connection.cancel_probes()

    def send(self, data: bytes) -> None:
        """Send application bytes, as a DATAGRAM frame (RFC 9221): they go by one path once, and are not sent again."""
        self.connection.send_datagram_frame(data)
        self._has_work = True

    def refuse(self, reason: str) -> None:
        """Close the connection: the other end is not who it should be."""
        self.connection.close(QuicErrorCode.CONNECTION_REFUSED, QuicFrameType.CRYPTO, reason)
        self._has_work = True

    # ---- the contract

    def receive(self, data: bytes, path: Path, now: int) -> None:
        """A datagram that this connection owns came by *path*."""
        self.connection.receive(data, self._aliases.get(path, path), now)
        for happening in self.connection.happenings():
            match happening:
                case Received(data=received):  # where it came from, not what that counts as
                    self._happenings.append(Received(path, received))
                case _:
                    self._happenings.append(happening)
        self._has_work = True

    def next_timeout(self) -> int | None:
        """When `handle_timeout` is due."""
        due = self.connection.timer()
        return max(due, self._fired_at + GRANULARITY) if due is not None else None

    def handle_timeout(self, now: int) -> None:
        """Let aioquic do what is due."""
        due = self.next_timeout()
        if due is not None and due <= now:
            self._fired_at, self._has_work = now, True
            self.connection.fire(now)

    def datagrams_to_send(self, now: int) -> list[tuple[bytes, Path]]:
        """Datagrams and their paths. aioquic is asked only where something has happened: asking costs."""
        if not self._has_work:
            return []
        self._has_work = False
        return self.connection.transmit(now)

    def happenings(self) -> list[Happening]:
        """What happened since the last call."""
        happenings, self._happenings = self._happenings + self.connection.happenings(), []
        return happenings


class AioquicConnector:
    """How an end's connections begin, each with what TLS keeps secret in one key log."""

    def __init__(self) -> None:
        self._secrets = io.StringIO()

    @property
    def fingerprint(self) -> str:
        """Of this process's certificate."""
        return certificate().fingerprint

    @property
    def secrets(self) -> tuple[str, ...]:
        """TLS secrets of the connections so far, as lines of a key log."""
        return tuple(self._secrets.getvalue().splitlines())

    def dial(self, path: Path, token: bytes, now: int, *, source: Path | None = None) -> Session:
        """Client: begin; see Session."""
        return Session.dial(path, token, self._secrets, now, source=source)

    def accept(self, data: bytes, path: Path, token: bytes, now: int) -> Session | None:
        """Server: begin with this datagram, if it is the beginning of the other end's connection."""
        return Session.accept(data, path, token, self._secrets, now)
