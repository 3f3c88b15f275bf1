"""The relay and its clients: what RFC 8656 promises, in virtual time."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import stun
from testbed.traversal.stun import Kind, Message, Method
from testbed.traversal.stun_attributes import Attribute, ErrorCode, Value
from testbed.traversal.turn import (
    Allocated,
    AllocationFailed,
    Credentials,
    DataReceived,
    NotPermitted,
    Permitted,
    TurnClient,
    TurnEvent,
    decode_channel_data,
    encode_channel_data,
)
from testbed.traversal.turn_server import CloseRelay, OpenRelay, RelayEvent, TurnServer
from tests.traversal.network import SECOND, Malice, Network

SERVER = Endpoint("11.0.0.1", 3478)
ALICE, BOB, PEER = Endpoint("11.0.1.1", 5), Endpoint("11.0.2.1", 6), Endpoint("11.0.3.1", 7)
GOOD = Credentials("peer", "secret")
MINUTE = 60 * SECOND


class Host:
    """A plain host that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[Datagram] = []
        self.outbox: list[Datagram] = []

    def receive(self, datagram: Datagram, now: int) -> None:
        self.got.append(datagram)

    def next_timeout(self) -> int | None:
        return None

    def handle_timeout(self, now: int) -> None: ...

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        outbox, self.outbox = self.outbox, []
        return outbox


class Relay:
    """A relay, two clients and a plain peer."""

    def __init__(
        self, *, malice: Malice | None = None, seed: int = 0, refused: int = 0, credentials: Credentials = GOOD
    ) -> None:
        self.network = Network(seed, malice or Malice())
        self.server = TurnServer(SERVER, "testbed", {"peer": "secret", "other": "secret"}, Random(seed), capacity=4)
        self.alice = TurnClient(ALICE, SERVER, credentials, Random(f"a{seed}"))
        self.bob = TurnClient(BOB, SERVER, GOOD, Random(f"b{seed}"))
        self.peer = Host()
        self.refused = refused
        self.relay_events: list[RelayEvent] = []
        self.network.add(self.server, SERVER.host)
        self.network.add(self.alice, ALICE.host)
        self.network.add(self.bob, BOB.host)
        self.network.add(self.peer, PEER.host)
        self.network.on_step.append(self._step)
        self.events: dict[str, list[TurnEvent]] = {"alice": [], "bob": []}

    def _step(self, now: int) -> None:
        while events := self.server.events():
            self.relay_events += events
            for event in events:
                if isinstance(event, OpenRelay) and self.refused:
                    self.refused -= 1
                    self.server.relay_refused(event.endpoint, now)
                elif isinstance(event, OpenRelay):
                    self.server.relay_opened(event.endpoint, now)

    @property
    def now(self) -> int:
        return self.network.now

    def run(self, time: int = 2 * SECOND) -> None:
        self.network.run(time)
        self.events["alice"] += self.alice.events()
        self.events["bob"] += self.bob.events()

    def of(self, name: str, kind: type[TurnEvent]) -> list[TurnEvent]:
        return [event for event in self.events[name] if isinstance(event, kind)]

    def allocated(self) -> Relay:
        self.alice.allocate(self.now)
        self.run()
        assert self.alice.relayed is not None
        return self


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "malice",
    [
        pytest.param(Malice(), id="a good network"),
        pytest.param(Malice(loss=0.3), id="a third is lost"),
        pytest.param(Malice(duplicate=0.5, reorder=0.5), id="half come twice or late"),
    ],
)
def test_both_ways_through_two_allocations(malice: Malice, seed: int) -> None:
    relay = Relay(malice=malice, seed=seed)
    for client in (relay.alice, relay.bob):
        client.allocate(relay.now)
    relay.run(20 * SECOND)
    alice, bob = relay.alice.relayed, relay.bob.relayed
    assert alice is not None
    assert bob is not None
    relay.alice.bind(bob, relay.now)
    relay.bob.permit(alice, relay.now)
    relay.run(20 * SECOND)
    relay.network.malice = Malice()
    relay.alice.send(bob, b"to bob", relay.now)
    relay.bob.send(alice, b"to alice", relay.now)
    relay.run()
    assert relay.of("bob", DataReceived)[-1:] == [DataReceived(relay.of("bob", DataReceived)[-1].t, alice, b"to bob")]
    assert relay.of("alice", DataReceived)[-1:] == [DataReceived(relay.events["alice"][-1].t, bob, b"to alice")]
    assert len(relay.of("alice", Allocated)) == len(relay.of("bob", Allocated)) == 1


