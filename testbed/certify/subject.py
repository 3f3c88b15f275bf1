"""What is measured, and the network that it is measured in: a server, the NAT, three hosts behind it.

Rule 1: the network is that of a scenario, from the same planner; its NAT gets its rules as in a trial.
Rule 2: a firewall stands in a router, as in every topology; its hosts have addresses of the Internet.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.plan.addressing import plan_network
from testbed.plan.network import Translation
from testbed.spec.profile import Dependence, NatProfile
from testbed.spec.topology import INTERNET, Attachment, Node, NodeKind, Topology

SERVER, NAT = "server", "nat"
HOSTS = ("one", "two", "three")


@dataclass(frozen=True, slots=True)
class Subject:
    """A NAT that is to be measured."""

    profile: NatProfile
    """What it is said to be."""
    made: NatProfile | None = None
    """What its rules are compiled from, where that is another profile."""
    more_rules: str = ""
    """A table beside its own, as nft reads it, which stays when the NAT is started anew."""


def topology(profile: NatProfile) -> Topology:
    """The network around a NAT."""
    kind = NodeKind.ROUTER if profile.mapping is Dependence.NONE else NodeKind.NAT
    nodes = {
        SERVER: Node(kind=NodeKind.RENDEZVOUS, attachments=(Attachment(uplink=INTERNET),)),
        NAT: Node(kind=kind, attachments=(Attachment(uplink=INTERNET),)),
    }
    nodes |= {name: Node(kind=NodeKind.HOST, attachments=(Attachment(uplink=NAT),)) for name in HOSTS}
    return Topology(name="certificate", nodes=nodes)


def translation_of(profile: NatProfile) -> Translation:
    """What a profile does in this lab."""
    translation = plan_network(topology(profile), {NAT: profile}).boxes[NAT].translation
    assert translation is not None
    return translation
