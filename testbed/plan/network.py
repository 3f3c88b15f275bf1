"""The network that a topology means: every namespace, interface, address and route, before any exists.

Rule 1: nothing here is random and nothing looks at the machine; the same topology gives the same network.
Rule 2: a *box* is one namespace: a node of the topology, or a core router (`internet`, or a region).
Rule 3: a *cable* is one link between two boxes. Its lower end is the node's own; its upper end is an
        interface of the box above: routed (on a core, or where it is the only one below), or a port of the bridge
        `lan0`.
Rule 4: every neighbour is known beforehand (permanent entries): an ARP round trip through a delayed
        link would colour the first packet of a trial.

`lab/` builds these values and adds nothing to them; `plan/addressing.py` makes them from a topology.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from testbed.spec.link import Link
from testbed.spec.profile import NatProfile
from testbed.spec.topology import NodeKind

LAN = "lan0"
"""The interface to the segment below a nat or router: a bridge where there are several hosts."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A device in a box that has addresses: the end of a cable, or the bridge `lan0`."""

    name: str
    mac: str
    addresses: tuple[IPv4Interface, ...] = ()
    is_bridge: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """`ip route add DESTINATION via VIA dev INTERFACE table TABLE`; no `via` on a connected route."""

    destination: IPv4Network
    via: IPv4Address | None
    interface: str
    table: int = 254


@dataclass(frozen=True, slots=True)
class SourceRule:
    """`ip rule add from SOURCE lookup TABLE`: how a multi-homed node chooses its uplink."""

    source: IPv4Address
    table: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour entry."""

    interface: str
    address: IPv4Address
    mac: str


@dataclass(frozen=True, slots=True)
class Translation:
    """What a nat, or a router that is a firewall, does between its two sides."""

    profile: NatProfile
    external: tuple[IPv4Address, ...]
    """Its addresses on the outside, the first one primary; as many as the profile says."""
    inside: tuple[IPv4Network, ...]
    """Every prefix whose packets it translates: its own segment, and those routed below it."""
    wan: str = "wan0"
    lan: str = LAN


@dataclass(frozen=True, slots=True)
class Box:
    """One namespace."""

    name: str
    kind: NodeKind | None
    """None for a core router."""
    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...] = ()
    rules: tuple[SourceRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    forwards: bool = False
    translation: Translation | None = None
    spare: tuple[tuple[IPv4Address, ...], ...] = ()
    """The external addresses that a nat gets one after the other while a trial runs. What leads to them is there from
    the beginning: until then the nat has nothing at them."""

    def addresses(self) -> tuple[IPv4Address, ...]:
        """Every address of the box, in the order of its interfaces."""
        return tuple(a.ip for interface in self.interfaces for a in interface.addresses)

    def possible_addresses(self) -> tuple[IPv4Address, ...]:
        """These, and those that it may get."""
        return (*self.addresses(), *(address for later in self.spare for address in later))


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a cable: the device `interface` in `box`; a port of `bridge` where that is set."""

    box: str
    interface: str
    mac: str
    bridge: str | None = None


@dataclass(frozen=True, slots=True)
class Cable:
    """One link. `link.up` is what frames from `lower` to `upper` meet."""

    name: str
    """The node below, or `node.1` for its second uplink, or `a--b` between two regions."""
    lower: Port
    upper: Port
    link: Link
    varies: bool = False
    """Whether an event changes the link during a trial."""


@dataclass(frozen=True, slots=True)
class Network:
    """Everything a lab has to make."""

    boxes: Mapping[str, Box]
    """By name; cores first, then the nodes in file order."""
    cables: tuple[Cable, ...]
