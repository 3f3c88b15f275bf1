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
from testbed.lab.wire.process import Wire, WireCable
from testbed.plan.network import Neighbour, Route
from testbed.spec.link import Link

DEVICE, INDEX = "wan0", 2
LOWER, UPPER = "10.0.0.1", "10.0.0.2"
_NETWORK = IPv4Network("10.0.0.0/24")
_FIRST_FAR = 100
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
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    opened.settimeout(PATIENCE)
    opened.bind((address, 5000))
    return opened


def cables(links: Sequence[Link], seed: int = 1) -> list[WireCable]:
    """As `wired` numbers them."""
    return [
        WireCable(f"cable{number}", _FIRST_FAR + 2 * number, _FIRST_FAR + 2 * number + 1, link, seed + number)
        for number, link in enumerate(links)
    ]


@contextmanager
def wired(*links: Link, seed: int = 1) -> Iterator[tuple[Wire, list[Pair]]]:
    """A wire that carries frames, and the boxes at the ends of its links."""
    with ExitStack() as scope:

        def box() -> Namespace:
            made = new_namespace()
            scope.callback(made.close)
            with made:
                sysctl.configure(forwards=False, more={})
            return made

        world = box()
        planned = cables(links, seed)
        wire = Wire.start(world, planned)
        scope.callback(wire.close)
        pairs = []
        for cable in planned:
            pair = Pair(box(), box())
            _join(world, pair.lower, cable, cable.lower, 1)
            _join(world, pair.upper, cable, cable.upper, 2)
            for namespace in (pair.lower, pair.upper):
                with namespace, Netlink() as link:
                    assert link.finish_carrier(DEVICE)
            pairs.append(pair)
        wire.wait()
        yield wire, pairs


def _join(world: Namespace, box: Namespace, cable: WireCable, far: int, number: int) -> None:
    name, mac = f"{cable.name}.{number}", f"02:00:00:00:00:0{number}"
    end = End(DEVICE, INDEX, mac, box.fd)
    with Netlink() as link:
        far_end = End(name, far, f"02:00:00:00:01:0{number}", world.fd)
        link.send(Batch([netlink.veth(name, end, far_end, mtu=cable.link.mtu, up=True)]))
    with world, Netlink() as link:
        link.send(Batch([netlink.up(name, far)]))
    other = 3 - number
    neighbour = Neighbour(DEVICE, IPv4Address(f"10.0.0.{other}"), f"02:00:00:00:00:0{other}")
    with box, Netlink() as link:
        link.switch_offloads_off(DEVICE)
        link.send(
            Batch(
                [
                    netlink.address(name, INDEX, IPv4Interface(f"10.0.0.{number}/24")),
                    netlink.route(name, INDEX, Route(_NETWORK, None, DEVICE)),
                    netlink.neighbour(name, INDEX, neighbour),
                ]
            )
        )
