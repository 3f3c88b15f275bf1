"""Rules as text, without a kernel: what each field changes, and what no rule ever says."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.lab.nftables.dice import PROTOCOLS, candidates, window, words
from testbed.lab.nftables.prepare import text
from testbed.lab.nftables.table import REASONS, counter, duration
from testbed.nat.ports import jhash_word
from testbed.plan.engines import engine_of, refusals
from testbed.plan.network import Translation
from testbed.spec.kinds import KINDS, PORTS, kind
from testbed.spec.profile import (
    SECOND,
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
SEQUENTIAL = Otherwise.SEQUENTIAL
INSIDE = IPv4Network("192.168.1.0/24")


def rules(profile: NatProfile, *, seed: int = 1, inside: tuple[IPv4Network, ...] = (INSIDE,)) -> str:
    external = tuple(IPv4Address("11.0.0.1") + number for number in range(profile.external_addresses))
    return text(Translation(profile, external, inside, wan="wan5", lan="lan5"), seed)


CHANGES = [
    # what a profile says, what then stands in its rules, what does not
    (
        {"mapping": EI},
        "map out_udp { type ipv4_addr . inet_service : ipv4_addr . inet_service;",
        "ct original ip daddr map @out",
    ),
    (
        {"mapping": AD},
        "map out_udp { type ipv4_addr . inet_service . ipv4_addr : ipv4_addr . inet_service;",
        "ct original proto-dst map",
    ),
    ({"mapping": APD}, "ct original proto-dst map @out_udp", "map out_udp { type ipv4_addr . inet_service : "),
    ({"mapping": NONE}, "set permitted_udp { type ipv4_addr . inet_service . ipv4_addr . inet_service;", "snat"),
    ({"mapping": NONE, "filtering": NONE}, "accept", "permitted"),
    ({"filtering": EI}, "ct zone set ip daddr . th dport map @permit_udp accept", "goto refuse_udp"),
    ({"filtering": AD}, "ct zone set ip daddr . th dport . ip saddr map @permit_udp", "th sport map @permit"),
    ({"filtering": APD}, "ip daddr . th dport . ip saddr . th sport map @permit_udp accept", "snat ip to :"),
    ({"ports": Ports(preserve=False)}, "jhash meta mark mod 64512 seed", "th sport 1024-65535"),
    (
        {"ports": Ports(preserve=True)},
        "th sport 1024-65535 ip saddr . th sport != @back_udp add @out_udp",
        "& 0xfffe",
    ),
    ({"ports": Ports(preserve=False, otherwise=SEQUENTIAL)}, "numgen inc mod 32256 offset", "jhash"),
    ({"ports": Ports(preserve=False, otherwise=SEQUENTIAL, step=-1)}, "udp sport set udp sport ^ 0xffff", "jhash"),
    ({"ports": Ports(preserve=False, otherwise=SEQUENTIAL, step=9)}, "chain next_udp_8_times {", "jhash"),
    ({"ports": Ports(range=(2000, 2999))}, "jhash meta mark mod 1000 seed", "64512"),
    ({"ports": Ports(parity=True)}, "udp sport set udp sport & 0xfffe", "masquerade"),
    ({"ports": Ports(block=1024)}, "set blocks { type ipv4_addr . inet_service; flags interval;", "masquerade"),
    ({"ports": Ports(overload=True), "engine": Engine.EXPLICIT}, "delete @back_udp", "!= @back_udp"),
    ({"external_addresses": 2}, "jhash ct original ip saddr mod 2 seed", "11.0.0.3"),
    ({"external_addresses": 2, "pooling": Pooling.ARBITRARY}, "ip saddr set jhash meta mark mod 2 seed", "11.0.0.3"),
    ({"session_reply": True, "mapping": APD}, "map zone_session_udp", "masquerade"),
    ({"session_reply": True, "mapping": EI}, "map permit_udp", "zone_session"),
    (
        {"hairpinning": Hairpinning.NONE},
        "goto drop_hairpin_refused",
        'iifname "lan5" ip daddr 11.0.0.1 meta l4proto udp dnat',
    ),
    (
        {"hairpinning": Hairpinning.INTERNAL_SOURCE},
        'iifname "lan5" ip daddr 11.0.0.1 meta l4proto udp dnat',
        "chain hairpin_udp",
    ),
    ({"hairpinning": Hairpinning.EXTERNAL_SOURCE}, "chain hairpin_answer_udp", "{ udp, tcp } goto drop_hairpin"),
    ({"udp_timeout": 10 * SECOND}, "set hot_udp {", "masquerade"),
    ({"udp_timeout": 9 * SECOND}, "set hot_tcp {", "hot_udp"),
    ({"udp_timeout": 90 * SECOND}, "protocol udp; l3proto ip; policy = { unreplied: 89, replied: 89 }", "180s"),
    ({"tcp_timeout": TcpTimeout(established=SECOND * 500, transitory=SECOND * 77)}, " timeout 500s", "7440s"),
    ({"tcp_timeout": TcpTimeout(established=SECOND * 500, transitory=SECOND * 77)}, "timeout 77s; size", "240s"),
    (
        {"tcp_timeout": TcpTimeout(established=SECOND * 50, transitory=SECOND * 50)},
        "timeout 50s; size",
        "ct expiration",
    ),
    ({"refresh": Refresh.OUTBOUND}, "update @out_udp { ct original", "update @back_udp { ct reply"),
    ({"refresh": Refresh.INBOUND}, "update @back_udp { ct reply", "update @out_udp { ct original"),
    ({"unsolicited": Unsolicited.ICMP_UNREACHABLE}, "reject with icmp port-unreachable", "tcp reset"),
    ({"unsolicited": Unsolicited.TCP_RESET}, "reject with tcp reset", "port-unreachable"),
    ({"max_mappings": 9}, "timeout 180s; size 9; }", "size 65535"),
    ({"udp_blocked": True}, "meta l4proto udp goto drop_udp_blocked", "masquerade"),
    ({"engine": Engine.NATIVE, "ports": Ports(overload=True)}, "masquerade\n", "fully-random"),
    (
        {
            "engine": Engine.NATIVE,
            "ports": Ports(overload=True),
            "tcp_timeout": TcpTimeout(partially_open=7 * SECOND, closing=8 * SECOND, reset=9 * SECOND),
        },
        "syn_sent: 7, syn_recv: 7, syn_sent2: 7, fin_wait: 8, close_wait: 8, last_ack: 8, time_wait: 8, close: 9",
        "240",
    ),
    (
        {"engine": Engine.NATIVE, "ports": Ports(overload=True, preserve=False), "mapping": APD},
        " fully-random\n",
        "@out",
    ),
    (
        {"engine": Engine.NATIVE, "ports": Ports(overload=True, range=(5000, 6000))},
        "masquerade to :5000-6000\n",
        "@out",
    ),
]


@pytest.mark.parametrize(("fields", "there", "not_there"), CHANGES)
def test_fields_change_the_rules(fields: dict[str, object], there: str, not_there: str) -> None:
    profile = NatProfile.model_validate(fields)
    assert list(refusals(profile)) == []
    compiled = rules(profile)
    assert there in compiled
    assert not_there not in compiled


@given(profiles(), st.integers(0, 2**63 - 1))
def test_every_profile_is_refused_or_well_formed(profile: NatProfile, seed: int) -> None:
    """What is named is declared, what is declared is used, drops have reasons, and nothing is left to chance."""
    if list(refusals(profile)) or engine_of(profile) is Engine.USERSPACE:
        return
    compiled = rules(profile, seed=seed, inside=(INSIDE, IPv4Network("10.0.0.0/28")))
    assert compiled == rules(profile, seed=seed, inside=(INSIDE, IPv4Network("10.0.0.0/28")))
    chains = set(re.findall(r"^  chain (\w+) \{$", compiled, re.MULTILINE))
    targets = set(re.findall(r"\b(?:jump|goto) (\w+)", compiled))
    hooked = set(re.findall(r"^  chain (\w+) \{\n    type", compiled, re.MULTILINE))
    endings = {f"drop_{counter(reason)}" for reason in REASONS}
    assert targets <= chains
    assert chains - endings - targets == hooked
    declared = set(re.findall(r"^  (?:set|map) (\w+) \{", compiled, re.MULTILINE))
    used = set(re.findall(r"@(?!th,|nh,)(\w+)", compiled))
    assert used == declared
    for line in compiled.splitlines():
        assert not re.search(r"\bdrop$", line) or line.startswith("    counter name"), "a drop without a reason"
        if engine_of(profile) is Engine.EXPLICIT or profile.mapping is NONE:
            assert "random" not in line, "the kernel's own dice"
        assert line.count("{") == line.count("}") or line.endswith("{") or line == "  }" or line == "}"


def test_seed_changes_nothing_but_words() -> None:
    for name in [f"{name}-{suffix}" for name in KINDS for suffix in PORTS]:
        profile = kind(name)
        assert profile is not None
        first, second = (rules(profile, seed=seed).splitlines() for seed in (1, 2))
        changed = [line for line, other in zip(first, second, strict=True) if line != other]
        assert len(changed) == len(PROTOCOLS)
        assert all("sport set (" in line for line in changed)
    native = NatProfile(engine=Engine.NATIVE, ports=Ports(overload=True))
    assert rules(native, seed=1) == rules(native, seed=2)


# ---------------------------------------------------------------------------- streams of ports


def test_hash_is_the_kernels() -> None:
    """jhash() of four bytes (include/linux/jhash.h), worked out line by line in the order of the C text."""
    assert [jhash_word(key, 77) for key in range(4)] == [0x2488CBE9, 0x807E5F31, 0x0BE22178, 0x3D36C8E3]


STREAMS = [
    Ports(preserve=False),
    Ports(preserve=False, range=(40000, 40009)),
    Ports(preserve=False, otherwise=SEQUENTIAL),
    Ports(preserve=False, otherwise=SEQUENTIAL, step=-5),
    Ports(preserve=False, otherwise=SEQUENTIAL, range=(40000, 40009), step=3),
]


@pytest.mark.parametrize("ports", STREAMS)
def test_streams_stay_in_their_range_and_follow_their_seed(ports: Ports) -> None:
    profile = NatProfile(ports=ports)
    for seed in range(3):
        for protocol in PROTOCOLS:
            found = list(islice(candidates(profile, seed, protocol), 300))
            assert all(ports.range[0] <= port <= ports.range[1] for port in found)
            assert found == list(islice(candidates(profile, seed, protocol), 300))
    if ports.range == (1024, 65535):
        assert words(profile, 1) != words(profile, 2)


def test_a_small_range_is_walked_from_its_first_port_on() -> None:
    profile = NatProfile(ports=Ports(preserve=False, otherwise=SEQUENTIAL, range=(40000, 40003)))
    assert window(profile) == 4
    assert list(islice(candidates(profile, 5, "udp"), 6)) == [40000, 40001, 40002, 40003, 40000, 40001]


def test_random_stream_uses_the_whole_range() -> None:
    """Of 64512 ports in 64 parts, 4096 candidates fall into each with 64 +- 8: none is nearly empty or full."""
    parts = [0] * 64
    for port in islice(candidates(NatProfile(ports=Ports(preserve=False)), 1, "udp"), 4096):
        parts[(port - 1024) // 1008] += 1
    assert min(parts) > 64 - 5 * 8
    assert max(parts) < 64 + 5 * 8


@pytest.mark.parametrize(("value", "written"), [(SECOND, "1s"), (20_000_000, "20ms"), (61_500_000_000, "61s500ms")])
def test_durations(value: int, written: str) -> None:
    assert duration(value) == written
