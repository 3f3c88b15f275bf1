"""Profiles for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from testbed.spec.profile import (
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


@st.composite
def profiles(draw: st.DrawFn) -> NatProfile:
    """Any profile: most of its fields drawn, refused or not."""
    first = draw(st.sampled_from((1024, 1024, 1, 40000)))
    ports = Ports(
        preserve=draw(st.booleans()),
        otherwise=draw(st.sampled_from(Otherwise)),
        step=draw(st.integers(-1024, 1024).filter(bool)),
        range=(first, draw(st.sampled_from((65535, first + 999, first + 3)))),
        parity=draw(st.booleans()),
        block=draw(st.none() | st.none() | st.integers(60, 4096)),
        overload=draw(st.booleans()),
        block_allocation=draw(st.sampled_from(BlockAllocation)),
        blocks_per_host=draw(st.integers(1, 8)),
    )
    durations = st.integers(15, 10**8).map(lambda milliseconds: milliseconds * 1_000_000)
    return NatProfile(
        mapping=draw(st.sampled_from(Dependence)),
        filtering=draw(st.sampled_from(Dependence)),
        ports=ports,
        pooling=draw(st.sampled_from(Pooling)),
        external_addresses=draw(st.integers(1, 4)),
        session_reply=draw(st.booleans()),
        hairpinning=draw(st.sampled_from(Hairpinning)),
        udp_timeout=draw(durations),
        tcp_timeout=TcpTimeout(
            established=draw(durations), transitory=draw(durations), reset=draw(st.none() | st.none() | durations)
        ),
        refresh=draw(st.sampled_from(Refresh)),
        unsolicited=draw(st.sampled_from(Unsolicited)),
        max_mappings=draw(st.integers(1, 65535)),
        udp_blocked=draw(st.booleans()),
        engine=draw(st.sampled_from((Engine.AUTO, Engine.AUTO, Engine.EXPLICIT, Engine.NATIVE, Engine.USERSPACE))),
    )
