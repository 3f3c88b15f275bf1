"""What is exact and what is simulated, and that what is not played again would have come out the same."""

from __future__ import annotations

import pytest

from testbed.plan.trials import CellPlan, trial_seed
from testbed.sim.prediction import is_certain, predict_cell
from testbed.sim.trial import play
from testbed.spec.event import Change, Event
from testbed.spec.profile import Dependence, NatProfile, Ports
from testbed.spec.topology import Node
from tests.sim.build import MS, SECOND, SETTINGS, TWO_HOMES, cell, link, node

TIGHT = NatProfile(mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT, ports=Ports(preserve=False, range=(40000, 40100)))
SHARED = NatProfile(ports=Ports(overload=True))
ONE_HOME = {
    "meet": node("rendezvous", "internet"),
    "nat": node("nat", "internet"),
    "alice": node("peer", "nat"),
    "bob": node("peer", "nat"),
}

FLUSH = Event(at=200 * MS, node="nat_a", do=Change.FLUSH)


def lossy(**impairments: int) -> dict[str, Node]:
    return {**TWO_HOMES, "bob": node("peer", "nat_b", link=link(delay=10 * MS, **impairments))}


@pytest.mark.parametrize(
    ("plan", "certain"),
    [
        pytest.param(cell(), True, id="nothing is drawn"),
        pytest.param(cell(nat_a="apdm-apdf"), True, id="random ports are names"),
        pytest.param(cell(lossy(rate=1_000_000)), True, id="a rate is no die"),
        pytest.param(cell(lossy(loss=1)), False, id="a link that may lose a frame"),
        pytest.param(cell(lossy(jitter=MS)), False, id="a link that jitters"),
        pytest.param(cell(nat_a=TIGHT), False, id="a NAT that may run short of ports"),
        pytest.param(cell(nat_a=NatProfile(max_mappings=8)), False, id="a NAT that may run short of mappings"),
        pytest.param(cell(nat_a=SHARED), True, id="overloading by one end alone"),
        pytest.param(cell(ONE_HOME, nat=SHARED), False, id="two ends that may meet on one port"),
        pytest.param(cell(ONE_HOME, nat="eim-eif"), True, id="two ends behind a NAT that keeps them apart"),
        pytest.param(cell(strategy="port-prediction"), False, id="a strategy that looks at ports"),
        pytest.param(cell(strategy="relay-only"), True, id="a strategy that looks at nothing"),
        pytest.param(cell(nat_a=NatProfile(mapping=Dependence.NONE)), True, id="a firewall has no ports"),
        pytest.param(cell(events=[FLUSH]), False, id="what comes first is a matter of times"),
    ],
)
def test_what_no_die_can_change(plan: CellPlan, certain: bool) -> None:
    assert is_certain(plan, SETTINGS) is certain


@pytest.mark.parametrize(("kind", "rate"), [("eim-apdf", 1.0), ("apdm-apdf", 0.0)])
def test_an_exact_prediction(kind: str, rate: float) -> None:
    found = predict_cell(cell(nat_a=kind), SETTINGS, 1, 30)
    assert found.source == "exact"
    share = found.success_rate
    assert (share.value, share.low, share.high, share.method, share.n) == (rate, rate, rate, "exact", 1)
    assert (found.reason is None) is (rate == 1)
    assert found.candidate_discovery_time.percentile(0.5).value == pytest.approx(0.06)
    median = found.time_to_traverse.percentile(0.5)
    assert (median.exceeds == 10) is (rate == 0)


def test_a_simulated_prediction() -> None:
    found = predict_cell(cell(lossy(loss=300_000)), SETTINGS, 1, 12)
    assert found.source == "simulated"
    assert found.success_rate.n == 12 == sum(found.outcomes.values())
    assert found.success_rate.method == "wilson"
    assert found.success_rate.low < 1
    assert found.time_to_traverse.n == found.candidate_discovery_time.n == 12


def test_same_seed_same_prediction() -> None:
    plan = cell(lossy(loss=100_000, jitter=2 * MS))
    assert predict_cell(plan, SETTINGS, 3, 4) == predict_cell(plan, SETTINGS, 3, 4)
    assert predict_cell(plan, SETTINGS, 3, 4) != predict_cell(plan, SETTINGS, 4, 4)


@pytest.mark.parametrize("impairments", [{"loss": 8_000}, {"duplicate": 10_000, "corrupt": 4_000}, {"reorder": 9_000}])
def test_what_is_not_played_again_would_have_come_out_the_same(impairments: dict[str, int]) -> None:
    """Rule 3 of the prediction: the same times, to the few nanoseconds that a digit of a port takes on a line."""
    plan = cell(lossy(**impairments), nat_a="apdm-adf", nat_b="eim-adf")
    found = predict_cell(plan, SETTINGS, 1, 12)
    played = [play(plan, SETTINGS, trial_seed(1, plan.id, index)) for index in range(12)]
    for sample, times in (
        (found.time_to_traverse, [trial.traversal for trial in played]),
        (found.candidate_discovery_time, [trial.discovery for trial in played]),
    ):
        values = sorted(time / SECOND for time in times if time is not None)
        assert sorted(sample.values) == pytest.approx(values, abs=1e-6)
    courses = {tuple(event.t for said in trial.events.values() for event in said) for trial in played}
    assert 1 < len(courses) < 12, "the dice changed something, and not in every trial"
