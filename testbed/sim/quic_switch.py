"""The connections of a modelled QUIC end, two at most: one that began at the relay, one that was direct from the start.

Rule 1: the client begins each of them once. A packet is its connection's by the token that both ends' passwords make.
Rule 2: where the other end's packets come from another address than it was dialled at, because its NAT gives each
        direction a mapping of its own, that address counts as the dialled one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2s

from testbed.datagram import Endpoint
from testbed.sim.quic_connection import Connection, Path, is_hello, read
from testbed.traversal.candidates import Role

RELAYED, DIALLED = "relayed", "dialled"


class Switch:
    """Both connections of one end."""

    def __init__(self, role: Role, bases: Sequence[Endpoint]) -> None:
        self._role, self._bases = role, set(bases)
        self._tokens: dict[str, str] = {}
        self._connections: dict[str, Connection] = {}
        self._aliases: dict[Path, Path] = {}
        self.source: Path | None = None
        """Where the other end's packets really come from, if that is not where it was dialled at."""

    @property
    def relayed(self) -> Connection | None:
        """The one that began at the relay; it may have moved since."""
        return self._connections.get(RELAYED)

    @property
    def dialled(self) -> Connection | None:
        """The one that was direct from the start."""
        return self._connections.get(DIALLED)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._connections.values()))

    def add_base(self, base: Endpoint) -> None:
        """One more address of our own."""
        self._bases.add(base)

    def is_direct(self, path: Path) -> bool:
        """Whether the path is not the relay's."""
        return path.local in self._bases

    def introduce(self, own_password: str, other_password: str) -> None:
        """The other end is known. Before that there is no connection."""
        secret = "/".join(sorted((own_password, other_password)))
        for name in (RELAYED, DIALLED):
            self._tokens[name] = blake2s(f"{name}/{secret}".encode(), digest_size=6).hexdigest()

    def close(self) -> None:
        """Begin no more connections, and take none."""
        self._tokens.clear()

    def dial(self, path: Path, source: Endpoint | None = None) -> None:
        """Client: begin the connection by this path, unless there is one. `source`: see Rule 2."""
        name = DIALLED if self.is_direct(path) else RELAYED
        if self._role is Role.CONTROLLING and self._tokens and name not in self._connections:
            self._connections[name] = Connection(self._tokens[name], path, is_client=True)
            if source is not None:
                self._aliases[Path(path.local, source)] = path

    def receive(self, data: bytes, path: Path, now: int) -> None:
        """A packet came by *path*."""
        token, number, frames = read(data)
        name = next((name for name, own in self._tokens.items() if own == token), None)
        if name is None:
            return
        if name not in self._connections and self._role is Role.CONTROLLED and is_hello(frames):
            self._connections[name] = Connection(token, path, is_client=False)
        if name in self._connections:
            counts_as = self._aliases.get(path, path) if name == DIALLED else path
            self.source = path if counts_as != path else self.source
            self._connections[name].receive(frames, number, len(data), counts_as, now)

    def transmit(self, now: int) -> list[tuple[bytes, Path]]:
        """Of both."""
        return [sent for connection in self for sent in connection.transmit(now)]
