"""Each metric from the events that make it, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from testbed.datagram import Endpoint
from testbed.traversal.candidates import CandidateType, Role
from testbed.traversal.events import (
    Check,
    Connected,
    Data,
    Event,
    Exhausted,
    Failed,
    Gathered,
    Relay,
    RoundOfChecks,
    Start,
)
from testbed.traversal.metrics import Limits, is_over, measure

MS = 1_000_000
A, A_OUTSIDE = Endpoint("192.168.1.2", 5000), Endpoint("11.0.0.6", 40000)
B, B_OUTSIDE = Endpoint("192.168.2.2", 6000), Endpoint("11.0.0.10", 41000)
RELAYED_A, RELAYED_B = Endpoint("11.0.0.2", 50000), Endpoint("11.0.0.2", 50001)
RELAYS = frozenset({"11.0.0.2", "11.128.0.1"})
LIMITS = Limits(setup_deadline=8_000 * MS, deadline=5_000 * MS)

ALICE: tuple[Event, ...] = (
    Start(0, "alice", Role.CONTROLLING),
    Gathered(42 * MS),
    Data(100 * MS, RELAYED_A, RELAYED_B, 25),
    Relay(120 * MS, 40 * MS, RELAYED_A, RELAYED_B),
    RoundOfChecks(121 * MS, 1),
    Check(121 * MS, B_OUTSIDE, A, 1, 1),
    Data(171 * MS, A, B_OUTSIDE, 25),
    Connected(181 * MS, A, B_OUTSIDE, None, (CandidateType.SERVER_REFLEXIVE, CandidateType.SERVER_REFLEXIVE), 50 * MS),
)
BOB: tuple[Event, ...] = (
    Start(1 * MS, "bob", Role.CONTROLLED),
    Gathered(61 * MS),
    Relay(130 * MS, 44 * MS, RELAYED_B, RELAYED_A),
    RoundOfChecks(141 * MS, 1),
    Check(141 * MS, A_OUTSIDE, B, 1, 1),
    Check(174 * MS, A_OUTSIDE, B, 1, 2),
    Data(191 * MS, B, A_OUTSIDE, 25),
    Connected(201 * MS, B, A_OUTSIDE, None, (CandidateType.SERVER_REFLEXIVE, CandidateType.SERVER_REFLEXIVE), 52 * MS),
)


def without(said: Sequence[Event], *kinds: type[Event]) -> tuple[Event, ...]:
    return tuple(event for event in said if not isinstance(event, kinds))


BURST = Check(150 * MS, B_OUTSIDE, A, 1, None, 12)
UNCONNECTED_ALICE, UNCONNECTED_BOB = (without(said, Connected)[:6] for said in (ALICE, BOB))

ROWS: list[tuple[str, Sequence[Event], Sequence[Event], bool, str, float | None, float | None]] = [
    (
        "discovery is that of the slower end, each from its own start",
        ALICE,
        BOB,
        True,
        "candidate_discovery_time",
        0.06,
        None,
    ),
    (
        "an end that never gathered censors discovery at the time for setting up",
        without(ALICE, Gathered),
        BOB,
        True,
        "candidate_discovery_time",
        None,
        8.0,
    ),
    (
        "traversal is from the first check of either end to bytes at both",
        ALICE,
        BOB,
        True,
        "time_to_traverse",
        0.07,
        None,
    ),
    ("relayed bytes do not end a traversal", UNCONNECTED_ALICE, UNCONNECTED_BOB, False, "time_to_traverse", None, 5.0),
    ("a trial that is not direct is censored, whatever its ends say", ALICE, BOB, False, "time_to_traverse", None, 5.0),
    (
        "without any check there is no beginning, so no time",
        without(ALICE, Check),
        without(BOB, Check),
        True,
        "time_to_traverse",
        None,
        None,
    ),
    (
        "connecting ends with the first bytes by any path, of the slower end",
        ALICE,
        BOB,
        True,
        "connect_time",
        0.129,
        None,
    ),
    (
        "no bytes by any path: censored at both deadlines together",
        ALICE[:2],
        BOB[:2],
        False,
        "connect_time",
        None,
        13.0,
    ),
    ("the relay's rtt is the controlling end's", ALICE, BOB, True, "relay_rtt", 0.04, None),
    ("or the other's, where the controlling end has none", without(ALICE, Relay), BOB, True, "relay_rtt", 0.044, None),
    ("without a relay there is no rtt, and nothing is censored", ALICE[:2], BOB[:2], False, "relay_rtt", None, None),
    ("the direct rtt is the controlling end's", ALICE, BOB, True, "direct_rtt", 0.05, None),
    ("there is none where the trial is not direct", ALICE, BOB, False, "direct_rtt", None, None),
    ("every check of both ends is a probe", ALICE, BOB, True, "probes_sent", 3.0, None),
    ("a burst counts as many as it was", [*ALICE, BURST], BOB, True, "probes_sent", 15.0, None),
    ("attempts are rounds", ALICE, BOB, True, "attempts", 1.0, None),
]


@pytest.mark.parametrize(
    ("sentence", "alice", "bob", "direct", "name", "value", "censored"), ROWS, ids=[r[0] for r in ROWS]
)
def test_metric(
    sentence: str,
    alice: Sequence[Event],
    bob: Sequence[Event],
    direct: bool,
    name: str,
    value: float | None,
    censored: float | None,
) -> None:
    measured = measure({"alice": alice, "bob": bob}, "alice", RELAYS, LIMITS, direct=direct)
    assert measured.metrics[name] == (value if value is None else pytest.approx(value)), sentence
    assert measured.censored.get(name) == censored, sentence


def test_what_is_measured_is_not_censored() -> None:
    for direct in (True, False):
        measured = measure({"alice": ALICE, "bob": BOB}, "alice", RELAYS, LIMITS, direct=direct)
        assert all(measured.metrics[name] is None for name in measured.censored)


_RELAY, _CONNECTED = ALICE[3], ALICE[-1]
_EXHAUSTED, _FAILED = Exhausted(300 * MS, 3), Failed(5_000 * MS, "no direct path by the deadline")
ENDS: list[tuple[str, tuple[Event, ...], tuple[Event, ...], bool]] = [
    ("nobody has said anything", (), (), False),
    ("both are connected", (_CONNECTED,), (_CONNECTED,), True),
    ("one is connected, the other still tries", (_CONNECTED,), (_RELAY,), False),
    (
        "one is connected, the other is exhausted: what the first sends may still arrive",
        (_CONNECTED,),
        (_RELAY, _EXHAUSTED),
        False,
    ),
    ("one is connected, the other has given up", (_CONNECTED,), (_RELAY, _EXHAUSTED, _FAILED), True),
    ("both are exhausted, and the relay works", (_RELAY, _EXHAUSTED), (_RELAY, _EXHAUSTED), True),
    ("one is exhausted and waits for its relay", (_EXHAUSTED,), (_RELAY, _EXHAUSTED), False),
    ("one has failed, the other is exhausted", (_FAILED,), (_RELAY, _EXHAUSTED), True),
]


@pytest.mark.parametrize(("sentence", "one", "other", "expected"), ENDS, ids=[row[0] for row in ENDS])
def test_when_a_trial_is_over(sentence: str, one: tuple[Event, ...], other: tuple[Event, ...], expected: bool) -> None:
    assert is_over({"alice": one, "bob": other}) is expected, sentence
