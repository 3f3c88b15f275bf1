"""Cells to be predicted, made by hand: topologies of a few nodes, whose links are `10ms` each unless said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network

from testbed.plan.trials import CellPlan, TrialSettings, plan_cell
from testbed.sim.trial import Played, play
from testbed.spec.event import Event as SpecEvent
from testbed.spec.kinds import kind
from testbed.spec.link import Impairment, Link
from testbed.spec.matrix import CellSpec
from testbed.spec.profile import NatProfile
from testbed.spec.scenario import Agent
from testbed.spec.topology import Attachment, Node, NodeKind, Topology

MS = 1_000_000
SECOND = 1000 * MS
TEN = Link(up=Impairment(delay=10 * MS), down=Impairment(delay=10 * MS))
SETTINGS = TrialSettings(10 * SECOND, 10 * SECOND)


def node(what: str, *uplinks: str, link: Link = TEN, lan: str | None = None) -> Node:
    attachments = tuple(Attachment(uplink=uplink, link=link) for uplink in uplinks)
    return Node(kind=NodeKind(what), attachments=attachments, lan=IPv4Network(lan) if lan else None)


TWO_HOMES: Mapping[str, Node] = {
    "meet": node("rendezvous", "internet"),
    "nat_a": node("nat", "internet"),
    "alice": node("peer", "nat_a"),
    "nat_b": node("nat", "internet"),
    "bob": node("peer", "nat_b"),
}


def profile(word: str | NatProfile) -> NatProfile:
    if isinstance(word, NatProfile):
        return word
    found = kind(word)
    assert found is not None
    return found


def cell(
    nodes: Mapping[str, Node] = TWO_HOMES,
    *,
    agent: Agent = "udp",
    strategy: str = "reflexive",
    regions: dict[str, dict[str, int]] | None = None,
    events: Sequence[SpecEvent] = (),
    **profiles: str | NatProfile,
) -> CellPlan:
    """The plan of a cell; nats that are not named keep endpoint-independent mappings and filter by address and port."""
    nats = [name for name, entry in nodes.items() if entry.kind is NodeKind.NAT]
    given = {name: profile(profiles.get(name, "eim-apdf")) for name in (*nats, *profiles)}
    topology = Topology(nodes=dict(nodes), regions=regions or {})
    return plan_cell(CellSpec(dict(profiles), topology, given, strategy, agent, ("alice", "bob"), tuple(events)))


def trial(plan: CellPlan, seed: int = 1, settings: TrialSettings = SETTINGS) -> Played:
    return play(plan, settings, seed)


def words(played: Played, name: str) -> list[str]:
    return [event.word for event in played.events[name]]


def dropped(played: Played, where: str) -> set[str]:
    """Why packets were lost at a place."""
    return {str(lost.reason) for lost in played.lost if lost.where == where}


def link(**impairments: int) -> Link:
    return Link(up=Impairment(**impairments), down=Impairment(**impairments))
