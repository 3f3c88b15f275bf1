"""A network in virtual time for machines of the peer contract: tiny NATs, seeded malice, no clock of its own.

A NAT is two functions that trim a remote endpoint to what the behaviour can see of it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol, TypeAlias

from testbed.datagram import Datagram, Endpoint

MS = 1_000_000
SECOND = 1_000_000_000


class Machine(Protocol):
    def receive(self, datagram: Datagram, now: int) -> object: ...
    def next_timeout(self) -> int | None: ...
    def handle_timeout(self, now: int) -> object: ...
    def datagrams_to_send(self, now: int) -> list[Datagram]: ...


Key: TypeAlias = "tuple[object, ...]"
Trim: TypeAlias = Callable[[Endpoint], Key]


def independent(remote: Endpoint) -> Key:
    return ()


def by_address(remote: Endpoint) -> Key:
    return (remote.host,)


def by_address_and_port(remote: Endpoint) -> Key:
    return (remote.host, remote.port)


TRIMS: dict[str, Trim] = {"ei": independent, "ad": by_address, "apd": by_address_and_port}
KINDS = tuple(f"{m}m-{f}f" for m in TRIMS for f in TRIMS)


@dataclass
class Nat:
    """One external address. Endpoint-independent mappings preserve the port; the others count ports up by `step`, or
    draw them where `rng` is given.
    """

    external: str
    mapping: Trim
    filtering: Trim
    preserves: bool
    out: dict[tuple[Endpoint, Key], Endpoint] = field(default_factory=dict)
    back: dict[Endpoint, Endpoint] = field(default_factory=dict)
    permitted: set[tuple[Endpoint, Key]] = field(default_factory=set)
    step: int = 1
    rng: Random | None = None
    next_port: int = 30000
    range: Sequence[int] = range(1, 65536)
    """What random ports are drawn from."""

    @classmethod
    def of(cls, kind: str, external: str, *, step: int = 1, rng: Random | None = None) -> Nat:
        mapping, filtering = kind.split("-")
        trims = TRIMS[mapping[:-1]], TRIMS[filtering[:-1]]
        return cls(external, *trims, preserves=mapping == "eim", step=step, rng=rng)

    def take_port(self) -> int:
        """The port of the next mapping; as if another host's, when called from outside."""
        if self.rng is None:
            self.next_port += self.step
            return self.next_port - self.step
        port = self.rng.choice(self.range)
        while Endpoint(self.external, port) in self.back:
            port = self.rng.choice(self.range)
        return port

    def outbound(self, datagram: Datagram) -> Datagram:
        key = (datagram.source, self.mapping(datagram.destination))
        if key not in self.out:
            port = datagram.source.port if self.preserves else self.take_port()
            self.out[key] = Endpoint(self.external, port)
            self.back[self.out[key]] = datagram.source
        external = self.out[key]
        self.permitted.add((external, self.filtering(datagram.destination)))
        return Datagram(external, datagram.destination, datagram.data)

    def inbound(self, datagram: Datagram) -> Datagram | None:
        external = datagram.destination
        if (external, self.filtering(datagram.source)) not in self.permitted:
            return None
        return Datagram(datagram.source, self.back[external], datagram.data)


@dataclass
class Malice:
    """Chances of each datagram's fates."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Chance of a delay of up to 100 ms more."""


@dataclass
class Network:
    """Hosts by address; each may sit behind NATs, the nearest first."""

    seed: int = 0
    malice: Malice = field(default_factory=Malice)
    delay: int = 10 * MS
    now: int = 1000 * SECOND
    machines: dict[str, Machine] = field(default_factory=dict)
    nats: dict[str, tuple[Nat, ...]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    sent: list[tuple[int, Datagram]] = field(default_factory=list)
    blocked: Callable[[Datagram], bool] = lambda datagram: False
    on_step: list[Callable[[int], object]] = field(default_factory=list)
    _queue: list[tuple[int, int, str, Datagram]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)

    def add(self, machine: Machine, *hosts: str, behind: tuple[Nat, ...] = ()) -> None:
        for host in hosts:
            self.machines[host] = machine
            self.nats[host] = behind

    def flush(self) -> None:
        for machine in {id(machine): machine for machine in self.machines.values()}.values():
            for hook in self.on_step:
                hook(self.now)
            for datagram in machine.datagrams_to_send(self.now):
                self.sent.append((self.now, datagram))
                self._send(datagram)

    def run(self, until: int, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Until a time from now, or until `stop` says so."""
        end = self.now + until
        self.flush()
        while not stop():
            timers = [time for m in self.machines.values() if (time := m.next_timeout()) is not None]
            arrivals = [self._queue[0][0]] if self._queue else []
            due = min(timers + arrivals, default=end)
            if due >= end:
                self.now = end
                return
            self.now = max(self.now, due)
            while self._queue and self._queue[0][0] <= self.now:
                _, _, host, datagram = heapq.heappop(self._queue)
                self.machines[host].receive(datagram, self.now)
            for machine in {id(machine): machine for machine in self.machines.values()}.values():
                time = machine.next_timeout()
                if time is not None and time <= self.now:
                    machine.handle_timeout(self.now)
            self.flush()

    def _send(self, datagram: Datagram) -> None:
        assert datagram.source.host in self.machines, f"{datagram.source} is nobody's address"
        if self.blocked(datagram):
            self.dropped["blocked"] += 1
            return
        path = self.nats[datagram.source.host]
        if datagram.destination.host in self.nats and self.nats[datagram.destination.host] == path:
            self._deliver(datagram)  # the same segment
            return
        for nat in path:
            datagram = nat.outbound(datagram)
        for host, nats in self.nats.items():
            if nats and nats[-1].external == datagram.destination.host:
                self._enter(datagram, host, nats)
                return
        if not self.nats.get(datagram.destination.host, (None,)):
            self._deliver(datagram)
        else:
            self.dropped["no route"] += 1

    def _enter(self, datagram: Datagram, host: str, nats: tuple[Nat, ...]) -> None:
        inner: Datagram | None = datagram
        for nat in reversed(nats):
            inner = nat.inbound(inner) if inner is not None and nat.external == inner.destination.host else None
        if inner is None:
            self.dropped["no permission"] += 1
        else:
            self._deliver(inner)

    def _deliver(self, datagram: Datagram) -> None:
        if self.rng.random() < self.malice.loss:
            self.dropped["loss"] += 1
            return
        for _ in range(2 if self.rng.random() < self.malice.duplicate else 1):
            extra = self.rng.randrange(100 * MS) if self.rng.random() < self.malice.reorder else 0
            self._count += 1
            entry = (self.now + self.delay + extra, self._count, datagram.destination.host, datagram)
            heapq.heappush(self._queue, entry)
