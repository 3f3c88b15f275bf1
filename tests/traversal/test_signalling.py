"""Signalling: two clients and a server over a bad network."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import signalling
from testbed.traversal.signalling import (
    MAX_SIZE,
    MessageReceived,
    PeerLearnt,
    Registered,
    SignallingClient,
    SignallingError,
)
from testbed.traversal.signalling_server import SERVER_SENDS, SignallingServer
from tests.traversal.network import SECOND, Malice, Network

SERVER = Endpoint("11.0.0.1", 3480)
ALICE, BOB = Endpoint("11.0.1.1", 5), Endpoint("11.0.2.1", 5)


class Meeting:
    def __init__(self, seed: int = 0, malice: Malice | None = None) -> None:
        self.network = Network(seed, malice or Malice())
        self.server = SignallingServer(SERVER)
        self.alice = SignallingClient("alice", ALICE, SERVER, Random(f"a{seed}"))
        self.bob = SignallingClient("bob", BOB, SERVER, Random(f"b{seed}"))
        self.network.add(self.server, SERVER.host)
        self.network.add(self.alice, ALICE.host)
        self.network.add(self.bob, BOB.host)

    @property
    def now(self) -> int:
        return self.network.now

    def both_register(self) -> None:
        self.alice.register("bob", {"of": "alice"}, self.now)
        self.bob.register("alice", {"of": "bob"}, self.now)
        self.network.run(10 * SECOND)


def learnt(events: list[Registered | PeerLearnt | MessageReceived]) -> list[tuple[str, object]]:
    return [(event.name, event.description) for event in events if isinstance(event, PeerLearnt)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "malice",
    [
        pytest.param(Malice(), id="nothing happens"),
        pytest.param(Malice(loss=0.3), id="a third is lost"),
        pytest.param(Malice(duplicate=0.5, reorder=0.5), id="half come twice or late"),
    ],
)
def test_both_learn_of_each_other_exactly_once(malice: Malice, seed: int) -> None:
    meeting = Meeting(seed, malice)
    meeting.both_register()
    for client, name in ((meeting.alice, "bob"), (meeting.bob, "alice")):
        events = client.events()
        assert learnt(events) == [(name, {"of": name})]
        assert sum(isinstance(event, Registered) for event in events) == 1
    for number in range(20):
        meeting.alice.send("bob", {"number": number}, meeting.now)
    meeting.network.run(20 * SECOND)
    bodies = [event.body for event in meeting.bob.events() if isinstance(event, MessageReceived)]
    assert sorted(bodies, key=str) == sorted(({"number": number} for number in range(20)), key=str)


def test_who_comes_late_is_learnt_late() -> None:
    meeting = Meeting()
    meeting.alice.register("bob", {"of": "alice"}, meeting.now)
    meeting.network.run(5 * SECOND)
    assert learnt(meeting.alice.events()) == []
    meeting.bob.register("alice", {"of": "bob"}, meeting.now)
    meeting.network.run(SECOND)
    assert learnt(meeting.alice.events()) == [("bob", {"of": "bob"})]
    assert learnt(meeting.bob.events()) == [("alice", {"of": "alice"})]


def test_registering_anew_tells_the_other_again() -> None:
    meeting = Meeting()
    meeting.both_register()
    meeting.alice.events()
    meeting.bob.register("alice", {"of": "bob", "more": 1}, meeting.now)
    meeting.network.run(SECOND)
    assert learnt(meeting.alice.events()) == [("bob", {"of": "bob", "more": 1})]


def test_an_end_that_starts_again_takes_its_name_over() -> None:
    meeting = Meeting()
    meeting.both_register()
    meeting.alice.events()
    again = SignallingClient("bob", BOB, SERVER, Random("another"))
    meeting.network.add(again, BOB.host)
    again.register("alice", {"of": "bob again"}, meeting.now)
    meeting.network.run(SECOND)
    assert learnt(meeting.alice.events()) == [("bob", {"of": "bob again"})]
    assert learnt(again.events()) == [("alice", {"of": "alice"})]


def test_names_that_do_not_look_for_each_other_are_not_introduced() -> None:
    meeting = Meeting()
    meeting.alice.register("carol", {"of": "alice"}, meeting.now)
    meeting.bob.register("carol", {"of": "bob"}, meeting.now)
    meeting.network.run(SECOND)
    assert learnt(meeting.alice.events()) == []


def test_a_message_to_a_name_that_is_not_there_yet_arrives_once_it_is() -> None:
    meeting = Meeting()
    meeting.alice.register("bob", {}, meeting.now)
    meeting.alice.send("bob", {"hello": 1}, meeting.now)
    meeting.network.run(3 * SECOND)
    meeting.bob.register("alice", {}, meeting.now)
    meeting.network.run(3 * SECOND)
    bodies = [event.body for event in meeting.bob.events() if isinstance(event, MessageReceived)]
    assert bodies == [{"hello": 1}]


def test_what_does_not_fit_is_the_callers_error() -> None:
    meeting = Meeting()
    with pytest.raises(SignallingError, match="at most 1200 fit"):
        meeting.alice.register("bob", {"long": "x" * MAX_SIZE}, meeting.now)


def test_a_client_believes_its_server_and_its_token_only() -> None:
    meeting = Meeting()
    forged = signalling.encode({"kind": "peer", "id": 1, "token": "0" * 16, "name": "bob", "description": {}})
    assert not meeting.alice.receive(Datagram(SERVER, ALICE, forged), 0)
    meeting.alice.register("bob", {}, 0)
    token = signalling.decode(meeting.alice.datagrams_to_send(0)[0].data)["token"]
    good = signalling.encode({"kind": "peer", "id": 1, "token": token, "name": "bob", "description": {}})
    assert not meeting.alice.receive(Datagram(BOB, ALICE, good), 0)
    assert meeting.alice.receive(Datagram(SERVER, ALICE, good), 0)
    assert learnt(meeting.alice.events()) == [("bob", {})]


def test_the_server_forgets_who_is_silent_for_long() -> None:
    meeting = Meeting()
    meeting.alice.register("bob", {}, meeting.now)
    meeting.network.run(400 * SECOND)
    assert meeting.server.next_timeout() is None


def test_the_server_does_not_send_for_ever_to_who_does_not_answer() -> None:
    meeting = Meeting()
    meeting.both_register()
    meeting.network.blocked = lambda datagram: datagram.destination == BOB
    meeting.alice.send("bob", {"lost": 1}, meeting.now)
    before = len(meeting.network.sent)
    meeting.network.run(200 * SECOND)
    assert len(meeting.network.sent) - before == 1 + 1 + SERVER_SENDS


@given(st.binary(max_size=60), st.booleans())
def test_hostile_bytes_never_leave_a_machine(data: bytes, magic: bool) -> None:
    meeting = Meeting()
    data = b"\x0e" + data if magic else data
    assert not meeting.server.receive(Datagram(ALICE, SERVER, data), 0)
    assert not meeting.alice.receive(Datagram(SERVER, ALICE, data), 0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["kind", "id", "token", "name", "peer", "to", "body", "description", "from"])
kinds = st.sampled_from(["register", "message", "ack", "peer", "other"])


@example({"description": "\ud800"}, "register", 7, "alice\ud800")
@given(
    st.dictionaries(keys, json_values, max_size=9),
    kinds,
    st.integers(0, 3),
    st.sampled_from(["alice", "bob", ""]),
)
def test_well_formed_nonsense_is_answered_or_dropped(
    message: dict[str, object], kind: str, number: int, name: str
) -> None:
    meeting = Meeting()
    meeting.both_register()
    token = meeting.server._clients["alice"].token
    document = {**message, "kind": kind, "id": number, "token": token, "name": name}
    try:
        data = signalling.encode(document)
    except SignallingError:
        return
    meeting.server.receive(Datagram(ALICE, SERVER, data), meeting.now)
    meeting.server.datagrams_to_send(meeting.now)
    meeting.alice.receive(Datagram(SERVER, ALICE, data), meeting.now)
    meeting.alice.datagrams_to_send(meeting.now)
