"""Linux's own masquerade as the model has it: what it shares, what it remaps, and the port clash."""

from __future__ import annotations

import pytest

from testbed.nat.behaviour import is_native
from testbed.nat.packet import Delivered, Flag, IcmpError, Packet, Reason
from testbed.spec.profile import Dependence, Engine, NatProfile, Ports, Unsolicited
from tests.nat.bench import RST, SYN, Bench, answer, external, host, remote

KEEPS = NatProfile(ports=Ports(overload=True), engine=Engine.NATIVE)
DRAWS = NatProfile(
    mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT, ports=Ports(preserve=False, overload=True), engine=Engine.NATIVE
)
CLASH = NatProfile(ports=Ports(overload=True), unsolicited=Unsolicited.ACCEPT)


@pytest.mark.parametrize(
    ("profile", "native"),
    [
        pytest.param(KEEPS, True, id="a profile may say so"),
        pytest.param(CLASH, True, id="the port clash is nobody else's"),
        pytest.param(NatProfile(), False, id="a NAT of RFC 4787 is none"),
        pytest.param(NatProfile(mapping=Dependence.NONE, engine=Engine.NATIVE), False, id="a firewall is none"),
    ],
)
def test_who_is_native(profile: NatProfile, native: bool) -> None:
    assert is_native(profile) is native


def test_one_host_looks_endpoint_independent() -> None:
    bench = Bench(KEEPS)
    assert {bench.out(host(), remote(7000 + n, n)) for n in range(4)} == {external()}


def test_only_whom_we_wrote_to_may_answer() -> None:
    bench = Bench(KEEPS)
    bench.out(host(), remote())
    assert bench.comes_to(remote(), external()) == host()
    assert bench.comes_to(remote(7001), external()) is Reason.NO_MAPPING


def test_two_hosts_share_an_endpoint_towards_different_remotes() -> None:
    bench = Bench(KEEPS)
    assert bench.out(host(5000, 0), remote()) == bench.out(host(5000, 1), remote(7001)) == external(5000)
    assert bench.comes_to(remote(), external()) == host(5000, 0)
    assert bench.comes_to(remote(7001), external()) == host(5000, 1)


def test_the_second_is_moved_where_the_remote_is_the_same_and_then_stays_there() -> None:
    bench = Bench(KEEPS)
    bench.out(host(5000, 0), remote())
    moved = bench.out(host(5000, 1), remote())
    assert moved.port != 5000
    assert bench.out(host(5000, 1), remote(7001)) == moved, "the newest connection's port is taken again"
    bench.out(host(5000, 0), remote(7002))
    assert bench.out(host(5000, 0), remote(7002)) == external(5000)


def test_a_moved_host_meets_the_other_at_both_ports() -> None:
    """The newest port is taken towards this remote: then the own one, then a random one."""
    bench = Bench(KEEPS)
    bench.out(host(5000, 0), remote())
    moved = bench.out(host(5000, 1), remote())
    assert bench.out(host(moved.port, 2), remote(7001)) == moved
    assert bench.out(host(5000, 1), remote(7001)) == external(5000)


def test_ports_below_the_range_are_kept() -> None:
    assert Bench(KEEPS).out(host(500), remote()) == external(500)
    narrow = NatProfile(ports=Ports(overload=True, range=(40000, 40999)), engine=Engine.NATIVE)
    assert 40000 <= Bench(narrow).out(host(500), remote()).port <= 40999


def test_random_draws_a_port_for_each_connection() -> None:
    bench = Bench(DRAWS)
    assert len({bench.out(host(), remote(7000 + n)) for n in range(8)}) == 8


def test_the_port_clash() -> None:
    """The early packet is taken by the router's own stack; ours then leaves by another port, and is not answered."""
    bench = Bench(CLASH)
    decision = bench.send(remote(), external())
    told = answer(decision)
    assert isinstance(decision, Delivered)
    assert isinstance(told, IcmpError)
    assert (told.source, told.destination, told.inner.source) == (external().host, remote().host, remote())
    assert bench.out(host(), remote()).port != 5000
    assert isinstance(bench.send(remote(), external()), Delivered), "the stack goes on taking them"
    assert bench.out(host(), remote(7001)).port != 5000, "and the new port is taken to others too"


def test_the_clash_ends_with_the_conversation() -> None:
    bench = Bench(CLASH)
    bench.send(remote(), external())
    bench.wait(180)
    assert bench.out(host(), remote()) == external()


def test_dropped_packets_do_not_clash() -> None:
    bench = Bench(KEEPS)
    assert bench.fate(remote(), external()) is Reason.NO_MAPPING
    assert bench.out(host(), remote()) == external()
    assert bench.admits(remote(), external())


def test_the_stack_resets_tcp() -> None:
    bench = Bench(CLASH)
    told = answer(bench.tcp(remote(), external(), SYN))
    assert isinstance(told, Packet)
    assert (told.source, told.destination) == (external(), remote())
    assert Flag.RST in told.flags
    assert answer(bench.tcp(remote(), external(), RST)) is None


def test_inside_hosts_reach_the_router_itself() -> None:
    """Masquerade has no hairpinning: an external endpoint, asked from inside, is the router's own."""
    bench = Bench(KEEPS)
    bench.out(host(5000, 1), remote())
    assert isinstance(bench.send(host(), external()), Delivered)


def test_acceptance_beside_mappings_of_another_kind() -> None:
    """Of an explicit NAT the stack takes what finds no mapping; one that is there is not disturbed."""
    bench = Bench(NatProfile(unsolicited=Unsolicited.ACCEPT, engine=Engine.EXPLICIT))
    bench.out(host(), remote())
    assert isinstance(bench.send(remote(7001), external()), Delivered)
    assert bench.comes_to(remote(), external()) == host()
    assert isinstance(bench.send(remote(), external(6000)), Delivered)
    assert bench.out(host(6000), remote()).port != 6000
