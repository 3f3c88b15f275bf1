"""What nobody asked for, hairpins, answers to admitted packets, firewalls."""

from __future__ import annotations

import pytest

from testbed.nat.packet import Flag, Hairpinned, IcmpError, Packet, Reason, Transport
from testbed.spec.profile import Dependence, Hairpinning, NatProfile, Ports, Refresh, Unsolicited
from tests.nat.bench import ACK, FIN, RST, SYN, Bench, answer, external, forwarded, host, reason, remote

EI, AD, APD, NONE = Dependence


# ---------------------------------------------------------------------------- what is not asked for


@pytest.mark.parametrize(
    ("unsolicited", "transport", "told"),
    [
        pytest.param(Unsolicited.DROP, Transport.UDP, None, id="drop: silence"),
        pytest.param(Unsolicited.DROP, Transport.TCP, None, id="drop: silence for TCP too"),
        pytest.param(Unsolicited.ICMP_UNREACHABLE, Transport.UDP, "icmp", id="icmp-unreachable: an error"),
        pytest.param(Unsolicited.ICMP_UNREACHABLE, Transport.TCP, "icmp", id="icmp-unreachable: an error for TCP too"),
        pytest.param(Unsolicited.TCP_RESET, Transport.UDP, None, id="tcp-reset: silence, UDP has no resets"),
        pytest.param(Unsolicited.TCP_RESET, Transport.TCP, "rst", id="tcp-reset: a RST"),
    ],
)
@pytest.mark.parametrize("is_mapped", [False, True], ids=["no mapping", "a mapping that does not permit it"])
def test_unsolicited(unsolicited: Unsolicited, transport: Transport, told: str | None, is_mapped: bool) -> None:
    bench = Bench(NatProfile(unsolicited=unsolicited))
    if is_mapped:
        bench.out(host(), remote(7001), transport)
    decision = bench.send(remote(), external(), SYN if transport is Transport.TCP else Flag(0), transport)
    assert reason(decision) is (Reason.NO_PERMISSION if is_mapped else Reason.NO_MAPPING)
    match answer(decision):
        case IcmpError(source=source, destination=destination, inner=inner):
            assert told == "icmp"
            assert (source, destination) == (external().host, remote().host)
            assert (inner.source, inner.destination) == (remote(), external())
        case Packet(source=source, destination=destination, flags=flags):
            assert told == "rst"
            assert (source, destination) == (external(), remote())
            assert Flag.RST in flags
        case None:
            assert told is None


def test_a_reset_is_not_reset() -> None:
    assert answer(Bench(NatProfile(unsolicited=Unsolicited.TCP_RESET)).tcp(remote(), external(), RST)) is None


def test_a_refused_packet_leaves_no_trace() -> None:
    """A packet that came too early does not change what ours to its sender becomes, and renews nothing."""
    bench = Bench(NatProfile())
    assert not bench.admits(remote(), external())
    assert bench.out(host(), remote()) == external()
    bench.wait(100)
    assert not bench.admits(remote(7001), external())
    bench.wait(80)
    assert bench.nat.mappings(bench.now) == ()


# ---------------------------------------------------------------------------- answers to what was admitted


@pytest.mark.parametrize("mapping", [AD, APD])
@pytest.mark.parametrize("session_reply", [False, True])
def test_answer_to_an_admitted_packet(mapping: Dependence, session_reply: bool) -> None:
    """A stranger writes to a mapping of another remote: does the answer leave by it, or by one of its own?"""
    bench = Bench(NatProfile(mapping=mapping, filtering=EI, session_reply=session_reply))
    seen, stranger = bench.out(host(), remote()), remote(7000, 1)
    assert bench.admits(stranger, seen)
    assert (bench.out(host(), stranger) == seen) is session_reply
    assert bench.out(host(), remote()) == seen


def test_an_answer_leaves_so_even_if_there_is_a_mapping_of_its_own() -> None:
    """Until the remote opens a session, its own mapping is used; then whoever of two ends was first matters no more."""
    bench = Bench(NatProfile(mapping=APD, filtering=EI, session_reply=True))
    first, own = bench.out(host(), remote()), bench.out(host(), remote(7001))
    assert bench.admits(remote(7001), own), "an answer to us opens nothing"
    assert bench.out(host(), remote(7001)) == own
    assert bench.admits(remote(7001), first)
    assert bench.out(host(), remote(7001)) == first


def test_an_answer_comes_too_late() -> None:
    bench = Bench(NatProfile(mapping=APD, filtering=EI, session_reply=True))
    seen = bench.out(host(), remote())
    assert bench.admits(remote(7001), seen)
    for _ in range(2):
        bench.wait(100)
        bench.out(host(), remote())
    assert bench.out(host(), remote(7001)) != seen, "the mapping lives, the session does not"


# ---------------------------------------------------------------------------- hairpins


def test_no_hairpin() -> None:
    bench = Bench(NatProfile(filtering=EI))
    seen = bench.out(host(), remote())
    assert bench.fate(host(5000, 1), seen) is Reason.HAIRPIN_REFUSED


@pytest.mark.parametrize("mapping", [EI, AD, APD])
@pytest.mark.parametrize("hairpinning", [Hairpinning.INTERNAL_SOURCE, Hairpinning.EXTERNAL_SOURCE])
def test_hairpin_source(mapping: Dependence, hairpinning: Hairpinning) -> None:
    """RFC 4787 REQ-9: the receiver sees the sender's external endpoint, or, on poorer NATs, its internal one."""
    bench = Bench(NatProfile(mapping=mapping, filtering=EI, hairpinning=hairpinning))
    first, second = host(5000, 0), host(5001, 1)
    seen = bench.out(second, remote())
    decision = bench.send(first, seen)
    packet = forwarded(decision)
    assert isinstance(decision, Hairpinned)
    assert isinstance(packet, Packet)
    assert packet.destination == second
    if hairpinning is Hairpinning.INTERNAL_SOURCE:
        assert packet.source == first
        return
    assert packet.source == external(5000)
    back = forwarded(bench.send(second, packet.source))
    assert isinstance(back, Packet)
    assert back.destination == first
    assert (back.source == seen) is (mapping is EI)


