"""A NAT on a bench: one namespace inside, one outside, and what becomes of each packet, without waiting.

A packet crosses a veth in the softirq of its sender's CPU, in order. So a second packet that goes the same way, by
the NAT's own sockets, tells when the first has either arrived or been dropped (`_settle`): no test here waits for
something that does not come.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import count
from typing import NamedTuple

from testbed.datagram import Endpoint
from testbed.lab import netlink, sysctl
from testbed.lab.namespaces import Namespace, new_namespace
from testbed.lab.netlink import Batch, End, Netlink
from testbed.lab.nftables.droplog import PacketLog
from testbed.lab.nftables.netfilter import NESTED, Netfilter, Request, attribute, attributes, batch, text
from testbed.lab.nftables.prepare import prepare
from testbed.plan.network import Route, Translation
from testbed.spec.profile import NatProfile

INSIDE = IPv4Network("192.168.1.0/24")
GATEWAY = IPv4Address("192.168.1.1")
HOSTS = ("192.168.1.10", "192.168.1.11", "192.168.1.12")
EXTERNAL = IPv4Address("11.0.0.1")
WAN = IPv4Address("11.0.255.1")
"""An address of the NAT that it does not map to."""
REMOTES = tuple(f"12.0.0.{number}" for number in range(1, 9))
ANYWHERE = IPv4Network("0.0.0.0/0")
SETTINGS = {"ipv4/icmp_ratelimit": "0", "ipv4/conf/all/accept_local": "1"}
"""ICMP errors without a limit; and one namespace plays all hosts, who may write to each other."""
PATIENCE = 5.0
"""Seconds after which something that must come has not come."""


class Arrival(NamedTuple):
    """Where a packet came out, and from whom it says it is."""

    at: Endpoint
    source: Endpoint


class Bench:
    """A NAT with hosts on both sides."""

    def __init__(self, translation: Translation, scope: ExitStack, seed: int, room: int) -> None:
        self.translation = translation
        self.nat, self.inside, self.outside = (_namespace(scope) for _ in range(3))
        self._scope = scope
        self._tokens = count(1)
        self._sockets: dict[Endpoint, socket.socket] = {}
        self.refused: list[Endpoint] = []
        """Connected sockets that were told, by an ICMP error, that nobody is there."""
        self._connect()
        for place, forwards in ((self.nat, True), (self.inside, False), (self.outside, False)):
            with place:
                sysctl.configure(forwards=forwards)
                sysctl.write(SETTINGS)
        with self.nat:
            self.log = scope.enter_context(PacketLog(room=room))
            prepare(translation).load(seed)
            self._near = [self._barrier(str(GATEWAY)), self._barrier(str(WAN))]
        with self.inside:
            self._far = [self._barrier(HOSTS[0])]
        with self.outside:
            self._far.append(self._barrier(REMOTES[0]))

    def _connect(self) -> None:
        def end(place: Namespace, name: str, index: int, mac: int) -> End:
            return End(name, index, f"02:00:00:00:00:{mac:02x}", place.fd)

        pairs = [
            netlink.veth("lan", end(self.nat, "lan0", 10, 1), end(self.inside, "eth0", 10, 2), mtu=1500, up=False),
            netlink.veth("wan", end(self.nat, "wan0", 11, 3), end(self.outside, "eth0", 10, 4), mtu=1500, up=False),
        ]
        external = [IPv4Interface(f"{address}/32") for address in (*self.translation.external, WAN)]
        plans: list[tuple[Namespace, list[tuple[int, str, list[IPv4Interface], list[Route]]]]] = [
            (
                self.nat,
                [
                    (10, "lan0", [IPv4Interface(f"{GATEWAY}/24")], [Route(INSIDE, None, "lan0")]),
                    (11, "wan0", external, [Route(ANYWHERE, None, "wan0")]),
                ],
            ),
            (
                self.inside,
                [
                    (
                        10,
                        "eth0",
                        [IPv4Interface(f"{host}/24") for host in HOSTS],
                        [Route(INSIDE, None, "eth0"), Route(ANYWHERE, GATEWAY, "eth0")],
                    )
                ],
            ),
            (
                self.outside,
                [
                    (
                        10,
                        "eth0",
                        [IPv4Interface(f"{remote}/32") for remote in REMOTES],
                        [Route(ANYWHERE, None, "eth0"), Route(INSIDE, WAN, "eth0")],
                    )
                ],
            ),
        ]
        with Netlink() as link:
            link.send(Batch(pairs))
        for place, devices in plans:
            with place, Netlink() as link:
                messages = [netlink.up("lo", netlink.LOOPBACK)]
                for index, name, addresses, routes in devices:
                    messages.append(netlink.up(name, index))
                    messages += [netlink.address(name, index, address) for address in addresses]
                    messages += [netlink.route(name, index, route) for route in routes]
                link.send(Batch(messages))
        for place, names in ((self.nat, ("lan0", "wan0")), (self.inside, ("eth0",)), (self.outside, ("eth0",))):
            with place, Netlink() as link:
                for name in names:
                    link.finish_carrier(name)

    def _barrier(self, host: str) -> socket.socket:
        sock = self._scope.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((host, 9))
        sock.settimeout(PATIENCE)
        return sock

    def _settle(self) -> None:
        """Return when every packet sent so far, and what the NAT made of it, has arrived or been dropped."""
        for near, far in zip(self._near, self._far, strict=True):
            far.sendto(b"there", near.getsockname())
            near.recv(16)
        for near, far in zip(self._near, self._far, strict=True):
            near.sendto(b"and back", far.getsockname())
            far.recv(16)

    # ---- who sends and receives

    def host(self, port: int, number: int = 0) -> socket.socket:
        """The UDP socket of an inside host."""
        return self._open(self.inside, Endpoint(HOSTS[number], port))

    def remote(self, port: int, number: int = 0) -> socket.socket:
        """The UDP socket of somebody outside."""
        return self._open(self.outside, Endpoint(REMOTES[number], port))

    def _open(self, place: Namespace, endpoint: Endpoint) -> socket.socket:
        if endpoint not in self._sockets:
            with place:
                sock = self._scope.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind(endpoint)
            sock.setblocking(False)
            self._sockets[endpoint] = sock
        return self._sockets[endpoint]

    def close(self, sock: socket.socket) -> None:
        """Close a UDP socket: its port is then closed."""
        del self._sockets[Endpoint(*sock.getsockname())]
        sock.close()

    def tcp(self, place: Namespace, endpoint: tuple[str, int]) -> socket.socket:
        """A TCP socket bound in a namespace."""
        with place:
            sock = self._scope.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(endpoint)
        sock.settimeout(PATIENCE)
        return sock

    def send(self, sender: socket.socket, target: tuple[str, int]) -> Arrival | None:
        """Send one packet; where it came out, None where nowhere."""
        token = struct.pack("=Q", next(self._tokens))
        sender.sendto(token, target)
        self._settle()
        found = None
        for endpoint, sock in self._sockets.items():
            while True:
                try:
                    data, source = sock.recvfrom(64)
                except BlockingIOError:
                    break
                except ConnectionRefusedError:  # an ICMP error waited at this socket
                    self.refused.append(endpoint)
                    continue
                if data == token:
                    assert found is None, "the packet arrived twice"
                    found = Arrival(endpoint, Endpoint(*source))
        return found

    def drain(self) -> None:
        """Forget what has arrived, once all of it has."""
        self._settle()
        for sock in self._sockets.values():
            with suppress(BlockingIOError):
                while True:
                    sock.recv(64)

    def out(self, host: socket.socket, remote: socket.socket) -> Endpoint:
        """Send from inside to outside; the external endpoint that is seen there."""
        arrival = self.send(host, remote.getsockname())
        assert arrival is not None, f"nothing arrived; dropped: {self.dropped()}"
        assert arrival.at == remote.getsockname()
        return arrival.source

    def admits(self, remote: socket.socket, external: tuple[str, int]) -> bool:
        """Whether a packet from outside reaches an inside host through an external endpoint."""
        return self.send(remote, external) is not None

    def dropped(self) -> Mapping[str, int]:
        """The drop counters."""
        return self.log.counters()

    # ---- the kernel's own view

    def lifetimes(self, name: str) -> list[int]:
        """Milliseconds that the entries of a set or map have left."""
        with self.nat, Netfilter() as netfilter:
            return [
                struct.unpack(">Q", parts[5])[0]
                for body in _elements(netfilter, name)
                if 5 in (parts := dict(attributes(body)))
            ]

    def age(self, name: str, milliseconds: int) -> None:
        """Let the entries of a set or map have so little time left."""
        where = attribute(1, text("testbed")) + attribute(2, text(name))
        with self.nat, Netfilter() as netfilter:
            for body in list(_elements(netfilter, name)):
                parts = [part for part in attributes(body) if part.kind != 5]
                expiring = b"".join(attribute(*part) for part in parts) + attribute(5, struct.pack(">Q", milliseconds))
                aged = where + attribute(3 | NESTED, attribute(1 | NESTED, _nest(expiring)))
                old = where + attribute(3 | NESTED, attribute(1 | NESTED, _nest(body)))
                netfilter.send(batch([Request(14, 0, old), Request(12, 0x400, aged)]))


def _nest(element: bytes) -> bytes:
    """Key and data (1, 2) are nested attributes of an element."""
    parts = attributes(element)
    return b"".join(attribute(part.kind | (NESTED if part.kind in (1, 2) else 0), part.value) for part in parts)


def _elements(netfilter: Netfilter, name: str) -> Iterator[bytes]:
    for body in netfilter.dump(13, attribute(1, text("testbed")) + attribute(2, text(name))):
        for part in attributes(body):
            if part.kind == 3:
                yield from (one.value for one in attributes(part.value))


def _namespace(scope: ExitStack) -> Namespace:
    namespace = new_namespace()
    scope.callback(namespace.close)
    return namespace


def translation(profile: NatProfile) -> Translation:
    """The profile between the two sides of the bench."""
    external = tuple(EXTERNAL + number for number in range(profile.external_addresses))
    return Translation(profile, external, (INSIDE,))


@contextmanager
def bench(profile: NatProfile, seed: int = 1, *, room: int = 4 << 20) -> Iterator[Bench]:
    """A bench for a profile; everything is gone at the end."""
    cpus = os.sched_getaffinity(0)
    with ExitStack() as scope:
        scope.callback(os.sched_setaffinity, 0, cpus)
        os.sched_setaffinity(0, {min(cpus)})  # packets of one CPU keep their order
        yield Bench(translation(profile), scope, seed, room)
