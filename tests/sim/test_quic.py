"""The modelled QUIC end beside the agent's own, aioquic and all, on the same networks in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pytest

from testbed.agents.quic import warm
from testbed.datagram import Endpoint
from testbed.plan.outcomes import Outcome
from testbed.plan.trials import CellPlan, TrialSettings
from testbed.sim import trial as module
from testbed.sim.quic_connection import ModelledConnection
from testbed.sim.trial import Played
from testbed.spec.profile import NatProfile
from testbed.traversal.events import Connected
from testbed.traversal.quic_happenings import Path, Received
from tests.agents.quic_wire import aioquic_peer
from tests.sim.build import MS, SECOND, TWO_HOMES, cell, link, node, trial, words

quic = partial(cell, agent="quic")
CARRIER = {**TWO_HOMES, "carrier": node("nat", "internet"), "nat_a": node("nat", "carrier")}
ONE_HOME = {
    "meet": node("rendezvous", "internet"),
    "nat": node("nat", "internet"),
    "alice": node("peer", "nat"),
    "bob": node("peer", "nat"),
}


CELLS: Mapping[str, CellPlan] = {
    "filters by address and port": quic(),
    "a mapping for each remote, one lax": quic(nat_a="apdm-apdf", nat_b="eim-eif"),
    "a mapping for each remote, one strict": quic(nat_a="apdm-apdf"),
    "two mappings for each remote": quic(nat_a="apdm-eif", nat_b="apdm-adf"),
    "ports counted up": quic(nat_a="apdm-apdf-sequential", nat_b="eim-adf"),
    "one home": quic(ONE_HOME, nat="apdm-apdf"),
    "a carrier's NAT": quic(CARRIER, carrier="apdm-apdf", nat_b="eim-adf"),
    "only the relay": quic(strategy="relay-only"),
    "a long way": quic({**TWO_HOMES, "bob": node("peer", "nat_b", link=link(delay=150 * MS))}),
}


@pytest.fixture
def with_aioquic(monkeypatch: pytest.MonkeyPatch) -> Callable[[CellPlan], Played]:
    warm()

    def play(plan: CellPlan) -> Played:
        with monkeypatch.context() as patch:
            patch.setattr(module, "ENDS", {"quic": aioquic_peer})
            return trial(plan)

    return play


def connection(played: Played, end: str) -> list[object]:
    """The addresses that an end says it is connected by, and what candidates they are."""
    said = [event for event in played.events[end] if isinstance(event, Connected)]
    return [(event.local, event.remote, event.received_from, event.types) for event in said]


@pytest.mark.parametrize("plan", CELLS.values(), ids=CELLS.keys())
def test_the_model_does_what_the_agent_does(plan: CellPlan, with_aioquic: Callable[[CellPlan], Played]) -> None:
    """The same outcome, and times that differ by less than a millisecond of a delay of tens."""
    model, agent = trial(plan), with_aioquic(plan)
    assert model.verdict == agent.verdict
    assert model.discovery == agent.discovery
    if agent.traversal is None:
        assert model.traversal is None
    else:
        assert model.traversal == pytest.approx(agent.traversal, abs=1 * MS)
    for end in ("alice", "bob"):
        assert connection(model, end) == connection(agent, end)
        # a path that is found at once may end the greetings through the relay before the last echo
        assert {*words(model, end), "relay"} == {*words(agent, end), "relay"}


@pytest.mark.parametrize("seed", range(6))
def test_it_gets_through_a_terrible_network(seed: int) -> None:
    """A fifth of all frames is lost, some come twice, and late: what has to be sent again is."""
    awful = link(delay=10 * MS, jitter=5 * MS, loss=200_000, duplicate=100_000)
    plan = quic({**TWO_HOMES, "bob": node("peer", "nat_b", link=awful)})
    assert trial(plan, seed).verdict.outcome in (Outcome.DIRECT, Outcome.RELAYED)


def test_without_a_relay_the_ends_dial_what_signalling_finds() -> None:
    """Datagrams of the handshake do not fit the relay's way, so the connection begins on the pair that checks chose."""
    narrow = {
        **TWO_HOMES,
        "meet": node("rendezvous", "internet", link=link(delay=10 * MS).model_copy(update={"mtu": 1100})),
    }
    plan = quic(narrow)
    played = trial(plan, settings=TrialSettings(10 * SECOND, 10 * SECOND))
    assert played.verdict.outcome is Outcome.DIRECT
    assert "relay" not in words(played, "alice")


