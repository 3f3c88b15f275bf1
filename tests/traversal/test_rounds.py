"""Rounds of checks: what is sent when, by which end."""

from __future__ import annotations

import pytest

from testbed.datagram import Endpoint
from testbed.errors import UsageError
from testbed.traversal.candidates import Role
from testbed.traversal.rounds import (
    MAX_REMOTES,
    Action,
    Exhausted,
    RoundFailed,
    Rounds,
    RoundStarted,
    SendAimed,
    SendCheck,
    SendPunch,
)
from testbed.traversal.strategies import EXPONENTIAL, Round, Schedule, strategy

MS = 1_000_000
B1, B2 = Endpoint("11.0.2.1", 1), Endpoint("11.0.2.1", 2)
SCHEDULE = Schedule((0, 10, 30), patience=100)


def rounds(role: Role = Role.CONTROLLING, number: int = 2) -> Rounds:
    machine = Rounds(role, (Round(SCHEDULE),) * number)
    machine.remote_candidates([B1])
    return machine


def play(machine: Rounds, until: int) -> list[tuple[int, Action]]:
    """Every action up to a time, with the time."""
    played: list[tuple[int, Action]] = []
    while (due := machine.next_timeout()) is not None and due <= until:
        machine.handle_timeout(due)
        played += [(due, action) for action in machine.actions()]
    return played


def test_a_controlling_end_plays_every_round_and_is_exhausted() -> None:
    machine = rounds()
    machine.start(1000)
    assert machine.actions() == [SendPunch(1), RoundStarted(1), SendCheck(B1, 1, 1)]
    assert play(machine, 10_000) == [
        (1010, SendCheck(B1, 1, 2)),
        (1030, SendCheck(B1, 1, 3)),
        (1130, RoundFailed(1)),
        (1130, SendPunch(2)),
        (1130, RoundStarted(2)),
        (1130, SendCheck(B1, 2, 1)),
        (1140, SendCheck(B1, 2, 2)),
        (1160, SendCheck(B1, 2, 3)),
        (1260, RoundFailed(2)),
        (1260, Exhausted(2)),
    ]
    assert machine.is_over
    assert machine.next_timeout() is None


def test_a_controlled_end_waits_to_be_told() -> None:
    machine = rounds(Role.CONTROLLED)
    machine.start(1000)
    assert machine.actions() == []
    assert machine.next_timeout() is None
    machine.punch_received(1, [B2], 2000)
    assert machine.actions() == [RoundStarted(1), SendAimed((B2,), 1, 1), SendCheck(B1, 1, 1)]


def test_a_controlled_end_begins_no_round_of_its_own() -> None:
    machine = rounds(Role.CONTROLLED)
    machine.punch_received(1, [], 0)
    machine.actions()
    assert play(machine, 10_000)[-1] == (130, RoundFailed(1))
    assert not machine.is_over


def test_a_higher_round_cancels_the_older() -> None:
    machine = rounds(Role.CONTROLLED)
    machine.punch_received(1, [], 0)
    machine.punch_received(2, [], 5)
    assert machine.actions() == [RoundStarted(1), RoundStarted(2), SendCheck(B1, 2, 1)]
    assert [time for time, action in play(machine, 100) if isinstance(action, SendCheck)] == [15, 35]


@pytest.mark.parametrize(
    ("role", "number"),
    [
        pytest.param(Role.CONTROLLED, 1, id="a round that is under way"),
        pytest.param(Role.CONTROLLED, 0, id="a round before the first"),
        pytest.param(Role.CONTROLLED, 3, id="a round after the last"),
        pytest.param(Role.CONTROLLING, 2, id="a punch at the end that punches"),
    ],
)
def test_punches_that_change_nothing(role: Role, number: int) -> None:
    machine = rounds(role)
    if role is Role.CONTROLLED:
        machine.punch_received(1, [], 0)
    machine.actions()
    machine.punch_received(number, [B2], 5)
    assert machine.actions() == []


def test_success_ends_everything_that_was_due() -> None:
    machine = rounds()
    machine.start(0)
    machine.succeeded(0)
    assert machine.actions() == [RoundStarted(1)]
    assert machine.next_timeout() is None
    assert machine.is_over
    machine.handle_timeout(10_000)
    assert machine.actions() == []


def test_a_round_waits_one_relay_rtt_after_its_last_checks() -> None:
    machine = rounds()
    machine.relay_rtt(7)
    machine.start(0)
    assert (37, RoundFailed(1)) in play(machine, 100)


def test_an_address_learnt_during_a_round_joins_the_next_checks() -> None:
    machine = rounds()
    machine.start(0)
    machine.actions()
    machine.remote_candidates([B2, B1])
    assert play(machine, 10) == [(10, SendCheck(B1, 1, 2)), (10, SendCheck(B2, 1, 2))]


def test_a_late_loop_does_not_send_a_burst() -> None:
    machine = rounds()
    machine.start(0)
    machine.actions()
    machine.handle_timeout(31)
    assert machine.actions() == [SendCheck(B1, 1, 3)]


def test_the_other_end_cannot_make_us_flood() -> None:
    machine = rounds()
    machine.remote_candidates([Endpoint("11.0.9.9", port) for port in range(1, 1000)])
    machine.start(0)
    assert sum(isinstance(action, SendCheck) for action in machine.actions()) == MAX_REMOTES


def test_a_round_begins_once() -> None:
    machine = rounds()
    machine.start(0)
    machine.actions()
    machine.start(5)
    assert machine.actions() == []


def test_the_default_schedule_is_the_one_in_the_documents() -> None:
    assert [offset // MS for offset in EXPONENTIAL.offsets] == [0, 33, 67, 133, 267, 533]
    assert strategy("reflexive", {}).rounds == (Round(),) * 3


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        pytest.param("lucky", {}, "'lucky' is not known: one of reflexive", id="a strategy that does not exist"),
        pytest.param("reflexive", {"ports": 5}, "no parameter 'ports': it has rounds", id="a parameter it has not"),
        pytest.param("reflexive", {"rounds": 0}, "0 is not a number from 1 to 10", id="too few rounds"),
        pytest.param("reflexive", {"rounds": 11}, "11 is not a number from 1 to 10", id="too many rounds"),
        pytest.param("reflexive", {"rounds": True}, "True is not a number", id="a truth value"),
    ],
)
def test_what_a_strategy_does_not_know_is_refused(name: str, parameters: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        strategy(name, parameters)
