"""Pings through a NAT: whose an echo reply is, and what an error about a ping tells (RFC 5508 §3, §4)."""

from __future__ import annotations

import pytest

from testbed.nat.packet import Delivered, Dropped, Echo, Forwarded, IcmpError, Reason
from testbed.nat.queries import Queries
from testbed.spec.profile import Dependence, NatProfile
from tests.nat.bench import EXTERNAL, SECOND, Bench, host, remote

A, B, THERE, OUTSIDE = host(number=0).host, host(number=1).host, remote().host, str(EXTERNAL)
FIREWALL = NatProfile(mapping=Dependence.NONE)


def reply(source: str, destination: str, identifier: int = 7) -> Echo:
    return Echo(source, destination, identifier, is_request=False)


def test_a_ping_goes_out_and_its_answer_comes_back() -> None:
    bench = Bench(NatProfile())
    assert bench.nat.outbound(Echo(A, THERE, 7), bench.now) == Forwarded(Echo(OUTSIDE, THERE, 7))
    assert bench.nat.inbound(reply(THERE, OUTSIDE), bench.now) == Forwarded(reply(THERE, A))


def test_two_hosts_with_one_identifier_are_told_apart() -> None:
    bench = Bench(NatProfile())
    bench.nat.outbound(Echo(A, THERE, 7), bench.now)
    assert bench.nat.outbound(Echo(B, THERE, 7), bench.now) == Forwarded(Echo(OUTSIDE, THERE, 8))
    assert bench.nat.inbound(reply(THERE, OUTSIDE, 8), bench.now) == Forwarded(reply(THERE, B, 7))
    assert bench.nat.outbound(Echo(B, THERE, 7), bench.now) == Forwarded(Echo(OUTSIDE, THERE, 8)), "it stays so"


INBOUND = [
    ("an answer that nobody waits for", NatProfile(), reply(THERE, OUTSIDE), Reason.NO_MAPPING),
    ("one of somebody else", NatProfile(), reply(remote(number=1).host, OUTSIDE), Reason.NO_MAPPING),
    ("one for an address that is not ours", NatProfile(), reply(THERE, "11.9.9.9"), Reason.NO_MAPPING),
    ("a ping to the NAT", NatProfile(), Echo(THERE, OUTSIDE, 7), Delivered(reply(OUTSIDE, THERE))),
    ("a ping through a firewall", FIREWALL, Echo(THERE, A, 7), Reason.NO_PERMISSION),
    ("an answer through one", FIREWALL, reply(THERE, A), Reason.NO_PERMISSION),
    (
        "a ping through one that lets everything in",
        FIREWALL.model_copy(update={"filtering": Dependence.NONE}),
        Echo(THERE, A, 7),
        Forwarded(Echo(THERE, A, 7)),
    ),
]


@pytest.mark.parametrize(("sentence", "profile", "echo", "fate"), INBOUND, ids=[row[0] for row in INBOUND])
def test_from_outside(sentence: str, profile: NatProfile, echo: Echo, fate: object) -> None:
    bench = Bench(profile)
    decision = bench.nat.inbound(echo, bench.now)
    assert (decision.reason if isinstance(decision, Dropped) else decision) == fate, sentence


OUTBOUND = [
    ("between inside hosts", NatProfile(), Echo(A, B, 7), Forwarded(Echo(A, B, 7))),
    ("to the NAT's own address", NatProfile(), Echo(A, OUTSIDE, 7), Delivered(reply(OUTSIDE, A))),
    ("from a stranger", NatProfile(), Echo("10.9.9.9", THERE, 7), Reason.NOT_TRANSLATED),
    ("an answer to a ping that cannot have come", NatProfile(), reply(A, THERE), Reason.NOT_TRANSLATED),
    ("through a firewall, as it is", FIREWALL, Echo(A, THERE, 7), Forwarded(Echo(A, THERE, 7))),
    ("an answer through one", FIREWALL, reply(A, THERE), Forwarded(reply(A, THERE))),
]


@pytest.mark.parametrize(("sentence", "profile", "echo", "fate"), OUTBOUND, ids=[row[0] for row in OUTBOUND])
def test_from_inside(sentence: str, profile: NatProfile, echo: Echo, fate: object) -> None:
    bench = Bench(profile)
    decision = bench.nat.outbound(echo, bench.now)
    assert (decision.reason if isinstance(decision, Dropped) else decision) == fate, sentence


def test_a_minute_later_nobody_waits() -> None:
    """RFC 5508 REQ-2."""
    bench = Bench(NatProfile())
    bench.nat.outbound(Echo(A, THERE, 7), bench.now)
    bench.now += 60 * SECOND - 1
    assert isinstance(bench.nat.inbound(reply(THERE, OUTSIDE), bench.now), Forwarded)
    bench.now += 1
    assert isinstance(bench.nat.inbound(reply(THERE, OUTSIDE), bench.now), Dropped)


def test_an_error_about_a_ping_finds_who_sent_it() -> None:
    bench = Bench(NatProfile())
    bench.nat.outbound(Echo(A, THERE, 7), bench.now)
    told = IcmpError("13.0.0.1", OUTSIDE, Echo(OUTSIDE, THERE, 7), 11, 0)
    assert bench.nat.inbound(told, bench.now) == Forwarded(IcmpError("13.0.0.1", A, Echo(A, THERE, 7), 11, 0))
    strange = IcmpError("13.0.0.1", OUTSIDE, Echo(OUTSIDE, THERE, 9), 11, 0)
    assert bench.nat.inbound(strange, bench.now) == Dropped(Reason.NO_MAPPING)
    about_theirs = IcmpError(A, THERE, Echo(THERE, A, 7), 3, 1)
    assert bench.nat.outbound(about_theirs, bench.now) == Dropped(Reason.NOT_TRANSLATED)


def test_what_nobody_asks_for_is_forgotten_and_all_identifiers_can_be_had() -> None:
    queries, now = Queries(), 0
    for number in range(1 << 16):
        left = queries.leave(Echo(A, THERE, number), OUTSIDE, now)
        assert left is not None
        assert left.identifier == number
    assert queries.leave(Echo(B, THERE, 7), OUTSIDE, now) is None
    now += 61 * SECOND
    assert queries.leave(Echo(B, THERE, 7), OUTSIDE, now) is not None
