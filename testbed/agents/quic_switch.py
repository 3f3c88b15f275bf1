"""An end's connections, two at most: one that began at the relay, one that was direct from the beginning.

Rule 1: the client begins each of them once. The server takes, of each, the first whose token is right.
Rule 2: a datagram is its connection's by the connection id that it goes to, wherever it comes from: paths move.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from testbed.agents.quic_happenings import Path
from testbed.agents.quic_session import Session, token_of
from testbed.datagram import Endpoint
from testbed.traversal.candidates import Role


class Switch:
    """Both connections of one end."""

    def __init__(self, role: Role, bases: Sequence[Endpoint]) -> None:
        """`bases`: own addresses. A path that begins elsewhere is the relay's."""
        self._role, self._bases = role, set(bases)
        self._token: bytes | None = None
        self._secrets = io.StringIO()
        self.relayed: Session | None = None
        """The connection that began at the relay; it may have migrated since."""
        self.dialled: Session | None = None
        """The connection that was direct from the beginning."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """TLS secrets so far, as lines of a key log."""
        return tuple(self._secrets.getvalue().splitlines())

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Those that there are."""
        return tuple(session for session in (self.relayed, self.dialled) if session is not None)

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
        """Client: begin the connection by this path, unless there is or was one. `source`: see Session."""
        is_taken = (self.dialled if self.is_direct(path) else self.relayed) is not None
        if self._role is Role.CONTROLLING and self._token is not None and not is_taken:
            self._keep(Session.dial(path, self._token, self._secrets, now, source=source), path)

    def drop(self, session: Session) -> None:
        """The connection is no more."""
        self.relayed = None if session is self.relayed else self.relayed
        self.dialled = None if session is self.dialled else self.dialled

    def close(self) -> None:
        """Begin no more connections, and take none."""
        self._token = None

    # ---- the contract, with paths

    def receive(self, data: bytes, path: Path, now: int) -> None:
        """A datagram that may be QUIC came by *path*."""
        for session in self.sessions:
            if session.owns(data):
                session.receive(data, path, now)
                return
        is_taken = (self.dialled if self.is_direct(path) else self.relayed) is not None
        if self._role is Role.CONTROLLED and self._token is not None and not is_taken:
            accepted = Session.accept(data, path, self._token, self._secrets, now)
            if accepted is not None:
                self._keep(accepted, path)

    def datagrams_to_send(self, now: int) -> list[tuple[bytes, Path]]:
        """Of both."""
        return [sent for session in self.sessions for sent in session.datagrams_to_send(now)]

    def _keep(self, session: Session, path: Path) -> None:
        if self.is_direct(path):
            self.dialled = session
        else:
            self.relayed = session
