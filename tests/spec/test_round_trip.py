"""What is written as a person writes it is read back as the same value."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from testbed.spec import profile_rules
from testbed.spec.kinds import ALL_KINDS, kind
from testbed.spec.link import Distribution, GilbertElliott, Impairment
from testbed.spec.model import CONTEXT_FILE, CONTEXT_WRITTEN, Model
from testbed.spec.problems import Source
from testbed.spec.profile import (
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
from testbed.spec.profile_rules import NOT_WRITTEN
from testbed.spec.scenario import Scenario
from testbed.spec.yaml_text import parse
from testbed.units import MOST, PPM

TIMES = st.integers(0, MOST)
SHARES = st.integers(0, PPM)
IMPAIRMENTS = st.builds(
    Impairment,
    delay=TIMES,
    jitter=TIMES,
    correlation=SHARES,
    distribution=st.sampled_from(Distribution),
    loss=SHARES | st.builds(GilbertElliott, p=SHARES, r=SHARES, good_loss=SHARES, bad_loss=SHARES),
    duplicate=SHARES,
    rate=st.none() | st.integers(1, MOST),
    limit=st.integers(1, 10_000_000),
)
PORTS = st.builds(
    Ports,
    preserve=st.booleans(),
    otherwise=st.sampled_from(Otherwise),
    range=st.tuples(st.integers(1, 30_000), st.integers(30_000, 65_535)),
    parity=st.booleans(),
    block=st.none() | st.integers(1, 65_535),
    overload=st.booleans(),
)
PROFILES = st.builds(
    NatProfile,
    description=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20),
    sources=st.lists(st.sampled_from(["RFC 4787", "a book: page 5", "#", "null", "5"]), max_size=2).map(tuple),
    mapping=st.sampled_from(Dependence),
    filtering=st.sampled_from(Dependence),
    ports=PORTS,
    pooling=st.sampled_from(Pooling),
    external_addresses=st.integers(1, 64),
    session_reply=st.booleans(),
    hairpinning=st.sampled_from(Hairpinning),
    udp_timeout=TIMES,
    tcp_timeout=st.builds(TcpTimeout, established=TIMES, transitory=TIMES),
    refresh=st.sampled_from(Refresh),
    unsolicited=st.sampled_from(Unsolicited),
    max_mappings=st.integers(1, 65_535),
    udp_blocked=st.booleans(),
    engine=st.sampled_from(Engine),
)


def written(value: Model, exclude: tuple[str, ...] = ()) -> str:
    """A value as the text of a file: JSON, which YAML reads."""
    data: Any = value.model_dump(mode="json", context=CONTEXT_WRITTEN, exclude_unset=True, exclude=set(exclude))
    return json.dumps(data, ensure_ascii=False)


@given(value=IMPAIRMENTS)
def test_one_direction_of_a_link(value: Impairment) -> None:
    assert Impairment.model_validate(parse("x.yaml", written(value)).data, context=CONTEXT_FILE) == value


@given(value=PROFILES)
def test_a_nat_profile(value: NatProfile) -> None:
    assume(not list(value.contradictions()))
    source = Source("x.yaml", parse("x.yaml", written(value, exclude=NOT_WRITTEN)))
    assert profile_rules.build(source, source.tree.data, "unnamed") == value, source.problems


def test_every_built_in_kind() -> None:
    for name in ALL_KINDS:
        value = kind(name)
        assert value is not None
        source = Source("x.yaml", parse("x.yaml", written(value, exclude=NOT_WRITTEN)))
        read = profile_rules.build(source, source.tree.data, "x")
        assert read is not None
        assert read.model_copy(update={"name": name}) == value, source.problems


@given(deadline=TIMES, trials=st.integers(1, 1_000_000), seed=st.integers(0, 2**63 - 1))
def test_a_scenario(deadline: int, trials: int, seed: int) -> None:
    value = Scenario(topology="x", deadline=deadline, trials=trials, seed=seed, matrix=({"nat": ("5%", 5, True)},))
    assert Scenario.model_validate(parse("x.yaml", written(value)).data, context=CONTEXT_FILE) == value


def test_evidence_and_unknowns_are_kept() -> None:
    text = """\
mapping: {value: address-dependent, source: a book}
udp_timeout: {value: unknown, source: the book does not say}
ports: {step: {value: unknown, source: nor does it say this}, preserve: {value: false, source: page 5}}
tcp_timeout: {value: {established: {value: 2h, source: page 7}}, source: a chapter}
"""
    source = Source("x.yaml", parse("x.yaml", text))
    profile = profile_rules.build(source, source.tree.data, "x")
    assert profile is not None, source.problems
    assert profile.unknowns == ("udp_timeout", "ports.step")
    assert profile.udp_timeout == NatProfile().udp_timeout, "the default stands in"
    assert profile.evidence == {
        "mapping": "a book",
        "ports.preserve": "page 5",
        "tcp_timeout": "a chapter",
        "tcp_timeout.established": "page 7",
    }
