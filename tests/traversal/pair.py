"""Two peers and a rendezvous, each peer behind its own NATs, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from testbed.datagram import Endpoint
from testbed.traversal.candidates import Role
from testbed.traversal.events import Connected, Event
from testbed.traversal.punching import CloseBase, OpenBase
from testbed.traversal.rendezvous import Rendezvous
from testbed.traversal.strategies import strategy
from testbed.traversal.turn_server import OpenRelay
from testbed.traversal.udp_peer import UdpPeer
from tests.traversal.network import SECOND, Machine, Nat, Network

SERVER = ("11.0.0.1", "11.0.0.2")
ALICE, BOB = "192.168.1.2", "192.168.2.2"


class End(Machine, Protocol):
    """What every agent's machine is."""

    def start(self, now: int) -> None: ...
    def events(self) -> Sequence[Event | OpenBase | CloseBase]: ...
    def base_opened(self, base: Endpoint, now: int) -> None: ...
    def base_refused(self, base: Endpoint, now: int) -> None: ...


@dataclass
class Pair:
    """A trial: run it, then look at what both ends said."""

    alice_behind: tuple[Nat, ...] = ()
    bob_behind: tuple[Nat, ...] = ()
    network: Network = field(default_factory=Network)
    hosts: tuple[str, str] = (ALICE, BOB)
    strategy: str = "reflexive"
    parameters: Mapping[str, object] = field(default_factory=dict)
    deadline: int = 10 * SECOND
    has_relay: bool = True
    make: Callable[..., End] = UdpPeer
    refuses: Callable[[Endpoint], bool] = lambda base: False
    """Which sockets cannot be opened."""
    ignores: bool = False
    """Whether a socket that is asked for is neither opened nor refused."""
    on_event: Callable[[Event], object] = lambda event: None

    def __post_init__(self) -> None:
        self.rendezvous = Rendezvous(SERVER, Random(f"rendezvous {self.network.seed}"))
        self.network.add(self.rendezvous, *SERVER)
        self.network.on_step.append(self._step)
        self.events: dict[str, list[Event]] = {"alice": [], "bob": []}
        self.relays: list[Endpoint] = []
        self.opened: dict[str, list[Endpoint]] = {"alice": [], "bob": []}
        self.closed: list[Endpoint] = []
        self.alice = self._peer("alice", "bob", Role.CONTROLLING, self.hosts[0], self.alice_behind)
        self.bob = self._peer("bob", "alice", Role.CONTROLLED, self.hosts[1], self.bob_behind)

    def _peer(self, name: str, other: str, role: Role, host: str, behind: tuple[Nat, ...]) -> End:
        peer = self.make(
            name=name,
            peer=other,
            role=role,
            bases=[Endpoint(host, 40000)],
            servers=self.rendezvous.servers,
            strategy=strategy(self.strategy, self.parameters),
            deadline=self.deadline,
            setup_deadline=10 * SECOND,
            rng=Random(f"{name} {self.network.seed}"),
        )
        self.network.add(peer, host, behind=behind)
        return peer

    def _step(self, now: int) -> None:
        for name, end in (("alice", self.alice), ("bob", self.bob)):
            while said := end.events():
                for event in said:
                    self._hear(name, end, event, now)
        for asked in self.rendezvous.events():
            if isinstance(asked, OpenRelay):
                if self.has_relay:
                    self.rendezvous.relay_opened(asked.endpoint, now)
                else:
                    self.rendezvous.relay_refused(asked.endpoint, now)

    def _hear(self, name: str, end: End, event: Event | OpenBase | CloseBase, now: int) -> None:
        match event:
            case OpenBase() if self.ignores:
                pass
            case OpenBase(endpoint=base) if self.refuses(base):
                end.base_refused(base, now)
            case OpenBase(endpoint=base):
                self.opened[name].append(base)
                end.base_opened(base, now)
            case CloseBase(endpoint=base):
                self.closed.append(base)
            case Event():
                self.events[name].append(event)
                self.on_event(event)

    def run(self, limit: int = 25 * SECOND) -> Pair:
        """Until both are connected or have given up."""
        self.alice.start(self.network.now)
        self.bob.start(self.network.now)
        self.network.run(limit, stop=lambda: all(self.is_over(name) for name in self.events))
        return self

    def is_over(self, name: str) -> bool:
        words = set(self.words(name))
        return bool(words & {"connected", "failed"}) or {"exhausted", "relay"} <= words

    def connected(self, name: str) -> Connected | None:
        return next((event for event in self.events[name] if isinstance(event, Connected)), None)

    @property
    def is_direct(self) -> bool:
        return all(self.connected(name) is not None for name in self.events)

    def words(self, name: str) -> Sequence[str]:
        return [event.word for event in self.events[name]]
