"""Headers as bytes, held against scapy's: read, rewritten, answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP

from testbed.datagram import Endpoint
from testbed.lab.userspace import headers
from testbed.nat.packet import Echo, Flag, IcmpError, Packet, Transport, reset
from tests.lab.userspace.packets import error, is_whole, ping, tcp, udp

HERE, THERE = Endpoint("192.168.1.2", 5000), Endpoint("11.0.0.2", 7000)
ADDRESSES = st.integers(0x01000000, 0xDFFFFFFF).map(lambda n: ".".join(str(n >> s & 255) for s in (24, 16, 8, 0)))
ENDPOINTS = st.builds(Endpoint, ADDRESSES, st.integers(0, 65535))


def frame(packet: Any, padding: int = 0) -> bytes:
    return bytes(12) + b"\x08\x00" + bytes(packet) + bytes(padding)


READ = [
    ("a datagram", udp(HERE, THERE), Packet(Transport.UDP, HERE, THERE)),
    (
        "one without a checksum",
        IP(src=HERE.host, dst=THERE.host) / UDP(sport=5000, dport=7000, chksum=0) / b"x",
        Packet(Transport.UDP, HERE, THERE),
    ),
    ("a segment, with the flags that matter", tcp(HERE, THERE, "PA"), Packet(Transport.TCP, HERE, THERE, Flag.ACK)),
    ("a SYN", tcp(HERE, THERE, "SEC"), Packet(Transport.TCP, HERE, THERE, Flag.SYN)),
    ("a ping", ping(HERE.host, THERE.host), Echo(HERE.host, THERE.host, 7)),
    ("its answer", ping(THERE.host, HERE.host, kind=0), Echo(THERE.host, HERE.host, 7, is_request=False)),
    (
        "an error about a datagram",
        error("12.0.0.1", udp(HERE, THERE)),
        IcmpError("12.0.0.1", HERE.host, Packet(Transport.UDP, HERE, THERE), 11, 0),
    ),
    (
        "one about a ping",
        error("12.0.0.1", ping(HERE.host, THERE.host), 3, 1),
        IcmpError("12.0.0.1", HERE.host, Echo(HERE.host, THERE.host, 7), 3, 1),
    ),
    ("a fragment", udp(HERE, THERE, flags="MF"), None),
    ("a later one", udp(HERE, THERE, frag=10), None),
    ("another protocol", IP(src=HERE.host, dst=THERE.host, proto=47) / bytes(20), None),
    ("an ICMP message of another kind", IP(src=HERE.host, dst=THERE.host) / ICMP(type=13), None),
    ("a redirect", error("12.0.0.1", udp(HERE, THERE), 5, 1), None),
    ("an error that carries too little", IP(src="12.0.0.1", dst=HERE.host) / ICMP(type=11) / bytes(24), None),
    ("a segment that is cut off", IP(src=HERE.host, dst=THERE.host, proto=6) / bytes(19), None),
    ("a datagram with a wrong checksum", IP(src=HERE.host, dst=THERE.host) / UDP(chksum=1) / b"x", None),
    ("a segment with one", IP(src=HERE.host, dst=THERE.host) / TCP(chksum=1), None),
    ("a ping with one", IP(src=HERE.host, dst=THERE.host) / ICMP(chksum=1), None),
]


@pytest.mark.parametrize(("sentence", "packet", "expected"), READ, ids=[row[0] for row in READ])
@pytest.mark.parametrize("padding", [0, 30])
def test_reading(sentence: str, packet: Any, expected: object, padding: int) -> None:
    ip = headers.packet_of(frame(packet, padding))
    assert ip == bytes(packet)
    assert headers.read(ip) == expected, sentence


@pytest.mark.parametrize(
    ("sentence", "data"),
    [
        ("ARP", bytes(12) + b"\x08\x06" + bytes(40)),
        ("IPv6", bytes(12) + b"\x86\xdd\x60" + bytes(40)),
        ("version 6 in a frame of IPv4", bytes(12) + b"\x08\x00\x60" + bytes(40)),
        ("nothing", b""),
        ("half a packet", frame(udp(HERE, THERE))[:-1]),
        ("a header of four words", frame(udp(HERE, THERE, ihl=4))),
        ("a wrong checksum of the header", frame(udp(HERE, THERE, chksum=1))),
    ],
)
def test_what_is_no_packet(sentence: str, data: bytes) -> None:
    assert headers.packet_of(data) is None, sentence


@given(ENDPOINTS, ENDPOINTS, ENDPOINTS, ENDPOINTS, st.binary(max_size=9), st.sampled_from(["udp", "tcp", "plain"]))
def test_rewriting_is_what_the_sender_would_have_sent(
    a: Endpoint, b: Endpoint, c: Endpoint, d: Endpoint, data: bytes, kind: str
) -> None:
    """Other ends, one hop less, checksums that follow; an absent one stays absent."""
    make: Any = tcp if kind == "tcp" else udp
    arguments: Any = (data,) if kind != "tcp" else ("PA", data)
    before, after = make(a, b, *arguments), make(c, d, *arguments)
    after[IP].ttl = 63
    if kind == "plain":
        before[UDP].chksum = after[UDP].chksum = 0
    packet = headers.read(bytes(before))
    assert isinstance(packet, Packet)
    assert headers.rewritten(bytes(before), packet.sent_from(c).sent_to(d)) == bytes(after)


@given(ENDPOINTS, ENDPOINTS, ENDPOINTS, st.sampled_from((8, 16, 18, 40)), st.sampled_from(["udp", "tcp"]))
def test_an_error_is_rewritten_with_what_it_carries(
    a: Endpoint, b: Endpoint, c: Endpoint, kept: int, kind: str
) -> None:
    """RFC 5508 REQ-4: outer and inner addresses, all checksums; of a segment, eight bytes must do."""
    about, told = (tcp(end, b, "S") if kind == "tcp" else udp(end, b, bytes(20)) for end in (a, c))
    before = IP(src="12.0.0.9", dst=a.host) / ICMP(type=11) / bytes(about)[: 20 + kept]
    after = IP(src="12.0.0.9", dst=c.host, ttl=63) / ICMP(type=11) / bytes(told)[: 20 + kept]
    found = headers.read(bytes(before))
    assert isinstance(found, IcmpError)
    assert isinstance(found.inner, Packet)
    wanted = IcmpError("12.0.0.9", c.host, found.inner.sent_from(c), 11, 0)
    rewritten = headers.rewritten(bytes(before), wanted)
    assert is_whole(IP(rewritten))
    assert rewritten == bytes(after)


def test_a_ping_is_rewritten_and_answered() -> None:
    before = bytes(ping(HERE.host, THERE.host, ttl=9))
    assert headers.rewritten(before, Echo("11.0.0.6", THERE.host, 9)) == bytes(ping("11.0.0.6", THERE.host, 9, ttl=8))
    about = error("12.0.0.1", ping("11.0.0.6", THERE.host, 9))
    inner = Echo(HERE.host, THERE.host, 7)
    told = IP(headers.rewritten(bytes(about), IcmpError("12.0.0.1", HERE.host, inner, 11, 0)))
    assert is_whole(told)
    assert (told.dst, told[ICMP].payload.src, told[ICMP].payload.payload.id) == (HERE.host, HERE.host, 7)
    answer = headers.answer(Echo(THERE.host, HERE.host, 7, is_request=False), before)
    assert answer == bytes(ping(THERE.host, HERE.host, kind=0, ttl=64, id=1))


@pytest.mark.parametrize(
    ("flags", "data", "expected"),
    [
        ("S", b"", ("RA", 0, 101)),
        ("PA", b"12345", ("R", 200, 0)),
        ("FA", b"", ("R", 200, 0)),
        ("F", b"123", ("RA", 0, 104)),
    ],
)
def test_a_reset_answers_as_rfc_9293_says(flags: str, data: bytes, expected: tuple[str, int, int]) -> None:
    segment = tcp(HERE, THERE, flags, data, seq=100, ack=200 if "A" in flags else 0)
    seen = headers.read(bytes(segment))
    assert isinstance(seen, Packet)
    said = reset(seen)
    assert said is not None
    answer = headers.answer(said, bytes(segment))
    read = IP(answer)
    assert is_whole(read)
    assert (str(read[TCP].flags), read[TCP].seq, read[TCP].ack) == expected
    assert (read.src, read[TCP].sport, read.dst, read[TCP].dport) == (*THERE, *HERE)


def test_an_error_carries_the_packet_and_the_mtu() -> None:
    about = bytes(udp(HERE, THERE, bytes(1400)))
    made = IP(headers.icmp_error("12.0.0.1", HERE.host, headers.FRAGMENTATION_NEEDED, about, mtu=1280))
    assert is_whole(made)
    assert (made[ICMP].type, made[ICMP].code, made[ICMP].nexthopmtu) == (3, 4, 1280)
    assert len(made) <= 576
    assert bytes(made)[28:] == about[:548]
