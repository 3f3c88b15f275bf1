"""Every other field of a profile, asked of the real kernel."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from itertools import islice, pairwise

import pytest

from testbed.lab.nftables import renewal
from testbed.lab.nftables.dice import candidates
from testbed.plan.engines import refusals
from testbed.spec.profile import (
    SECOND,
    Dependence,
    Engine,
    Hairpinning,
    NatProfile,
    Otherwise,
    Pooling,
    Ports,
    Refresh,
    TcpTimeout,
    Unsolicited,
)
from tests.lab.nftables.bench import EXTERNAL, Bench, bench

pytestmark = pytest.mark.lab

EI, AD, APD = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT_DEPENDENT,
)
SEQUENTIAL = Otherwise.SEQUENTIAL
SO_NO_CHECK = 11  # asm-generic/socket.h; Python has no name for it
MAPS = ("out_udp", "back_udp", "permit_udp", "zone_out_udp")
STATES = ("out_tcp", "back_tcp", "permit_tcp")


def can(profile: NatProfile) -> NatProfile:
    assert list(refusals(profile)) == []
    return profile


# ---------------------------------------------------------------------------- ports


@pytest.mark.parametrize("step", [1, 2, -1, -3, 10, 100])
def test_sequential_steps(step: int) -> None:
    """Each new mapping is `step` further; the whole sequence is what the pure stream says."""
    ports = Ports(preserve=False, otherwise=SEQUENTIAL, step=step)
    profile = can(NatProfile(mapping=APD, ports=ports))
    with bench(profile, seed=3) as b:
        seen = [b.out(b.host(5000), b.remote(7000 + n)).port for n in range(5)]
    assert seen == list(islice(candidates(profile, 3, "udp"), 5))
    assert {after - before for before, after in pairwise(seen)} == {step}


def test_sequential_skips_what_is_taken_and_begins_again() -> None:
    """A range of four: the fifth mapping finds none, and says why."""
    ports = Ports(preserve=False, otherwise=SEQUENTIAL, range=(40000, 40003))
    with bench(can(NatProfile(mapping=APD, ports=ports))) as b:
        host = b.host(5000)
        assert [b.out(host, b.remote(7000 + n)).port for n in range(4)] == [40000, 40001, 40002, 40003]
        assert b.send(host, b.remote(7004).getsockname()) is None
        assert b.dropped() == {"port-exhausted": 1}
        assert b.out(host, b.remote(7002)).port == 40002, "the mappings that are there stay"


def test_range_bounds_preserved_and_random_ports() -> None:
    profile = can(NatProfile(ports=Ports(range=(40000, 40999))))
    with bench(profile) as b:
        assert b.out(b.host(40500), b.remote(7000)).port == 40500
        assert b.out(b.host(5000), b.remote(7000)).port == next(candidates(profile, 1, "udp"))
        assert all(40000 <= b.out(b.host(5001 + n), b.remote(7000)).port <= 40999 for n in range(20))


@pytest.mark.parametrize("otherwise", list(Otherwise))
def test_parity_is_kept(otherwise: Otherwise) -> None:
    """RFC 4787 REQ-4: an even port maps to an even port, an odd one to an odd one."""
    with bench(can(NatProfile(ports=Ports(preserve=False, otherwise=otherwise, parity=True)))) as b:
        for port in range(5000, 5012):
            assert b.out(b.host(port), b.remote(7000)).port % 2 == port % 2


def test_blocks_belong_to_subscribers() -> None:
    """RFC 7422: the n-th inside address has the n-th block; one that lies beyond the last block has no ports."""
    profile = can(NatProfile(mapping=APD, ports=Ports(preserve=False, range=(1024, 1024 + 64 * 12 - 1), block=64)))
    with bench(profile) as b:
        for number, address in ((0, 10), (1, 11)):
            first = 1024 + 64 * address
            seen = [b.out(b.host(5000, number), b.remote(7000 + n)).port for n in range(10)]
            assert all(first <= port < first + 64 for port in seen)
            assert len(set(seen)) == 10
        assert b.send(b.host(5000, 2), b.remote(7000).getsockname()) is None
        assert b.dropped() == {"port-exhausted": 1}


def test_overloading_gives_what_comes_in_to_the_newest_owner() -> None:
    """RFC 4787 §4.2.1: both hosts keep their port, and answers to the first one go astray."""
    with bench(can(NatProfile(filtering=EI, ports=Ports(overload=True), engine=Engine.EXPLICIT))) as b:
        first, second = b.host(5000, 0), b.host(5000, 1)
        assert b.out(first, b.remote(7000)) == b.out(second, b.remote(7001)) == (str(EXTERNAL), 5000)
        for remote in (b.remote(7000), b.remote(7001)):
            arrival = b.send(remote, (str(EXTERNAL), 5000))
            assert arrival is not None
            assert arrival.at == second.getsockname()


def test_overloading_by_remote_tells_the_owners_apart() -> None:
    """Mappings to different remotes share an endpoint; to the same remote they do not."""
    profile = can(NatProfile(mapping=APD, ports=Ports(overload=True), engine=Engine.EXPLICIT))
    with bench(profile) as b:
        first, second = b.host(5000, 0), b.host(5000, 1)
        assert b.out(first, b.remote(7000)) == b.out(second, b.remote(7001)) == (str(EXTERNAL), 5000)
        assert b.out(second, b.remote(7000)).port != 5000
        for owner, remote in ((first, b.remote(7000)), (second, b.remote(7001))):
            arrival = b.send(remote, (str(EXTERNAL), 5000))
            assert arrival is not None
            assert arrival.at == owner.getsockname()


# ---------------------------------------------------------------------------- several addresses


def test_paired_pooling_keeps_a_host_on_one_address() -> None:
    with bench(can(NatProfile(mapping=APD, external_addresses=4))) as b:
        for number in range(3):
            assert len({b.out(b.host(5000 + n, number), b.remote(7000)).host for n in range(8)}) == 1


def test_arbitrary_pooling_uses_several_addresses_for_a_host() -> None:
    with bench(can(NatProfile(mapping=APD, external_addresses=4, pooling=Pooling.ARBITRARY))) as b:
        externals = [b.out(b.host(5000), b.remote(7000 + n)) for n in range(16)]
        assert len({external.host for external in externals}) == 4
        assert len(set(externals)) == 16
        assert all(b.admits(b.remote(7000 + n), external) for n, external in enumerate(externals))


def test_seed_chooses_the_address() -> None:
    profile = can(NatProfile(external_addresses=4, pooling=Pooling.ARBITRARY))

    def addresses(seed: int) -> list[str]:
        with bench(profile, seed) as b:
            return [b.out(b.host(5000 + n), b.remote(7000)).host for n in range(8)]

    assert addresses(1) == addresses(1) != addresses(2)


# ---------------------------------------------------------------------------- life


REFRESHED = {
    # who keeps a mapping alive: by a packet to the outside, by one from outside
    Refresh.OUTBOUND: (True, False),
    Refresh.INBOUND: (False, True),
    Refresh.BOTH: (True, True),
}


@pytest.mark.parametrize("mapping", [EI, AD, APD])
@pytest.mark.parametrize("refresh", list(Refresh))
def test_refresh_direction(mapping: Dependence, refresh: Refresh) -> None:
    """RFC 4787 §4.3: of an entry that has five seconds left, the right packet makes 180 again."""
    with bench(can(NatProfile(mapping=mapping, refresh=refresh))) as b:
        host, remote = b.host(5000), b.remote(7000)
        external = b.out(host, remote)

        def renewed_by(act: Callable[[], object]) -> bool:
            for name in MAPS:
                b.age(name, 5000)
            act()
            renewed = {max(b.lifetimes(name)) > 100_000 for name in MAPS}
            assert len(renewed) == 1, "all that makes up a mapping lives as long"
            return renewed.pop()

        outbound = renewed_by(lambda: b.out(host, remote))
        inbound = renewed_by(lambda: b.admits(remote, external))
        assert (outbound, inbound) == REFRESHED[refresh]


def test_timeout_is_the_profiles() -> None:
    with bench(can(NatProfile(udp_timeout=61 * SECOND + 500_000_000))) as b:
        b.out(b.host(5000), b.remote(7000))
        assert all(50_000 < left <= 61_500 for name in MAPS for left in b.lifetimes(name))


@pytest.mark.parametrize("inward", [False, True], ids=["out", "in"])
def test_a_busy_flow_renews_its_mapping_from_time_to_time(inward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first packet after a moment renews all entries, the next ones none, those after the moment all again."""
    monkeypatch.setattr(renewal, "HOT", 60 * SECOND)  # a moment that outlasts this test
    with bench(can(NatProfile())) as b:
        host, remote = b.host(5000), b.remote(7000)
        external = b.out(host, remote)

        def send() -> None:
            assert b.admits(remote, external) if inward else b.out(host, remote) == external

        send()
        for name in MAPS:
            b.age(name, 60_000)
        send()
        assert max(b.lifetimes("out_udp")) <= 60_000, "the flow is hot"
        while any(b.lifetimes("hot_udp")):
            b.age("hot_udp", 1)
        send()
        assert all(max(b.lifetimes(name)) > 100_000 for name in MAPS)