def test_what_it_says_of_the_allocation() -> None:
    relay = Relay().allocated()
    (event,) = relay.of("alice", Allocated)
    assert isinstance(event, Allocated)
    assert event.mapped == ALICE
    assert event.relayed.host == SERVER.host
    assert event.lifetime == 600 * SECOND


def test_a_plain_peer_is_reached_and_answers_once_it_is_permitted() -> None:
    relay = Relay().allocated()
    relayed = relay.alice.relayed
    assert relayed is not None
    relay.peer.outbox.append(Datagram(PEER, relayed, b"too early"))
    relay.run()
    assert relay.of("alice", DataReceived) == []
    relay.alice.permit(PEER, relay.now)
    relay.run()
    assert [type(event) for event in relay.events["alice"][1:]] == [Permitted]
    relay.alice.send(PEER, b"hello", relay.now)
    relay.run()
    assert [(d.source, d.data) for d in relay.peer.got] == [(relayed, b"hello")]
    elsewhere = Endpoint(PEER.host, 999)
    relay.peer.outbox.append(Datagram(elsewhere, relayed, b"a permission is for every port"))
    relay.run()
    (event,) = relay.of("alice", DataReceived)
    assert isinstance(event, DataReceived)
    assert (event.peer, event.data) == (elsewhere, b"a permission is for every port")


def test_a_client_keeps_its_allocation_permission_and_channel_alive() -> None:
    relay = Relay().allocated()
    relay.alice.bind(PEER, relay.now)
    relay.run(61 * MINUTE)
    relay.alice.send(PEER, b"still there", relay.now)
    relay.run()
    assert [datagram.data for datagram in relay.peer.got] == [b"still there"]
    assert relay.of("alice", AllocationFailed) == []


def test_an_allocation_without_its_client_ends() -> None:
    relay = Relay().allocated()
    relayed = relay.alice.relayed
    relay.network.blocked = lambda datagram: datagram.source == ALICE
    relay.run(20 * MINUTE)
    assert relay.relay_events[-1] == CloseRelay(relayed) if relayed is not None else False
    (failure,) = relay.of("alice", AllocationFailed)
    assert isinstance(failure, AllocationFailed)
    assert failure.reason == "refresh of the allocation: no answer"


def test_giving_back_closes_the_relayed_address() -> None:
    relay = Relay().allocated()
    relayed = relay.alice.relayed
    relay.alice.close(relay.now)
    relay.run()
    assert [event for event in relay.relay_events if isinstance(event, CloseRelay)] == [CloseRelay(relayed)]  # type: ignore[arg-type]
    assert relay.server.next_timeout() is None


def test_ports_that_are_taken_are_passed_over() -> None:
    relay = Relay(refused=3).allocated()
    assert sum(isinstance(event, OpenRelay) for event in relay.relay_events) == 4


@pytest.mark.parametrize(
    ("relay", "reason"),
    [
        pytest.param(Relay(refused=100), "allocation: 508 Insufficient Capacity", id="no port can be had"),
        pytest.param(
            Relay(credentials=Credentials("peer", "wrong")), "allocation: 401 Unauthenticated", id="a wrong password"
        ),
        pytest.param(
            Relay(credentials=Credentials("nobody", "secret")), "allocation: 401 Unauthenticated", id="an unknown name"
        ),
    ],
)
def test_refusals_of_an_allocation(relay: Relay, reason: str) -> None:
    relay.alice.allocate(relay.now)
    relay.run()
    (failure,) = relay.of("alice", AllocationFailed)
    assert isinstance(failure, AllocationFailed)
    assert failure.reason == reason


