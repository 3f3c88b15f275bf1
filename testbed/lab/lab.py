"""A network made by Linux: namespaces, links, NATs and captures, out of a blueprint.

Rule 1: nothing has a name outside this process, and nothing is made where the caller is. Namespaces are descriptors;
        when the process ends, by whatever signal, the kernel removes them and all that is in them.
Rule 2: a lab is ready when `build` returns: devices are up, carriers are there, rules are loaded, captures run.
Rule 3: what is opened in a box (sockets, programs) is opened by this process inside its namespace.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from testbed.datagram import Endpoint
from testbed.errors import BrokenError, MachineError
from testbed.lab import namespaces, sysctl
from testbed.lab.blueprint import Blueprint, BoxPlan
from testbed.lab.capture import Capture, Place
from testbed.lab.child import Child
from testbed.lab.drops import DropLog
from testbed.lab.events import NatBox, link_seed, netem_seed
from testbed.lab.namespaces import Namespace
from testbed.lab.netlink import Batch, Netlink
from testbed.lab.netlink_netem import compare_qdisc, qdisc
from testbed.lab.nftables.droplog import PacketLog
from testbed.lab.nftables.running import RunningRules
from testbed.lab.programs import Program, spawn
from testbed.lab.userspace.process import Userspace
from testbed.lab.wire.engine import WireCable
from testbed.lab.wire.process import Wire
from testbed.link.model import LINK_HEADER
from testbed.plan.seeds import derive

RECEIVE_BUFFER = 1 << 20
"""Bytes that a socket may hold: a burst of QUIC must not die in an end's own kernel."""


