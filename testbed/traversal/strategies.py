"""Strategies: what is tried, how often and when, as data.

Rule 1: a strategy is a value; the machines that follow it have no branch on its name.
Rule 2: only candidates of the types named here are checked. A relayed candidate is never checked: the relay is the
        path that a punch is to replace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from testbed.errors import UsageError
from testbed.traversal.candidates import CandidateType

MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the checks of one round are sent to each remote candidate, from the start of the round."""

    offsets: tuple[int, ...]
    """Nanoseconds, rising."""
    patience: int = 200 * MS
    """How long a round waits after its last checks where the RTT of the relay is not known, in nanoseconds."""


EXPONENTIAL = Schedule(tuple(offset * MS for offset in (0, 33, 67, 133, 267, 533)))
"""Dense at first, when both NATs are about to open, then sparse (the first steps of the schedule of
draft-bruynooghe-n0-quic-nat-traversal-00, as times since the start instead of gaps)."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A named way to look for a direct path."""

    name: str
    schedule: Schedule = EXPONENTIAL
    rounds: int = 3
    """libp2p's DCUtR and its measurements also stop after three."""
    checks: tuple[CandidateType, ...] = (CandidateType.HOST, CandidateType.SERVER_REFLEXIVE)
    """Which of the other end's candidates are checked."""


STRATEGIES: Mapping[str, Strategy] = {
    "reflexive": Strategy("reflexive"),
}


def strategy(name: str, parameters: Mapping[str, object]) -> Strategy:
    """The strategy of that name with its parameters; one that it does not know is refused, never ignored."""
    if name not in STRATEGIES:
        raise UsageError(f"strategy {name!r} is not known: one of {', '.join(STRATEGIES)}")
    if unknown := sorted(set(parameters) - {"rounds"}):
        raise UsageError(f"strategy {name!r} has no parameter {unknown[0]!r}: it has rounds")
    rounds = parameters.get("rounds", STRATEGIES[name].rounds)
    if type(rounds) is not int or not 1 <= rounds <= 10:
        raise UsageError(f"rounds: {rounds!r} is not a number from 1 to 10")
    return replace(STRATEGIES[name], rounds=rounds)