def test_a_silent_relay_is_given_up_at_the_callers_limit() -> None:
    relay = Relay()
    relay.network.blocked = lambda datagram: True
    relay.alice.allocate(relay.now, limit=relay.now + SECOND)
    began = relay.now
    relay.run(5 * SECOND)
    (failure,) = relay.of("alice", AllocationFailed)
    assert failure.t - began == SECOND


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(Endpoint("127.0.0.1", 80), id="the relay's own loopback"),
        pytest.param(Endpoint("224.0.0.1", 80), id="multicast"),
        pytest.param(Endpoint("0.0.0.0", 80), id="no address"),
        pytest.param(Endpoint("2001:db8::1", 80), id="another address family"),
    ],
)
def test_peers_that_are_refused(peer: Endpoint) -> None:
    relay = Relay().allocated()
    relay.alice.permit(peer, relay.now)
    relay.run()
    (refused,) = relay.of("alice", NotPermitted)
    assert isinstance(refused, NotPermitted)
    assert refused.reason.startswith("443" if ":" in peer.host else "403")


# ---- single requests, by hand


class ByHand:
    """A client that says exactly what it is told to."""

    def __init__(self) -> None:
        self.server = TurnServer(SERVER, "testbed", {"peer": "secret", "other": "secret"}, Random(1), capacity=2)
        self.count = 0
        self.now = 0
        self.nonce = self.answer(self.ask(Method.ALLOCATE, key=None)).text(Attribute.NONCE)

    def ask(
        self,
        method: Method,
        *attributes: tuple[Attribute, Value],
        key: bytes | None = b"good",
        source: Endpoint = ALICE,
        user: str = "peer",
        transaction: int | None = None,
    ) -> list[Datagram]:
        self.count += 1
        if key == b"good":
            key = stun.long_term_key(user, "testbed", "secret")
            attributes = (
                *attributes,
                (Attribute.USERNAME, user),
                (Attribute.REALM, "testbed"),
                (Attribute.NONCE, self.nonce),
            )
        number = (transaction or self.count).to_bytes(12, "big")
        data = stun.encode(stun.request(method, number, *attributes), key=key)
        assert self.server.receive(Datagram(source, SERVER, data), self.now)
        while events := self.server.events():
            for event in events:
                if isinstance(event, OpenRelay):
                    self.server.relay_opened(event.endpoint, self.now)
        return self.server.datagrams_to_send(self.now)

    def answer(self, datagrams: list[Datagram]) -> Message:
        (datagram,) = datagrams
        return stun.decode(datagram.data)

    def code(self, datagrams: list[Datagram]) -> int:
        error = self.answer(datagrams).error
        return error.code if error is not None else 0

    def allocate(self, **arguments: Endpoint) -> Message:
        return self.answer(self.ask(Method.ALLOCATE, UDP, **arguments))  # type: ignore[arg-type]


UDP = (Attribute.REQUESTED_TRANSPORT, 17)
TO_PEER = (Attribute.XOR_PEER_ADDRESS, PEER)
CHANNEL = (Attribute.CHANNEL_NUMBER, 0x4000)


