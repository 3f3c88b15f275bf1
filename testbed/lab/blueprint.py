"""From a network to what the kernel is told: everything that can be prepared once, for many labs of one kind.

Rule 1: preparing costs tens of milliseconds, building a few: a trial's process only sends what its parent encoded.
Rule 2: every number that the kernel would choose is chosen here: indexes of devices, descriptors of namespaces. So
        two labs of one network are alike, and messages can name what does not exist yet.
Rule 3: a link that never does anything is a bare veth pair; so is every link under netem, with a qdisc at both ends.
        Under `wire` each end of a link is a veth pair of its own, whose far half lies in the namespace of the wire
        process.
Rule 4: the kernel of a box that the userspace engine plays is told of devices alone; addresses, routes and neighbours
        go into the engine's description of the box.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from testbed.lab import netlink
from testbed.lab.netlink import LOOPBACK, Batch, End, Message
from testbed.lab.nftables.prepare import Prepared, prepare
from testbed.lab.userspace.middlebox import Description, Device
from testbed.plan.engines import engine_of
from testbed.plan.network import LAN, Box, Cable, Network, Port, Translation
from testbed.spec.link import Impairment, Link
from testbed.spec.profile import Engine

Links = Literal["netem", "wire"]

LOWEST_FD = 200
"""Descriptors of namespaces lie above what a process opens for itself."""
FIRST_INDEX = 10
"""Index of a box's first device; below it are `lo` and what the kernel makes by itself (tunnels)."""
RULE_PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class WireEnds:
    """A cable that the wire process carries: the devices in the world that lead to its two ends."""

    name: str
    lower: int
    upper: int
    link: Link
    varies: bool = False
    """Whether an event changes it during a trial."""


@dataclass(frozen=True, slots=True)
class Qdisc:
    """An impairment on what a device sends, under netem."""

    cable: str
    direction: Literal["up", "down"]
    index: int
    link: Link

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.cable} {self.direction}"

    @property
    def impairment(self) -> Impairment:
        """What frames in this direction meet."""
        return self.link.up if self.direction == "up" else self.link.down


@dataclass(frozen=True, slots=True)
class BoxPlan:
    """One namespace and all that is said to it."""

    box: Box
    fd: int
    indexes: Mapping[str, int]
    """Device -> index."""
    setup: Batch
    """Sent inside, after the devices exist."""
    unfinished: tuple[str, ...]
    """Devices whose frames must leave finished (no checksum offload): a raw reader is behind them."""
    qdiscs: tuple[Qdisc, ...]
    rules: Prepared | None
    """Of a nat, or of a router that is a firewall, made by the kernel."""
    later_rules: tuple[Prepared, ...] = ()
    """The same with each of the addresses that events give it."""
    userspace: Description | None = None
    """Of one that the userspace engine plays."""

    @property
    def forwards(self) -> bool:
        """Whether its kernel does."""
        return self.box.forwards and self.userspace is None


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A lab that can be built."""

    network: Network
    links: Links
    devices: Batch
    """Every pair and every bridge; sent from the world."""
    world: Batch
    """What is set up in the world itself: the far halves."""
    boxes: tuple[BoxPlan, ...]
    wires: tuple[WireEnds, ...]
    world_fd: int
    """Descriptor of the world's own namespace, in which the far halves of wire links lie; those of boxes follow."""

    @property
    def is_played(self) -> bool:
        """Whether the userspace engine plays any of its boxes."""
        return any(plan.userspace is not None for plan in self.boxes)

    @property
    def descriptors(self) -> int:
        """One past the highest descriptor that building uses for a namespace."""
        return self.world_fd + 1 + len(self.boxes)


def draw(network: Network, links: Links, rules: Mapping[str, Prepared] | None = None) -> Blueprint:
    """The blueprint of `network`. Needs the right to make namespaces where there are rules to prepare.

    `rules`: of boxes that are prepared already; the others are prepared now. Raises MachineError, BrokenError.
    """
    return _Drawing(network, links, dict(rules or {})).draw()


