"""Random traffic through each of the twenty-seven: what must hold whatever happens.

Rule 1: no two live mappings share an external endpoint.
Rule 2: what is admitted reaches the host whose mapping it is, and nobody else.
Rule 3: nothing leaves by the outside with an inside address.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from random import Random

import pytest

from testbed.datagram import Endpoint
from testbed.spec.kinds import KINDS, PORTS, kind
from testbed.spec.profile import Dependence
from tests.lab.nftables.bench import EXTERNAL, HOSTS, INSIDE, bench

pytestmark = pytest.mark.lab

STEPS = 300


def seen(dependence: Dependence, remote: Endpoint) -> tuple[object, ...]:
    """What of a remote a behaviour sees."""
    parts: dict[Dependence, tuple[object, ...]] = {
        Dependence.ENDPOINT_INDEPENDENT: (),
        Dependence.ADDRESS_DEPENDENT: (remote.host,),
        Dependence.ADDRESS_AND_PORT_DEPENDENT: (remote.host, remote.port),
    }
    return parts[dependence]


@pytest.mark.parametrize("name", [f"{name}-{suffix}" for name in KINDS for suffix in PORTS])
def test_random_traffic(name: str) -> None:
    profile = kind(name)
    assert profile is not None
    random = Random(name)
    mappings: dict[tuple[object, ...], Endpoint] = {}
    owners: dict[Endpoint, Endpoint] = {}
    permissions: set[tuple[object, ...]] = set()
    with bench(profile, seed=random.randrange(1 << 30)) as b:
        with b.outside:
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        tap.setblocking(False)
        with tap:
            for _ in range(STEPS):
                host = b.host(random.choice((5000, 5001)), random.randrange(len(HOSTS)))
                remote = b.remote(random.choice((7000, 7001)), random.randrange(4))
                inner, outer = Endpoint(*host.getsockname()), Endpoint(*remote.getsockname())
                if random.random() < 0.5:
                    external = b.out(host, remote)
                    key = (inner, *seen(profile.mapping, outer))
                    assert mappings.setdefault(key, external) == external, "a mapping stays what it is"
                    assert owners.setdefault(external, inner) == inner, "an endpoint has one owner"
                    permissions.add((external, *seen(profile.filtering, outer)))
                elif owners:
                    external = random.choice([*owners, Endpoint(str(EXTERNAL), random.randrange(1024, 65536))])
                    arrival = b.send(remote, external)
                    if (external, *seen(profile.filtering, outer)) in permissions:
                        assert arrival == (owners[external], outer)
                    else:
                        assert arrival is None
                for packet in drain(tap):
                    assert IPv4Address(packet[12:16]) not in INSIDE
        assert len(b.lifetimes("back_udp")) == len(owners)


def drain(tap: socket.socket) -> list[bytes]:
    """The IP packets that the outside has received since."""
    found: list[bytes] = []
    while True:
        try:
            data, (_, _, kind_of_packet, *_) = tap.recvfrom(2048)
        except BlockingIOError:
            return found
        if kind_of_packet != socket.PACKET_OUTGOING:
            found.append(data)
