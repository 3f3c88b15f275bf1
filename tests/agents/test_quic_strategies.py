"""Two QUIC peers and the strategies that are not plain rounds, in virtual time: what gets through for UDP must here."""

from __future__ import annotations

from random import Random

import pytest

from testbed.traversal import punching
from testbed.traversal.events import Check, Connected, Data, Exhausted, Failed, Prediction, RoundOfChecks
from tests.agents.quic_wire import aioquic_peer
from tests.agents.test_quic_peer import is_turn
from tests.traversal.network import KINDS, Nat, Network
from tests.traversal.pair import SERVER, Pair
from tests.traversal.test_strategies import FEW, is_met_by_birthday, is_met_by_candidates, is_relay
from tests.traversal.test_udp_peer import HOME_A, HOME_B

PAIRS = [(one, other) for one in KINDS for other in KINDS]


def pair(one: str, other: str, name: str, *, seed: int | None = None, **arguments: object) -> Pair:
    behind = [
        Nat.of(kind, external, rng=Random(f"{kind} {external} {seed}") if seed is not None else None)
        for kind, external in ((one, HOME_A), (other, HOME_B))
    ]
    return Pair((behind[0],), (behind[1],), strategy=name, make=aioquic_peer, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_ports_in_sequence_are_predicted_whatever_both_ends_are(one: str, other: str) -> None:
    trial = pair(one, other, "port-prediction").run()
    assert trial.is_direct
    assert all("relay" in trial.words(name) for name in trial.events)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_ports_at_random_are_not_predicted_and_nothing_else_is_lost(one: str, other: str) -> None:
    assert pair(one, other, "port-prediction", seed=0).run().is_direct == is_met_by_candidates(one, other)


@pytest.mark.parametrize(("one", "other"), [cell for cell in PAIRS if is_met_by_birthday(*cell)])
def test_a_birthday_meets_what_it_can_meet(one: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = range(30000, 34096)
    monkeypatch.setattr(punching, "PROBED_PORTS", world)
    trial = pair(one, other, "birthday", seed=1, parameters={"ports": 200, "probes": 200, "rate": 1000})
    for box in (*trial.alice_behind, *trial.bob_behind):
        box.range = world
    assert trial.run().is_direct


@pytest.mark.parametrize(("one", "other"), PAIRS[::7])
def test_relay_only_checks_nothing(one: str, other: str) -> None:
    trial = pair(one, other, "relay-only").run()
    for name in trial.events:
        assert not any(isinstance(event, (Check, Connected, RoundOfChecks, Failed)) for event in trial.events[name])
        assert {"relay", "exhausted"} <= set(trial.words(name))


def test_relay_only_without_a_relay_says_why_it_failed() -> None:
    trial = pair("eim-eif", "eim-eif", "relay-only", network=Network(blocked=is_relay)).run()
    for name in trial.events:
        last = trial.events[name][-1]
        assert isinstance(last, Failed)
        assert last.reason == "the strategy 'relay-only' looks for no direct path"


@pytest.mark.parametrize(
    ("one", "other", "seed", "last"),
    [
        pytest.param("eim-apdf", "eim-apdf", None, 1, id="candidates are enough: PATH_CHALLENGE in the first round"),
        pytest.param("apdm-apdf", "eim-apdf", None, 3, id="ports in sequence: the first round that predicts"),
        pytest.param("apdm-apdf", "apdm-apdf", None, 3, id="both in sequence: likewise"),
        pytest.param("apdm-apdf", "eim-apdf", 0, 5, id="ports at random: the birthday"),
    ],
)
def test_all_of_them_in_turn(one: str, other: str, seed: int | None, last: int) -> None:
    trial = pair(one, other, "all", seed=seed).run()
    assert trial.is_direct
    rounds = [event.round for event in trial.events["alice"] if isinstance(event, RoundOfChecks)]
    assert rounds == list(range(1, last + 1))
    paths = [event.remote.host for event in trial.events["alice"] if isinstance(event, Data)]
    assert paths == [SERVER[0], HOME_B]


def test_a_path_that_a_plain_round_settles_for_is_not_looked_for_again() -> None:
    """Each direction of it has a mapping of its own: it is taken when the round has failed."""
    trial = pair("apdm-eif", "apdm-eif", "all", seed=0).run()
    assert trial.is_direct
    assert not any(isinstance(event, Prediction) for events in trial.events.values() for event in events)


def test_in_vain_the_relay_is_what_remains() -> None:
    trial = pair("apdm-apdf", "apdm-apdf", "all", seed=0, parameters=FEW).run()
    assert not trial.is_direct
    for name in trial.events:
        assert any(isinstance(event, Exhausted) and event.rounds == 5 for event in trial.events[name])
        assert "failed" not in trial.words(name)


@pytest.mark.parametrize("name", ["port-prediction", "birthday", "all"])
def test_a_relay_that_is_down_is_no_hindrance(name: str) -> None:
    assert pair("apdm-apdf", "eim-apdf", name, network=Network(blocked=is_turn)).run().is_direct
