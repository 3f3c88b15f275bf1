"""What a certificate of a profile has rows for, and when a row agrees."""

from __future__ import annotations

import json
from typing import Any

import pytest

from testbed.certify.rows import Certificate, Row, Seen, expectations, row
from testbed.plan.engines import engine_of
from testbed.spec.kinds import kind
from testbed.spec.profile import (
    BlockAllocation,
    Dependence,
    Engine,
    NatProfile,
    Otherwise,
    Ports,
    TcpTimeout,
    Unsolicited,
)

PLAIN = NatProfile()
NATIVE = NatProfile(engine=Engine.NATIVE, ports=Ports(overload=True))
APD, NONE = Dependence.ADDRESS_AND_PORT_DEPENDENT, Dependence.NONE


def expected(profile: NatProfile) -> dict[str, str]:
    return expectations(profile, engine_of(profile))


ROWS: list[tuple[str, NatProfile, str, str | None]] = [
    ("a field, as it is written", PLAIN, "udp_timeout", "180s"),
    ("a flag, as it is written", PLAIN, "ports.preserve", "true"),
    ("a step where ports are counted", NatProfile(ports=Ports(otherwise=Otherwise.SEQUENTIAL)), "ports.step", "1"),
    ("none where they are not", PLAIN, "ports.step", None),
    (
        "even ports follow each other in twos",
        NatProfile(ports=Ports(otherwise=Otherwise.SEQUENTIAL, parity=True)),
        "ports.step",
        "2",
    ),
    ("no order where there are four ports", NatProfile(ports=Ports(range=(4000, 4003))), "ports.otherwise", None),
    (
        "no order where the newest owner gets every port that he asks for",
        NatProfile(ports=Ports(overload=True, range=(1, 65535)), engine=Engine.EXPLICIT),
        "ports.otherwise",
        None,
    ),
    ("a block is not shared", NatProfile(ports=Ports(block=64)), "ports.overload", None),
    (
        "blocks that come and go",
        NatProfile(ports=Ports(block=64, block_allocation=BlockAllocation.DYNAMIC, blocks_per_host=4)),
        "ports.blocks_per_host",
        "4",
    ),
    ("one for good has no number", NatProfile(ports=Ports(block=64)), "ports.blocks_per_host", None),
    ("a timer of its own", NatProfile(tcp_timeout=TcpTimeout(reset=1_500_000_000)), "tcp_timeout.reset", "1.5s"),
    ("no row for one that is the transitory one", PLAIN, "tcp_timeout.reset", None),
    (
        "nor for a transitory one that nothing has",
        NatProfile(tcp_timeout=TcpTimeout(partially_open=1, closing=1, reset=1)),
        "tcp_timeout.transitory",
        None,
    ),
    ("pooling where there are several addresses", NatProfile(external_addresses=2), "pooling", "paired"),
    ("none with one", PLAIN, "pooling", None),
    ("answers by session where a stranger may come in", kind("apdm-eif") or PLAIN, "session_reply", "false"),
    ("none where he may not", kind("apdm-apdf") or PLAIN, "session_reply", None),
    ("a limit of the explicit engine", PLAIN, "max_mappings", "65535"),
    ("none of the kernel's own, which has one for the machine", NATIVE, "max_mappings", None),
    ("an early packet leaves no trace", PLAIN, "early inbound packet", "leaves no trace"),
    (
        "unless the stack takes it",
        NATIVE.model_copy(update={"unsolicited": Unsolicited.ACCEPT}),
        "early inbound packet",
        "moves the port",
    ),
    ("no early packet where nobody knows the port", kind("apdm-apdf") or PLAIN, "early inbound packet", None),
    ("a firewall assigns no ports", NatProfile(mapping=NONE), "ports.preserve", None),
    ("a firewall without a filter forgets nothing", NatProfile(mapping=NONE, filtering=NONE), "udp_timeout", None),
    ("nor does it refuse", NatProfile(mapping=NONE, filtering=NONE), "unsolicited", None),
    ("where UDP is blocked, nothing is said of its filter", NatProfile(udp_blocked=True), "filtering", None),
    ("but of the mapping, by TCP", NatProfile(udp_blocked=True), "mapping", "endpoint-independent"),
]


@pytest.mark.parametrize(("sentence", "profile", "name", "value"), ROWS, ids=[entry[0] for entry in ROWS])
def test_expectations(sentence: str, profile: NatProfile, name: str, value: str | None) -> None:
    assert expected(profile).get(name) == value, sentence


@pytest.mark.parametrize(
    ("sentence", "unknowns", "seen", "declared", "agrees"),
    [
        ("what is seen is what is said", (), Seen("drop", "x"), "drop", True),
        ("what is seen is something else", (), Seen("accept", "x"), "drop", False),
        ("the measurement has decided", (), Seen("roughly drop", "x", True), "drop", True),
        (
            "an unknown is measured as its default",
            ("unsolicited",),
            Seen("drop", "x"),
            "unknown (the default, drop, stands in)",
            True,
        ),
        (
            "and disagrees where the default is not had",
            ("unsolicited",),
            Seen("accept", "x"),
            "unknown (the default, drop, stands in)",
            False,
        ),
        ("another field's unknown is not ours", ("unsolicited_more",), Seen("drop", "x"), "drop", True),
    ],
)
def test_row(sentence: str, unknowns: tuple[str, ...], seen: Seen, declared: str, agrees: bool) -> None:
    profile = NatProfile(unknowns=unknowns)
    assert row(profile, "unsolicited", "drop", seen) == Row("unsolicited", declared, seen.observed, agrees, "x"), (
        sentence
    )


def test_an_unknown_of_a_part_covers_its_fields() -> None:
    found = row(NatProfile(unknowns=("ports",)), "ports.preserve", "true", Seen("true", "x"))
    assert found.declared == "unknown (the default, true, stands in)"


def test_certificates_travel_as_json() -> None:
    rows = (Row("mapping", "none", "none", True, "x"), Row("filtering", "none", "endpoint-independent", False, "y"))
    found = Certificate("wall", "firewall", rows)
    data: dict[str, Any] = json.loads(json.dumps(found.to_json()))
    assert data["agrees"] is False
    assert data["behaviours"][1] == {
        "name": "filtering",
        "declared": "none",
        "observed": "endpoint-independent",
        "agrees": False,
        "how": "y",
    }
    assert Certificate.from_json(data) == found
    assert list(map(str, found.disagreements)) == ["filtering declared none, observed endpoint-independent"]
