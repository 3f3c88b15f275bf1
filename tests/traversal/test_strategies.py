"""Which strategy gets which pair of NATs through, in virtual time, and within which limits."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest

from testbed.spec import scenario
from testbed.traversal import strategies
from testbed.traversal.events import Check, Connected, Failed, Prediction, RoundOfChecks
from tests.traversal.network import KINDS, Nat
from tests.traversal.pair import Pair
from tests.traversal.test_udp_peer import HOME_A, HOME_B, THEORY

FEW: Mapping[str, object] = {"ports": 8, "probes": 64, "rate": 256}
"""A birthday that can hardly succeed, so that what it must not break is seen soon."""


def nat(kind: str, external: str, *, is_random: bool, **arguments: int) -> Nat:
    return Nat.of(kind, external, rng=Random(f"{kind} {external}") if is_random else None, **arguments)


def pair(one: str, other: str, strategy: str, *, is_random: bool = False, **arguments: object) -> Pair:
    behind = (nat(one, HOME_A, is_random=is_random),), (nat(other, HOME_B, is_random=is_random),)
    return Pair(*behind, strategy=strategy, **arguments)  # type: ignore[arg-type]


def is_met_by_candidates(one: str, other: str) -> bool:
    return THEORY[one][KINDS.index(other)] == "1"


def test_a_scenario_and_the_machines_have_the_same_strategies() -> None:
    said = {name: {word: known[:3] for word, known in has.items()} for name, has in scenario.STRATEGIES.items()}
    assert said == {
        name: {word: (known.least, known.most, known.default) for word, known in family.parameters.items()}
        for name, family in strategies.STRATEGIES.items()
    }
    assert list(scenario.ABOUT_STRATEGIES) == list(scenario.STRATEGIES)


PAIRS = [(one, other) for one in KINDS for other in KINDS]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_ports_in_sequence_are_predicted_whatever_both_ends_are(one: str, other: str) -> None:
    assert pair(one, other, "port-prediction").run().is_direct


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_ports_at_random_are_not_predicted_and_nothing_else_is_lost(one: str, other: str) -> None:
    trial = pair(one, other, "port-prediction", is_random=True).run()
    assert trial.is_direct == is_met_by_candidates(one, other)
    for name, kind in (("alice", one), ("bob", other)):
        said = [event for event in trial.events[name] if isinstance(event, Prediction)]
        assert all(not event.predicted and "unpredictable" in str(event.reason) for event in said)
        assert bool(said) == (not kind.startswith("eim"))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_relay_only_checks_nothing(one: str, other: str) -> None:
    trial = pair(one, other, "relay-only").run()
    for name in trial.events:
        assert not any(isinstance(event, (Check, Connected, RoundOfChecks, Failed)) for event in trial.events[name])
        assert {"relay", "exhausted"} <= set(trial.words(name))
