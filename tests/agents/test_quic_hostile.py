"""Hostile datagrams: whoever sends what, two QUIC peers meet as if it had not come, and nothing is raised."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import pytest

from testbed.agents.quic_session import Session, read_initial
from testbed.agents.quic_tls import certificate
from testbed.datagram import Datagram, Endpoint
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import Event
from testbed.traversal.punching import CloseBase, OpenBase
from testbed.traversal.quic_happenings import Completed, Path
from testbed.traversal.quic_switch import token_of
from tests.agents.quic_wire import aioquic_peer
from tests.traversal.network import MS, SECOND, Malice, Nat, Network
from tests.traversal.pair import End, Pair
from tests.traversal.test_udp_peer import HOME_A, HOME_B

STRANGER = Endpoint("11.0.66.6", 666)
Hostility = Callable[[Datagram, Random], list[Datagram]]


def random_bytes(datagram: Datagram, rng: Random) -> list[Datagram]:
    sizes = (0, 1, 2, 7, 20, 64, 300, 1200, 1500)
    return [Datagram(STRANGER, datagram.destination, rng.randbytes(rng.choice(sizes))) for _ in range(3)]


def random_quic(datagram: Datagram, rng: Random) -> list[Datagram]:
    """Headers that are right as far as the connection id, from the true source."""
    size = min(len(datagram.data), rng.randrange(9, 40))
    return [Datagram(datagram.source, datagram.destination, datagram.data[:size] + rng.randbytes(rng.randrange(1200)))]


def cut_off(datagram: Datagram, rng: Random) -> list[Datagram]:
    return [Datagram(datagram.source, datagram.destination, datagram.data[: rng.randrange(len(datagram.data))])]


def flipped(datagram: Datagram, rng: Random) -> list[Datagram]:
    data = bytearray(datagram.data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return [Datagram(datagram.source, datagram.destination, bytes(data))]


@dataclass
class Harassed:
    """An end to which more comes than was sent to it: made of each datagram before it arrives, or, replayed by a
    stranger, after it has.
    """

    inner: End
    rng: Random
    hostility: Hostility

    def start(self, now: int) -> None:
        self.inner.start(now)

    def receive(self, datagram: Datagram, now: int) -> None:
        # Signalling has no integrity of its own, and the answers of STUN servers have none: both are trusted.
        is_quic = classify(datagram.data) in (Protocol.QUIC, Protocol.CHANNEL)
        for hostile in self.hostility(datagram, self.rng) if is_quic and datagram.data else ():
            self.inner.receive(hostile, now)
        self.inner.receive(datagram, now)
        if is_quic:
            self.inner.receive(Datagram(STRANGER, datagram.destination, datagram.data), now)
            self.inner.receive(datagram, now)

    def next_timeout(self) -> int | None:
        return self.inner.next_timeout()

    def handle_timeout(self, now: int) -> None:
        self.inner.handle_timeout(now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        sent = self.inner.datagrams_to_send(now)
        assert not any(datagram.destination == STRANGER for datagram in sent)
        return sent

    def events(self) -> Sequence[Event | OpenBase | CloseBase]:
        return self.inner.events()

    def base_opened(self, base: Endpoint, now: int) -> None:
        self.inner.base_opened(base, now)

    def base_refused(self, base: Endpoint, now: int) -> None:
        self.inner.base_refused(base, now)


@pytest.mark.parametrize("hostility", [random_bytes, random_quic, cut_off, flipped])
@pytest.mark.parametrize("has_relay", [True, False], ids=["through the relay", "dialled"])
@pytest.mark.parametrize("seed", range(6))
def test_two_ends_meet_whatever_else_comes(hostility: Hostility, has_relay: bool, seed: int) -> None:
    def make(**arguments: object) -> Harassed:
        return Harassed(aioquic_peer(**arguments), Random(f"{arguments['name']} {seed}"), hostility)

    behind = (Nat.of("eim-apdf", HOME_A),), (Nat.of("eim-apdf", HOME_B),)
    network = Network(seed, Malice(loss=0.05, duplicate=0.1, reorder=0.1))
    trial = Pair(*behind, network=network, has_relay=has_relay, make=make).run()
    assert trial.is_direct
    if has_relay:
        assert all("relay" in trial.words(name) for name in trial.events)


def test_datagrams_before_anything_is_known_change_nothing() -> None:
    trial = Pair(make=aioquic_peer, hosts=("11.0.9.1", "11.0.9.2"))
    now, alice = trial.network.now, Endpoint("11.0.9.1", 40000)
    trial.alice.start(now)
    noise = [b"", b"\x40", b"\xc0" * 1200, b"\x40\x00\x00\x04abcd", b"\xc0\x00\x00\x00\x01\x08", b"\x0f" * 30]
    for data in noise:
        trial.alice.receive(Datagram(STRANGER, alice, data), now)
    assert all(datagram.destination.host.startswith("11.0.0.") for datagram in trial.alice.datagrams_to_send(now))


# ---- who may begin a connection

HERE, THERE = Path(STRANGER, Endpoint("11.0.66.7", 7)), Path(Endpoint("11.0.66.7", 7), STRANGER)


def first_packet(token: bytes) -> bytes:
    session = Session.dial(HERE, token, io.StringIO(), 0)
    ((data, path),) = session.datagrams_to_send(0)
    assert path == HERE
    return data


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        pytest.param(lambda data: data, True, id="as it should be"),
        pytest.param(lambda data: data[:-1], False, id="smaller than 1200 bytes"),
        pytest.param(lambda data: data[:1] + b"\x6b\x33\x43\xcf" + data[5:], False, id="of version 2"),
        pytest.param(lambda data: data[:1] + bytes(4) + data[5:], False, id="version negotiation"),
        pytest.param(lambda data: bytes([data[0] ^ 0x20]) + data[1:], False, id="a handshake packet"),
        pytest.param(lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], False, id="that does not decrypt"),
        pytest.param(lambda data: data[:6] + bytes([data[6] ^ 1]) + data[7:], False, id="to another connection id"),
        pytest.param(lambda data: data[:5] + b"\xff" + data[6:], False, id="to one that is too long"),
    ],
)
def test_a_server_begins_with_a_whole_initial_packet_only(change: Callable[[bytes], bytes], is_taken: bool) -> None:
    token = token_of("one", "other")
    session = Session.accept(change(first_packet(token)), THERE, token, io.StringIO(), 10 * MS)
    assert (session is not None) == is_taken


def test_both_ends_make_the_same_token_and_others_do_not() -> None:
    assert token_of("one", "other") == token_of("other", "one") != token_of("one", "another")


def test_a_stranger_begins_no_connection() -> None:
    data = first_packet(token_of("one", "stranger"))
    assert read_initial(data) is not None
    assert Session.accept(data, THERE, token_of("one", "other"), io.StringIO(), 0) is None


def test_a_stranger_who_comes_first_does_not_stand_in_the_way() -> None:
    trial = Pair(make=aioquic_peer, hosts=("11.0.9.1", "11.0.9.2"), has_relay=False)
    bob, data = Endpoint("11.0.9.2", 40000), first_packet(b"whatever")
    trial.network.on_step.append(lambda now: trial.bob.receive(Datagram(STRANGER, bob, data), now))
    assert trial.run().is_direct


def test_a_client_refuses_a_server_with_another_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Pair(make=aioquic_peer, hosts=("11.0.9.1", "11.0.9.2"), has_relay=False, deadline=3 * SECOND)
    impostor = certificate.__wrapped__()
    assert impostor.fingerprint != certificate().fingerprint
    monkeypatch.setattr("testbed.agents.quic_tls.certificate", lambda: impostor)
    trial.run()
    assert not trial.is_direct
    assert trial.words("alice")[-1] == "failed"


def test_a_session_owns_what_goes_to_its_connection_ids() -> None:
    token, client, log = token_of("one", "other"), Session.dial(HERE, b"t", io.StringIO(), 0), io.StringIO()
    client = Session.dial(HERE, token, log, 0)
    ((first, _),) = client.datagrams_to_send(0)
    server = Session.accept(first, THERE, token, log, 0)
    assert server is not None
    assert server.owns(first)  # the client sends it again before it has an answer
    for data, _ in server.datagrams_to_send(0):
        assert client.owns(data)
        assert not server.owns(data)
        client.receive(data, HERE, 20 * MS)
    assert Completed() in client.happenings()
    assert not client.owns(b"\x40" + bytes(20))
    assert not client.owns(b"\xc0")
