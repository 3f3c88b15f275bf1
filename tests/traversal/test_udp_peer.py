"""Two UDP peers through tiny NATs: what theory says, under malice, and what each end reports."""

from __future__ import annotations

import pytest

from testbed.datagram import Datagram, Endpoint
from testbed.traversal.candidates import CandidateType
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import Check, Connected, Data, Exhausted, Failed, Gathered, Relay, RoundOfChecks
from tests.traversal.network import KINDS, MS, SECOND, Malice, Nat, Network
from tests.traversal.pair import ALICE, BOB, SERVER, Pair

HOME_A, HOME_B = "11.0.1.1", "11.0.2.1"

# What theory says (no port prediction, targets learnt from STUN): which of the other's kinds each kind can meet.
# The shape: a `1` where two ends connect. It is symmetric, as it must be.
THEORY = {
    "eim-eif": "111111111",
    "eim-adf": "111111111",
    "eim-apdf": "111000000",
    "adm-eif": "110110110",
    "adm-adf": "110100100",
    "adm-apdf": "110000000",
    "apdm-eif": "110110110",
    "apdm-adf": "110100100",
    "apdm-apdf": "110000000",
}
CELLS = [(one, other, THEORY[one][index] == "1") for one in KINDS for index, other in enumerate(KINDS)]


def pair(one: str, other: str, **arguments: object) -> Pair:
    return Pair((Nat.of(one, HOME_A),), (Nat.of(other, HOME_B),), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [
        pytest.param(one, other, meets, id=f"{one} {'meets' if meets else 'cannot meet'} {other}")
        for one, other, meets in CELLS
    ],
)
def test_theory(one: str, other: str, meets: bool) -> None:
    trial = pair(one, other).run()
    assert trial.is_direct == meets
    for name in trial.events:
        assert "relay" in trial.words(name)
        assert ("exhausted" in trial.words(name)) == (not meets)
        assert "failed" not in trial.words(name)


def test_the_claimed_path_is_where_the_packets_went() -> None:
    trial = pair("eim-apdf", "eim-apdf").run()
    claims = trial.connected("alice"), trial.connected("bob")
    for claim, own, other in zip(claims, (ALICE, BOB), (HOME_B, HOME_A), strict=True):
        assert claim is not None
        assert (claim.local, claim.remote) == (Endpoint(own, 40000), Endpoint(other, 40000))
        assert claim.types == (CandidateType.SERVER_REFLEXIVE, CandidateType.SERVER_REFLEXIVE)
        assert claim.received_from is None
        assert claim.rtt == 20 * MS


def test_a_peer_reflexive_address_is_found_and_named() -> None:
    trial = pair("eim-eif", "apdm-apdf").run()
    alice, bob = trial.connected("alice"), trial.connected("bob")
    assert alice is not None
    assert bob is not None
    assert alice.types == (CandidateType.SERVER_REFLEXIVE, CandidateType.PEER_REFLEXIVE)
    assert bob.types == (CandidateType.PEER_REFLEXIVE, CandidateType.SERVER_REFLEXIVE)


def test_a_path_with_a_mapping_for_each_direction_says_so() -> None:
    trial = pair("apdm-eif", "apdm-eif").run()
    claims = [trial.connected("alice"), trial.connected("bob")]
    assert any(claim is not None and claim.received_from not in (None, claim.remote) for claim in claims)


def test_such_a_path_is_only_taken_when_the_round_found_no_other() -> None:
    trial = pair("adm-eif", "apdm-eif").run()
    assert all(claim.received_from is None for name in trial.events if (claim := trial.connected(name)))


def test_two_peers_in_one_home_meet_by_their_host_candidates() -> None:
    home = Nat.of("apdm-apdf", HOME_A)
    trial = Pair((home,), (home,), hosts=("192.168.1.2", "192.168.1.3")).run()
    claim = trial.connected("alice")
    assert claim is not None
    assert claim.types == (CandidateType.HOST, CandidateType.HOST)


def test_a_public_peer_meets_one_behind_the_strictest_nat() -> None:
    trial = Pair((), (Nat.of("apdm-apdf", HOME_B),), hosts=("11.0.9.1", BOB)).run()
    assert trial.is_direct


def test_two_nats_in_a_row_are_as_strict_as_the_stricter() -> None:
    inner, outer = Nat.of("eim-apdf", "100.64.0.2"), Nat.of("apdm-apdf", HOME_A)
    assert not Pair((inner, outer), (Nat.of("eim-apdf", HOME_B),)).run().is_direct
    inner, outer = Nat.of("eim-apdf", "100.64.0.2"), Nat.of("apdm-apdf", HOME_A)
    assert Pair((inner, outer), (Nat.of("eim-eif", HOME_B),)).run().is_direct


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "malice",
    [
        pytest.param(Malice(loss=0.2), id="a fifth is lost"),
        pytest.param(Malice(duplicate=0.5), id="half come twice"),
        pytest.param(Malice(reorder=0.5), id="half come late and out of order"),
        pytest.param(Malice(loss=0.1, duplicate=0.2, reorder=0.3), id="everything at once"),
    ],
)
def test_malice_delays_and_does_not_prevent(malice: Malice, seed: int) -> None:
    trial = pair("eim-apdf", "eim-apdf", network=Network(seed, malice)).run()
    assert trial.is_direct


