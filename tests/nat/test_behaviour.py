"""The nine kinds: what each sees of a remote, and how long it remembers."""

from __future__ import annotations

import pytest

from testbed.datagram import Endpoint
from testbed.nat.behaviour import remote_key
from testbed.nat.packet import Reason, Transport
from testbed.spec.kinds import KINDS, PORTS, kind
from testbed.spec.profile import Dependence, NatProfile, Pooling, Ports, Refresh
from tests.nat.bench import EXTERNAL, SECOND, Bench, external, host, remote

EI, AD, APD, NONE = Dependence
NAMES = [f"{name}-{suffix}" for name in KINDS for suffix in PORTS]
# For each behaviour: is it the same to a new port of the same remote address, and to a new remote address?
SAME_FOR = {EI: (True, True), AD: (True, False), APD: (False, False)}


def of(name: str) -> NatProfile:
    profile = kind(name)
    assert profile is not None
    return profile


@pytest.mark.parametrize(
    ("dependence", "key"),
    [
        pytest.param(EI, (), id="endpoint-independent sees nothing"),
        pytest.param(AD, ("12.0.0.1",), id="address-dependent sees the address"),
        pytest.param(APD, ("12.0.0.1", 7000), id="address-and-port-dependent sees both"),
        pytest.param(NONE, (), id="no behaviour at all sees nothing"),
    ],
)
def test_a_behaviour_is_a_key(dependence: Dependence, key: object) -> None:
    assert remote_key(dependence, remote(7000)) == key


@pytest.mark.parametrize("name", NAMES)
def test_mapping_is_reused_as_far_as_it_cannot_see(name: str) -> None:
    bench = Bench(of(name))
    first = bench.out(host(), remote())
    again = bench.out(host(), remote(7001)) == first, bench.out(host(), remote(7000, 1)) == first
    assert again == SAME_FOR[of(name).mapping]
    assert bench.out(host(), remote()) == first, "a mapping stays what it is"


@pytest.mark.parametrize("name", NAMES)
def test_filter_admits_whom_it_cannot_tell_from_the_remote(name: str) -> None:
    bench = Bench(of(name))
    seen = bench.out(host(), remote())
    assert bench.comes_to(remote(), seen) == host(), "whom we wrote to may always answer"
    answers = bench.admits(remote(7001), seen), bench.admits(remote(7000, 1), seen)
    assert answers == SAME_FOR[of(name).filtering]
    if not answers[1]:
        assert bench.comes_to(remote(7000, 1), seen) is Reason.NO_PERMISSION


@pytest.mark.parametrize("name", NAMES)
def test_hosts_with_one_port_do_not_share_an_endpoint(name: str) -> None:
    bench = Bench(of(name))
    seen = [bench.out(host(5000, number), remote()) for number in range(3)]
    assert len(set(seen)) == 3
    for number, endpoint in enumerate(seen):
        assert bench.comes_to(remote(), endpoint) == host(5000, number)


@pytest.mark.parametrize("name", NAMES)
def test_udp_and_tcp_do_not_share_mappings(name: str) -> None:
    bench = Bench(of(name))
    by_udp = bench.out(host(), remote())
    assert bench.out(host(), remote(), Transport.TCP).host == by_udp.host
    assert len(bench.nat.mappings(bench.now)) == 2


def test_nothing_comes_in_where_nobody_has_gone_out() -> None:
    assert Bench(of("eim-eif")).comes_to(remote(), external()) is Reason.NO_MAPPING


@pytest.mark.parametrize("name", ["eim-eif", "eim-apdf", "apdm-apdf-preserve"])
@pytest.mark.parametrize(
    ("left", "alive"),
    [
        pytest.param(1, True, id="a nanosecond before its time it is there"),
        pytest.param(0, False, id="at its time it is gone"),
    ],
)
def test_expiry_is_exact(name: str, left: int, alive: bool) -> None:
    bench = Bench(of(name))
    bench.out(host(), remote())
    bench.now += 180 * SECOND - left
    assert bench.admits(remote(), external()) is alive


