"""A topology: nodes, each with its uplink, and the links between them."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network

from pydantic import Field

from testbed.spec.link import Link
from testbed.spec.model import Duration, Model

INTERNET = "internet"
"""The one core where no `regions:` are written."""


class NodeKind(StrEnum):
    """What a node is for."""

    PEER = "peer"
    RENDEZVOUS = "rendezvous"
    NAT = "nat"
    ROUTER = "router"
    HOST = "host"

    @property
    def forwards(self) -> bool:
        """Whether other nodes may hang below it."""
        return self in (NodeKind.NAT, NodeKind.ROUTER)


class Attachment(Model):
    """One uplink of a node and the link to it."""

    uplink: str
    link: Link = Link()


class Node(Model):
    """One box of the network, with one namespace of its own in a lab."""

    kind: NodeKind
    attachments: tuple[Attachment, ...]
    """In the file: `uplink:` and `link:`, or a list of each where a node is multi-homed."""
    profile: str | None = None
    """A NAT or firewall profile; nats and routers only."""
    lan: IPv4Network | None = None
    """The prefix of the segment below this nat or router; chosen in file order unless said."""


class Topology(Model):
    """A network as a person drew it."""

    name: str = "unnamed"
    description: str = ""
    regions: dict[str, dict[str, Duration]] = Field(default_factory=dict)
    """Region -> {other region: one-way delay}; empty where there is one core."""
    nodes: dict[str, Node]
    """In file order, which is the order of addresses."""