@pytest.mark.parametrize("hairpinning", [Hairpinning.INTERNAL_SOURCE, Hairpinning.EXTERNAL_SOURCE])
def test_a_hairpin_to_nobody_makes_no_mapping(hairpinning: Hairpinning) -> None:
    bench = Bench(NatProfile(hairpinning=hairpinning))
    assert bench.fate(host(), external(6000)) is Reason.NO_MAPPING
    assert bench.nat.mappings(bench.now) == ()


def test_a_hairpin_obeys_the_filter() -> None:
    """Like any remote, an inside host is admitted only where the other has written to its external endpoint."""
    bench = Bench(NatProfile(hairpinning=Hairpinning.EXTERNAL_SOURCE))
    first, second = host(5000, 0), host(5001, 1)
    bench.out(first, remote())
    seen = bench.out(second, remote())
    assert bench.fate(first, seen) is Reason.NO_PERMISSION
    assert bench.fate(second, external(5000)) is None, "the first one has written to us"
    assert bench.fate(first, seen) is None


def test_a_hairpin_may_find_no_port() -> None:
    profile = NatProfile(hairpinning=Hairpinning.EXTERNAL_SOURCE, filtering=EI, max_mappings=1)
    bench = Bench(profile)
    seen = bench.out(host(5000, 1), remote())
    assert bench.fate(host(), seen) is Reason.TABLE_FULL


def test_hairpinned_tcp() -> None:
    """RFC 5382 REQ-8."""
    bench = Bench(NatProfile(filtering=EI, hairpinning=Hairpinning.EXTERNAL_SOURCE))
    first, second = host(5000, 0), host(5001, 1)
    seen = bench.out(second, remote(), Transport.TCP)
    for source, destination, flags in (
        (first, seen, SYN),
        (second, external(5000), SYN | ACK),
        (first, seen, ACK),
        (second, external(5000), FIN),
    ):
        assert reason(bench.tcp(source, destination, flags)) is None
    bench.nat.flush()
    seen = bench.out(second, remote(), Transport.TCP)
    assert reason(bench.tcp(first, seen, SYN)) is None
    assert reason(bench.tcp(second, external(5000), RST)) is None


def test_a_hairpinned_segment_that_the_other_side_does_not_know() -> None:
    """The sender's connection has outlived the receiver's, whose packets alone keep it: the segment is none of it."""
    profile = NatProfile(filtering=EI, hairpinning=Hairpinning.EXTERNAL_SOURCE, refresh=Refresh.OUTBOUND)
    bench = Bench(profile)
    first, second = host(5000, 0), host(5001, 1)
    seen = bench.out(second, remote(), Transport.TCP)
    bench.tcp(first, seen, SYN)
    bench.wait(200)
    bench.out(second, remote(), Transport.TCP)
    bench.tcp(first, seen, SYN)
    bench.wait(100)
    assert reason(bench.tcp(first, seen, RST)) is Reason.NO_MAPPING


# ---------------------------------------------------------------------------- firewalls


@pytest.mark.parametrize(
    ("filtering", "new_port", "new_address"),
    [
        pytest.param(EI, True, True, id="endpoint-independent: whoever, once we have sent anything"),
        pytest.param(AD, True, False, id="address-dependent"),
        pytest.param(APD, False, False, id="address-and-port-dependent"),
    ],
)
def test_a_firewall_filters_and_translates_nothing(filtering: Dependence, new_port: bool, new_address: bool) -> None:
    bench = Bench(NatProfile(mapping=NONE, filtering=filtering))
    assert bench.comes_to(remote(), host()) is Reason.NO_PERMISSION
    assert bench.out(host(), remote()) == host()
    assert bench.comes_to(remote(), host()) == host()
    assert bench.admits(remote(7001), host()) is new_port
    assert bench.admits(remote(7000, 1), host()) is new_address
    bench.wait(180)
    assert not bench.admits(remote(), host())


def test_a_firewall_without_a_filter() -> None:
    bench = Bench(NatProfile(mapping=NONE, filtering=NONE))
    assert bench.admits(remote(), host())
    assert bench.out(host(), remote()) == host()
    blocked = Bench(NatProfile(mapping=NONE, filtering=NONE, udp_blocked=True))
    assert blocked.fate(host(), remote()) is blocked.fate(remote(), host()) is Reason.UDP_BLOCKED


@pytest.mark.parametrize(
    ("unsolicited", "kind"),
    [
        pytest.param(Unsolicited.TCP_RESET, Packet, id="tcp-reset"),
        pytest.param(Unsolicited.ICMP_UNREACHABLE, IcmpError, id="icmp-unreachable"),
        pytest.param(Unsolicited.ACCEPT, type(None), id="accept: it is not its address, so it drops"),
    ],
)
def test_a_firewall_answers(unsolicited: Unsolicited, kind: type) -> None:
    bench = Bench(NatProfile(mapping=NONE, unsolicited=unsolicited))
    decision = bench.tcp(remote(), host(), SYN)
    assert reason(decision) is Reason.NO_PERMISSION
    assert isinstance(answer(decision), kind)


def test_a_nat_without_a_filter_admits_all_through_a_mapping() -> None:
    bench = Bench(NatProfile(filtering=NONE, ports=Ports()))
    bench.out(host(), remote())
    assert bench.admits(remote(7001, 3), external())
