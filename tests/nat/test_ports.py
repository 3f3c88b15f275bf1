"""Which ports are assigned: the same, in the same order, as the kernel's rules assign from the same seed."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.lab.nftables import dice
from testbed.lab.nftables.table import REASONS
from testbed.nat.packet import Reason, Transport
from testbed.nat.ports import Ports as Streams
from testbed.plan.network import Translation
from testbed.spec.profile import Dependence, NatProfile, Otherwise, Ports
from tests.nat.bench import EXTERNAL, INSIDE, Bench, external, host, remote

APD = Dependence.ADDRESS_AND_PORT_DEPENDENT
SEQUENTIAL, RANDOM = Otherwise.SEQUENTIAL, Otherwise.RANDOM

PORTS = st.builds(
    Ports,
    preserve=st.just(False),
    otherwise=st.sampled_from(Otherwise),
    step=st.integers(-1024, 1024).filter(bool),
    range=st.tuples(st.integers(1, 2000), st.integers(2000, 65535)),
)


def streams(profile: NatProfile, seed: int) -> Streams:
    return Streams(Translation(profile, (EXTERNAL,), (INSIDE,)), seed)


def test_reasons_are_the_words_of_the_rules() -> None:
    assert tuple(Reason) == REASONS


@given(PORTS, st.integers(0, 2**63 - 1), st.sampled_from(Transport))
def test_streams_are_those_of_the_kernels_rules(ports: Ports, seed: int, transport: Transport) -> None:
    profile = NatProfile(mapping=APD, ports=ports)
    ours = streams(profile, seed).candidates(transport, host())
    assert list(islice(ours, 12)) == list(islice(dice.candidates(profile, seed, transport), 12))


@pytest.mark.parametrize("step", [1, 2, -1, -3, 10, 100])
def test_sequential_steps(step: int) -> None:
    """Contiguity: each new mapping is `step` further than the last one."""
    bench = Bench(NatProfile(mapping=APD, ports=Ports(preserve=False, otherwise=SEQUENTIAL, step=step)), seed=3)
    seen = [bench.out(host(), remote(7000 + n)).port for n in range(6)]
    assert {after - before for before, after in pairwise(seen)} == {step}


def test_sequential_skips_what_is_taken_and_begins_again() -> None:
    ports = Ports(preserve=False, otherwise=SEQUENTIAL, range=(40000, 40003))
    bench = Bench(NatProfile(mapping=APD, ports=ports))
    assert [bench.out(host(), remote(7000 + n)).port for n in range(4)] == [40000, 40001, 40002, 40003]
    assert bench.fate(host(), remote(7004)) is Reason.PORT_EXHAUSTED
    assert bench.out(host(), remote(7002)).port == 40002, "the mappings that are there stay"
    bench.wait(100)
    for n in (0, 2, 3):
        bench.out(host(), remote(7000 + n))
    bench.wait(100)
    assert bench.out(host(), remote(7004)).port == 40001, "the one that died leaves its port"


def test_same_seed_same_ports() -> None:
    profile = NatProfile(mapping=APD, ports=Ports(preserve=False))

    def seen(seed: int) -> list[int]:
        bench = Bench(profile, seed)
        return [bench.out(host(), remote(7000 + n)).port for n in range(8)]

    assert seen(1) == seen(1) != seen(2)


def test_preserved_ports_take_no_candidate() -> None:
    profile = NatProfile()
    bench = Bench(profile)
    assert bench.out(host(5000), remote()) == external(5000)
    assert bench.out(host(5000, 1), remote()).port == next(dice.candidates(profile, 1, "udp"))


def test_a_port_outside_the_range_is_not_preserved() -> None:
    bench = Bench(NatProfile(ports=Ports(range=(40000, 40999))))
    assert bench.out(host(40500), remote()).port == 40500
    assert all(40000 <= bench.out(host(5000 + n), remote()).port <= 40999 for n in range(50))


@pytest.mark.parametrize("otherwise", list(Otherwise))
@pytest.mark.parametrize("ports", [(1024, 65535), (40001, 40020)], ids=["whole range", "range with odd edges"])
def test_parity_is_kept(otherwise: Otherwise, ports: tuple[int, int]) -> None:
    """RFC 4787 REQ-4: an even port maps to an even port, an odd one to an odd one."""
    profile = NatProfile(ports=Ports(preserve=False, otherwise=otherwise, parity=True, range=ports))
    bench = Bench(profile)
    for port in range(5000, 5008):
        seen = bench.out(host(port), remote()).port
        assert seen % 2 == port % 2
        assert ports[0] <= seen <= ports[1]


@pytest.mark.parametrize("otherwise", list(Otherwise))
@pytest.mark.parametrize("step", [1, -3])
def test_blocks_belong_to_subscribers(otherwise: Otherwise, step: int) -> None:
    """RFC 7422: the n-th inside address has the n-th block; one beyond the last block has no ports."""
    ports = Ports(preserve=False, otherwise=otherwise, step=step, range=(1024, 1024 + 64 * 12 - 1), block=64)
    bench = Bench(NatProfile(mapping=APD, ports=ports))
    for number, address in ((0, 10), (1, 11)):
        first = 1024 + 64 * address
        seen = [bench.out(host(5000, number), remote(7000 + n)).port for n in range(10)]
        assert all(first <= port < first + 64 for port in seen)
        assert len(set(seen)) == 10
        if otherwise is SEQUENTIAL:
            assert seen[0] == (first if step > 0 else first + 63 - 2), "a block's counter is its own"
    assert bench.fate(host(5000, 2), remote()) is Reason.PORT_EXHAUSTED


def test_a_port_outside_the_block_is_not_preserved() -> None:
    bench = Bench(NatProfile(ports=Ports(range=(1024, 65535), block=1000), external_addresses=2))
    assert bench.out(host(11500), remote()).port == 11500
    assert 11024 <= bench.out(host(5000), remote()).port < 12024


def test_blocks_fill_one_address_after_the_other() -> None:
    profile = NatProfile(ports=Ports(preserve=False, range=(1024, 1024 + 64 * 11 - 1), block=64), external_addresses=2)
    bench = Bench(profile, inside=IPv4Network("192.168.1.0/24"))
    assert bench.out(host(5000, 0), remote()).host == external(number=0).host
    assert bench.out(host(5000, 1), remote()).host == external(number=1).host


def test_a_large_step_looks_at_fewer_candidates() -> None:
    few = NatProfile(ports=Ports(preserve=False, otherwise=SEQUENTIAL, step=100))
    many = NatProfile(ports=Ports(preserve=False, otherwise=SEQUENTIAL, step=10))
    assert (streams(few, 1).attempts, streams(many, 1).attempts) == (16, 64)
