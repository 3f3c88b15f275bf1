"""Two QUIC connections and what lies between them: paths that rewrite, pass or drop, without a socket or a clock."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from testbed.agents.quic_connection import TraversalConnection
from testbed.agents.quic_frames import Discovery
from testbed.agents.quic_session import AioquicConnector, read_initial
from testbed.agents.quic_tls import client_configuration, server_configuration
from testbed.datagram import Endpoint
from testbed.traversal.quic_connection import PAIR_LIMIT
from testbed.traversal.quic_happenings import Happening, Path
from testbed.traversal.quic_peer import QuicPeer

MS = 1_000_000
CLIENT, SERVER = Endpoint("192.168.1.2", 1000), Endpoint("192.168.2.2", 2000)
CLIENT_RELAYED, SERVER_RELAYED = Endpoint("11.0.0.1", 1001), Endpoint("11.0.0.1", 2002)
RELAY, DIRECT = Path(CLIENT_RELAYED, SERVER_RELAYED), Path(CLIENT, SERVER)


def aioquic_peer(**arguments: Any) -> QuicPeer:
    """The agent's machine over aioquic's connections."""
    return QuicPeer(connector=AioquicConnector(), **arguments)


def reverse(path: Path) -> Path:
    """The same path as the other end sees it, where nothing rewrites addresses."""
    return Path(path.remote, path.local)


@dataclass
class Wire:
    """A client and a server with `delay` between them. `seen` says by which path the other end gets what an end sends
    by a path, or None where it is dropped; a NAT of one line.
    """

    discovery: tuple[Discovery, Discovery] = (Discovery.BOTH, Discovery.BOTH)
    pair_limit: int = PAIR_LIMIT
    delay: int = 10 * MS
    now: int = 1_000_000 * MS
    seen: Callable[[Path], Path | None] = reverse
    sent: list[tuple[str, Path, bytes]] = field(default_factory=list)
    happened: dict[str, list[Happening]] = field(default_factory=lambda: {"client": [], "server": []})
    _flying: list[tuple[int, str, Path, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = TraversalConnection(client_configuration(b"token", io.StringIO()), discovery=self.discovery[0])
        self.client.dial(RELAY, self.now)
        (data, _), *_ = self.client.transmit(self.now)
        initial = read_initial(data)
        assert initial is not None
        self.server = TraversalConnection(
            server_configuration(io.StringIO()),
            initial.destination,
            discovery=self.discovery[1],
            pair_limit=self.pair_limit,
        )
        self._flying.append((self.now + self.delay, "server", reverse(RELAY), data))

    def end(self, name: str) -> TraversalConnection:
        return self.client if name == "client" else self.server

    def run(self, duration: int = 200 * MS) -> Wire:
        """Let time pass, and timers fire."""
        until = self.now + duration
        while True:
            self._exchange()
            timers = [time for name in self.happened if (time := self.end(name).timer()) is not None]
            due = min([*timers, *(time for time, *_ in self._flying)], default=until)
            if due >= until:
                self.now = until
                return self
            self.now = max(self.now + 1000, due)

    def _exchange(self) -> None:
        arrived = [entry for entry in self._flying if entry[0] <= self.now]
        self._flying = [entry for entry in self._flying if entry[0] > self.now]
        for _, name, path, data in arrived:
            self.end(name).receive(data, path, self.now)
        for name, other in (("client", "server"), ("server", "client")):
            end = self.end(name)
            due = end.timer()
            if due is not None and due <= self.now:
                end.fire(self.now)
            for data, path in end.transmit(self.now):
                self.sent.append((name, path, data))
                by = self.seen(path)
                if by is not None:
                    self._flying.append((self.now + self.delay, other, by, data))
            self.happened[name] += end.happenings()

    def of(self, name: str, kind: type[Happening]) -> list[Happening]:
        return [happening for happening in self.happened[name] if isinstance(happening, kind)]

    def probes(self, name: str, path: Path) -> list[bytes]:
        return [data for sender, by, data in self.sent if sender == name and by == path]