class _Drawing:
    def __init__(self, network: Network, links: Links, rules: dict[str, Prepared]) -> None:
        self.network, self.links, self.rules = network, links, rules
        self.world_fd = free_descriptors(1 + len(network.boxes))
        self.fds = {name: self.world_fd + 1 + number for number, name in enumerate(network.boxes)}
        self.indexes: dict[str, dict[str, int]] = {name: {} for name in network.boxes}
        self.ups: dict[str, list[Message]] = {name: [] for name in network.boxes}
        self.unfinished: dict[str, list[str]] = {name: [] for name in network.boxes}
        self.qdiscs: dict[str, list[Qdisc]] = {name: [] for name in network.boxes}
        self.devices: list[Message] = []
        self.world: list[Message] = [netlink.up("lo of the world", LOOPBACK)]
        self.wires: list[WireEnds] = []
        self.next_far = FIRST_INDEX
        self.played = {name for name, box in network.boxes.items() if box.translation and _is_played(box.translation)}

    def draw(self) -> Blueprint:
        for name, box in self.network.boxes.items():
            for interface in box.interfaces:
                if interface.is_bridge:
                    self._bridge(name, interface.mac)
        for cable in self.network.cables:
            self._cable(cable)
        boxes = tuple(self._box(name, box) for name, box in self.network.boxes.items())
        return Blueprint(
            self.network, self.links, Batch(self.devices), Batch(self.world), boxes, tuple(self.wires), self.world_fd
        )

    # ---- devices

    def _index(self, box: str, device: str) -> int:
        indexes = self.indexes[box]
        return indexes.setdefault(device, FIRST_INDEX + len(indexes))

    def _bridge(self, box: str, mac: str) -> None:
        mtu = min((c.link.mtu for c in self.network.cables if c.upper.box == box and c.upper.bridge), default=1500)
        index = self._index(box, LAN)
        self.devices.append(netlink.bridge(f"{box} {LAN}", End(LAN, index, mac, self.fds[box]), mtu=mtu))
        self.ups[box].append(netlink.up(f"{box} {LAN}", index))

    def _cable(self, cable: Cable) -> None:
        lower, upper = self._end(cable.lower), self._end(cable.upper)
        is_bare = cable.link.up.is_nothing and cable.link.down.is_nothing and not cable.varies
        if self.links == "wire" and not is_bare:
            far = tuple(self._far_half(cable, port, end) for port, end in ((cable.lower, lower), (cable.upper, upper)))
            self.wires.append(WireEnds(cable.name, far[0], far[1], cable.link, cable.varies))
            for port in (cable.lower, cable.upper):
                self.unfinished[port.box].append(port.interface)
                self._join(port, is_up=True)
            return
        self.devices.append(netlink.veth(cable.name, lower, upper, mtu=cable.link.mtu, up=True))
        self._join(cable.lower, is_up=True)
        self._join(cable.upper, is_up=False)
        for port, other in ((cable.lower, cable.upper), (cable.upper, cable.lower)):
            if other.box in self.played:
                self.unfinished[port.box].append(port.interface)
        if self.links == "netem":
            self._impair(cable, "up", cable.lower)
            self._impair(cable, "down", cable.upper)

    def _end(self, port: Port) -> End:
        return End(port.interface, self._index(port.box, port.interface), port.mac, self.fds[port.box])

    def _far_half(self, cable: Cable, port: Port, end: End) -> int:
        index, self.next_far = self.next_far, self.next_far + 1
        mac = f"06:00:{index >> 24 & 255:02x}:{index >> 16 & 255:02x}:{index >> 8 & 255:02x}:{index & 255:02x}"
        far = End(f"far{index}", index, mac, self.world_fd)
        label = f"{cable.name} at {port.box}"
        self.devices.append(netlink.veth(label, end, far, mtu=cable.link.mtu, up=True))
        self.world.append(netlink.up(f"far half of {label}", index))
        return index

    def _join(self, port: Port, *, is_up: bool) -> None:
        index = self.indexes[port.box][port.interface]
        if port.bridge is not None:
            master = self.indexes[port.box][port.bridge]
            self.ups[port.box].append(netlink.up(f"{port.box} {port.interface}", index, master=master))
        elif not is_up:
            self.ups[port.box].append(netlink.up(f"{port.box} {port.interface}", index))

    def _impair(self, cable: Cable, direction: Literal["up", "down"], port: Port) -> None:
        entry = Qdisc(cable.name, direction, self.indexes[port.box][port.interface], cable.link)
        if cable.varies or not entry.impairment.is_nothing:
            self.qdiscs[port.box].append(entry)

    # ---- boxes

    def _box(self, name: str, box: Box) -> BoxPlan:
        return BoxPlan(
            box,
            self.fds[name],
            self.indexes[name],
            Batch(self._setup(name, box)),
            tuple(self.unfinished[name]),
            tuple(self.qdiscs[name]),
            self._rules(name, box),
            self._later_rules(box),
            self._description(name, box),
        )

    def _rules(self, name: str, box: Box) -> Prepared | None:
        if box.translation is None or name in self.played:
            return None
        return self.rules.get(name) or prepare(box.translation)

    def _later_rules(self, box: Box) -> tuple[Prepared, ...]:
        if box.translation is None or box.name in self.played:
            return ()
        return tuple(prepare(replace(box.translation, external=external)) for external in box.spare)

    def _description(self, name: str, box: Box) -> Description | None:
        if box.translation is None or name not in self.played:
            return None
        devices = {}
        for interface in box.interfaces:
            index, mac = self.indexes[name][interface.name], bytes.fromhex(interface.mac.replace(":", ""))
            address = str(interface.addresses[0].ip)
            devices[index] = Device(index, interface.name, mac, self._mtu(name, interface.name), address)
        return Description(box, box.translation, devices)

    def _mtu(self, box: str, device: str) -> int:
        ports = [(port, cable.link.mtu) for cable in self.network.cables for port in (cable.lower, cable.upper)]
        return min(mtu for port, mtu in ports if port.box == box and device in (port.interface, port.bridge))

    def _setup(self, name: str, box: Box) -> Iterator[Message]:
        yield netlink.up(f"{name} lo", LOOPBACK)
        yield from self.ups[name]
        indexes = self.indexes[name]
        if name not in self.played:
            yield from self._addresses_and_routes(name, box)
        for cable in self.network.cables:
            if cable.upper.box == name and cable.upper.bridge is not None:
                yield netlink.forwarding_entry(name, indexes[cable.upper.interface], cable.lower.mac)

    def _addresses_and_routes(self, name: str, box: Box) -> Iterator[Message]:
        indexes = self.indexes[name]
        for interface in box.interfaces:
            for address in interface.addresses:
                yield netlink.address(f"{name} {interface.name}", indexes[interface.name], address)
        for neighbour in box.neighbours:
            yield netlink.neighbour(name, indexes[neighbour.interface], neighbour)
        for route in box.routes:
            yield netlink.route(name, indexes[route.interface], route)
        for number, rule in enumerate(box.rules):
            yield netlink.source_rule(name, rule, priority=RULE_PRIORITY + number)


def _is_played(translation: Translation) -> bool:
    return engine_of(translation.profile) is Engine.USERSPACE


def free_descriptors(count: int) -> int:
    """The first of so many successive descriptors that are free in this process: shells leave some open above 200."""
    first = LOWEST_FD
    for taken in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        if first <= taken < first + count:
            first = taken + 1
    return first
