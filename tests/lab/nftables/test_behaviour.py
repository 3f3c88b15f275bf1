"""The twenty-seven combinations of mapping, filtering and port assignment, asked of the real kernel."""

from __future__ import annotations

from itertools import islice

import pytest

from testbed.lab.nftables.dice import candidates
from testbed.spec.kinds import KINDS, PORTS, kind
from testbed.spec.profile import Dependence, NatProfile
from tests.lab.nftables.bench import EXTERNAL, Bench, bench

pytestmark = pytest.mark.lab

NAMES = [f"{name}-{suffix}" for name in KINDS for suffix in PORTS]
EI, AD, APD = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT_DEPENDENT,
)
# For each behaviour: is it the same to a new port of the same remote address, and to a new remote address?
SAME_FOR = {EI: (True, True), AD: (True, False), APD: (False, False)}


def profile_of(name: str) -> NatProfile:
    profile = kind(name)
    assert profile is not None
    return profile


@pytest.mark.parametrize("name", NAMES)
def test_mapping_is_reused_as_far_as_it_cannot_see(name: str) -> None:
    with bench(profile_of(name)) as b:
        host = b.host(5000)
        first = b.out(host, b.remote(7000))
        new_port = b.out(host, b.remote(7001))
        new_address = b.out(host, b.remote(7000, 1))
        assert (new_port == first, new_address == first) == SAME_FOR[profile_of(name).mapping]
        assert b.out(host, b.remote(7000)) == first, "a mapping stays what it is"
        assert b.out(host, b.remote(7000, 1)) == new_address


@pytest.mark.parametrize("name", NAMES)
def test_filter_admits_whom_it_cannot_tell_from_the_remote(name: str) -> None:
    with bench(profile_of(name)) as b:
        external = b.out(b.host(5000), b.remote(7000))
        assert b.admits(b.remote(7000), external), "whom we wrote to may always answer"
        answers = (b.admits(b.remote(7001), external), b.admits(b.remote(7000, 1), external))
        assert answers == SAME_FOR[profile_of(name).filtering]
        refused = answers.count(False)
        assert b.dropped() == ({"no-permission": refused} if refused else {})


@pytest.mark.parametrize("name", NAMES)
def test_ports_come_in_the_order_of_the_seed(name: str) -> None:
    """The n-th allocation of a NAT takes the n-th free port of its stream; a preserved port takes none."""
    profile = profile_of(name)
    for seed in (1, 2):
        stream = candidates(profile, seed, "udp")
        with bench(profile, seed) as b:
            seen = [b.out(b.host(5000 + n), b.remote(7000)).port for n in range(6)]
        wanted = [5000 + n for n in range(6)] if profile.ports.preserve else list(islice(stream, 6))
        assert seen == wanted


@pytest.mark.parametrize("name", NAMES)
def test_hosts_with_one_port_do_not_share_an_endpoint(name: str) -> None:
    """RFC 4787 REQ-1: no port overloading; the second host's port is another, and answers find their host."""
    profile = profile_of(name)
    with bench(profile) as b:
        hosts = [b.host(5000, number) for number in range(3)]
        externals = [b.out(host, b.remote(7000)) for host in hosts]
        assert len(set(externals)) == 3
        if profile.ports.preserve:
            assert externals[0].port == 5000
            assert [e.port for e in externals[1:]] == list(islice(candidates(profile, 1, "udp"), 2))
        for host, external in zip(hosts, externals, strict=True):
            arrival = b.send(b.remote(7000), external)
            assert arrival is not None
            assert arrival.at == host.getsockname()


@pytest.mark.parametrize("name", NAMES)
def test_mapping_ends_after_its_time(name: str) -> None:
    """When its entries have run out, nobody may send in, and the next packet makes a mapping anew."""
    profile = profile_of(name)
    with bench(profile) as b:
        before = b.out(b.host(5000), b.remote(7000))
        assert [170_000 < left <= 180_000 for left in b.lifetimes("out_udp")] == [True]
        expire(b)
        assert not b.admits(b.remote(7000), before)
        assert b.dropped() == {"no-mapping": 1}
        after = b.out(b.host(5000), b.remote(7000))
        stream = list(islice(candidates(profile, 1, "udp"), 2))
        assert [before.port, after.port] == ([5000, 5000] if profile.ports.preserve else stream)
        assert b.admits(b.remote(7000), after)


@pytest.mark.parametrize("name", NAMES)
def test_tcp_and_udp_do_not_share_mappings(name: str) -> None:
    """One host and port, both protocols; a connection is made through the mapping and carries bytes both ways."""
    with bench(profile_of(name)) as b:
        b.out(b.host(5000), b.remote(7000))
        server = b.tcp(b.outside, ("12.0.0.1", 80))
        server.listen()
        client = b.tcp(b.inside, ("192.168.1.10", 5000))
        client.connect(("12.0.0.1", 80))
        there, (host, port) = server.accept()
        there.settimeout(5)
        with there:
            client.sendall(b"question")
            assert there.recv(16) == b"question"
            there.sendall(b"answer")
            assert client.recv(16) == b"answer"
        profile = profile_of(name)
        assert host == str(EXTERNAL)
        assert port == (5000 if profile.ports.preserve else next(candidates(profile, 1, "tcp")))


def expire(b: Bench) -> None:
    """Let every UDP entry run out, and wait until the kernel says so."""
    names = ["out", "back", "zone_out", "permit", "zone_error"]
    for name in names:
        b.age(f"{name}_udp", 1)
    for name in names:
        while any(b.lifetimes(f"{name}_udp")):
            pass