def test_next_timeout_is_never_late_and_forgets_what_is_dead() -> None:
    bench = Bench(of("eim-eif"))
    assert bench.nat.next_timeout() is None
    bench.out(host(), remote())
    assert bench.nat.next_timeout() == bench.now + 180 * SECOND
    bench.wait(100)
    bench.out(host(), remote())
    bench.wait(80)
    bench.nat.handle_timeout(bench.now)
    assert len(bench.nat.mappings(bench.now)) == 1, "it was renewed"
    assert bench.nat.next_timeout() == bench.now + 100 * SECOND
    bench.wait(100)
    bench.nat.handle_timeout(bench.now)
    assert bench.nat.mappings(bench.now) == ()
    assert bench.nat.next_timeout() is None


@pytest.mark.parametrize(
    ("refresh", "outward", "inward"),
    [
        pytest.param(Refresh.OUTBOUND, True, False, id="outbound: only what leaves keeps a mapping alive"),
        pytest.param(Refresh.INBOUND, False, True, id="inbound: only what comes does"),
        pytest.param(Refresh.BOTH, True, True, id="both do"),
    ],
)
@pytest.mark.parametrize("mapping", [EI, AD, APD])
def test_refresh_direction(mapping: Dependence, refresh: Refresh, outward: bool, inward: bool) -> None:
    for is_outward, renews in ((True, outward), (False, inward)):
        bench = Bench(NatProfile(mapping=mapping, refresh=refresh))
        seen = bench.out(host(), remote())
        bench.wait(100)
        if is_outward:
            bench.out(host(), remote())
        else:
            assert bench.admits(remote(), seen)
        bench.wait(100)
        assert bench.admits(remote(), seen) is renews


def test_a_permission_dies_on_its_own_while_the_mapping_lives_on() -> None:
    bench = Bench(of("eim-adf"))
    seen = bench.out(host(), remote())
    bench.wait(100)
    assert bench.out(host(), remote(7000, 1)) == seen
    bench.wait(100)
    assert bench.comes_to(remote(), seen) is Reason.NO_PERMISSION
    assert bench.admits(remote(7000, 1), seen)


def test_inbound_packets_never_permit_anyone() -> None:
    """RFC 4787 §5: a filter opens from inside. What was admitted with the help of another remote stays so limited."""
    bench = Bench(of("eim-eif").model_copy(update={"filtering": AD}))
    seen = bench.out(host(), remote())
    assert bench.admits(remote(7001), seen)
    assert not bench.admits(remote(7001, 1), seen)
    assert not bench.admits(remote(7001, 1), seen)


def test_many_remotes_of_one_mapping_are_forgotten_in_time() -> None:
    bench = Bench(of("eim-apdf"))
    for number in range(2000):
        bench.out(host(), remote(7000 + number))
        bench.wait(1)
    (mapping,) = bench.nat.mappings(bench.now)
    assert len(mapping.sessions) < 600
    assert len(mapping.permits) < 600
    assert bench.admits(remote(8999), external())
    assert not bench.admits(remote(7000), external())


# ---------------------------------------------------------------------------- several addresses


def test_paired_pooling_keeps_a_host_on_one_address() -> None:
    bench = Bench(NatProfile(mapping=APD, external_addresses=4))
    for number in range(8):
        assert len({bench.out(host(5000 + n, number), remote(7000 + n)).host for n in range(8)}) == 1
    assert len({bench.out(host(4000, number), remote()).host for number in range(50)}) == 4, "hosts are spread"


def test_arbitrary_pooling_uses_several_addresses_for_a_host() -> None:
    bench = Bench(NatProfile(mapping=APD, external_addresses=4, pooling=Pooling.ARBITRARY))
    seen = [bench.out(host(), remote(7000 + n)) for n in range(16)]
    assert len({endpoint.host for endpoint in seen}) == 4
    assert all(bench.admits(remote(7000 + n), endpoint) for n, endpoint in enumerate(seen))


# ---------------------------------------------------------------------------- overloading