@pytest.mark.parametrize(
    ("method", "attributes", "code"),
    [
        pytest.param(Method.ALLOCATE, (), 400, id="no transport"),
        pytest.param(Method.ALLOCATE, ((Attribute.REQUESTED_TRANSPORT, 6),), 442, id="TCP"),
        pytest.param(Method.ALLOCATE, (UDP, (Attribute.REQUESTED_ADDRESS_FAMILY, 2)), 440, id="IPv6"),
        pytest.param(Method.ALLOCATE, (UDP, (Attribute.DONT_FRAGMENT, None)), 420, id="DONT-FRAGMENT"),
        pytest.param(
            Method.ALLOCATE,
            (UDP, (Attribute.EVEN_PORT, 0), (Attribute.RESERVATION_TOKEN, bytes(8))),
            400,
            id="EVEN-PORT with a token",
        ),
        pytest.param(Method.ALLOCATE, (UDP, (Attribute.RESERVATION_TOKEN, bytes(8))), 508, id="a token of nobody"),
        pytest.param(Method.REFRESH, (), 437, id="refresh without an allocation"),
        pytest.param(Method.CREATE_PERMISSION, (TO_PEER,), 437, id="permission without an allocation"),
        pytest.param(Method.CHANNEL_BIND, (TO_PEER, CHANNEL), 437, id="channel without an allocation"),
        pytest.param(Method.REFRESH, ((Attribute.LIFETIME, 0),), 0, id="a repeated farewell is granted"),
    ],
)
def test_errors_before_an_allocation(
    method: Method, attributes: tuple[tuple[Attribute, Value], ...], code: int
) -> None:
    hand = ByHand()
    assert hand.code(hand.ask(method, *attributes)) == code


@pytest.mark.parametrize(
    ("method", "attributes", "user", "code"),
    [
        pytest.param(Method.ALLOCATE, (UDP,), "peer", 437, id="a second allocation"),
        pytest.param(Method.REFRESH, (), "other", 441, id="somebody else's allocation"),
        pytest.param(Method.REFRESH, ((Attribute.REQUESTED_ADDRESS_FAMILY, 2),), "peer", 443, id="another family"),
        pytest.param(Method.CREATE_PERMISSION, (), "peer", 400, id="permission for nobody"),
        pytest.param(Method.CHANNEL_BIND, (TO_PEER,), "peer", 400, id="no channel number"),
        pytest.param(Method.CHANNEL_BIND, (TO_PEER, (Attribute.CHANNEL_NUMBER, 1)), "peer", 400, id="a wrong number"),
        pytest.param(Method.CHANNEL_BIND, (CHANNEL, TO_PEER), "peer", 0, id="a channel"),
    ],
)
def test_errors_after_an_allocation(
    method: Method, attributes: tuple[tuple[Attribute, Value], ...], user: str, code: int
) -> None:
    hand = ByHand()
    hand.allocate()
    assert hand.code(hand.ask(method, *attributes, user=user)) == code


def test_a_repeated_request_gets_the_same_answer() -> None:
    hand = ByHand()
    first = hand.ask(Method.ALLOCATE, UDP, transaction=99)
    assert hand.ask(Method.ALLOCATE, UDP, transaction=99) == first


def test_a_channel_belongs_to_one_peer_and_a_peer_to_one_channel() -> None:
    hand = ByHand()
    hand.allocate()
    assert hand.code(hand.ask(Method.CHANNEL_BIND, CHANNEL, TO_PEER)) == 0
    assert hand.code(hand.ask(Method.CHANNEL_BIND, CHANNEL, (Attribute.XOR_PEER_ADDRESS, BOB))) == 400
    assert hand.code(hand.ask(Method.CHANNEL_BIND, (Attribute.CHANNEL_NUMBER, 0x4001), TO_PEER)) == 400
    assert hand.code(hand.ask(Method.CHANNEL_BIND, CHANNEL, TO_PEER)) == 0


def test_no_more_allocations_than_there_is_room_for() -> None:
    hand = ByHand()
    for port in (1, 2):
        assert hand.allocate(source=Endpoint("11.0.9.9", port)).error is None
    assert hand.allocate(source=Endpoint("11.0.9.9", 3)).error == ErrorCode(486, "Allocation Quota Reached")


