"""Pairs of boxes, each pair joined by a link of a wire: the smallest lab there is."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from testbed.lab import netlink, sysctl
from testbed.lab.namespaces import Namespace, new_namespace
from testbed.lab.netlink import Batch, End, Netlink
from testbed.lab.wire.engine import WireCable
from testbed.lab.wire.process import Wire
from testbed.plan.network import Neighbour, Route
from testbed.spec.link import Link

DEVICE, INDEX = "wan0", 2
LOWER, UPPER = "10.0.0.1", "10.0.0.2"
_NETWORK = IPv4Network("10.0.0.0/24")
_FIRST_FAR = 100
_SO_RCVBUFFORCE = 33
PATIENCE = 20.0
"""Seconds after which a test gives up; no test waits for it."""


@dataclass(frozen=True)
class Pair:
    """The box below a link and the one above."""

    lower: Namespace
    upper: Namespace

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """A UDP socket in each, on port 5000."""
        return udp(self.lower, LOWER), udp(self.upper, UPPER)


def udp(box: Namespace, address: str) -> socket.socket:
    with box:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)  # the receiver's own kernel must lose nothing
    except PermissionError:  # root in a user namespace has what the host allows to everybody
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
    opened.settimeout(PATIENCE)
    opened.bind((address, 5000))
    return opened


def cables(links: Sequence[Link], seed: int = 1) -> list[WireCable]:
    """As `wired` numbers them."""
    return [
        WireCable(f"cable{number}", _FIRST_FAR + 2 * number, _FIRST_FAR + 2 * number + 1, link, seed + number, True)
        for number, link in enumerate(links)
    ]


@contextmanager
def wired(*links: Link, seed: int = 1, wire: Wire | None = None) -> Iterator[tuple[Wire, list[Pair]]]:
    """A wire that carries frames, this one or a new one, and the boxes at the ends of its links."""
    with ExitStack() as scope:
        world = _box(scope)
        planned = cables(links, seed)
        if wire is None:
            wire = Wire()
            scope.callback(wire.close)
        else:
            scope.callback(wire.abandon)
        wire.carry(world, planned)
        pairs = []
        for cable in planned:
            pair = Pair(_box(scope), _box(scope))
            for number, (box, far) in enumerate(((pair.lower, cable.lower), (pair.upper, cable.upper)), 1):
                far_half = End(f"{cable.name}.{number}", far, f"02:00:00:00:01:0{number}", world.fd)
                _veth(_end(box, number), far_half, world, cable.link.mtu)
                _address(box, number)
            pairs.append(pair)
        wire.wait()
        yield wire, pairs


@contextmanager
def joined(mtu: int = 1500) -> Iterator[Pair]:
    """Two boxes with nothing but a veth between them."""
    with ExitStack() as scope:
        pair = Pair(_box(scope), _box(scope))
        _veth(_end(pair.lower, 1), _end(pair.upper, 2), pair.upper, mtu)
        _address(pair.lower, 1)
        _address(pair.upper, 2)
        yield pair


def _box(scope: ExitStack) -> Namespace:
    made = new_namespace()
    scope.callback(made.close)
    with made:
        sysctl.configure(forwards=False)
    return made


def _end(box: Namespace, number: int) -> End:
    return End(DEVICE, INDEX, f"02:00:00:00:00:0{number}", box.fd)


def _veth(first: End, second: End, holder: Namespace, mtu: int) -> None:
    """Both ends up; `holder` is where the second one is."""
    with Netlink() as link:
        link.send(Batch([netlink.veth(second.name, first, second, mtu=mtu, up=True)]))
    with holder, Netlink() as link:
        link.send(Batch([netlink.up(second.name, second.index)]))


def _address(box: Namespace, number: int) -> None:
    other = 3 - number
    neighbour = Neighbour(DEVICE, IPv4Address(f"10.0.0.{other}"), f"02:00:00:00:00:0{other}")
    messages = [
        netlink.address(DEVICE, INDEX, IPv4Interface(f"10.0.0.{number}/24")),
        netlink.route(DEVICE, INDEX, Route(_NETWORK, None, DEVICE)),
        netlink.neighbour(DEVICE, INDEX, neighbour),
    ]
    with box, Netlink() as link:
        link.switch_offloads_off(DEVICE)
        link.send(Batch(messages))
        assert link.finish_carrier(DEVICE)