def test_tcp_timers_follow_the_state_of_the_connection() -> None:
    """RFC 5382 REQ-5: transitory while opening, the long timer once established, transitory again after the end."""
    profile = can(NatProfile(tcp_timeout=TcpTimeout(established=7000 * SECOND, transitory=200 * SECOND)))
    with bench(profile) as b:
        server = b.tcp(b.outside, ("12.0.0.1", 80))
        client = b.tcp(b.inside, ("192.168.1.10", 5000))
        with pytest.raises(ConnectionRefusedError):  # nobody listens yet: a RST comes back
            client.connect(("12.0.0.1", 80))
        assert all(left <= 200_000 for name in STATES for left in b.lifetimes(name))
        server.listen()
        client = b.tcp(b.inside, ("192.168.1.10", 5001))
        client.connect(("12.0.0.1", 80))
        there, _ = server.accept()
        client.sendall(b"x")
        there.recv(1)
        b.out(b.host(9000), b.remote(9000))
        assert all(max(b.lifetimes(name)) > 6_000_000 for name in STATES)
        client.close()
        there.recv(1)
        there.close()
        b.out(b.host(9000), b.remote(9000))
        assert all(max(b.lifetimes(name)) <= 200_000 for name in STATES)


def test_tcp_simultaneous_open() -> None:
    """RFC 5382 REQ-2: both send a SYN, the outer one is dropped without an answer, and they connect."""
    with bench(can(NatProfile())) as b:
        outer = b.tcp(b.outside, ("12.0.0.1", 6000))
        inner = b.tcp(b.inside, ("192.168.1.10", 5000))
        outer.setblocking(False)
        assert outer.connect_ex((str(EXTERNAL), 5000)) == errno.EINPROGRESS
        inner.connect(("12.0.0.1", 6000))
        assert select.select([], [outer], [], 5)[1]
        inner.sendall(b"through")
        outer.setblocking(True)
        outer.settimeout(5)
        assert outer.recv(16) == b"through"
        assert b.dropped() == {"no-mapping": 1}