def test_an_even_port_and_the_next_one_kept() -> None:
    hand = ByHand()
    first = hand.answer(hand.ask(Method.ALLOCATE, UDP, (Attribute.EVEN_PORT, 0x80)))
    relay, token = first.endpoint(Attribute.XOR_RELAYED_ADDRESS), first.data(Attribute.RESERVATION_TOKEN)
    assert relay is not None
    assert relay.port % 2 == 0
    second = hand.answer(hand.ask(Method.ALLOCATE, UDP, (Attribute.RESERVATION_TOKEN, token), source=BOB))
    assert second.endpoint(Attribute.XOR_RELAYED_ADDRESS) == Endpoint(relay.host, relay.port + 1)


def test_a_port_that_nobody_comes_for_is_closed_again() -> None:
    hand = ByHand()
    relay = hand.answer(hand.ask(Method.ALLOCATE, UDP, (Attribute.EVEN_PORT, 0x80))).endpoint(
        Attribute.XOR_RELAYED_ADDRESS
    )
    assert relay is not None
    assert hand.server.next_timeout() == 30 * SECOND
    hand.server.handle_timeout(30 * SECOND)
    assert hand.server.events() == [CloseRelay(Endpoint(relay.host, relay.port + 1))]


def test_a_nonce_gets_stale_and_a_forged_one_is_none() -> None:
    hand = ByHand()
    hand.now = 2 * 3600 * SECOND
    stale = hand.answer(hand.ask(Method.ALLOCATE, UDP))
    assert stale.error is not None
    assert stale.error.code == 438
    hand.nonce = stale.text(Attribute.NONCE)
    assert hand.allocate().error is None
    for forged in ("", "-", "zz-", "ffffffff-0000000000000000", "é"):
        hand.nonce = forged
        assert hand.code(hand.ask(Method.REFRESH)) == 438


def test_answers_are_signed_and_a_client_believes_no_others() -> None:
    hand = ByHand()
    (datagram,) = hand.ask(Method.ALLOCATE, UDP)
    assert stun.decode(datagram.data).verify(stun.long_term_key("peer", "testbed", "secret"))
    client = TurnClient(ALICE, SERVER, GOOD, Random(3))
    client.allocate(0)
    (request,) = client.datagrams_to_send(0)
    challenge = stun.refusal(stun.decode(request.data), 401, "", (Attribute.REALM, "testbed"), (Attribute.NONCE, "n"))
    client.receive(Datagram(SERVER, ALICE, stun.encode(challenge)), 0)
    (request,) = client.datagrams_to_send(0)
    forged = stun.answer(
        stun.decode(request.data),
        (Attribute.XOR_RELAYED_ADDRESS, PEER),
        (Attribute.XOR_MAPPED_ADDRESS, ALICE),
        (Attribute.LIFETIME, 600),
    )
    assert client.receive(Datagram(SERVER, ALICE, stun.encode(forged, key=b"not the key")), 0)
    assert client.events() == []
    assert client.receive(
        Datagram(SERVER, ALICE, stun.encode(forged, key=stun.long_term_key("peer", "testbed", "secret"))), 0
    )
    assert client.relayed == PEER


@given(st.integers(0x4000, 0x4FFF), st.binary(max_size=50), st.binary(max_size=4))
def test_channel_data_round_trips_whatever_pads_it(channel: int, data: bytes, padding: bytes) -> None:
    assert decode_channel_data(encode_channel_data(channel, data) + padding) == (channel, data)


@given(st.binary(max_size=64), st.booleans())
def test_hostile_bytes_are_dropped(data: bytes, is_channel: bool) -> None:
    hand = ByHand()
    hand.allocate()
    hand.server.receive(Datagram(ALICE, SERVER, b"\x40\x00" + data if is_channel else data), 0)
    indication = Message(Kind.INDICATION, Method.SEND, bytes(12), ((Attribute.DATA, data), TO_PEER))
    hand.server.receive(Datagram(ALICE, SERVER, stun.encode(indication)), 0)
    assert hand.server.datagrams_to_send(0) == []
