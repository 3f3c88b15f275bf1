"""From a topology to a network: addresses in file order, routes, neighbours.

Rule 1: addresses are assigned in file order and never drawn.
Rule 2: what faces the Internet looks globally routable: 11.0.0.0/8, because programs refuse documentation
        prefixes as public addresses (ant-quic, miniupnpd). Behind a nat: 192.168.0.0/16, or inside
        100.64.0.0/10 where other nats hang below it (RFC 6598). `lan:` chooses another prefix.
Rule 3: below a *router* the addresses of the side above go on: public stays public, private stays private.
Rule 4: the segment below a nat or router is a bridge where it has several hosts. One host needs none: its cable ends
        at the router's own interface. (A bridge that ends keeps all of the machine's other networks waiting for 16 ms:
        br_multicast_dev_del, rcu_barrier.)
Rule 5: the addresses that a nat gets during a trial (events) come after all others, in file order: on a core /32s as
        further addresses are, elsewhere the next ones of the segment. Routes and neighbours know them beforehand.
Rule 6: a multi-homed node routes by source address, one table an uplink (RFC 3704's other half).

The pools: a /30 for each box on a core, from 11.0.0.0 up; further addresses of a box (a rendezvous'
second, a nat's pool) as /32s from 11.128.0.0 up; the segment of a public router as a /24 from 11.64.0.0 up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import combinations, count

from testbed.errors import UsageError
from testbed.plan.network import (
    LAN,
    Box,
    Cable,
    Interface,
    Neighbour,
    Network,
    Port,
    Route,
    SourceRule,
    Translation,
)
from testbed.spec.link import Impairment, Link
from testbed.spec.profile import NatProfile
from testbed.spec.topology import INTERNET, Attachment, Node, NodeKind, Topology

CORE_LINKS = IPv4Network("11.0.0.0/10")
PUBLIC_SEGMENTS = IPv4Network("11.64.0.0/10")
FURTHER_ADDRESSES = IPv4Network("11.128.0.0/16")
HOMES = IPv4Network("192.168.0.0/16")
CARRIERS = IPv4Network("100.64.0.0/10")
ANYWHERE = IPv4Network("0.0.0.0/0")
FIRST_TABLE = 101
"""Routing table of a multi-homed node's first uplink; 253 to 255 are the kernel's own."""


def plan_network(
    topology: Topology, profiles: Mapping[str, NatProfile], address_changes: Mapping[str, int] | None = None
) -> Network:
    """The network of `topology`, each nat or router doing what its profile in `profiles` says.

    `address_changes`: how often a nat gets another address during a trial. Raises UsageError where a prefix is too
    small for what hangs below it.
    """
    return _Planner(topology, profiles).plan(address_changes or {})


def server_addresses(network: Network, rendezvous: str) -> tuple[IPv4Address, IPv4Address]:
    """The two addresses at which `rendezvous` answers (RFC 5780 §6 needs two)."""
    first, second = network.boxes[rendezvous].addresses()[:2]
    return first, second


@dataclass(slots=True)
class _Draft:
    """A box while it is being planned."""

    name: str
    kind: NodeKind | None
    interfaces: list[Interface] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    rules: list[SourceRule] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    inside: list[IPv4Network] = field(default_factory=list)
    external: list[IPv4Address] = field(default_factory=list)
    spare: list[tuple[IPv4Address, ...]] = field(default_factory=list)
    reached_by: tuple[str, str] = ("", "")
    """The box above its first uplink, and the interface of that box that leads here."""

    def freeze(self, profile: NatProfile | None) -> Box:
        return Box(
            self.name,
            self.kind,
            tuple(self.interfaces),
            tuple(self.routes),
            tuple(self.rules),
            tuple(self.neighbours),
            forwards=self.kind is None or self.kind.forwards,
            translation=Translation(profile, tuple(self.external), tuple(self.inside)) if profile else None,
            spare=tuple(self.spare),
        )


@dataclass(slots=True)
class _Segment:
    """The L2 segment below a nat or router, and who is on it so far."""

    prefix: IPv4Network
    hosts: Iterator[IPv4Address]
    members: list[tuple[Port, IPv4Address]]


class _Planner:
    def __init__(self, topology: Topology, profiles: Mapping[str, NatProfile]) -> None:
        self.topology, self.profiles = topology, profiles
        self.cores = tuple(topology.regions) or (INTERNET,)
        self.boxes = {name: _Draft(name, None) for name in self.cores}
        self.boxes |= {name: _Draft(name, node.kind) for name, node in topology.nodes.items()}
        self.cables: list[Cable] = []
        self.segments: dict[str, _Segment] = {}
        self.core_links = CORE_LINKS.subnets(new_prefix=30)
        self.further = FURTHER_ADDRESSES.hosts()
        self.macs = count(1)
        self.below: dict[str, list[str]] = {}
        for name, node in topology.nodes.items():
            for attachment in node.attachments:
                self.below.setdefault(attachment.uplink, []).append(name)

    def plan(self, address_changes: Mapping[str, int]) -> Network:
        self._make_segments()
        for name, node in self.topology.nodes.items():
            for index, attachment in enumerate(node.attachments):
                self._attach(name, node, index, attachment)
        for name in self.topology.nodes:
            for _ in range(address_changes.get(name, 0)):
                self._keep_for_later(name)
        for name, node in self.topology.nodes.items():
            self._route_what_is_below(name, node)
        self._join_regions()
        boxes = {name: draft.freeze(self.profiles.get(name)) for name, draft in self.boxes.items()}
        return Network(boxes, tuple(self.cables))

    # ---- segments

    def _make_segments(self) -> None:
        homes, carriers = HOMES.subnets(new_prefix=24), CARRIERS.subnets(new_prefix=24)
        public = PUBLIC_SEGMENTS.subnets(new_prefix=24)
        next(homes)  # so that the first home is 192.168.1.0/24, as people expect
        for name, children in self.below.items():
            if name in self.cores:
                continue
            node = self.topology.nodes[name]
            if node.lan is not None:
                prefix = node.lan
            elif self._is_public_below(name):
                prefix = next(public)
            else:
                nested = any(self.topology.nodes[child].kind is NodeKind.NAT for child in children)
                prefix = next(carriers if nested else homes)
            self._make_segment(name, prefix, len(children))

    def _make_segment(self, name: str, prefix: IPv4Network, children: int) -> None:
        room = max(0, prefix.num_addresses - 3)
        if room < children:
            raise UsageError(f"nodes.{name}.lan: {prefix} has room for {room} nodes, {children} hang below {name}")
        hosts, draft = prefix.hosts(), self.boxes[name]
        router = next(hosts)
        port = Port(name, LAN, self._mac())
        address = IPv4Interface((router, prefix.prefixlen))
        draft.interfaces.append(Interface(LAN, port.mac, (address,), is_bridge=children > 1))
        draft.routes.append(Route(prefix, None, LAN))
        draft.inside.append(prefix)
        self.segments[name] = _Segment(prefix, hosts, [(port, router)])

    def _is_public_below(self, name: str) -> bool:
        """Whether addresses below this nat or router are the Internet's own."""
        while name not in self.cores:
            node = self.topology.nodes[name]
            if node.kind is NodeKind.NAT:
                return False
            name = node.attachments[0].uplink
        return True

    # ---- attachments

    def _attach(self, name: str, node: Node, index: int, attachment: Attachment) -> None:
        draft = self.boxes[name]
        device = f"{'wan' if node.kind.forwards else 'eth'}{index}"
        lower = Port(name, device, self._mac())
        attach = self._attach_to_core if attachment.uplink in self.cores else self._attach_to_segment
        upper, own, gateway = attach(lower, attachment.uplink)
        addresses = [own]
        if index == 0:
            draft.reached_by = (attachment.uplink, upper.bridge or upper.interface)
            addresses += [IPv4Interface((next(self.further), 32)) for _ in range(self._further_count(name, node))]
            draft.external = [address.ip for address in addresses]
        draft.interfaces.append(Interface(device, lower.mac, tuple(addresses)))
        draft.routes.append(Route(own.network, None, device))
        if index == 0:
            draft.routes.append(Route(ANYWHERE, gateway, device))
        if len(node.attachments) > 1:
            table = FIRST_TABLE + index
            draft.routes += [Route(own.network, None, device, table), Route(ANYWHERE, gateway, device, table)]
            draft.rules += [SourceRule(address.ip, table) for address in addresses]
        cable = name if len(node.attachments) == 1 else f"{name}.{index}"
        self.cables.append(Cable(cable, lower, upper, attachment.link))

    def _attach_to_core(self, lower: Port, core: str) -> tuple[Port, IPv4Interface, IPv4Address]:
        prefix = next(self.core_links)
        gateway, own = prefix.hosts()
        upper = self._routed_port(core, IPv4Interface((gateway, 30)))
        self._acquaint((lower, own), (upper, gateway))
        return upper, IPv4Interface((own, 30)), gateway

    def _attach_to_segment(self, lower: Port, above: str) -> tuple[Port, IPv4Interface, IPv4Address]:
        segment = self.segments[above]
        own = next(segment.hosts)
        for member in segment.members:
            self._acquaint((lower, own), member)
        upper = self._segment_port(above, len(segment.members) - 1)
        segment.members.append((lower, own))
        return upper, IPv4Interface((own, segment.prefix.prefixlen)), segment.members[0][1]

    def _segment_port(self, above: str, number: int) -> Port:
        """Where a host's cable ends: a port of the bridge, or the one interface itself where there is one host."""
        (lan,) = (interface for interface in self.boxes[above].interfaces if interface.name == LAN)
        if lan.is_bridge:
            return Port(above, f"port{number}", self._mac(), bridge=LAN)
        return Port(above, LAN, lan.mac)

    def _routed_port(self, core: str, address: IPv4Interface) -> Port:
        """A new interface of a core router, with its connected route."""
        draft = self.boxes[core]
        port = Port(core, f"to{len(draft.interfaces)}", self._mac())
        draft.interfaces.append(Interface(port.interface, port.mac, (address,)))
        draft.routes.append(Route(address.network, None, port.interface))
        return port

    def _acquaint(self, one: tuple[Port, IPv4Address], other: tuple[Port, IPv4Address]) -> None:
        for (port, _), (peer, address) in ((one, other), (other, one)):
            self.boxes[port.box].neighbours.append(Neighbour(port.interface, address, peer.mac))

    def _further_count(self, name: str, node: Node) -> int:
        if node.kind is NodeKind.RENDEZVOUS:
            return 1
        profile = self.profiles.get(name)
        return profile.external_addresses - 1 if profile is not None else 0

    def _keep_for_later(self, name: str) -> None:
        """One more address for a nat, which it does not have yet."""
        draft, above = self.boxes[name], self.boxes[name].reached_by[0]
        if above in self.cores:
            draft.spare.append((next(self.further),))
            return
        segment = self.segments[above]
        address = next(segment.hosts, None)
        if address is None:
            raise UsageError(f"nodes.{above}.lan: {segment.prefix} has no room for another address of {name}")
        port = next(port for port, host in segment.members if port.box == name)
        for member in segment.members:
            if member[0].box != name:
                peer, _ = member
                self.boxes[peer.box].neighbours.append(Neighbour(peer.interface, address, port.mac))
        draft.spare.append((address,))

    # ---- routes

    def _route_what_is_below(self, name: str, node: Node) -> None:
        """Tell the boxes above of every prefix that only `name` leads to, up to a core or a nat."""
        draft = self.boxes[name]
        prefixes = [IPv4Network(address) for address in draft.external[1:]]
        if draft.reached_by[0] in self.cores:
            prefixes += [IPv4Network(address) for later in draft.spare for address in later]
        if node.kind is NodeKind.ROUTER and name in self.segments:
            prefixes.append(self.segments[name].prefix)
        for prefix in prefixes:
            child = draft
            while True:
                above, interface = child.reached_by
                parent = self.boxes[above]
                parent.routes.append(Route(prefix, child.external[0], interface))
                if parent.kind is None:
                    break
                parent.inside.append(prefix)
                if parent.kind is NodeKind.NAT:
                    break
                child = parent

    def _join_regions(self) -> None:
        known = {name: tuple(self.boxes[name].routes) for name in self.cores}
        for a, b in combinations(self.cores, 2):
            delays = self.topology.regions
            delay = Impairment(delay=delays[a][b] if b in delays[a] else delays[b][a])
            prefix = next(self.core_links)
            ends = [
                (self._routed_port(core, IPv4Interface((ip, 30))), ip)
                for core, ip in zip((a, b), prefix.hosts(), strict=True)
            ]
            self._acquaint(*ends)
            self.cables.append(Cable(f"{a}--{b}", ends[0][0], ends[1][0], Link(up=delay, down=delay)))
            for (here, _), (there, address) in (ends, ends[::-1]):
                routes = (Route(route.destination, address, here.interface) for route in known[there.box])
                self.boxes[here.box].routes += routes

    def _mac(self) -> str:
        return ":".join(f"{byte:02x}" for byte in (0x02_00_00_00_00_00 + next(self.macs)).to_bytes(6, "big"))