@pytest.mark.parametrize("limit", [1, 3])
def test_table_limit(limit: int) -> None:
    """One mapping more than the profile allows is refused; the others live on."""
    with bench(can(NatProfile(max_mappings=limit))) as b:
        for number in range(limit):
            b.out(b.host(5000 + number), b.remote(7000))
        assert b.send(b.host(5000 + limit), b.remote(7000).getsockname()) is None
        assert b.dropped() == {"table-full": 1}
        assert b.out(b.host(5000), b.remote(7001)).port == 5000


# ---------------------------------------------------------------------------- what is not asked for


def test_unsolicited_udp_is_dropped_in_silence() -> None:
    with bench(can(NatProfile())) as b:
        remote = b.remote(7000)
        remote.connect((str(EXTERNAL), 5000))
        assert not b.admits(remote, (str(EXTERNAL), 5000))
        assert b.refused == []
        assert b.dropped() == {"no-mapping": 1}


@pytest.mark.parametrize("prior", [False, True])
def test_unsolicited_udp_is_answered_by_icmp(prior: bool) -> None:
    """With and without a mapping at that port: the remote learns that it is refused."""
    with bench(can(NatProfile(unsolicited=Unsolicited.ICMP_UNREACHABLE))) as b:
        if prior:
            b.out(b.host(5000), b.remote(7001))
        remote = b.remote(7000)
        remote.connect((str(EXTERNAL), 5000))
        assert not b.admits(remote, (str(EXTERNAL), 5000))
        assert b.refused == [remote.getsockname()]
        assert b.dropped() == {"no-permission" if prior else "no-mapping": 1}


def test_unsolicited_tcp_is_reset() -> None:
    with bench(can(NatProfile(unsolicited=Unsolicited.TCP_RESET))) as b:
        with pytest.raises(ConnectionRefusedError):
            b.tcp(b.outside, ("12.0.0.1", 6000)).connect((str(EXTERNAL), 5000))
        assert b.dropped() == {"no-mapping": 1}


def test_a_refused_packet_leaves_no_trace() -> None:
    """A packet that came too early must not change what our own packet to its sender becomes."""
    for profile in (NatProfile(), NatProfile(engine=Engine.NATIVE, ports=Ports(overload=True))):
        with bench(can(profile)) as b:
            assert not b.admits(b.remote(7000), (str(EXTERNAL), 5000))
            assert b.out(b.host(5000), b.remote(7000)) == (str(EXTERNAL), 5000)
            assert b.admits(b.remote(7000), (str(EXTERNAL), 5000))


