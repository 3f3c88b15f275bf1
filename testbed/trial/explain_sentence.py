"""The one sentence that says why a trial came out so.

Rule 1: what is said was seen: where packets ended, what address they came from, what the other end had sent by then.
        A profile only gives the reason why a NAT did what it was seen to do.
Rule 2: one clause for each direction; that host candidates of another network have no route goes without saying.
Rule 3: words that no packet bears out, and what is the testbed's fault, are said to be that and not explained away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.datagram import Endpoint
from testbed.plan.outcomes import CLAIM_REFUTED, ENDS_DISAGREE, Outcome
from testbed.results import explanation as words
from testbed.results.explanation import Ending
from testbed.results.record import Record, warning_kind
from testbed.traversal.candidates import CandidateType
from testbed.traversal.events import Connected, Relay, RoundOfChecks
from testbed.trial.explain_causes import BY, because, chance_of_loss, mappers, unguarded
from testbed.trial.explain_events import last_of, moved
from testbed.trial.explain_flows import Events, Traffic, endings
from testbed.trial.explain_journeys import Journey, nats_of
from testbed.trial.explain_timeline import address, listed
from testbed.units import NS_PER_SECOND

MOST_ENDINGS = 3
"""That are told one by one."""


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of a trial."""

    record: Record
    said: Events
    traffic: Traffic

    @property
    def ends(self) -> tuple[str, str]:
        """Both, the controlling one first."""
        return self.traffic.plan.ends


def sentence(case: Case) -> str:
    """It, with its full stop."""
    reason = case.record.reason or "nobody says why"
    kinds = {warning_kind(text) for text in case.record.warnings}
    match case.record.outcome:
        case Outcome.BROKEN:
            return f"Broken: the testbed is at fault, and the trial says nothing about the peers: {reason}."
        case Outcome.UNSUPPORTED:
            return f"Unsupported: the program says that it cannot do what is asked: {reason}."
        case Outcome.DIRECT:
            return f"Direct{_direct(case)}{_meanwhile(case)}."
        case outcome:
            head = "Not direct" if outcome is Outcome.RELAYED else "Failed"
    if CLAIM_REFUTED in kinds:
        return f"{head}: {reason}{_claims(case)}."
    if ENDS_DISAGREE in kinds:
        clauses = "; ".join(_clauses(case))
        return f"{head}: {reason}{_claims(case)}" + (f"; {clauses}." if clauses else ".")
    return f"{head}: {'; '.join(_clauses(case)) or _without_checks(case, reason)}{_relay(case)}."


# ---------------------------------------------------------------------------- not direct


def _clauses(case: Case) -> list[str]:
    """What became of the checks of each end."""
    found = []
    for name in case.ends:
        checks = case.traffic.checks(name)
        sent = checks or case.traffic.direct(name)
        if sent:
            found.append(_clause(case, name, _worth_telling(sent), "check" if checks else "packet"))
        other = case.traffic.other(name)
        if any(journey.reason == words.ARRIVED for journey in case.traffic.checks(other)):
            answers = [j for j in case.traffic.direct(name) if j not in checks]
            if answers and checks:
                found.append(_fates(case, f"{name}'s {{}} answers", answers))
    return found


def _worth_telling(sent: Sequence[Journey]) -> Sequence[Journey]:
    return [journey for journey in sent if journey.reason != words.NO_ROUTE] or sent


def _clause(case: Case, name: str, sent: Sequence[Journey], noun: str) -> str:
    noun += "" if len(sent) == 1 else "s"
    said = _fates(case, f"{name}'s {{}} {noun} to {_targets(case, sent)}", sent)
    reasons = [ending for ending in endings(sent) if not ending.arrived]
    for ending in reasons[:1]:
        died = [journey for journey in sent if (journey.where, journey.reason) == (ending.where, ending.reason)]
        if why := because(case.traffic, name, ending, died):
            said += f", {why}"
    return said


def _fates(case: Case, who: str, sent: Sequence[Journey]) -> str:
    """`each of alice's 18 checks … died at nat_b (…)`, or how many did what."""
    found, n = endings(sent), len(sent)

    def became(ending: Ending, several: bool) -> str:
        lost = next((j for j in sent if (j.where, j.reason) == (ending.where, words.LOSS)), None)
        share = chance_of_loss(case.traffic, lost, ending.where) if lost is not None else ""
        return ending.phrase(several) + (f" ({share})" if share else "")

    if len(found) == 1:
        return f"{f'each of {who.format(n)}' if n > 1 else who.format('only')} {became(found[0], False)}"
    last = next((ending for ending in found if not ending.arrived), None)  # its cause is told after it
    ordered = sorted(found[:MOST_ENDINGS], key=lambda ending: ending is last)
    told = [f"{ending.count} {became(ending, ending.count > 1)}" for ending in ordered]
    if rest := sum(ending.count for ending in found[MOST_ENDINGS:]):
        told.insert(0, f"{rest} ended elsewhere")
    return f"of {who.format(n)}, {listed(told)}"


def _targets(case: Case, sent: Sequence[Journey]) -> str:
    remotes = list(dict.fromkeys(journey.remote for journey in sent))
    told = [remote for remote in remotes if remote in case.traffic.told]
    if len(remotes) == 1 and not told:
        return str(remotes[0])
    if len(told) == len(remotes):
        return _candidates(case, told)
    guessed = len(remotes) - len(told)
    hosts = list(dict.fromkeys(remote.host for remote in remotes if remote not in case.traffic.told))
    ports = f"{guessed} {'port' if guessed == 1 else 'ports'} of {listed(hosts)} that nobody told"
    return listed([*([_candidates(case, told)] if told else []), ports])


