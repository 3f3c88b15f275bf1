"""Which engine makes a profile, and what each says of what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given

from testbed.plan.engines import engine_name, engine_of, refusals, refused_by
from testbed.spec.profile import (
    SECOND,
    BlockAllocation,
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
from tests.lab.nftables.strategies import profiles

EI, AD, APD, NONE = Dependence
DYNAMIC = BlockAllocation.DYNAMIC
OURS = "; engine: userspace can"


def fields_of(sentences: tuple[str, ...]) -> list[str]:
    return [sentence.partition(": ")[0] for sentence in sentences]


# What a profile says, and the field that is refused (none where it can be done).
EXPLICIT_REFUSES: list[tuple[Mapping[str, Any], list[str]]] = [
    ({}, []),
    ({"mapping": NONE, "filtering": NONE}, []),
    ({"unsolicited": Unsolicited.ACCEPT}, ["unsolicited"]),
    ({"unsolicited": Unsolicited.ACCEPT, "ports": Ports(overload=True)}, ["unsolicited"]),
    ({"ports": Ports(block=63)}, ["ports.block"]),
    ({"ports": Ports(block=64)}, []),
    ({"ports": Ports(block=64, block_allocation=DYNAMIC)}, ["ports.block_allocation"]),
    ({"ports": Ports(block=8, block_allocation=DYNAMIC)}, ["ports.block_allocation"]),
    ({"ports": Ports(range=(1, 100))}, ["ports.range"]),
    ({"udp_timeout": 1_500_000}, ["udp_timeout"]),
    ({"udp_timeout": 19_000_000}, ["udp_timeout"]),
    ({"udp_timeout": 100 * 365 * 24 * 3600 * SECOND}, ["udp_timeout"]),
    ({"tcp_timeout": TcpTimeout(established=1)}, ["tcp_timeout.established"]),
    ({"tcp_timeout": TcpTimeout(transitory=1)}, ["tcp_timeout.transitory"]),
    ({"tcp_timeout": TcpTimeout(partially_open=SECOND)}, ["tcp_timeout.partially_open"]),
    ({"tcp_timeout": TcpTimeout(closing=SECOND, reset=SECOND)}, ["tcp_timeout.closing", "tcp_timeout.reset"]),
    ({"mapping": NONE, "tcp_timeout": TcpTimeout(reset=SECOND)}, ["tcp_timeout.reset"]),
]
# What no engine but masquerade can make sense of.
ALL_REFUSE: list[tuple[Mapping[str, Any], str]] = [
    ({"filtering": NONE}, "filtering"),
    ({"mapping": NONE, "unsolicited": Unsolicited.ACCEPT}, "unsolicited"),
    ({"ports": Ports(overload=True), "mapping": APD, "filtering": EI}, "ports.overload"),
    ({"ports": Ports(overload=True), "mapping": APD, "hairpinning": Hairpinning.EXTERNAL_SOURCE}, "hairpinning"),
    ({"ports": Ports(overload=True, block=256)}, "ports.overload"),
    ({"ports": Ports(block=256), "external_addresses": 2, "pooling": Pooling.ARBITRARY}, "pooling"),
]
NATIVE_REFUSES: list[tuple[Mapping[str, Any], str]] = [
    ({"mapping": AD}, "mapping"),
    ({"filtering": EI}, "filtering"),
    ({"ports": Ports(overload=True, otherwise=Otherwise.SEQUENTIAL)}, "ports.otherwise"),
    ({"ports": Ports(overload=True, parity=True)}, "ports.parity"),
    ({"ports": Ports(overload=True, block=256)}, "ports.block"),
    ({"ports": Ports(overload=True, preserve=False)}, "mapping"),
    ({"ports": Ports()}, "ports.overload"),
    ({"external_addresses": 2}, "external_addresses"),
    ({"hairpinning": Hairpinning.EXTERNAL_SOURCE}, "hairpinning"),
    ({"refresh": Refresh.OUTBOUND}, "refresh"),
    ({"max_mappings": 10}, "max_mappings"),
    ({"udp_timeout": SECOND // 2}, "udp_timeout"),
    ({"tcp_timeout": TcpTimeout(established=SECOND * 3 // 2)}, "tcp_timeout.established"),
    ({"tcp_timeout": TcpTimeout(reset=SECOND * 3 // 2)}, "tcp_timeout.reset"),
    ({"mapping": NONE}, "engine"),
]
ENGINES: list[tuple[str, Mapping[str, Any], Engine, str]] = [
    ("rules before a process", {}, Engine.EXPLICIT, "explicit"),
    ("sharing endpoints too", {"ports": Ports(overload=True)}, Engine.EXPLICIT, "explicit"),
    (
        "the clash of a NAT that shares endpoints is Linux's",
        {"ports": Ports(overload=True), "unsolicited": Unsolicited.ACCEPT},
        Engine.NATIVE,
        "native",
    ),
    ("that of one that does not is ours", {"unsolicited": Unsolicited.ACCEPT}, Engine.USERSPACE, "userspace"),
    ("what is named", {"ports": Ports(overload=True), "engine": Engine.NATIVE}, Engine.NATIVE, "native"),
    ("blocks that come and go", {"ports": Ports(block=64, block_allocation=DYNAMIC)}, Engine.USERSPACE, "userspace"),
    ("a timer of its own after a RST", {"tcp_timeout": TcpTimeout(reset=SECOND)}, Engine.USERSPACE, "userspace"),
    ("a firewall is rules of its own kind", {"mapping": NONE}, Engine.EXPLICIT, "firewall"),
    (
        "one whose timers rules do not have",
        {"mapping": NONE, "tcp_timeout": TcpTimeout(reset=SECOND)},
        Engine.USERSPACE,
        "userspace",
    ),
    ("where all refuse, who refuses least", {"filtering": NONE}, Engine.USERSPACE, "userspace"),
]


@pytest.mark.parametrize(("fields", "refused"), EXPLICIT_REFUSES)
def test_the_explicit_engine_names_who_can(fields: Mapping[str, Any], refused: list[str]) -> None:
    profile = NatProfile.model_validate({**fields, "engine": Engine.EXPLICIT})
    assert fields_of(refusals(profile)) == refused
    assert all(sentence.endswith(OURS) for sentence in refusals(profile))
    assert refusals(profile.model_copy(update={"engine": Engine.USERSPACE})) == ()


@pytest.mark.parametrize(("fields", "refused"), ALL_REFUSE)
@pytest.mark.parametrize("engine", [Engine.AUTO, Engine.EXPLICIT, Engine.USERSPACE])
def test_what_has_no_meaning_has_none_anywhere(engine: Engine, fields: Mapping[str, Any], refused: str) -> None:
    (sentence,) = refusals(NatProfile.model_validate({**fields, "engine": engine}))
    assert sentence.startswith(f"{refused}: ")
    assert OURS not in sentence


@pytest.mark.parametrize(("fields", "refused"), NATIVE_REFUSES)
def test_native_refuses_what_the_kernel_does_not_do(fields: Mapping[str, Any], refused: str) -> None:
    profile = NatProfile.model_validate({"ports": Ports(overload=True), "engine": Engine.NATIVE, **fields})
    (sentence,) = refusals(profile)
    assert sentence.startswith(f"{refused}: ")
    others = [e for e in (Engine.EXPLICIT, Engine.USERSPACE) if not refused_by(e, profile)]
    assert "; engine: explicit can" in sentence or Engine.EXPLICIT not in others or profile.mapping is NONE


@pytest.mark.parametrize(("sentence", "fields", "engine", "name"), ENGINES, ids=[row[0] for row in ENGINES])
def test_engine(sentence: str, fields: Mapping[str, Any], engine: Engine, name: str) -> None:
    profile = NatProfile.model_validate(fields)
    assert engine_of(profile) is engine, sentence
    assert engine_name(profile) == name


@given(profiles())
def test_auto_takes_one_that_can_if_there_is_one(profile: NatProfile) -> None:
    engines = (Engine.EXPLICIT, Engine.NATIVE, Engine.USERSPACE)
    auto = profile.model_copy(update={"engine": Engine.AUTO})
    able = [engine for engine in engines if not refused_by(engine, auto)]
    assert engine_of(auto) is (able[0] if able else Engine.USERSPACE)
    assert bool(refusals(auto)) is not bool(able)


@given(profiles())
def test_who_is_said_to_be_able_is(profile: NatProfile) -> None:
    ours = set(fields_of(refused_by(Engine.USERSPACE, profile)))
    for sentence in refused_by(Engine.EXPLICIT, profile):
        (field,) = fields_of((sentence,))
        assert sentence.endswith(OURS) is (field not in ours)
