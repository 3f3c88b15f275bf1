"""Rounds of checks: what is sent when, by which end."""

from __future__ import annotations

import pytest

from testbed.datagram import Endpoint
from testbed.errors import UsageError
from testbed.traversal.candidates import Role
from testbed.traversal.rounds import (
    MAX_REMOTES,
    WORD,
    Action,
    Exhausted,
    Prepare,
    RoundFailed,
    Rounds,
    RoundStarted,
    SendAimed,
    SendCheck,
    SendProbes,
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


# ---- rounds that are not plain


def prepared_rounds(role: Role, plan: Round, *, own: bool, other: bool) -> Rounds:
    machine = Rounds(role, (plan, plan))
    machine.remote_candidates([B1])
    machine.learn_mappings(own_depends=own, other_depends=other)
    return machine


WINDOW = Round(SCHEDULE, window=4)
BIRTHDAY = Round(SCHEDULE, ports=3, probes=5, rate=10)


@pytest.mark.parametrize(
    ("own", "other", "begins_with"),
    [
        pytest.param(False, False, [SendPunch(1), RoundStarted(1), SendCheck(B1, 1, 1)], id="nobody depends: plain"),
        pytest.param(True, False, [Prepare(1)], id="we depend: prepare before anybody hears of it"),
        pytest.param(False, True, [SendPunch(1)], id="the other depends: say so and wait"),
        pytest.param(True, True, [Prepare(1)], id="both depend: prepare, then wait"),
    ],
)
def test_who_prepares_and_who_waits(own: bool, other: bool, begins_with: list[Action]) -> None:
    machine = prepared_rounds(Role.CONTROLLING, WINDOW, own=own, other=other)
    machine.start(0)
    assert machine.actions() == begins_with


def test_a_plain_round_needs_no_preparing_whoever_depends() -> None:
    machine = prepared_rounds(Role.CONTROLLING, Round(SCHEDULE), own=True, other=True)
    machine.start(0)
    assert machine.actions() == [SendPunch(1), RoundStarted(1), SendCheck(B1, 1, 1)]


def test_an_end_that_is_prepared_tells_the_other_and_checks_at_once() -> None:
    for role in Role:
        machine = prepared_rounds(role, WINDOW, own=True, other=False)
        machine.start(0)
        machine.punch_received(1, [], 0)
        assert machine.actions() == [Prepare(1)]
        machine.prepared(1, 50, [B2])
        assert machine.actions() == [SendPunch(1), RoundStarted(1), SendAimed((B2,), 1, 1), SendCheck(B1, 1, 1)]


def test_the_other_end_aims_better_than_we_do() -> None:
    machine = prepared_rounds(Role.CONTROLLED, WINDOW, own=True, other=False)
    machine.punch_received(1, [B2], 0)
    machine.actions()
    machine.prepared(1, 50, [B1])
    assert SendAimed((B2,), 1, 1) in machine.actions()


def test_two_ends_that_depend_keep_their_ports_in_order() -> None:
    """Candidates join after three checks; by then the other end has sent its own."""
    machine = prepared_rounds(Role.CONTROLLED, Round(Schedule((0, 10, 20, 30)), window=4), own=True, other=True)
    machine.punch_received(1, [B2], 0)
    machine.prepared(1, 0)
    machine.actions()
    played = [(time, action) for time, action in play(machine, 30)]
    assert [action for _, action in played if isinstance(action, SendCheck)] == [SendCheck(B1, 1, 4)]
    assert [time for time, action in played if isinstance(action, SendAimed)] == [10, 20, 30]


def test_the_others_word_is_waited_for_and_not_for_ever() -> None:
    machine = prepared_rounds(Role.CONTROLLING, WINDOW, own=False, other=True)
    machine.start(0)
    machine.punch_received(2, [B2], 1)
    assert machine.actions() == [SendPunch(1)]
    machine.punch_received(1, [B2], 2)
    assert machine.actions() == [RoundStarted(1), SendAimed((B2,), 1, 1), SendCheck(B1, 1, 1)]
    silent = prepared_rounds(Role.CONTROLLING, WINDOW, own=False, other=True)
    silent.start(0)
    silent.actions()
    assert silent.next_timeout() == WORD
    silent.handle_timeout(WORD)
    assert silent.actions() == [RoundStarted(1), SendCheck(B1, 1, 1)]


def test_preparing_is_not_waited_for_for_ever() -> None:
    machine = prepared_rounds(Role.CONTROLLING, WINDOW, own=True, other=False)
    machine.start(0)
    machine.actions()
    machine.handle_timeout(WORD)
    assert machine.actions() == [SendPunch(1), RoundStarted(1), SendCheck(B1, 1, 1)]
    machine.prepared(1, WORD + 1)
    assert machine.actions() == []


def test_probes_follow_in_bursts_and_the_round_lasts_as_long() -> None:
    second = 1_000_000_000
    machine = prepared_rounds(Role.CONTROLLED, BIRTHDAY, own=False, other=True)
    machine.punch_received(1, [], 0)
    assert machine.actions() == [RoundStarted(1), SendCheck(B1, 1, 1), SendProbes(1, 1)]
    machine.relay_rtt(7)
    probes = [(time, action) for time, action in play(machine, second) if isinstance(action, (SendProbes, RoundFailed))]
    bursts = [(at * second // 10, SendProbes(1, 1)) for at in range(1, 5)]
    assert probes == [*bursts, (second // 2 + 2 * 7, RoundFailed(1))]


@pytest.mark.parametrize(
    ("rate", "burst"),
    [
        pytest.param(1, 1, id="one a second"),
        pytest.param(256, 12, id="a burst every 47 ms"),
        pytest.param(4096, 204, id="the fastest"),
    ],
)
def test_bursts_are_a_twentieth_of_a_second_apart(rate: int, burst: int) -> None:
    machine = prepared_rounds(Role.CONTROLLED, Round(SCHEDULE, ports=1, probes=300, rate=rate), own=False, other=True)
    machine.punch_received(1, [], 0)
    assert SendProbes(1, burst) in machine.actions()


def test_a_late_loop_catches_up_with_its_probes_at_twice_the_pace() -> None:
    plan = Round(SCHEDULE, ports=1, probes=100, rate=100)
    machine = prepared_rounds(Role.CONTROLLED, plan, own=False, other=True)
    machine.punch_received(1, [], 0)
    machine.actions()
    machine.handle_timeout(220 * MS)  # four bursts of five late
    assert SendProbes(1, 5) in machine.actions()
    times = [time // MS for time, action in play(machine, 500 * MS) if isinstance(action, SendProbes)]
    assert times == [245, 270, 295, 320, 345, 370, 400, 450, 500]


def test_who_opened_ports_waits_as_long_as_the_other_probes() -> None:
    machine = prepared_rounds(Role.CONTROLLED, BIRTHDAY, own=True, other=False)
    machine.punch_received(1, [], 0)
    machine.prepared(1, 0)
    machine.relay_rtt(7)
    played = play(machine, 1_000_000_000)
    assert not any(isinstance(action, SendProbes) for _, action in played)
    assert played[-1] == (500_000_028, RoundFailed(1)), "the other end began later, and settles"


def test_no_rounds_at_all_are_exhausted_once_they_might_have_begun() -> None:
    for role in Role:
        machine = Rounds(role, ())
        assert not machine.is_over
        machine.start(0)
        machine.start(5)
        assert machine.actions() == [Exhausted(0)]
        assert machine.is_over
        assert machine.next_timeout() is None


def test_success_while_preparing_or_waiting_ends_it() -> None:
    for own in (True, False):
        machine = prepared_rounds(Role.CONTROLLING, WINDOW, own=own, other=True)
        machine.start(0)
        machine.succeeded(1)
        assert machine.actions() == []
        assert machine.next_timeout() is None