def test_input_accept_is_the_port_clash() -> None:
    """The NAT's own stack takes the early packet; our packet then leaves by another port, and the punch fails."""
    profile = NatProfile(engine=Engine.NATIVE, ports=Ports(overload=True), unsolicited=Unsolicited.ACCEPT)
    with bench(can(profile)) as b:
        assert not b.admits(b.remote(7000), (str(EXTERNAL), 5000))
        assert b.out(b.host(5000), b.remote(7000)).port != 5000
        assert not b.admits(b.remote(7000), (str(EXTERNAL), 5000))


def test_udp_blocked() -> None:
    """No UDP in either direction; TCP and ping go on."""
    with bench(can(NatProfile(udp_blocked=True))) as b:
        assert b.send(b.host(5000), b.remote(7000).getsockname()) is None
        assert not b.admits(b.remote(7000), (str(EXTERNAL), 5000))
        assert b.dropped() == {"udp-blocked": 2}
        server = b.tcp(b.outside, ("12.0.0.1", 80))
        server.listen()
        b.tcp(b.inside, ("192.168.1.10", 5000)).connect(("12.0.0.1", 80))
        assert ping(b, "192.168.1.10", "12.0.0.1")


# ---------------------------------------------------------------------------- sessions and hairpins


@pytest.mark.parametrize("session_reply", [False, True])
def test_answer_to_an_admitted_flow(session_reply: bool) -> None:
    """A stranger writes to a mapping of another remote: does the answer leave by it, or by a mapping of its own?"""
    with bench(can(NatProfile(mapping=APD, filtering=EI, session_reply=session_reply))) as b:
        host, stranger = b.host(5000), b.remote(7000, 1)
        external = b.out(host, b.remote(7000))
        assert b.admits(stranger, external)
        assert (b.out(host, stranger) == external) is session_reply
        assert b.out(host, b.remote(7000)) == external


@pytest.mark.parametrize("ports", [Ports(), Ports(preserve=False), Ports(preserve=False, otherwise=SEQUENTIAL)])
def test_a_datagram_without_a_checksum_is_translated_too(ports: Ports) -> None:
    """RFC 768 allows it. The first one makes the mapping, the second uses it; and one with a checksum keeps its own."""
    with bench(can(NatProfile(mapping=APD, ports=ports))) as b:
        host = b.host(5000)
        for number, without in enumerate((1, 1, 0, 1)):
            host.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, without)
            first = b.out(host, b.remote(7000 + number))
            assert b.out(host, b.remote(7000 + number)) == first


def test_an_answer_leaves_so_even_if_there_is_a_mapping_of_its_own() -> None:
    """Until the remote opens a session, its own mapping is used; then it matters no more which end was first."""
    with bench(can(NatProfile(mapping=APD, filtering=EI, session_reply=True))) as b:
        host, stranger = b.host(5000), b.remote(7000, 1)
        first, own = b.out(host, b.remote(7000)), b.out(host, stranger)
        assert first != own
        assert b.admits(stranger, own), "an answer to us opens nothing"
        assert b.out(host, stranger) == own
        assert b.admits(stranger, first)
        assert b.out(host, stranger) == first


def test_no_hairpin() -> None:
    with bench(can(NatProfile(filtering=EI))) as b:
        external = b.out(b.host(5000), b.remote(7000))
        assert b.send(b.host(5000, 1), external) is None
        assert b.dropped() == {"hairpin-refused": 1}
        assert ping(b, "192.168.1.10", str(EXTERNAL)), "the box itself still answers"


@pytest.mark.parametrize("mapping", [EI, AD, APD])
@pytest.mark.parametrize("hairpinning", [Hairpinning.INTERNAL_SOURCE, Hairpinning.EXTERNAL_SOURCE])
def test_hairpin_source(mapping: Dependence, hairpinning: Hairpinning) -> None:
    """RFC 4787 REQ-9: the receiver sees the sender's external endpoint, or, on poorer NATs, its internal one."""
    with bench(can(NatProfile(mapping=mapping, filtering=EI, hairpinning=hairpinning))) as b:
        first, second = b.host(5000, 0), b.host(5001, 1)
        external = b.out(second, b.remote(7000))
        arrival = b.send(first, external)
        assert arrival is not None
        assert arrival.at == second.getsockname()
        if hairpinning is Hairpinning.INTERNAL_SOURCE:
            assert arrival.source == first.getsockname()
            return
        assert arrival.source == (str(EXTERNAL), 5000)
        answer = b.send(second, arrival.source)
        assert answer is not None
        assert answer.at == first.getsockname()
        assert (answer.source == external) is (mapping is EI)
        assert b.out(first, b.remote(7000)).port == 5000 or mapping is not EI


