"""What theory says of a trial: the model plays it with the same seed, and both are compared fact by fact.

Rule 1: a fact is a sentence without times and numbers of packets: these differ where two machines run at once. The
        port of a relay's address is no fact, and neither is one that the kernel's own NAT has chosen, or one that was
        guessed: no seed of ours fixes them, or only in an order that two ends share by chance.
Rule 2: the first fact of the lab, in its order, that the model does not have is where both diverge; else the first of
        the model that the lab does not have. What follows from there need not be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.datagram import Endpoint
from testbed.nat.behaviour import is_native
from testbed.plan.trials import CellPlan
from testbed.results import explanation as words
from testbed.results.explanation import Theory
from testbed.results.record import Record
from testbed.sim.trial import Played
from testbed.traversal.candidates import CandidateType
from testbed.traversal.events import (
    CandidateFound,
    Check,
    Connected,
    Event,
    Exhausted,
    Failed,
    Registered,
    Relay,
    RoundOfChecks,
)
from testbed.trial.explain_events import in_lab as happened
from testbed.trial.explain_flows import Events, Traffic, told_by

LAST = 1 << 63
"""When something happens whose time is not known."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that can be the same in lab and model."""

    t: int
    text: str


def theory(record: Record, said: Events, traffic: Traffic | None, played: Played, model: Traffic) -> Theory:
    """Both compared. `traffic`: of the lab, where packets were kept."""
    plan = model.plan
    in_lab, in_model = list(_facts(plan, said, traffic)), list(_facts(plan, played.events, model if traffic else None))
    if traffic is None:
        in_lab += [Fact(one.t, f"{one.text} happens") for one in happened(record, plan)]
        in_model += [Fact(one.t, f"{one.text} happens") for one in model.happened]
        in_lab += _drops(record)
        in_model += _model_drops(played, plan)
    return Theory(
        outcome=played.verdict.outcome,
        reason=played.verdict.reason,
        agrees=played.verdict.outcome is record.outcome,
        differs=_divergence(in_lab, in_model),
        flows=model.flows(),
    )


def _divergence(in_lab: Sequence[Fact], in_model: Sequence[Fact]) -> str | None:
    for here, there, not_there in ((in_lab, in_model, "in the lab {}, in the model not"), (in_model, in_lab, _MISSING)):
        known = {fact.text for fact in there}
        for fact in sorted(here, key=lambda fact: fact.t):
            if fact.text not in known:
                return not_there.format(fact.text)
    return None


_MISSING = "in the model {}, in the lab not"


def _facts(plan: CellPlan, said: Events, traffic: Traffic | None) -> Iterator[Fact]:
    chosen, told = _chosen_by_kernel(plan), told_by(said)

    def name(endpoint: Endpoint) -> str:
        if endpoint.host in chosen:
            return f"a port of {endpoint.host}"
        return str(endpoint) if endpoint in told else f"another port of {endpoint.host}"

    def own(endpoint: Endpoint) -> str:
        return name(endpoint) if endpoint.host in chosen else str(endpoint)

    for who, events in said.items():
        for event in events:
            if (text := _fact(event, name)) is not None:
                yield Fact(event.t, f"{who} {text}")
    for one in traffic.happened if traffic is not None else ():
        yield Fact(one.t, f"{one.text} happens")
    for journey in [j for end in plan.ends for j in traffic.checks(end)] if traffic is not None else []:
        at = LAST if journey.at is None else journey.at
        what = f"what {journey.sender} sends to {name(journey.remote)}"
        if journey.external is not None and journey.external != journey.local:
            yield Fact(at, f"{what} leaves by {own(journey.external)}")
        if journey.reason not in (words.ARRIVED, words.UNDER_WAY, words.LATE, words.LOSS, words.CORRUPT):
            yield Fact(at, f"{what} {_became(journey.where, journey.reason)}")


def _became(where: str, reason: str) -> str:
    return words.Ending(where=where, reason=reason).phrase(False)


def _fact(event: Event, name: Callable[[Endpoint], str]) -> str | None:
    match event:
        case CandidateFound(type=CandidateType.RELAYED):
            return "has a relayed candidate"
        case CandidateFound(type=kind, address=address):
            return f"has the {kind.value} candidate {name(address)}"
        case Registered():
            return "is registered"
        case Relay():
            return "reaches the other through the relay"
        case RoundOfChecks(round=number):
            return f"begins round {number}"
        case Check(remote=remote):
            return f"checks {name(remote)}"
        case Connected(remote=remote):
            return f"is connected to {name(remote)}"
        case Exhausted():
            return "runs out of rounds"
        case Failed():
            return "gives up"
        case _:
            return None


def _chosen_by_kernel(plan: CellPlan) -> frozenset[str]:
    """External addresses of NATs whose ports no seed fixes."""
    return frozenset(
        str(address)
        for box in plan.network.boxes.values()
        if box.translation is not None and is_native(box.translation.profile)
        for address in (*box.translation.external, *(address for later in box.spare for address in later))
    )


def _drops(record: Record) -> list[Fact]:
    dropped: Mapping[str, Mapping[str, int]] = {name: report.dropped for name, report in record.nats.items()}
    return [Fact(LAST, f"{name} drops ({reason})") for name, found in dropped.items() for reason in found]


def _model_drops(played: Played, plan: CellPlan) -> list[Fact]:
    nats = {name for name, box in plan.network.boxes.items() if box.translation is not None}
    own = {words.OWN_STACK, "taken by its own stack", "closed"}
    found = dict.fromkeys((e.where, str(e.reason)) for e in played.lost if e.where in nats and e.reason not in own)
    return [Fact(LAST, f"{where} drops ({reason})") for where, reason in found]
