"""What observations mean, as tables."""

from __future__ import annotations

import pytest

from testbed.certify import judgement
from testbed.certify.judgement import Reaction
from testbed.datagram import Endpoint

SECOND = 1_000_000_000
OWN, A, B, C = (Endpoint("192.168.1.2", 5000), *(Endpoint("11.0.0.1", port) for port in (1, 2, 3)))


@pytest.mark.parametrize(
    ("sentence", "seen", "meant"),
    [
        ("one for all", (A, A, A, A), "endpoint-independent"),
        ("another for another address", (A, A, B, A), "address-dependent"),
        ("another for each", (A, B, C, A), "address-and-port-dependent"),
        ("another for each, and two of them alike by chance of sharing", (A, B, B, A), "address-and-port-dependent"),
        ("its own", (OWN, OWN, OWN, OWN), "none"),
        ("no word of RFC 4787 for it", (A, B, A, A), "dependent on the port alone"),
        ("another one later", (A, A, A, B), "a mapping changes by itself"),
        ("one server is silent", (A, A, None, A), "nothing passes"),
    ],
)
def test_mapping(sentence: str, seen: tuple[Endpoint | None, ...], meant: str) -> None:
    assert judgement.mapping_of(OWN, seen) == meant, sentence


@pytest.mark.parametrize(
    ("sentence", "one", "other", "meant"),
    [
        ("they agree", "endpoint-independent", "endpoint-independent", "endpoint-independent"),
        (
            "two ports were alike by chance",
            "address-dependent",
            "address-and-port-dependent",
            "address-and-port-dependent",
        ),
        ("in whichever order", "address-and-port-dependent", "endpoint-independent", "address-and-port-dependent"),
        ("one of them gets nothing", "address-dependent", "nothing passes", "address-dependent, then nothing passes"),
        ("none does", "nothing passes", "nothing passes", "nothing passes"),
    ],
)
def test_mapping_of_two_sockets(sentence: str, one: str, other: str, meant: str) -> None:
    assert judgement.stricter(one, other) == meant, sentence


@pytest.mark.parametrize(
    ("sentence", "answers", "meant"),
    [
        ("all may answer", (True, True, True), "endpoint-independent"),
        ("one address may", (True, True, False), "address-dependent"),
        ("one endpoint may", (True, False, False), "address-and-port-dependent"),
        ("no word of RFC 4787 for it", (True, False, True), "dependent on the port alone"),
        ("not even who was asked", (False, True, True), "nothing passes"),
    ],
)
def test_filtering(sentence: str, answers: tuple[bool, bool, bool], meant: str) -> None:
    assert judgement.filtering_of(*answers) == meant, sentence


@pytest.mark.parametrize(
    ("sentence", "pairs", "meant"),
    [
        ("all", [(1, 1), (2, 2)], "true"),
        ("none", [(1, 7), (2, 9)], "false"),
        ("one of them, by chance", [(1, 1), (2, 9), (3, 4)], "false"),
        ("some", [(1, 1), (2, 2), (3, 9)], "2 of 3 are kept"),
        ("nothing came", [], "nothing passes"),
    ],
)
def test_preservation(sentence: str, pairs: list[tuple[int, int]], meant: str) -> None:
    assert judgement.preserved(pairs) == meant, sentence


@pytest.mark.parametrize(
    ("sentence", "ports", "step"),
    [
        ("one by one", [7, 8, 9, 10, 11], 1),
        ("downwards", [40, 37, 34, 31, 28], -3),
        ("it begins again at the end of its range", [98, 99, 100, 20, 21, 22], 1),
        ("a port was taken", [7, 8, 10, 11, 12], 1),
        ("two were, which could be anything", [7, 8, 10, 11, 13], None),
        ("at random", [7, 900, 31, 4000, 12], None),
        ("always the same", [7, 7, 7, 7, 7], None),
        ("too few to tell", [7, 8, 9], None),
    ],
)
def test_step(sentence: str, ports: list[int], step: int | None) -> None:
    assert judgement.step_of(ports) == step, sentence


@pytest.mark.parametrize(
    ("sentence", "pairs", "meant"),
    [
        ("even to even, odd to odd", [(2, 8), (3, 7)], "true"),
        ("one of them is not", [(2, 8), (3, 6)], "false"),
    ],
)
def test_parity(sentence: str, pairs: list[tuple[int, int]], meant: str) -> None:
    assert judgement.parity(pairs) == meant, sentence


@pytest.mark.parametrize(
    ("sentence", "datagram", "segment", "meant"),
    [
        ("nothing at all", Reaction.SILENCE, Reaction.SILENCE, "drop"),
        ("errors for both", Reaction.ICMP, Reaction.ICMP, "icmp-unreachable"),
        ("a reset, and silence for UDP", Reaction.SILENCE, Reaction.RESET, "tcp-reset"),
        ("what a closed port of one's own stack says", Reaction.ICMP, Reaction.RESET, "accept"),
        ("where UDP is blocked, TCP alone tells", None, Reaction.ICMP, "icmp-unreachable"),
        ("it comes in", Reaction.ARRIVES, Reaction.SILENCE, "it arrives for UDP, silence for TCP"),
    ],
)
def test_unsolicited(sentence: str, datagram: Reaction | None, segment: Reaction, meant: str) -> None:
    assert judgement.unsolicited_of(datagram, segment) == meant, sentence


@pytest.mark.parametrize(
    ("sentence", "source", "meant"),
    [
        ("it does not arrive", None, "none"),
        ("from the sender as it is", OWN, "internal-source"),
        ("from the NAT", A, "external-source"),
        ("from somebody else", Endpoint("1.2.3.4", 5), "source 1.2.3.4:5"),
    ],
)
def test_hairpinning(sentence: str, source: Endpoint | None, meant: str) -> None:
    assert judgement.hairpinning_of(source, OWN, ["11.0.0.1"]) == meant, sentence


@pytest.mark.parametrize(
    ("outbound", "inbound", "meant"),
    [(True, True, "both"), (True, False, "outbound"), (False, True, "inbound"), (False, False, "neither")],
)
def test_refresh(outbound: bool, inbound: bool, meant: str) -> None:
    assert judgement.refresh_of(outbound, inbound) == meant


@pytest.mark.parametrize(
    ("sentence", "left", "elapsed", "exact", "meant"),
    [
        ("just set", 180 * SECOND, 0, 0, "180s"),
        ("read later than it was set", 177 * SECOND, 3 * SECOND, 0, "180s"),
        ("shown in whole seconds", 179 * SECOND, 0, SECOND, "180s"),
        ("shorter than can be", 170 * SECOND, 3 * SECOND, SECOND, "about 170s"),
        ("longer than was said", 300 * SECOND, 3 * SECOND, SECOND, "about 300s"),
        ("a few jiffies over", 180 * SECOND + 4_000_000, 0, 20_000_000, "180s"),
    ],
)
def test_lifetime(sentence: str, left: int, elapsed: int, exact: int, meant: str) -> None:
    assert judgement.lifetime_of(180 * SECOND, left, elapsed, exact) == meant, sentence