@dataclass(slots=True)
class Lab:
    """A running lab. Leave it as a context, or end the process."""

    blueprint: Blueprint
    boxes: Mapping[str, Namespace]
    capture: Capture | None
    wire: Wire | None
    userspace: Userspace | None
    """What plays the NATs that rules of the kernel cannot make."""
    drop_logs: Mapping[str, DropLog]
    """Of every box that filters."""
    seed: int
    """Of every die of the lab."""
    nats: Mapping[str, NatBox]
    """What filters or translates in a box, to be told of events (events.py)."""
    changes: dict[str, int] = field(default_factory=dict)
    """Cable -> how often events have changed it."""
    _scope: ExitStack = field(default_factory=ExitStack)

    @property
    def children(self) -> tuple[Child, ...]:
        """The processes that serve this lab, whose deaths are its own."""
        return tuple(child for child in (self.wire, self.userspace) if child is not None)

    def open_socket(self, box: str, local: Endpoint) -> socket.socket:
        """A bound, non-blocking UDP socket in a box. Raises OSError as bind(2) does."""
        with self.boxes[box]:
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            opened.bind(local)
        except OSError:
            opened.close()
            raise
        return opened

    def spawn(self, box: str, command: Sequence[str], environment: Mapping[str, str]) -> Program:
        """A program in a box, in a PID namespace of its own. Raises OSError where it cannot be started."""
        return spawn(self.boxes[box], command, environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for child in self.children:
            child.abandon()  # they take as long to go as the taps do: all at once
        self._scope.close()


def build(
    blueprint: Blueprint,
    seed: int,
    *,
    capture: bool = True,
    wire: Wire | None = None,
    userspace: Userspace | None = None,
) -> Lab:
    """Make it, in a world of its own: where the thread is, nothing changes.

    Raises MachineError, BrokenError; then nothing remains.

    `seed`: of every die of the lab: links, ports of NATs. `wire`, `userspace`: processes that serve nobody now, for a
    lab that needs them; without them the lab makes its own.
    """
    with ExitStack() as scope:
        _allow_descriptors(blueprint.descriptors + 64 + 4 * len(blueprint.boxes))
        world, boxes = _make_namespaces(blueprint, scope)
        # The slow starters first: they wait for the kernel while the rest is made.
        wire = _start_wire(blueprint, world, seed, scope, wire) if blueprint.wires else None
        userspace = _start_userspace(blueprint, boxes, seed, scope, userspace)
        captured = _start_capture(blueprint, boxes, scope) if capture else None
        with world, Netlink() as link:
            link.send(blueprint.devices)
            link.send(blueprint.world)
        drop_logs: dict[str, DropLog] = {}
        nats: dict[str, NatBox] = {}
        for plan in blueprint.boxes:
            with boxes[plan.box.name]:
                _set_up(plan, seed)
                if plan.rules is not None:
                    nats[plan.box.name] = rules = RunningRules(plan.rules, plan.later_rules, _nat_seed(plan, seed))
                    scope.callback(rules.close)
                    rules.load()
                    drop_logs[plan.box.name] = scope.enter_context(PacketLog())
            if userspace is not None and plan.userspace is not None:
                drop_logs[plan.box.name] = nats[plan.box.name] = userspace.nat(plan.box.name)
        lab = Lab(blueprint, boxes, captured, wire, userspace, drop_logs, seed, nats)
        for child in lab.children:
            child.wait()
        lab._scope = scope.pop_all()
        return lab


def _allow_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise MachineError(
            f"a lab of this size needs {count} open files, this machine allows {hard}",
            mend=f"ulimit -n {count}, as root",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _place(namespace: Namespace, fd: int, scope: ExitStack) -> Namespace:
    namespace.move_to(fd)
    scope.callback(namespace.close)
    return namespace


def _make_namespaces(blueprint: Blueprint, scope: ExitStack) -> tuple[Namespace, dict[str, Namespace]]:
    """The world, in which are the far halves of links, and every box."""
    made = {}
    with namespaces.coming_back():
        world = _place(namespaces.enter_new_namespace(), blueprint.world_fd, scope)
        sysctl.configure(forwards=False)
        for plan in blueprint.boxes:
            made[plan.box.name] = _place(namespaces.enter_new_namespace(), plan.fd, scope)
            sysctl.configure(forwards=plan.forwards)
    return world, made


def _set_up(plan: BoxPlan, seed: int) -> None:
    """All that is done inside one box, in which the thread is."""
    name = plan.box.name
    with Netlink() as link:
        for device in plan.unfinished:
            link.switch_offloads_off(device)
        link.send(plan.setup)
        for entry in plan.qdiscs:
            die = netem_seed(entry, seed)
            link.send(Batch([qdisc(entry.label, entry.index, entry.impairment, die)]))
            compare_qdisc(entry.index, entry.impairment, die)
        for device in reversed(tuple(plan.indexes)):  # a bridge has a carrier once its ports have
            if not link.finish_carrier(device):
                raise BrokenError(f"{name}: {device} has no carrier")


def _nat_seed(plan: BoxPlan, seed: int) -> int:
    return derive(seed, "nat", plan.box.name)


def _start_capture(blueprint: Blueprint, boxes: Mapping[str, Namespace], scope: ExitStack) -> Capture:
    cables = blueprint.network.cables
    places = [
        Place(
            plan.box.name,
            boxes[plan.box.name],
            {plan.indexes[interface.name]: interface.name for interface in plan.box.interfaces},
            max(c.link.mtu for c in cables if plan.box.name in (c.lower.box, c.upper.box)) + LINK_HEADER,
        )
        for plan in blueprint.boxes
        if plan.box.kind is not None
    ]
    capture = Capture(places)
    scope.callback(capture.close)
    return capture


def _start_wire(blueprint: Blueprint, world: Namespace, seed: int, scope: ExitStack, lent: Wire | None) -> Wire:
    cables = [
        WireCable(ends.name, ends.lower, ends.upper, ends.link, link_seed(ends.link, seed, ends.name), ends.varies)
        for ends in blueprint.wires
    ]
    wire = lent or Wire()
    scope.callback(wire.close if lent is None else wire.abandon)
    wire.carry(world, cables)
    return wire


def _start_userspace(
    blueprint: Blueprint, boxes: Mapping[str, Namespace], seed: int, scope: ExitStack, lent: Userspace | None
) -> Userspace | None:
    played = [
        (plan.userspace, boxes[plan.box.name], _nat_seed(plan, seed))
        for plan in blueprint.boxes
        if plan.userspace is not None
    ]
    if not played:
        return None
    userspace = lent or Userspace()
    scope.callback(userspace.close if lent is None else userspace.abandon)
    userspace.play(played)
    return userspace
