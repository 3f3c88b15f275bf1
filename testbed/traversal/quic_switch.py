"""An end's connections, two at most: one that began at the relay, one that was direct from the beginning.

Rule 1: the client begins each of them once. The server takes, of each, the first whose token is right: it is made of
        both ends' passwords, so a stranger who sends an Initial packet makes no connection, and none that stands in
        the way of the other end's.
Rule 2: a datagram is its connection's by the connection id that it goes to, wherever it comes from: paths move.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2s

from testbed.datagram import Endpoint
from testbed.traversal.candidates import Role
from testbed.traversal.quic_connection import Connection, Connector
from testbed.traversal.quic_happenings import Path

TOKEN_SIZE = 8


def token_of(own_password: str, other_password: str) -> bytes:
    """What the client's Initial packets carry; the same for both ends."""
    secret = "/".join(sorted((own_password, other_password)))
    return blake2s(f"initial/{secret}".encode(), digest_size=TOKEN_SIZE).digest()


class Switch:
    """Both connections of one end."""

    def __init__(self, role: Role, bases: Sequence[Endpoint], connector: Connector) -> None:
        """`bases`: own addresses. A path that begins elsewhere is the relay's."""
        self._role, self._bases, self._connector = role, set(bases), connector
        self._token: bytes | None = None
        self.relayed: Connection | None = None
        """The connection that began at the relay; it may have migrated since."""
        self.dialled: Connection | None = None
        """The connection that was direct from the beginning."""

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those that there are."""
        return tuple(connection for connection in (self.relayed, self.dialled) if connection is not None)

    def is_direct(self, path: Path) -> bool:
        """Whether the path is not the relay's."""
        return path.local in self._bases

    def add_base(self, base: Endpoint) -> None:
        """One more own address."""
        self._bases.add(base)

    def introduce(self, own_password: str, other_password: str) -> None:
        """The other end is known. Before that there is no connection."""
        self._token = token_of(own_password, other_password)

    def dial(self, path: Path, now: int, *, source: Path | None = None) -> None:
        """Client: begin the connection by this path, unless there is or was one. `source`: see Connector."""
        if self._role is Role.CONTROLLING and self._token is not None and not self._is_taken(path):
            self._keep(self._connector.dial(path, self._token, now, source=source), path)

    def drop(self, connection: Connection) -> None:
        """The connection is no more."""
        self.relayed = None if connection is self.relayed else self.relayed
        self.dialled = None if connection is self.dialled else self.dialled

    def close(self) -> None:
        """Begin no more connections, and take none."""
        self._token = None

    # ---- the contract, with paths

    def receive(self, data: bytes, path: Path, now: int) -> None:
        """A datagram that may be QUIC came by *path*."""
        for connection in self.connections:
            if connection.owns(data):
                connection.receive(data, path, now)
                return
        if self._role is Role.CONTROLLED and self._token is not None and not self._is_taken(path):
            accepted = self._connector.accept(data, path, self._token, now)
            if accepted is not None:
                self._keep(accepted, path)

    def datagrams_to_send(self, now: int) -> list[tuple[bytes, Path]]:
        """Of both."""
        return [sent for connection in self.connections for sent in connection.datagrams_to_send(now)]

    def _is_taken(self, path: Path) -> bool:
        return (self.dialled if self.is_direct(path) else self.relayed) is not None

    def _keep(self, connection: Connection, path: Path) -> None:
        if self.is_direct(path):
            self.dialled = connection
        else:
            self.relayed = connection