def test_a_strategy_that_is_not_plain_is_dialled() -> None:
    plan = quic(nat_a="apdm-apdf-sequential", strategy="port-prediction")
    played = trial(plan)
    assert "prediction" in words(played, "alice")
    assert played.verdict.outcome is Outcome.DIRECT


def test_who_never_learns_of_the_other_gives_up() -> None:
    played = trial(quic(nat_a=NatProfile(udp_blocked=True)), settings=TrialSettings(3 * SECOND, 3 * SECOND))
    assert played.verdict.outcome is Outcome.FAILED
    assert "failed" in words(played, "bob")


# ---------------------------------------------------------------------------- the connection alone

HERE = Path(Endpoint("1.1.1.1", 1), Endpoint("2.2.2.2", 2))
THERE = Path(Endpoint("2.2.2.2", 2), Endpoint("1.1.1.1", 1))


def carry(sender: ModelledConnection, receiver: ModelledConnection, path: Path, now: int) -> list[int]:
    """Hand over what one end sends; the sizes of its packets."""
    sizes = []
    for data, _ in sender.datagrams_to_send(now):
        receiver.receive(data, path, now)
        sizes.append(len(data))
    return sizes


def test_a_handshake() -> None:
    client, server = ModelledConnection("t", HERE, is_client=True), ModelledConnection("t", THERE, is_client=False)
    assert carry(client, server, THERE, 0) == [1200]
    assert carry(server, client, HERE, 10) == [1200]
    assert client.is_complete
    assert not client.is_confirmed
    client.send(b"early enough")
    carry(client, server, THERE, 20)
    assert Received(THERE, b"early enough") in server.happenings()
    assert server.is_complete
    carry(server, client, HERE, 30)
    assert client.is_confirmed


def test_what_is_lost_is_sent_again_after_a_probe_timeout() -> None:
    client, server = ModelledConnection("t", HERE, is_client=True), ModelledConnection("t", THERE, is_client=False)
    client.datagrams_to_send(0)
    assert client.next_timeout() == 200 * MS
    client.handle_timeout(200 * MS)
    assert carry(client, server, THERE, 200 * MS) == [1200]
    assert client.next_timeout() == 600 * MS, "the gap doubles"


def test_a_server_sends_at_most_three_times_what_it_was_sent() -> None:
    """RFC 9000 §8.1: until the client has answered, and so its address is known to be its own."""
    client, server = ModelledConnection("t", HERE, is_client=True), ModelledConnection("t", THERE, is_client=False)
    carry(client, server, THERE, 0)
    sent = 0
    for _ in range(6):
        sent += sum(len(data) for data, _ in server.datagrams_to_send(sent))
        server.handle_timeout(server.next_timeout() or 0)
    assert sent == 3600


def test_a_client_takes_nothing_from_strangers_unless_it_may() -> None:
    client, server = ModelledConnection("t", HERE, is_client=True), ModelledConnection("t", THERE, is_client=False)
    for now in range(2):
        carry(client, server, THERE, now)
        carry(server, client, HERE, now)
    server.send(b"from elsewhere")
    (data, _), *_ = server.datagrams_to_send(9)
    elsewhere = Path(HERE.local, Endpoint("3.3.3.3", 3))
    client.receive(data, elsewhere, 9)
    assert not any(isinstance(h, Received) for h in client.happenings())
    client.is_admitting = True
    client.receive(data, elsewhere, 9)
    assert Received(elsewhere, b"from elsewhere") in client.happenings()
