"""Strategies: what is tried, how often and when, as data.

Rule 1: a strategy is a value, a row of rounds; the machines that follow it have no branch on its name.
Rule 2: only candidates of the types named here are checked. A relayed candidate is never checked: the relay is the
        path that a punch is to replace.
Rule 3: the numbers of a round bound what an end sends in it (RFC 8445 §19.5.1): from each own address, one check at
        each offset to each of MAX_REMOTES candidates and `window` predicted addresses; `ports` checks and `probes`
        probes once. Answers, and what answers trigger, come on top.

What the two techniques beside plain checks can reach, by the mappings of the ends (filters at their strictest):

    mapping of the ends                        port-prediction                      birthday
    both endpoint-independent                  needs neither: plain checks meet
    one depends on the remote                  if its ports come in steps           1 - (1 - ports/65535)^probes
    both depend on it                          if both come in steps, undisturbed   practically nothing: see below

Where both mappings depend, each end opens ports and each end probes, once both are prepared. A probe then leaves by a
port that the other end cannot know, so it passes only a filter that looks at addresses at most; and its answer leaves
by the opened port only where the opener's mapping looks at addresses at most too, or else has to pass the prober's
filter in the same way. So the formula holds if one end looks at addresses at most in mapping and filtering, or both
ends do in filtering. Behind anything stricter both ports have to be guessed at once: one chance in 65535² for each
opened port and each probe, 0.006 % with the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

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
class Round:
    """What one round of checks does beside checking the candidates; without more it is a plain one."""

    schedule: Schedule = EXPONENTIAL
    window: int = 0
    """An end whose mapping depends on the remote measures how its ports are assigned and tells the other end so many
    addresses that it will probably have."""
    ports: int = 0
    """An end whose mapping depends on the remote opens so many ports towards the other end."""
    probes: int = 0
    """An end that faces such a one sends a check to each of so many ports of its address, drawn at random."""
    rate: int = 1
    """Probes a second."""

    @property
    def is_plain(self) -> bool:
        """Whether it needs nothing but the candidates."""
        return not self.window and not self.ports

    @property
    def probing(self) -> int:
        """How long its probes take, in nanoseconds."""
        return self.probes * 1_000_000_000 // self.rate


@dataclass(frozen=True, slots=True)
class Strategy:
    """A named way to look for a direct path."""

    name: str
    rounds: tuple[Round, ...]
    """None at all where no direct path is looked for."""
    checks: tuple[CandidateType, ...] = (CandidateType.HOST, CandidateType.SERVER_REFLEXIVE)
    """Which of the other end's candidates are checked."""

    @property
    def is_plain(self) -> bool:
        """Whether all of its rounds are."""
        return all(entry.is_plain for entry in self.rounds)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A whole number that a strategy may be given."""

    default: int
    least: int
    most: int


ROUNDS = Parameter(3, 1, 10)
"""libp2p's DCUtR and its measurements also stop after three."""
WINDOW = Parameter(16, 1, 64)
"""With sixteen addresses up to fifteen mappings of others may come in between."""
PORTS = Parameter(256, 1, 400)
"""At 256 of 65535, 174 probes find one of them as often as not. An end needs a socket for each, and a process may
have 1024 descriptors where nobody says otherwise: two ends of 400 are below that."""
PROBES = Parameter(1024, 1, 8192)
RATE = Parameter(256, 1, 4096)
"""Probes a second: 1024 take four seconds, which leaves the default deadline room."""

Values: TypeAlias = "Mapping[str, int]"


@dataclass(frozen=True, slots=True)
class Family:
    """A strategy before its parameters are known."""

    parameters: Mapping[str, Parameter]
    rounds: Callable[[Values], tuple[Round, ...]]


def _birthday(values: Values) -> Round:
    return Round(ports=values["ports"], probes=values["probes"], rate=values["rate"])


_BIRTHDAY = {"ports": PORTS, "probes": PROBES, "rate": RATE}

STRATEGIES: Mapping[str, Family] = {
    "reflexive": Family({"rounds": ROUNDS}, lambda values: (Round(),) * values["rounds"]),
    "port-prediction": Family(
        {"rounds": ROUNDS, "window": WINDOW}, lambda values: (Round(window=values["window"]),) * values["rounds"]
    ),
    "birthday": Family(_BIRTHDAY, lambda values: (_birthday(values),)),
    "relay-only": Family({}, lambda values: ()),
    # two rounds of each kind and one of probes end before the default deadline, with a second to spare
    "all": Family(
        {"rounds": Parameter(2, ROUNDS.least, ROUNDS.most), "window": WINDOW, **_BIRTHDAY},
        lambda values: (
            *(Round(),) * values["rounds"],
            *(Round(window=values["window"]),) * values["rounds"],
            _birthday(values),
        ),
    ),
}


def strategy(name: str, parameters: Mapping[str, object]) -> Strategy:
    """The strategy of that name with its parameters; one that it does not know is refused, never ignored."""
    if name not in STRATEGIES:
        raise UsageError(f"strategy {name!r} is not known: one of {', '.join(STRATEGIES)}")
    family = STRATEGIES[name]
    if unknown := sorted(set(parameters) - set(family.parameters)):
        has = ", ".join(family.parameters) or "none at all"
        raise UsageError(f"strategy {name!r} has no parameter {unknown[0]!r}: it has {has}")
    values: dict[str, int] = {}
    for word, parameter in family.parameters.items():
        value = parameters.get(word, parameter.default)
        if type(value) is not int or not parameter.least <= value <= parameter.most:
            raise UsageError(f"{word}: {value!r} is not a number from {parameter.least} to {parameter.most}")
        values[word] = value
    return Strategy(name, family.rounds(values))