def test_overloading_gives_what_comes_in_to_the_newest_owner() -> None:
    """RFC 4787 §4.2.1: both hosts keep their port, and answers to the first one go astray."""
    bench = Bench(NatProfile(filtering=EI, ports=Ports(overload=True)))
    assert bench.out(host(5000, 0), remote()) == bench.out(host(5000, 1), remote(7001)) == external(5000)
    assert bench.comes_to(remote(), external(5000)) == host(5000, 1)
    bench.wait(100)
    bench.out(host(5000, 0), remote())
    bench.wait(90)
    assert bench.comes_to(remote(), external(5000)) is Reason.NO_MAPPING, "the newest is gone"
    bench.out(host(5000, 0), remote())
    assert bench.comes_to(remote(), external(5000)) == host(5000, 0), "who is still there inherits"


def test_an_older_owner_takes_nothing_along() -> None:
    bench = Bench(NatProfile(filtering=EI, ports=Ports(overload=True)))
    bench.out(host(5000, 0), remote())
    bench.out(host(5000, 1), remote())
    bench.wait(100)
    bench.out(host(5000, 1), remote())
    bench.wait(90)
    assert bench.comes_to(remote(), external(5000)) == host(5000, 1)


def test_overloading_by_remote_tells_the_owners_apart() -> None:
    bench = Bench(NatProfile(mapping=APD, ports=Ports(overload=True)))
    assert bench.out(host(5000, 0), remote()) == bench.out(host(5000, 1), remote(7001)) == external(5000)
    assert bench.out(host(5000, 1), remote(7000)).port != 5000, "to the same remote they do not share"
    assert bench.comes_to(remote(), external(5000)) == host(5000, 0)
    assert bench.comes_to(remote(7001), external(5000)) == host(5000, 1)


# ---------------------------------------------------------------------------- limits


@pytest.mark.parametrize("limit", [1, 3])
def test_table_limit(limit: int) -> None:
    bench = Bench(NatProfile(max_mappings=limit))
    for number in range(limit):
        bench.out(host(5000 + number), remote())
    assert bench.fate(host(5000 + limit), remote()) is Reason.TABLE_FULL
    assert bench.out(host(), remote(7001)) == external(), "those that are there live on"
    bench.out(host(), remote(), Transport.TCP)
    bench.wait(180)
    bench.out(host(5000 + limit), remote())


def test_udp_blocked() -> None:
    bench = Bench(NatProfile(udp_blocked=True))
    assert bench.fate(host(), remote()) is Reason.UDP_BLOCKED
    assert bench.fate(remote(), external()) is Reason.UDP_BLOCKED
    assert bench.out(host(), remote(), Transport.TCP) == external()


@pytest.mark.parametrize("name", ["eim-eif", "apdm-apdf"])
def test_what_is_not_ours_is_not_translated(name: str) -> None:
    bench = Bench(of(name))
    stranger = Endpoint("192.168.77.1", 5000)
    assert bench.fate(stranger, remote()) is Reason.NOT_TRANSLATED
    assert bench.fate(remote(), Endpoint("11.0.0.99", 5000)) is Reason.NO_MAPPING
    assert bench.comes_to(host(), host(5001, 1)) == host(5001, 1), "between two segments of the inside it only routes"


# ---------------------------------------------------------------------------- restart and the like


def test_flush_loses_mappings_and_goes_on_with_its_ports() -> None:
    bench, whole = Bench(of("apdm-apdf")), Bench(of("apdm-apdf"))
    wanted = [whole.out(host(), remote(7000 + n)) for n in range(2)]
    first = bench.out(host(), remote())
    bench.nat.flush()
    assert bench.comes_to(remote(), first) is Reason.NO_MAPPING
    assert [first, bench.out(host(), remote())] == wanted


def test_restart_begins_anew() -> None:
    bench = Bench(of("apdm-apdf"))
    first = bench.out(host(), remote())
    bench.nat.restart()
    assert bench.comes_to(remote(), first) is Reason.NO_MAPPING
    assert bench.out(host(), remote()) == first


def test_change_of_address() -> None:
    bench = Bench(of("eim-eif"))
    bench.out(host(), remote())
    bench.nat.change_address([EXTERNAL + 7])
    assert bench.comes_to(remote(), external()) is Reason.NO_MAPPING
    assert bench.out(host(), remote()) == external(5000, 7)
    assert bench.comes_to(remote(), external(5000, 7)) == host()
    with pytest.raises(ValueError, match="2 addresses cannot stand for 1"):
        bench.nat.change_address([EXTERNAL, EXTERNAL + 1])