def _candidates(case: Case, told: Sequence[Endpoint]) -> str:
    """`bob's server-reflexive address …`, those of one kind together."""
    kinds: dict[str, list[str]] = {}
    for remote in told:
        entry = case.traffic.told[remote]
        kinds.setdefault(f"{entry.owner}'s {entry.type.value}", []).append(str(remote))
    return listed([f"{kind} address{'es' * (len(found) > 1)} {listed(found)}" for kind, found in kinds.items()])


def _without_checks(case: Case, reason: str) -> str:
    """Why no end sent the other anything."""
    if case.traffic.plan.strategy == "relay-only" and case.record.outcome is Outcome.RELAYED:
        return "the strategy relay-only looks for no direct path"
    lost = _lost_at_servers(case)
    return f"no check was sent ({reason})" + (f": {lost}" if lost else "")


def _lost_at_servers(case: Case) -> str:
    """What became of packets between the ends and the rendezvous, if they did not all arrive."""
    found = []
    for name in case.ends:
        sent = case.traffic.to_servers(name)
        back = [j for j in case.traffic.journeys if j.sender == case.traffic.plan.rendezvous and _is_for(case, name, j)]
        for who, journeys in ((f"{name}'s {{}} packets to the rendezvous", sent), ("the {} answers to " + name, back)):
            lost = [journey for journey in journeys if journey.reason not in (words.ARRIVED, words.UNDER_WAY)]
            if lost:
                said = _fates(case, who, lost if len(lost) == len(journeys) else journeys)
                why = because(case.traffic, name, endings(lost)[0], lost)
                found.append(f"{said}, {why}" if why else said)
                break
    return "; ".join(found)


def _is_for(case: Case, name: str, journey: Journey) -> bool:
    own = {sent.external for sent in case.traffic.to_servers(name)} | {s.local for s in case.traffic.to_servers(name)}
    return journey.remote in own


def _relay(case: Case) -> str:
    """Of a trial that failed: that the relay was of no use either."""
    without = [name for name in case.ends if not any(isinstance(event, Relay) for event in case.said.get(name, ()))]
    if case.record.outcome is not Outcome.FAILED or not without:
        return ""
    has_checks = any(case.traffic.direct(name) for name in case.ends)
    lost = _lost_at_servers(case) if has_checks else ""
    return f"; no bytes reached {listed(without)} through the relay" + (f": {lost}" if lost else "")


def _claims(case: Case) -> str:
    """Who says what, where words and packets differ."""
    said = []
    for name in case.ends:
        claim = next((event for event in case.said.get(name, ()) if isinstance(event, Connected)), None)
        if claim is not None:
            said.append(f"{name} claims {claim.local} to {address(claim.remote, case.traffic)}")
        else:
            said.append(f"{name} claims nothing")
    return f" ({', '.join(said)})"


# ---------------------------------------------------------------------------- direct


def _direct(case: Case) -> str:
    took = case.record.metrics.get("time_to_traverse")
    rounds = max((e.round for s in case.said.values() for e in s if isinstance(e, RoundOfChecks)), default=0)
    said = f" after {1000 * took:.0f} ms" if took is not None else ""
    said += f" in round {rounds}" if rounds > 1 else ""
    path = case.record.path or {}
    ways = [f"{name} reaches {case.traffic.other(name)} at {path[name][1]}" for name in case.ends if name in path]
    return f"{said}: {' and '.join(ways)}{', ' if ways else ''}{_why_direct(case, path)}"


def _meanwhile(case: Case) -> str:
    """What happened to the network before they met."""
    start = min((event.t for said in case.said.values() for event in said), default=0)
    told = [f"{one.text} at {(one.t - start) / NS_PER_SECOND:.2f} s" for one in case.traffic.happened]
    return f"; meanwhile {listed(told)}" if told else ""


def _why_direct(case: Case, path: Mapping[str, Sequence[str]]) -> str:
    plan = case.traffic.plan
    if set(path.get("types", ())) == {CandidateType.HOST.value}:
        return "because these are their own addresses, between which no NAT lies"
    one, other = plan.ends
    for name, peer in ((one, other), (other, one)):
        event = last_of(case.traffic.happened, nats_of(plan.network, name), None)
        if event is not None and peer in path and Endpoint.parse(path[peer][1]) not in case.traffic.told:
            return f"because {peer} answers where {name}'s checks come from since {moved(event)}"
    shifting = {name: mappers(plan, name) for name in plan.ends}
    if not any(shifting.values()):
        if not any(nats_of(plan.network, name) for name in plan.ends):
            return "because nothing on the way filters"
        return "because no NAT on the way maps by remote: where the rendezvous saw an end, the other finds it"
    for name, peer in ((one, other), (other, one)):
        for nat, dependence in shifting[name].items():
            if not shifting[peer] and unguarded(plan, peer):
                return (
                    f"because what {name} sends comes from a port that {nat}, which maps {BY[dependence]}, told "
                    f"nobody, and {listed(unguarded(plan, peer))} lets it in all the same"
                )
    named = listed([nat for found in shifting.values() for nat in found])
    return f"although {named} maps by remote: the strategy {plan.strategy} found the address that was not told"
