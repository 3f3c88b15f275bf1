"""The virtual network alone: its end, its sockets, and what has nowhere to go."""

from __future__ import annotations

from collections.abc import Callable

from testbed.datagram import Datagram, Endpoint
from testbed.sim.network import Attached, VirtualNetwork
from testbed.sim.routes import Routes
from tests.sim.build import MS, TWO_HOMES, cell, node

SERVER = Endpoint("11.0.0.2", 3478)


class Talker:
    """Sends what it is given and remembers what it hears; its timer, once set, never moves."""

    def __init__(self, *outbox: Datagram, due: int | None = None) -> None:
        self.outbox, self.due = list(outbox), due
        self.heard: list[tuple[int, Datagram]] = []
        self.rung: list[int] = []

    def receive(self, datagram: Datagram, now: int) -> None:
        self.heard.append((now, datagram))

    def next_timeout(self) -> int | None:
        return self.due

    def handle_timeout(self, now: int) -> None:
        self.rung.append(now)
        self.due = None

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        outbox, self.outbox = self.outbox, []
        return outbox


def nothing(now: int) -> None:
    """After a thing that happens: nothing."""


def network() -> VirtualNetwork:
    return VirtualNetwork(Routes(cell({**TWO_HOMES, "other": node("peer", "nat_a")}).network), 1)


def attach(where: VirtualNetwork, talker: Talker, box: str, *sockets: Endpoint) -> Attached:
    attached = where.attach(talker, box, sockets, nothing)
    where.flush(attached)
    return attached


def from_alice(destination: Endpoint, data: bytes = b"x") -> Datagram:
    return Datagram(Endpoint("192.168.1.2", 5000), destination, data)


def lost(where: VirtualNetwork) -> list[tuple[str, str]]:
    return [(one.where, one.reason) for one in where.lost]


def test_a_datagram_arrives_with_its_external_source_after_the_delays_of_its_way() -> None:
    internet, server = network(), Talker()
    attach(internet, server, "meet", SERVER)
    attach(internet, Talker(from_alice(SERVER)), "alice")
    internet.run(1000 * MS)
    assert [(now, d.source, d.data) for now, d in server.heard] == [(30 * MS, Endpoint("11.0.0.6", 5000), b"x")]


def test_it_ends_at_its_time() -> None:
    internet, server = network(), Talker()
    attach(internet, server, "meet", SERVER)
    attach(internet, Talker(from_alice(SERVER)), "alice")
    internet.run(29 * MS)
    assert server.heard == []


def test_a_box_reaches_itself_without_a_cable() -> None:
    internet, talker = network(), Talker(Datagram(SERVER, Endpoint("11.0.0.2", 9), b"x"))
    talker.outbox.append(Datagram(SERVER, SERVER, b"to myself"))
    attach(internet, talker, "meet", SERVER)
    assert [datagram.data for _, datagram in talker.heard] == [b"to myself"]
    assert lost(internet) == [("meet", "closed")]


def test_a_timer_rings_once_and_in_the_past_at_once() -> None:
    internet, early, late = network(), Talker(due=-5), Talker(due=40 * MS)
    attach(internet, early, "alice")
    attach(internet, late, "bob")
    internet.run(1000 * MS)
    assert (early.rung, late.rung) == ([0], [40 * MS])


def test_what_has_nowhere_to_go() -> None:
    """Each ends where a person would look for it."""
    ends: list[tuple[Callable[[], Datagram], tuple[str, str]]] = [
        (lambda: from_alice(Endpoint("192.168.1.1", 9)), ("nat_a", "closed")),
        (lambda: from_alice(Endpoint("192.168.1.99", 9)), ("alice", "no route")),
        (lambda: from_alice(Endpoint("10.1.2.3", 9)), ("internet", "no route")),
        (lambda: from_alice(SERVER, bytes(1473)), ("alice", "too big")),
        (lambda: from_alice(Endpoint("11.0.0.10", 9)), ("nat_b", "no-mapping")),
        (lambda: from_alice(Endpoint("192.168.1.3", 9)), ("other", "closed")),
    ]
    for make, end in ends:
        internet = network()
        attach(internet, Talker(make()), "alice")
        internet.run(1000 * MS)
        assert lost(internet) == [end]
