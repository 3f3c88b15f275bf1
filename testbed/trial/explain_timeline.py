"""One line for each thing that happened: both agents' events, and what became of their checks.

Rule 1: time runs from the first start of an end. Nothing is left out but what a line says in numbers.
Rule 2: checks of one round to one candidate are one line, at the time of the first; so are guessed ports of one
        address. The checks that answer or nominate belong to the round that they fell into.
Rule 3: what happened to the network by the scenario's events is a line of its own.
Rule 4: what NATs and links lost of other packets is a line of its own, at the time when the first of them had left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from testbed.datagram import Endpoint
from testbed.results import explanation as words
from testbed.results.explanation import Ending, Entry
from testbed.traversal.events import (
    CandidateFound,
    Check,
    Connected,
    Data,
    Event,
    Exhausted,
    Failed,
    Gathered,
    Prediction,
    Registered,
    Relay,
    RoundOfChecks,
    Start,
    Unsupported,
)
from testbed.trial.explain_flows import MOST_ADDRESSES, Events, Traffic, endings, externals
from testbed.trial.explain_journeys import Journey
from testbed.units import NS_PER_SECOND


def timeline(said: Events, traffic: Traffic, *, told: bool) -> tuple[Entry, ...]:
    """Every line, in order. `told`: whether the journeys of `traffic` are this trial's own, seen in its lab."""
    start = min((event.t for events in said.values() for event in events), default=0)
    entries: list[tuple[int, str, str, str, tuple[Ending, ...]]] = []
    for name, events in said.items():
        entries += [(e.t, name, e.word, _text(e, traffic), ()) for e in events if not isinstance(e, Check)]
        for burst in _bursts(events, traffic):
            journeys = [j for check in burst for j in traffic.of_check(check)] if told else []
            text = _checks(burst, traffic)
            if left_by := [str(e) for e in externals(journeys) if e not in {j.local for j in journeys}]:
                text += f", leaving by {listed(left_by)}"
            entries.append((burst[0].t, name, burst[0].word, text, endings(journeys)))
    entries += [(one.t, one.event.place, words.HAPPENS, one.event.text, ()) for one in traffic.happened]
    if told:
        entries += [(lost[0].at or 0, _place(lost[0]), "lost", _lost(lost, traffic), ()) for lost in _losses(traffic)]
    entries.sort(key=lambda entry: entry[0])
    return tuple(
        Entry(t=(t - start) / NS_PER_SECOND, who=who, event=word, text=text, endings=became)
        for t, who, word, text, became in entries
    )


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; of many the first ones and how many more."""
    if len(names) > MOST_ADDRESSES:
        return f"{', '.join(names[:3])} and {len(names) - 3} others"
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def address(remote: Endpoint, traffic: Traffic) -> str:
    """An address, and whose candidate it is."""
    told = traffic.told.get(remote)
    return str(remote) if told is None else f"{told.owner}'s {told.type.value} {remote}"


def _bursts(events: Iterable[Event], traffic: Traffic) -> Iterator[list[Check]]:
    found: dict[object, list[Check]] = {}
    number = 0
    for event in events:
        if isinstance(event, RoundOfChecks):
            number = event.round
        if isinstance(event, Check):
            is_guess = event.remote not in traffic.told
            key = (number, event.remote.host if is_guess else event.remote, is_guess)
            found.setdefault(key, []).append(event)
    yield from found.values()


def _checks(burst: Sequence[Check], traffic: Traffic) -> str:
    count = sum(1 if check.count is None else check.count for check in burst)
    first, is_guess = burst[0].remote, burst[0].remote not in traffic.told
    took = (burst[-1].t - burst[0].t) // 1_000_000
    where = address(first, traffic)
    if is_guess and count > 1 and (len({check.remote for check in burst}) > 1 or any(c.count for c in burst)):
        where = f"ports of {first.host} that nobody told, first to {first.port}"
    text = f"{count} {'check' if count == 1 else 'checks'} to {where}"
    return f"{text}, within {took} ms" if took else text


def _losses(traffic: Traffic) -> Iterable[list[Journey]]:
    """What got lost beside checks: of each place and reason, those of one sender to one host."""
    found: dict[object, list[Journey]] = {}
    for journey in traffic.beside_checks():
        if journey.reason not in (words.ARRIVED, words.UNDER_WAY, words.LATE):
            is_server = journey.remote.host in traffic.plan.servers
            key = (journey.where, journey.reason, journey.sender, is_server or journey.remote.host)
            found.setdefault(key, []).append(journey)
    return found.values()


def _place(lost: Journey) -> str:
    return f"link {lost.where}" if lost.reason in words.ON_LINKS else lost.where


def _lost(lost: Sequence[Journey], traffic: Traffic) -> str:
    first = lost[0]
    to = "the rendezvous" if first.remote.host in traffic.plan.servers else first.remote.host
    count = f"{len(lost)} {'packet' if len(lost) == 1 else 'packets'}"
    became = Ending(where=first.where, reason=first.reason).phrase(len(lost) > 1)
    took = ((lost[-1].at or 0) - (first.at or 0)) // 1_000_000
    return f"{count} from {first.sender} to {to} {became}" + (f", within {took} ms" if took else "")


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.1f} ms"


def _text(event: Event, traffic: Traffic) -> str:
    match event:
        case Start(role=role):
            return f"starts, {role.value}" if role is not None else "starts"
        case CandidateFound(type=kind, address=found, server=server):
            return f"{kind.value} candidate {found}" + (f", from {server}" if server is not None else "")
        case Gathered(given_up=given_up):
            silent = f"; no answer from {listed(list(map(str, given_up)))}" if given_up else ""
            return f"has asked every server{silent}"
        case Registered():
            return "is registered"
        case Relay(rtt=rtt):
            return "relay works" + (f", round trip {_ms(rtt)}" if rtt is not None else "")
        case RoundOfChecks(round=number):
            return f"round {number}"
        case Prediction(predicted=predicted, reason=reason):
            aimed = f"predicts {listed(list(map(str, predicted)))}" if predicted else "predicts nothing"
            return f"{aimed}: {reason}" if reason else aimed
        case Data(local=local, remote=remote):
            return f"first application bytes on {local} from {address(remote, traffic)}"
        case Connected(local=local, remote=remote, received_from=received_from, types=types):
            path = f"connected by {local} to {remote}"
            path += f", from {received_from}" if received_from is not None else ""
            return path + (f" ({' to '.join(kind.value for kind in types)})" if types else "")
        case Exhausted():
            return "has no more rounds"
        case Failed(reason=reason):
            return f"gives up: {reason}"
        case Unsupported(reason=reason):
            return f"cannot do this: {reason}"
        case _:
            return event.word
