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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.datagram import Endpoint
from testbed.plan.engines import engine_of, refusals
from testbed.spec.kinds import KINDS, PORTS, kind
from testbed.spec.profile import SECOND, Dependence, Engine, Hairpinning, NatProfile
from tests.lab.nftables.bench import EXTERNAL, HOSTS, INSIDE, bench
from tests.lab.nftables.strategies import profiles

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


@given(profiles(), st.integers(0, 2**32))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_random_profiles(profile: NatProfile, seed: int) -> None:
    """Any profile that the explicit engine makes: addresses, ranges, parity, owners, permissions, hairpins."""
    profile = profile.model_copy(update={"udp_timeout": 180 * SECOND})
    if list(refusals(profile)) or engine_of(profile) is not Engine.EXPLICIT or profile.mapping is Dependence.NONE:
        return
    random = Random(seed)
    owners: dict[Endpoint, Endpoint] = {}
    permissions: set[tuple[object, ...]] = set()
    with bench(profile, seed) as b:
        addresses = [str(address) for address in b.translation.external]
        first, last = profile.ports.range
        for _ in range(60):
            host = b.host(random.choice((5000, 5001)), random.randrange(len(HOSTS)))
            remote = b.remote(random.choice((7000, 7001)), random.randrange(3))
            inner, outer = Endpoint(*host.getsockname()), Endpoint(*remote.getsockname())
            act = random.choice(("out", "out", "in", "hairpin")) if owners else "out"
            if act == "out":
                arrival = b.send(host, outer)
                if arrival is None:
                    assert b.dropped().keys() & {"udp-blocked", "port-exhausted", "table-full"}
                    continue
                external = arrival.source
                assert arrival.at == outer
                assert external.host in addresses
                assert first <= external.port <= last
                assert not profile.ports.parity or external.port % 2 == inner.port % 2
                assert profile.ports.overload or owners.setdefault(external, inner) == inner
                owners[external] = inner
                permissions.add((external, *seen(profile.filtering, outer)))
                continue
            external = random.choice(list(owners))
            arrival = b.send(remote if act == "in" else host, external)
            if profile.ports.overload:
                continue  # whose it is depends on who came last
            if act == "in" and (external, *seen(profile.filtering, outer)) in permissions:
                assert arrival == (owners[external], outer)
            elif act == "in" or profile.hairpinning is Hairpinning.NONE:
                assert arrival is None
            elif profile.hairpinning is Hairpinning.INTERNAL_SOURCE:
                assert arrival == (owners[external], inner)
            elif arrival is not None:
                assert arrival.at == owners[external]
                assert owners.setdefault(arrival.source, inner) == inner
                permissions.add((arrival.source, *seen(profile.filtering, external)))
            elif profile.filtering is not Dependence.ENDPOINT_INDEPENDENT:
                return  # the sender has a mapping now that this test did not see


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
