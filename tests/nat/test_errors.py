"""ICMP errors through a NAT (RFC 5508), inward and outward."""

from __future__ import annotations

import pytest

from testbed.datagram import Endpoint
from testbed.nat.packet import IcmpError, Packet, Reason, Transport
from testbed.spec.profile import Dependence, NatProfile, Ports, Unsolicited
from tests.nat.bench import Bench, error, external, forwarded, host, reason, remote

EI, AD, APD, NONE = Dependence
ROUTER = "12.0.0.99"


def udp(source: Endpoint, destination: Endpoint) -> Packet:
    return Packet(Transport.UDP, source, destination)


@pytest.mark.parametrize("mapping", [EI, AD, APD])
@pytest.mark.parametrize("teller", [remote().host, ROUTER], ids=["the remote itself", "a router on the way"])
def test_an_error_comes_in(mapping: Dependence, teller: str) -> None:
    """RFC 5508 REQ-4: to the host, which sees its own packet in it."""
    bench = Bench(NatProfile(mapping=mapping, ports=Ports(preserve=False)))
    seen = bench.out(host(), remote())
    told = forwarded(bench.nat.inbound(error(teller, seen.host, udp(seen, remote())), bench.now))
    assert told == error(teller, host().host, udp(host(), remote()))


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (error(ROUTER, external().host, udp(external(6000), remote())), "of an endpoint that nobody has"),
        (error(ROUTER, external().host, udp(external(), remote(7001))), "of a packet that we never sent"),
        (error(ROUTER, "11.0.0.99", udp(external(), remote())), "for another address than sent it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_that_is_not_ours(told: IcmpError, why: str) -> None:
    bench = Bench(NatProfile(filtering=EI))
    bench.out(host(), remote())
    assert reason(bench.nat.inbound(told, bench.now)) is Reason.NO_MAPPING, why


def test_errors_keep_nothing_alive() -> None:
    """RFC 4787 REQ-10: nor do they end anything."""
    bench = Bench(NatProfile())
    seen = bench.out(host(), remote())
    bench.wait(100)
    bench.nat.inbound(error(ROUTER, seen.host, udp(seen, remote())), bench.now)
    assert len(bench.nat.mappings(bench.now)) == 1
    bench.wait(80)
    assert bench.nat.mappings(bench.now) == ()


@pytest.mark.parametrize("mapping", [EI, AD, APD])
def test_an_error_goes_out(mapping: Dependence) -> None:
    """RFC 5508 REQ-5: from the external address, about the external endpoint."""
    bench = Bench(NatProfile(mapping=mapping, ports=Ports(preserve=False)))
    seen = bench.out(host(), remote())
    assert bench.admits(remote(), seen)
    told = forwarded(bench.nat.outbound(error(host().host, remote().host, udp(remote(), host())), bench.now))
    assert told == error(seen.host, remote().host, udp(remote(), seen))


@pytest.mark.parametrize(
    ("came", "wait", "teller", "why"),
    [
        (False, 0.0, host().host, "of a packet that never came"),
        (True, 30.0, host().host, "too late"),
        (True, 0.0, host(5000, 1).host, "by another host than it came to"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_an_error_about_nothing(came: bool, wait: float, teller: str, why: str) -> None:
    bench = Bench(NatProfile())
    seen = bench.out(host(), remote())
    if came:
        assert bench.admits(remote(), seen)
    bench.wait(wait)
    told = error(teller, remote().host, udp(remote(), host()))
    assert reason(bench.nat.outbound(told, bench.now)) is Reason.NOT_TRANSLATED, why


def test_a_session_opened_by_us_gets_no_error_out_before_something_came() -> None:
    bench = Bench(NatProfile(mapping=APD))
    first = bench.out(host(), remote())
    bench.admits(remote(), first)
    bench.nat.flush()
    bench.out(host(), remote())
    told = error(host().host, remote().host, udp(remote(), host()))
    assert reason(bench.nat.outbound(told, bench.now)) is Reason.NOT_TRANSLATED


def test_errors_through_a_firewall() -> None:
    bench = Bench(NatProfile(mapping=NONE))
    into = error(ROUTER, host().host, udp(host(), remote()))
    assert reason(bench.nat.inbound(into, bench.now)) is Reason.NO_PERMISSION
    bench.out(host(), remote())
    assert forwarded(bench.nat.inbound(into, bench.now)) == into
    out_of = error(host().host, remote().host, udp(remote(), host()))
    assert forwarded(bench.nat.outbound(out_of, bench.now)) == out_of
    assert forwarded(Bench(NatProfile(mapping=NONE, filtering=NONE)).nat.inbound(into, bench.now)) == into


def test_an_error_about_the_stacks_own_conversation() -> None:
    bench = Bench(NatProfile(ports=Ports(overload=True), unsolicited=Unsolicited.ACCEPT))
    bench.send(remote(), external())
    told = error(ROUTER, external().host, udp(external(), remote()))
    assert reason(bench.nat.inbound(told, bench.now)) is Reason.NO_MAPPING
