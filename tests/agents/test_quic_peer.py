"""Two QUIC peers through tiny NATs, in virtual time: the table of the UDP agent must hold for them too."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from testbed.agents.quic_session import AioquicConnector, Session
from testbed.datagram import Datagram, Endpoint
from testbed.traversal.candidates import CandidateType, Role
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import Check, Connected, Data, Exhausted, Failed, Relay, RoundOfChecks
from testbed.traversal.quic_peer import QuicPeer
from testbed.traversal.strategies import strategy
from tests.agents.quic_wire import aioquic_peer
from tests.traversal.network import MS, SECOND, Malice, Nat, Network
from tests.traversal.pair import ALICE, BOB, SERVER, End, Pair
from tests.traversal.test_udp_peer import CELLS, HOME_A, HOME_B


def pair(one: str, other: str, **arguments: object) -> Pair:
    behind = (Nat.of(one, HOME_A),), (Nat.of(other, HOME_B),)
    return Pair(*behind, make=aioquic_peer, **arguments)  # type: ignore[arg-type]


def is_turn(datagram: Datagram) -> bool:
    """Whether this asks the relay for something, or goes through it: without these there is no relay."""
    is_request = classify(datagram.data) is Protocol.STUN and datagram.data[:2] == b"\x00\x03"
    is_server = SERVER[0] in (datagram.source.host, datagram.destination.host)
    return is_request or (is_server and classify(datagram.data) is Protocol.CHANNEL)


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


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [
        pytest.param(one, other, meets, id=f"{one} {'meets' if meets else 'cannot meet'} {other}")
        for one, other, meets in CELLS
    ],
)
def test_theory_with_the_relay_down(one: str, other: str, meets: bool) -> None:
    trial = pair(one, other, network=Network(blocked=is_turn), deadline=4 * SECOND).run()
    assert trial.is_direct == meets
    for name in trial.events:
        assert "relay" not in trial.words(name)
        assert ("failed" in trial.words(name)) == (not meets)


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
    """A client discards what comes from addresses that it does not know; here it must not."""
    trial = pair("eim-eif", "apdm-apdf").run()
    alice, bob = trial.connected("alice"), trial.connected("bob")
    assert alice is not None
    assert bob is not None
    assert alice.types == (CandidateType.SERVER_REFLEXIVE, CandidateType.PEER_REFLEXIVE)
    assert bob.types == (CandidateType.PEER_REFLEXIVE, CandidateType.SERVER_REFLEXIVE)


@pytest.mark.parametrize("blocked", [lambda datagram: False, is_turn], ids=["through the relay", "relay down"])
def test_a_path_with_a_mapping_for_each_direction_says_so(blocked: object) -> None:
    trial = pair("apdm-eif", "apdm-eif", network=Network(blocked=blocked)).run()  # type: ignore[arg-type]
    claims = [trial.connected("alice"), trial.connected("bob")]
    assert any(claim is not None and claim.received_from not in (None, claim.remote) for claim in claims)


def test_such_a_path_is_only_taken_when_the_round_found_no_other() -> None:
    trial = pair("adm-eif", "apdm-eif").run()
    assert all(claim.received_from is None for name in trial.events if (claim := trial.connected(name)))


def test_two_peers_in_one_home_meet_by_their_host_candidates() -> None:
    home = Nat.of("apdm-apdf", HOME_A)
    trial = Pair((home,), (home,), hosts=("192.168.1.2", "192.168.1.3"), make=aioquic_peer).run()
    claim = trial.connected("alice")
    assert claim is not None
    assert claim.types == (CandidateType.HOST, CandidateType.HOST)


def test_a_public_peer_meets_one_behind_the_strictest_nat() -> None:
    assert Pair((), (Nat.of("apdm-apdf", HOME_B),), hosts=("11.0.9.1", BOB), make=aioquic_peer).run().is_direct
    assert Pair((Nat.of("apdm-apdf", HOME_A),), (), hosts=(ALICE, "11.0.9.2"), make=aioquic_peer).run().is_direct


def test_events_tell_the_story_in_order() -> None:
    trial = pair("eim-apdf", "eim-apdf").run()
    firsts = list(dict.fromkeys(trial.words("alice")))
    assert firsts == ["start", "candidate", "gathered", "registered", "relay", "data", "round", "check", "connected"]
    paths = [event.remote.host for event in trial.events["alice"] if isinstance(event, Data)]
    assert paths == [SERVER[0], HOME_B]
    for name in trial.events:
        times = [event.t for event in trial.events[name]]
        assert times == sorted(times)


def test_every_probe_is_an_event_and_none_goes_to_the_relay() -> None:
    trial = pair("apdm-apdf", "apdm-apdf", parameters={"rounds": 2}).run()
    for name in trial.events:
        events = trial.events[name]
        assert [event.round for event in events if isinstance(event, RoundOfChecks)] == [1, 2]
        checks = [event for event in events if isinstance(event, Check)]
        # six offsets, two rounds; the other's host address and its reflexive ones at both addresses of the server
        assert len(checks) == 6 * 2 * 3
        assert {event.attempt for event in checks} == {1, 2, 3, 4, 5, 6}
        assert not any(event.remote.host in SERVER for event in checks)
        host = ALICE if name == "alice" else BOB
        probes = [sent for _, sent in trial.network.sent if sent.source.host == host and len(sent.data) == 1200]
        assert sum(sent.destination.host not in SERVER for sent in probes) == len(checks)
        assert any(isinstance(event, Exhausted) and event.rounds == 2 for event in events)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "malice",
    [
        pytest.param(Malice(loss=0.05), id="a twentieth is lost"),
        pytest.param(Malice(loss=0.2), id="a fifth is lost"),
        pytest.param(Malice(duplicate=0.5), id="half come twice"),
        pytest.param(Malice(reorder=0.5), id="half come late and out of order"),
        pytest.param(Malice(loss=0.1, duplicate=0.2, reorder=0.3), id="everything at once"),
    ],
)
def test_malice_delays_and_does_not_prevent(malice: Malice, seed: int) -> None:
    assert pair("eim-apdf", "eim-apdf", network=Network(seed, malice)).run().is_direct


def test_relay_down_both_go_direct_after_a_quarter_of_the_deadline() -> None:
    trial = pair("eim-apdf", "eim-apdf", network=Network(blocked=is_turn)).run()
    assert trial.is_direct
    assert "relay" not in trial.words("alice")
    first = next(event for event in trial.events["alice"] if isinstance(event, Check))
    assert 2.5 * SECOND <= first.t - trial.events["alice"][0].t < 2.7 * SECOND
    connected = trial.connected("alice")
    assert connected is not None
    assert connected.types == (CandidateType.SERVER_REFLEXIVE, CandidateType.SERVER_REFLEXIVE)
    # The checks have opened both NATs: a handshake, and no wait for a timer.
    assert connected.t - first.t < 250 * MS


def test_a_relay_that_has_no_room_is_not_waited_for() -> None:
    trial = pair("eim-apdf", "eim-apdf", has_relay=False).run()
    assert trial.is_direct
    assert trial.network.now - 1000 * SECOND < SECOND


def test_a_relay_that_dies_under_the_handshake_is_given_up() -> None:
    def is_relayed(datagram: Datagram) -> bool:
        return SERVER[0] == datagram.destination.host and classify(datagram.data) is Protocol.CHANNEL

    trial = pair("eim-apdf", "eim-apdf", network=Network(blocked=is_relayed)).run()
    assert trial.is_direct
    assert "relay" not in trial.words("alice")


def test_no_relay_and_no_path_is_failed_at_the_deadline() -> None:
    trial = pair("apdm-apdf", "apdm-apdf", has_relay=False).run()
    for name in trial.events:
        assert "exhausted" in trial.words(name)
        last = trial.events[name][-1]
        assert isinstance(last, Failed)
        assert last.reason == "no direct path by the deadline"
        first = next(event for event in trial.events[name] if isinstance(event, Check))
        assert abs(last.t - first.t - 10 * SECOND) <= 50 * MS


def test_a_late_relay_is_reached_while_the_rounds_go_on_without_it() -> None:
    network = Network(blocked=lambda datagram: network.now < 1004 * SECOND and datagram.data[:2] == b"\x00\x03")
    trial = pair("apdm-apdf", "apdm-apdf", network=network).run()
    for name in trial.events:
        assert any(isinstance(event, Relay) for event in trial.events[name])


def test_udp_blocked_is_failed_after_the_time_for_setting_up() -> None:
    trial = pair("eim-eif", "eim-eif", network=Network(blocked=lambda datagram: datagram.source.host == ALICE)).run()
    for name in trial.events:
        last = trial.events[name][-1]
        assert isinstance(last, Failed)
        assert "not learnt" in last.reason


def test_a_connected_end_stays_and_answers() -> None:
    trial = pair("eim-eif", "eim-eif").run()
    trial.network.run(120 * SECOND)
    for name in trial.events:
        assert sum(isinstance(event, Connected) for event in trial.events[name]) == 1
        assert not any(isinstance(event, (Failed, Exhausted)) for event in trial.events[name])


def test_secrets_are_lines_of_a_key_log_and_the_same_at_both_ends() -> None:
    connectors: list[AioquicConnector] = []

    def make(**arguments: Any) -> QuicPeer:
        connectors.append(AioquicConnector())
        return QuicPeer(connector=connectors[-1], **arguments)

    assert Pair((Nat.of("eim-eif", HOME_A),), (Nat.of("eim-eif", HOME_B),), make=make).run().is_direct
    alice, bob = connectors
    assert set(alice.secrets) == set(bob.secrets)
    labels = {line.split()[0] for line in alice.secrets}
    assert {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} <= labels


def test_the_same_seed_makes_the_same_trial() -> None:
    """Keys and connection ids differ; what is sent when, and what is reported, does not."""
    runs = [pair("eim-apdf", "eim-eif", network=Network(5, Malice(0.2, 0.2, 0.2))).run() for _ in range(2)]
    shapes = [[(t, sent.source, sent.destination, len(sent.data)) for t, sent in run.network.sent] for run in runs]
    assert shapes[0] == shapes[1]
    assert runs[0].events == runs[1].events


def test_a_connection_that_is_lost_during_the_rounds_is_no_dead_end() -> None:
    """What is left of the rounds is played through signalling, and another connection begins on the path found."""
    trial = pair("eim-apdf", "eim-apdf")

    def close(now: int) -> None:
        assert isinstance(trial.alice, QuicPeer)
        session = trial.alice._switch.relayed
        if isinstance(session, Session) and "round" in trial.words("alice") and session.connection.is_open:
            session.refuse("for the test")

    trial.network.on_step.append(close)
    trial.run()
    assert trial.is_direct
    assert max(event.round for event in trial.events["alice"] if isinstance(event, RoundOfChecks)) > 1


def test_datagrams_may_come_through_the_relay_before_its_word_that_ours_may_go() -> None:
    """Bob's answer to ChannelBind is lost, once: alice's first packet comes before it is sent again."""
    lost: list[int] = []

    def is_first_grant(datagram: Datagram) -> bool:
        if datagram.destination.host != HOME_B or datagram.data[:2] != b"\x01\x09" or lost:
            return False
        lost.append(network.now)
        return True

    network = Network(blocked=is_first_grant)
    trial = pair("eim-apdf", "eim-apdf", network=network).run()
    assert lost
    relay = next(event for event in trial.events["bob"] if isinstance(event, Relay))
    assert relay.t - lost[0] < 200 * MS  # the time after which it asks again


UPLINKS = {"alice": ("apdm-apdf", "eim-eif"), "bob": ("apdm-apdf", "apdm-apdf")}


class TwoUplinks(Pair):
    """Each end has two addresses, each behind a NAT of its own."""

    def _peer(self, name: str, other: str, role: Role, host: str, behind: tuple[Nat, ...]) -> End:
        number = 1 if name == "alice" else 2
        hosts = (f"192.168.{number}.2", f"192.168.{number}1.2")
        peer = self.make(
            name=name,
            peer=other,
            role=role,
            bases=[Endpoint(address, 40000) for address in hosts],
            servers=self.rendezvous.servers,
            strategy=strategy("reflexive", {}),
            deadline=self.deadline,
            setup_deadline=10 * SECOND,
            rng=Random(f"{name} {self.network.seed}"),
        )
        for uplink, (address, kind) in enumerate(zip(hosts, UPLINKS[name], strict=True), 1):
            self.network.add(peer, address, behind=(Nat.of(kind, f"11.0.{number}.{uplink}"),))
        return peer


@pytest.mark.parametrize("has_relay", [True, False], ids=["through the relay", "dialled"])
def test_of_two_uplinks_the_one_that_can_is_used(has_relay: bool) -> None:
    trial = TwoUplinks(make=aioquic_peer, has_relay=has_relay).run()
    alice, bob = trial.connected("alice"), trial.connected("bob")
    assert alice is not None
    assert bob is not None
    assert alice.local.host == "192.168.11.2"
    assert bob.remote == Endpoint("11.0.1.2", 40000)
