"""A middlebox of the userspace engine, frame by frame, without a kernel: it routes, translates, answers, explains."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether

from testbed.datagram import Endpoint
from testbed.nat.packet import Transport
from testbed.spec.profile import SECOND, Dependence, Hairpinning, NatProfile, Unsolicited
from tests.lab.userspace.packets import LAN, WAN, Bench, ends, error, is_whole, ping, tcp, udp

EI = Dependence.ENDPOINT_INDEPENDENT
FIREWALL = NatProfile(mapping=Dependence.NONE)


def here(b: Bench, port: int = 5000) -> Endpoint:
    return Endpoint(b.one, port)


def there(b: Bench, port: int = 7000) -> Endpoint:
    return Endpoint(b.server, port)


def outside(b: Bench, port: int = 5000) -> Endpoint:
    return Endpoint(b.external, port)


def test_a_datagram_goes_out_and_its_answer_comes_in() -> None:
    b = Bench(NatProfile())
    left = b.out(udp(here(b), there(b), ttl=64))
    assert (ends(left), left[IP].ttl, is_whole(left)) == ((outside(b), there(b)), 63, True)
    assert left.dst == b.macs[b.upstream]
    assert left.src == ":".join(f"{byte:02x}" for byte in b.devices[WAN].mac)
    came = b.come(udp(there(b), outside(b)))
    assert ends(came) == (there(b), here(b))
    assert came.dst == b.macs[b.one]
    assert is_whole(came)
    assert dict(b.box.counters) == {}


DROPPED = [
    ("nobody has the port", WAN, lambda b: udp(there(b), outside(b, 4321)), "no-mapping"),
    ("the filter does not know the remote", WAN, lambda b: udp(there(b, 7001), outside(b)), "no-permission"),
    ("an address that is not mapped to", WAN, lambda b: udp(there(b), Endpoint("11.9.9.9", 1)), "no-mapping"),
    ("a stranger inside", LAN, lambda b: udp(Endpoint("10.9.9.9", 1), there(b)), "not-translated"),
    ("a segment of no connection", LAN, lambda b: tcp(here(b), there(b), "R"), "not-translated"),
    ("a fragment", LAN, lambda b: udp(here(b), there(b), flags="MF"), "not-translated"),
    ("another protocol", WAN, lambda b: IP(src=b.server, dst=b.external, proto=47) / bytes(8), "not-translated"),
    ("a hairpin", LAN, lambda b: udp(here(b), outside(b, 4321)), "hairpin-refused"),
    ("an error about nothing", WAN, lambda b: error(b.upstream, udp(outside(b, 9), there(b))), "no-mapping"),
    ("an answer to no ping", WAN, lambda b: ping(b.server, b.external, kind=0), "no-mapping"),
]


@pytest.mark.parametrize(("sentence", "device", "packet", "reason"), DROPPED, ids=[row[0] for row in DROPPED])
def test_a_drop_has_its_reason_and_its_packet(sentence: str, device: int, packet: Any, reason: str) -> None:
    b = Bench(NatProfile())
    b.out(udp(here(b), there(b)))
    dropped = packet(b)
    assert b.push(device, dropped) == [], sentence
    assert dict(b.box.counters) == {reason: 1}
    (drop,) = b.box.read_drops()
    assert (drop.reason, drop.packet, drop.time) == (reason, bytes(dropped)[:128], b.now)
    assert b.box.read_drops() == []


REJECTED = [
    (Unsolicited.DROP, [], []),
    (Unsolicited.ICMP_UNREACHABLE, ["ICMP 3/3"], ["ICMP 3/3"]),
    (Unsolicited.TCP_RESET, [], ["TCP RA"]),
    (Unsolicited.ACCEPT, ["ICMP 3/3"], ["TCP RA"]),
]


def said(packets: list[Any]) -> list[str]:
    return [
        f"TCP {p[TCP].flags}" if TCP in p and ICMP not in p else f"ICMP {p[ICMP].type}/{p[ICMP].code}" for p in packets
    ]


@pytest.mark.parametrize(("unsolicited", "datagram", "segment"), REJECTED)
def test_what_is_unsolicited_is_answered_as_the_profile_says(
    unsolicited: Unsolicited, datagram: list[str], segment: list[str]
) -> None:
    b = Bench(NatProfile(unsolicited=unsolicited))
    for packet, expected in (
        (udp(there(b), outside(b, 4321)), datagram),
        (tcp(there(b), outside(b, 4321), "S"), segment),
    ):
        answers = b.push(WAN, packet)
        assert said(answers) == expected
        assert all(is_whole(one) and one[IP].dst == b.server and one.dst == b.macs[b.upstream] for one in answers)


def test_pings_pass_and_are_answered() -> None:
    b = Bench(NatProfile())
    first, second = b.out(ping(b.one, b.server)), b.out(ping(b.two, b.server))
    assert [p[ICMP].id for p in (first, second)] == [7, 8], "two hosts with one identifier"
    for packet, host in ((first, b.one), (second, b.two)):
        back = b.come(ping(b.server, b.external, packet[ICMP].id, kind=0))
        assert (back[IP].dst, back[ICMP].id, is_whole(back)) == (host, 7, True)
    for device, source, destination in (
        (LAN, b.one, b.gateway),
        (LAN, b.one, b.external),
        (WAN, b.server, b.external),
    ):
        (answer,) = b.push(device, ping(source, destination))
        assert (answer[IP].src, answer[IP].dst, answer[ICMP].type) == (destination, source, 0)
    b.now += 61 * SECOND
    assert b.push(WAN, ping(b.server, b.external, 7, kind=0)) == [], "RFC 5508 REQ-2: a minute"


def test_the_boxs_own_addresses_are_closed_ports() -> None:
    b = Bench(NatProfile())
    assert said(b.push(LAN, udp(here(b), Endpoint(b.gateway, 53)))) == ["ICMP 3/3"]
    assert said(b.push(LAN, tcp(here(b), Endpoint(b.gateway, 80), "S"))) == ["TCP RA"]
    assert b.push(LAN, tcp(here(b), Endpoint(b.gateway, 80), "R")) == []
    assert dict(b.box.counters) == {}


def test_a_ttl_that_ends_here_is_told_and_opens_nothing() -> None:
    b = Bench(NatProfile())
    (told,) = b.push(LAN, udp(here(b), there(b), ttl=1))
    assert (told[IP].src, told[IP].dst, said([told]), is_whole(told)) == (b.gateway, b.one, ["ICMP 11/0"], True)
    assert b.box.nat.mappings(b.now) == ()
    b.out(udp(here(b), there(b)))
    (told,) = b.push(WAN, udp(there(b), outside(b), ttl=1))
    assert (told[IP].src, told[IP].dst) == (b.external, b.server)
    assert b.push(WAN, udp(there(b), outside(b, 4321), ttl=1)) == [], "what the filter refuses is not told"
    about = bytes(udp(there(b), here(b)))
    refused = IP(src=b.one, dst=b.server, ttl=1) / ICMP(type=3, code=3) / about
    assert b.push(LAN, refused) == [], "no error about an error"


def test_what_does_not_fit_is_told() -> None:
    b = Bench(NatProfile(), mtu=1280)
    (told,) = b.push(LAN, udp(here(b), there(b), bytes(1300), flags="DF"))
    assert (told[IP].dst, told[ICMP].type, told[ICMP].code, told[ICMP].nexthopmtu) == (b.one, 3, 4, 1280)
    assert b.push(LAN, udp(here(b), there(b), bytes(1300))) == []
    assert dict(b.box.counters) == {"not-translated": 1}, "it would have to be cut"


def test_errors_find_their_host() -> None:
    """RFC 5508 REQ-4, and pings of traceroute."""
    b = Bench(NatProfile())
    for packet in (udp(here(b), there(b)), tcp(here(b), there(b), "S"), ping(b.one, b.server)):
        left = b.out(packet)
        told = b.come(error(b.upstream, left))
        assert (told[IP].src, told[IP].dst) == (b.upstream, b.one)
        assert is_whole(told)
        inner = told[ICMP].payload
        assert (inner.src, inner.dst) == (b.one, b.server)
    b.come(udp(there(b), outside(b)))
    refused = b.out(error(b.one, udp(there(b), here(b)), 3, 3))
    assert (refused[IP].src, refused[IP].dst) == (b.external, b.server)
    assert refused[ICMP].payload.dst == b.external


def test_hairpins_stay_inside() -> None:
    b = Bench(NatProfile(filtering=EI, hairpinning=Hairpinning.EXTERNAL_SOURCE))
    b.out(udp(Endpoint(b.two, 6000), there(b)))
    (turned,) = b.push(LAN, udp(here(b), outside(b, 6000)))
    assert ends(turned) == (outside(b), Endpoint(b.two, 6000))
    assert turned.dst == b.macs[b.two]


def test_a_host_that_the_plan_does_not_know_is_where_its_packets_come_from() -> None:
    b = Bench(NatProfile())
    stranger = Endpoint(b.one.rpartition(".")[0] + ".77", 5000)
    b.out(udp(stranger, there(b)))
    assert b.come(udp(there(b), outside(b))).dst == "02:ff:ff:ff:ff:ff"


def test_a_firewall_routes_and_filters() -> None:
    b = Bench(FIREWALL)
    assert ends(b.out(udp(here(b), there(b)))) == (here(b), there(b))
    assert ends(b.come(udp(there(b), here(b)))) == (there(b), here(b))
    assert b.push(WAN, udp(there(b, 7001), here(b))) == []
    assert b.push(WAN, ping(b.server, b.one)) == []
    assert dict(b.box.counters) == {"no-permission": 2}
    b.out(ping(b.one, b.server))
    assert b.come(ping(b.server, b.one, kind=0))[IP].dst == b.one
    (own,) = b.push(WAN, ping(b.server, b.external))
    assert own[ICMP].type == 0, "a router's own address"


def test_upkeep() -> None:
    b = Bench(NatProfile(udp_timeout=60 * SECOND))
    b.out(udp(here(b), there(b)))
    assert b.box.time_left(Transport.UDP, b.now + SECOND) == [59 * SECOND]
    assert b.box.time_left(Transport.TCP, b.now) == []
    b.box.flush()
    assert b.box.time_left(Transport.UDP, b.now) == []
    b.out(udp(here(b), there(b)))
    b.box.change_address([IPv4Address("11.77.0.1")])
    assert b.push(WAN, udp(there(b), outside(b))) == []
    assert ends(b.out(udp(here(b), there(b))))[0] == Endpoint("11.77.0.1", 5000)
    assert ends(b.come(udp(there(b), Endpoint("11.77.0.1", 5000))))[1] == here(b)
    b.box.restart()
    assert b.push(WAN, udp(there(b), Endpoint("11.77.0.1", 5000))) == []
    with pytest.raises(ValueError, match="2 addresses cannot stand for 1"):
        b.box.change_address([IPv4Address("11.77.0.1"), IPv4Address("11.77.0.2")])


def test_noise_is_not_touched() -> None:
    b = Bench(NatProfile())
    assert list(b.box.receive(99, bytes(60), b.now)) == [], "a port of the bridge"
    assert list(b.box.receive(LAN, bytes(Ether() / bytes(46)), b.now)) == []
    assert b.push(LAN, udp(here(b), there(b), chksum=1)) == [], "a header that was damaged on the way"
    assert dict(b.box.counters) == {}