def test_the_same_seed_makes_the_same_trial() -> None:
    runs = [pair("eim-apdf", "eim-eif", network=Network(5, Malice(0.2, 0.2, 0.2))).run() for _ in range(2)]
    assert runs[0].network.sent == runs[1].network.sent
    assert runs[0].events == runs[1].events
    other = pair("eim-apdf", "eim-eif", network=Network(6, Malice(0.2, 0.2, 0.2))).run()
    assert other.network.sent != runs[0].network.sent


def test_events_tell_the_story_in_order() -> None:
    trial = pair("eim-apdf", "eim-apdf").run()
    firsts = list(dict.fromkeys(trial.words("alice")))
    assert firsts == ["start", "candidate", "gathered", "registered", "data", "relay", "round", "check", "connected"]
    paths = [event.remote.host for event in trial.events["alice"] if isinstance(event, Data)]
    assert paths == [SERVER[0], HOME_B]
    times = [event.t for event in trial.events["alice"]]
    assert times == sorted(times)


def test_exhausted_means_every_round_was_played_to_its_end() -> None:
    trial = pair("apdm-apdf", "apdm-apdf", parameters={"rounds": 2}).run()
    events = trial.events["alice"]
    assert [event.round for event in events if isinstance(event, RoundOfChecks)] == [1, 2]
    checks = [event for event in events if isinstance(event, Check)]
    # six offsets, two rounds; bob's host address and his reflexive ones at both addresses of the server
    assert len(checks) == 6 * 2 * 3
    assert {event.attempt for event in checks} == {1, 2, 3, 4, 5, 6}
    assert any(isinstance(event, Exhausted) and event.rounds == 2 for event in events)


def test_relay_down_both_go_direct_after_a_quarter_of_the_deadline() -> None:
    def is_turn(datagram: Datagram) -> bool:
        is_request = classify(datagram.data) is Protocol.STUN and datagram.data[:2] == b"\x00\x03"
        return is_request or classify(datagram.data) is Protocol.CHANNEL

    trial = pair("eim-apdf", "eim-apdf", network=Network(blocked=is_turn)).run()
    assert trial.is_direct
    assert "relay" not in trial.words("alice")
    first = next(event for event in trial.events["alice"] if isinstance(event, Check))
    assert 2.5 * SECOND <= first.t - trial.events["alice"][0].t < 2.7 * SECOND


def test_a_relay_that_has_no_room_is_not_waited_for() -> None:
    trial = pair("eim-apdf", "eim-apdf", has_relay=False).run()
    assert trial.is_direct
    assert trial.network.now - 1000 * SECOND < SECOND


def test_no_relay_and_no_path_is_failed_at_the_deadline() -> None:
    trial = pair("apdm-apdf", "apdm-apdf", has_relay=False).run()
    for name in trial.events:
        words = trial.words(name)
        assert "exhausted" in words
        last = trial.events[name][-1]
        assert isinstance(last, Failed)
        assert last.reason == "no direct path by the deadline"
        first = next(event for event in trial.events[name] if isinstance(event, Check))
        assert abs(last.t - first.t - 10 * SECOND) <= 50 * MS


def test_a_late_allocation_is_registered_anew_and_the_relay_reached() -> None:
    blocked_until = 1004 * SECOND

    def is_early_turn(datagram: Datagram) -> bool:
        return network.now < blocked_until and datagram.data[:2] == b"\x00\x03"

    network = Network(blocked=is_early_turn)
    trial = pair("apdm-apdf", "apdm-apdf", network=network).run()
    for name in trial.events:
        assert any(isinstance(event, Relay) for event in trial.events[name])


def test_udp_blocked_is_failed_after_the_time_for_setting_up() -> None:
    trial = pair("eim-eif", "eim-eif", network=Network(blocked=lambda datagram: datagram.source.host == ALICE)).run()
    for name, reason in (("alice", "not learnt"), ("bob", "not learnt")):
        last = trial.events[name][-1]
        assert isinstance(last, Failed)
        assert reason in last.reason
    gathered = next(event for event in trial.events["alice"] if isinstance(event, Gathered))
    assert {server.host for server in gathered.given_up} == set(SERVER)
    assert last.t - trial.events["bob"][0].t == 10 * SECOND


def test_strangers_change_nothing() -> None:
    trial = pair("eim-eif", "eim-eif")
    stranger, alice = Endpoint("11.0.66.6", 666), Endpoint(ALICE, 40000)
    noise = [b"", b"\x00" * 20, b"\x0e{}", b"\x0f" * 30, b"\x40\x00\x00\x00", b"\xc0" * 1200]
    trial.alice.start(trial.network.now)
    for data in noise:
        trial.alice.receive(Datagram(stranger, alice, data), trial.network.now)
    sent = trial.alice.datagrams_to_send(trial.network.now)
    assert all(datagram.destination.host in SERVER for datagram in sent)


def test_a_connected_end_stays_and_answers() -> None:
    trial = pair("eim-eif", "eim-eif").run()
    trial.network.run(60 * SECOND)
    assert sum(isinstance(event, Connected) for event in trial.events["alice"]) == 1
    assert not any(isinstance(event, (Failed, Exhausted)) for event in trial.events["alice"])
