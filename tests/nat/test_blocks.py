"""Dynamic blocks of ports: given with a first mapping, given back with the last, and never more than allowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.datagram import Endpoint
from testbed.nat.blocks import DynamicBlocks
from testbed.nat.packet import Reason, Transport
from testbed.spec.profile import SECOND, BlockAllocation, Dependence, NatProfile, Otherwise, Ports, TcpTimeout
from tests.nat.bench import Bench, host, remote

APD = Dependence.ADDRESS_AND_PORT_DEPENDENT
FIRST, SIZE = 2000, 8


def ports(*, blocks: int = 4, most: int = 2, **fields: Any) -> Ports:
    return Ports.model_validate(
        {
            "preserve": False,
            "range": (FIRST, FIRST + blocks * SIZE - 1),
            "block": SIZE,
            "block_allocation": BlockAllocation.DYNAMIC,
            "blocks_per_host": most,
            **fields,
        }
    )


def bench(**fields: Any) -> Bench:
    """Each remote gets a mapping of its own, which lives for 180 s (UDP) or 60 s (a TCP connection that opens)."""
    timers = TcpTimeout(established=7000 * SECOND, transitory=60 * SECOND)
    return Bench(NatProfile(mapping=APD, tcp_timeout=timers, ports=ports(**fields)))


def block(endpoint: Endpoint) -> int:
    return (endpoint.port - FIRST) // SIZE


def fill(b: Bench, number: int, count: int, first: int = 7000) -> list[Endpoint]:
    """The external endpoints of so many mappings of a host."""
    return [b.out(host(5000, number), remote(first + n)) for n in range(count)]


@pytest.mark.parametrize("otherwise", list(Otherwise))
@pytest.mark.parametrize("step", [1, -1, 3])
def test_a_block_is_filled_before_the_next_is_taken(otherwise: Otherwise, step: int) -> None:
    b = bench(otherwise=otherwise, step=step)
    seen = fill(b, 0, 2 * SIZE)
    assert len(set(seen)) == 2 * SIZE
    assert len(set(map(block, seen[:SIZE]))) == len(set(map(block, seen[SIZE:]))) == 1
    assert b.fate(host(5000), remote(8000)) is Reason.PORT_EXHAUSTED, "a third block is not allowed"
    assert b.fate(host(5000, 1), remote(8000)) is None, "to another host it is"


def test_hosts_have_blocks_of_their_own() -> None:
    b = bench()
    assert not {*map(block, fill(b, 0, 10))} & {*map(block, fill(b, 1, 10))}


def test_there_are_as_many_blocks_as_the_range_holds() -> None:
    b = bench(blocks=3)
    fill(b, 0, 2 * SIZE)
    fill(b, 1, SIZE)
    assert b.fate(host(5000, 1), remote(8000)) is Reason.PORT_EXHAUSTED
    assert b.fate(host(5000, 2), remote(8000)) is Reason.PORT_EXHAUSTED


def test_a_block_goes_back_when_its_last_mapping_ends() -> None:
    b = bench(blocks=1, most=1)
    b.out(host(), remote(7000))
    b.wait(100)
    b.out(host(), remote(7001))
    b.wait(100)
    assert b.fate(host(5000, 1), remote()) is Reason.PORT_EXHAUSTED, "one of the two is still there"
    b.wait(80)
    assert b.fate(host(5000, 1), remote()) is None, "the last one ends at 280 s"
    assert b.fate(host(), remote()) is Reason.PORT_EXHAUSTED


def test_udp_and_tcp_share_a_block() -> None:
    b = bench(blocks=2, most=1)
    assert block(b.out(host(), remote())) == block(b.out(host(), remote(), Transport.TCP))
    b.wait(100)
    assert b.fate(host(5000, 1), remote()) is None
    assert b.fate(host(5000, 2), remote()) is Reason.PORT_EXHAUSTED, "TCP has ended, UDP has not"


@pytest.mark.parametrize("lose", ["flush", "restart"])
def test_what_forgets_mappings_gives_blocks_back(lose: str) -> None:
    b = bench(blocks=1, most=1)
    fill(b, 0, 3)
    getattr(b.nat, lose)()
    assert b.fate(host(5000, 1), remote()) is None


def test_a_preserved_port_brings_its_block() -> None:
    """Port preservation: the block in which the port lies, if it is free or the host's already."""
    b = bench(preserve=True, most=1)
    assert b.out(host(FIRST + 3), remote()).port == FIRST + 3
    assert b.out(host(FIRST + 5), remote()).port == FIRST + 5
    assert block(b.out(host(FIRST + SIZE), remote())) == 0, "of another block, and one is all there may be"
    assert block(b.out(host(FIRST + 6, 1), remote())) != 0, "it belongs to somebody else"


@pytest.mark.parametrize("otherwise", list(Otherwise))
def test_parity_is_kept(otherwise: Otherwise) -> None:
    b = bench(otherwise=otherwise, parity=True)
    seen = [b.out(host(port), remote()).port for port in range(5000, 5016)]
    assert [port % 2 for port in seen] == [0, 1] * 8
    assert len(set(seen)) == 16, "the second block is taken for either parity"


def test_a_host_keeps_its_address() -> None:
    """RFC 4787 REQ-2: all blocks of a host lie on one external address."""
    b = Bench(NatProfile(mapping=APD, external_addresses=4, ports=ports(blocks=4, most=3)))
    for number in range(3):
        assert len({endpoint.host for endpoint in fill(b, number, 20)}) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400), st.integers(0, 6)), max_size=60), st.integers(0, 99))
def test_laws_of_blocks(script: list[tuple[int, int, int]], seed: int) -> None:
    """Whatever happens: a block has one owner, nobody has too many, and a silent host has none."""
    profile = NatProfile(mapping=APD, ports=ports(blocks=5))
    b = Bench(profile, seed)
    for number, wait, peer in script:
        b.wait(wait)
        b.fate(host(5000, number), remote(7000 + peer))
        owners: dict[int, set[str]] = {}
        for mapping in b.nat.mappings(b.now):
            assert mapping.internal is not None
            owners.setdefault(block(mapping.external), set()).add(mapping.internal.host)
        assert all(len(hosts) == 1 for hosts in owners.values())
        held = [*(next(iter(hosts)) for hosts in owners.values())]
        assert all(held.count(one) <= 2 for one in held)


def test_a_place_is_where_the_search_for_a_free_block_begins() -> None:
    blocks = DynamicBlocks(NatProfile(ports=ports()), SIZE)
    assert blocks.places == 4
    blocks.assigned("a", Endpoint("11.0.0.1", FIRST + 3 * SIZE))
    found = [blocks.free("b", "11.0.0.1", place) for place in range(4)]
    assert [one.first - FIRST if one else None for one in found] == [0, SIZE, 2 * SIZE, 0]
    assert not blocks.may_have("b", Endpoint("11.0.0.1", FIRST + 3 * SIZE))
    assert not blocks.may_have("b", Endpoint("11.0.0.1", FIRST - 1))
    assert not blocks.may_have("b", Endpoint("11.0.0.1", FIRST + 4 * SIZE))