def test_two_mappings_of_one_host_are_reached_by_hairpin() -> None:
    """The sender's address stays as it is for both, although connection tracking must tell the two flows apart."""
    profile = can(NatProfile(mapping=APD, filtering=EI, hairpinning=Hairpinning.INTERNAL_SOURCE))
    with bench(profile) as b:
        first, second = b.host(5000, 0), b.host(5001, 1)
        for external in (b.out(second, b.remote(7000)), b.out(second, b.remote(7001))):
            assert b.send(first, external) == (second.getsockname(), first.getsockname())


def test_hairpin_obeys_the_filter() -> None:
    """Like any remote, an inside host is admitted only where the other has written to its external endpoint."""
    with bench(can(NatProfile(hairpinning=Hairpinning.EXTERNAL_SOURCE))) as b:
        first, second = b.host(5000, 0), b.host(5001, 1)
        b.out(first, b.remote(7000))
        external = b.out(second, b.remote(7000))
        assert b.send(first, external) is None
        assert b.dropped() == {"no-permission": 1}
        assert b.send(second, (str(EXTERNAL), 5000)) is not None, "the first one has written to us"
        assert b.send(first, external) is not None


def test_hairpinned_tcp() -> None:
    """RFC 5382 REQ-8, and a later connection from outside through the same mapping is not confused by it."""
    profile = can(NatProfile(filtering=EI, hairpinning=Hairpinning.EXTERNAL_SOURCE))
    with bench(profile) as b:
        server = b.tcp(b.inside, ("192.168.1.11", 5001))
        with pytest.raises(ConnectionRefusedError):
            server.connect(("12.0.0.1", 81))  # makes the mapping
        server = b.tcp(b.inside, ("192.168.1.11", 5001))
        server.listen()
        client = b.tcp(b.inside, ("192.168.1.10", 5000))
        client.connect((str(EXTERNAL), 5001))
        there, source = server.accept()
        there.close()
        assert source == (str(EXTERNAL), 5000)
        b.tcp(b.outside, ("12.0.0.1", 6000)).connect((str(EXTERNAL), 5001))
        server.accept()[0].close()


# ---------------------------------------------------------------------------- ICMP


@pytest.mark.parametrize("mapping", [EI, AD, APD])
def test_icmp_error_comes_in(mapping: Dependence) -> None:
    """RFC 5508 REQ-4: a closed port outside is reported to the host, and the mapping stays (RFC 4787 REQ-10)."""
    with bench(can(NatProfile(mapping=mapping, ports=Ports(preserve=False)))) as b:
        host = b.host(5000)
        external = b.out(host, b.remote(7000))
        host.connect(("12.0.0.2", 4444))
        b.send(host, ("12.0.0.2", 4444))
        assert b.refused == [host.getsockname()]
        host.connect(("12.0.0.1", 7000))
        assert b.out(host, b.remote(7000)) == external
        assert b.dropped() == {}


@pytest.mark.parametrize("mapping", [EI, AD, APD])
def test_icmp_error_goes_out(mapping: Dependence) -> None:
    """RFC 5508 REQ-5: a closed port inside is reported to the remote, from the external address."""
    with bench(can(NatProfile(mapping=mapping))) as b:
        host, remote = b.host(5000), b.remote(7000)
        external = b.out(host, remote)
        b.close(host)
        remote.connect(external)
        b.send(remote, external)
        assert b.refused == [remote.getsockname()]
        assert b.dropped() == {}


def ping(b: Bench, source: str, target: str) -> bool:
    """Whether an echo request is answered."""
    with b.inside:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with sock:
        sock.bind((source, 0))
        sock.settimeout(5)
        request = bytes([8, 0, 0xF7, 0xFE, 0, 0, 0, 1])
        sock.sendto(request, (target, 0))
        while True:
            data, (host, _) = sock.recvfrom(256)
            if data[20] == 0:
                return bool(host == target)


def test_ping_through_and_of_the_box() -> None:
    for profile in (NatProfile(), NatProfile(external_addresses=3), NatProfile(mapping=Dependence.NONE)):
        with bench(can(profile)) as b:
            assert ping(b, "192.168.1.10", "12.0.0.1")
            assert ping(b, "192.168.1.10", "192.168.1.1")
