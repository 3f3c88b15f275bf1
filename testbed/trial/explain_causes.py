"""Why packets ended where they did: from what was seen and what the NAT there is.

Rule 1: a cause is told where the packets show it: where these came from, where the other end had sent to by then.
        Else there is none, and the NAT's own word stands alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from testbed.datagram import Endpoint
from testbed.nat.packet import Reason
from testbed.plan.trials import CellPlan
from testbed.results import explanation as words
from testbed.results.explanation import Ending
from testbed.spec.profile import Dependence, NatProfile
from testbed.traversal.candidates import CandidateType
from testbed.trial.explain_events import last_of, link_at, lost_what_was_told, moved
from testbed.trial.explain_flows import Traffic, externals
from testbed.trial.explain_journeys import Journey, nats_of
from testbed.trial.explain_timeline import listed

BY: Mapping[Dependence, str] = {
    Dependence.ADDRESS_DEPENDENT: "by address",
    Dependence.ADDRESS_AND_PORT_DEPENDENT: "by address and port",
}


def mappers(plan: CellPlan, end: str) -> dict[str, Dependence]:
    """The NATs of an end whose mappings depend on the remote, from the end outwards."""
    profiles = {name: profile_of(plan, name) for name in nats_of(plan.network, end)}
    return {name: profile.mapping for name, profile in profiles.items() if profile.mapping in BY}


def unguarded(plan: CellPlan, end: str) -> list[str]:
    """The NATs of an end, or the end itself where it has none, if all let in what comes from a new port of a known
    address; else none.
    """
    filters = {name: profile_of(plan, name).filtering for name in nats_of(plan.network, end)}
    if Dependence.ADDRESS_AND_PORT_DEPENDENT in filters.values():
        return []
    return list(filters) or [end]


def profile_of(plan: CellPlan, nat: str) -> NatProfile:
    """What a NAT does."""
    translation = plan.network.boxes[nat].translation
    assert translation is not None
    return translation.profile


def because(traffic: Traffic, sender: str, ending: Ending, died: Sequence[Journey]) -> str | None:
    """Why what `sender` sent ended so, as a clause; None where nothing shows it. `died`: the packets."""
    where = ending.where
    match ending.reason:
        case Reason.UDP_BLOCKED:
            return f"because {where} forwards no UDP"
        case Reason.PORT_EXHAUSTED:
            return f"because {where} has no external port left"
        case Reason.TABLE_FULL:
            return f"because {where} holds {profile_of(traffic.plan, where).max_mappings} mappings already"
        case Reason.HAIRPIN_REFUSED:
            return f"because both are behind {where}, and it sends nothing back to the side that it came from"
        case Reason.NOT_TRANSLATED:
            return f"because {where} cannot translate what it has no address for"
        case words.OWN_STACK:
            return _taken(traffic, sender, where, died)
        case Reason.NO_PERMISSION | Reason.NO_MAPPING:
            return _unsolicited(traffic, sender, where, died)
        case words.NO_ROUTE:
            return _no_route(traffic, sender, died)
        case _:
            return None


def _unsolicited(traffic: Traffic, sender: str, nat: str, died: Sequence[Journey]) -> str | None:
    """A packet from outside that a NAT of the other end had nothing for."""
    plan, other = traffic.plan, traffic.other(sender)
    if nat not in nats_of(plan.network, other) or nat in nats_of(plan.network, sender):
        return None
    profile, remotes = profile_of(plan, nat), list(dict.fromkeys(journey.remote for journey in died))
    told = [traffic.told.get(remote) for remote in remotes]
    if (event := last_of(traffic.happened, [nat], died[0].at)) and all(t is not None and t.t < event.t for t in told):
        return lost_what_was_told(event, remotes, died[0].at)
    if all(entry is None for entry in told):
        return f"because {other} had nothing open there: {'the port was' if len(remotes) == 1 else 'they were'} a guess"
    is_reflexive = all(entry is not None and entry.type is CandidateType.SERVER_REFLEXIVE for entry in told)
    if profile.mapping in BY and is_reflexive:
        own = _own(traffic, other, remotes)
        left = f", while {other}'s own checks leave by {listed(own)}" if own else ""
        it = "that address" if len(remotes) == 1 else "those addresses"
        return f"because {nat} maps {BY[profile.mapping]} and has {it} for the rendezvous only{left}"
    return _unknown_source(traffic, sender, nat, died)


def _unknown_source(traffic: Traffic, sender: str, nat: str, died: Sequence[Journey]) -> str | None:
    """They came from an address that the other end had not written to, or not yet."""
    plan, other = traffic.plan, traffic.other(sender)
    sources = tuple(dict.fromkeys(source for j in died if (source := j.seen_as or j.external) is not None))
    if not sources:
        return None
    came, they = listed(list(map(str, sources))), "it" if len(died) == 1 else "they"
    filtering = profile_of(plan, nat).filtering
    opened = [journey for journey in traffic.direct(other) if _opens(journey, sources, filtering)]
    if not opened:
        by = mappers(plan, sender)
        is_new = not any(source in traffic.told for source in sources)
        reasons = [f"{name} maps {BY[d]}" for name, d in by.items()]
        if event := last_of(traffic.happened, nats_of(plan.network, sender), died[0].at):
            reasons = [moved(event)]
        why = f" ({', '.join(reasons)})" if reasons and is_new else ""
        return f"because {they} came from {came}{why}, to which {other} had sent nothing"
    first = min((journey.at for journey in opened if journey.at is not None), default=None)
    if first is not None and all(journey.at is not None and journey.at < first for journey in died):
        return f"because {they} came before {other} had sent anything to {came}"
    return None


def _opens(journey: Journey, sources: Sequence[Endpoint], filtering: Dependence) -> bool:
    if filtering is Dependence.ADDRESS_DEPENDENT:
        return journey.remote.host in {source.host for source in sources}
    return journey.remote in sources


def _taken(traffic: Traffic, sender: str, nat: str, died: Sequence[Journey]) -> str | None:
    other = traffic.other(sender)
    if nat not in nats_of(traffic.plan.network, other):
        return None
    remotes = {journey.remote for journey in died}
    own = _own(traffic, other, remotes)
    left = f", so that {other}'s checks had to leave by {listed(own)}" if own else ""
    return f"because {nat} accepts what nobody has asked for, and that port is its own from then on{left}"


def _no_route(traffic: Traffic, sender: str, died: Sequence[Journey]) -> str | None:
    other = traffic.other(sender)
    told = {entry.type for entry in traffic.told.values() if entry.owner == other}
    if told != {CandidateType.HOST} or any(journey.remote not in traffic.told for journey in died):
        return None
    return f"because {other} knew no address of its own but those inside of its network"


def _own(traffic: Traffic, end: str, told: Collection[Endpoint]) -> list[str]:
    """The addresses by which an end's checks leave, apart from those it told; those without a route left out."""
    sent = [journey for journey in traffic.direct(end) if journey.reason != words.NO_ROUTE]
    return [str(found) for found in externals(sent) if found not in told]


def chance_of_loss(traffic: Traffic, lost: Journey, where: str) -> str:
    """`70% loss up alice`: the share of frames that links lose, at its time, in the direction of a packet."""
    plan, shares = traffic.plan, []
    below = {lost.sender, *nats_of(plan.network, lost.sender)}
    for cable in plan.network.cables:
        way, link = "up" if cable.lower.box in below else "down", link_at(traffic.happened, cable, lost.at)
        loss = (link.up if way == "up" else link.down).loss
        if cable.name in where.split(" or ") and isinstance(loss, int) and loss:
            shares.append(f"{loss / 10_000:g}% loss {way} {cable.name}")
    return listed(shares)
