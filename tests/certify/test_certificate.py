"""Certificates of real NATs: the nine kinds are what they say, and a NAT that lies is caught where it lies."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace

import pytest

from testbed.certify import duration
from testbed.certify.certificate import MEASUREMENTS, certify, quick
from testbed.certify.rows import QUICK, Certificate, Seen, expectations
from testbed.certify.stage import Stage
from testbed.certify.subject import Subject
from testbed.plan.engines import engine_of, refusals
from testbed.spec.kinds import KINDS, kind
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

pytestmark = pytest.mark.lab

EI, AD, APD = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT_DEPENDENT,
)
NATIVE = NatProfile(name="native", engine=Engine.NATIVE, ports=Ports(overload=True))
RANDOM = NatProfile(name="random", mapping=APD, ports=Ports(preserve=False))
FIREWALL = NatProfile(name="firewall", mapping=Dependence.NONE)
BLOCKS = Ports(preserve=False, block=128)
SEQUENTIAL = Ports(preserve=False, otherwise=Otherwise.SEQUENTIAL)
COMING_AND_GOING = Ports(preserve=False, block=64, block_allocation=BlockAllocation.DYNAMIC)
PBA = NatProfile(
    name="pba",
    mapping=APD,
    ports=COMING_AND_GOING.model_copy(update={"block": 16, "blocks_per_host": 2}),
)
FINER = NatProfile(
    name="finer", tcp_timeout=TcpTimeout(partially_open=30 * SECOND, closing=60 * SECOND, reset=5 * SECOND)
)
NO_SYN = "table ip more { chain c { type filter hook forward priority -10; iifname wan0 tcp flags == syn drop; }; }"
NO_ERRORS = NO_SYN.replace("tcp flags == syn", "icmp type time-exceeded")


def but(profile: NatProfile, **changes: object) -> NatProfile:
    """The same profile, of the same name, which behaves otherwise."""
    return profile.model_copy(update=changes)


def finer(**changes: int) -> NatProfile:
    """FINER with other timers of TCP."""
    return but(FINER, tcp_timeout=FINER.tcp_timeout.model_copy(update=changes))


def profile_of(name: str) -> NatProfile:
    found = kind(name)
    assert found is not None
    return found


HONEST: Mapping[str, NatProfile] = {
    **{name: profile_of(name) for name in KINDS},
    **{f"userspace, {name}": but(profile_of(name), engine=Engine.USERSPACE) for name in KINDS},
    "blocks that come and go": PBA,
    "blocks that come and go, in which ports are kept": NatProfile(
        external_addresses=4,
        ports=Ports(block=64, block_allocation=BlockAllocation.DYNAMIC, blocks_per_host=3, parity=True),
    ),
    "TCP's timers, each its own": FINER,
    "native, a timer after a reset": but(NATIVE, tcp_timeout=TcpTimeout(reset=5 * SECOND)),
    "firewall, with a timer after a reset": but(
        FIREWALL, filtering=AD, unsolicited=Unsolicited.TCP_RESET, tcp_timeout=TcpTimeout(reset=5 * SECOND)
    ),
    "userspace, the port clash": NatProfile(unsolicited=Unsolicited.ACCEPT),
    "userspace, hairpins": NatProfile(
        filtering=EI, hairpinning=Hairpinning.EXTERNAL_SOURCE, refresh=Refresh.OUTBOUND, engine=Engine.USERSPACE
    ),
    "userspace, no UDP": NatProfile(udp_blocked=True, engine=Engine.USERSPACE),
    "userspace, lives shortly": NatProfile(udp_timeout=1_500_000_000, ports=Ports(range=(500, 900))),
    "native": NATIVE,
    "native, at random, in a range": NatProfile(
        mapping=APD, engine=Engine.NATIVE, ports=Ports(preserve=False, overload=True, range=(2000, 9999))
    ),
    "native, the port clash": but(NATIVE, unsolicited=Unsolicited.ACCEPT),
    "firewall": FIREWALL,
    "firewall that lets everything in": but(FIREWALL, filtering=Dependence.NONE),
    "firewall that tells by address, and rejects": but(
        FIREWALL, filtering=AD, unsolicited=Unsolicited.ICMP_UNREACHABLE, refresh=Refresh.OUTBOUND
    ),
    "no UDP": NatProfile(udp_blocked=True),
    "four addresses, at random": NatProfile(mapping=APD, external_addresses=4, pooling=Pooling.ARBITRARY),
    "sixteen addresses, paired": NatProfile(external_addresses=16),
    "two down": NatProfile(
        mapping=APD, ports=Ports(preserve=False, otherwise=Otherwise.SEQUENTIAL, step=-2), refresh=Refresh.INBOUND
    ),
    "even ports in sequence": NatProfile(ports=Ports(otherwise=Otherwise.SEQUENTIAL, parity=True)),
    "blocks": NatProfile(mapping=APD, ports=Ports(block=256)),
    "overloading by remote": NatProfile(mapping=APD, ports=Ports(overload=True), engine=Engine.EXPLICIT),
    "overloading by the newest": NatProfile(filtering=EI, ports=Ports(overload=True), engine=Engine.EXPLICIT),
    "hairpins and answers by session": NatProfile(
        mapping=APD, filtering=AD, hairpinning=Hairpinning.EXTERNAL_SOURCE, session_reply=True
    ),
    "a small table": NatProfile(mapping=APD, max_mappings=3, unsolicited=Unsolicited.TCP_RESET),
    "few ports": NatProfile(mapping=APD, ports=Ports(range=(40000, 40003), preserve=False)),
}

LIES: Mapping[str, tuple[NatProfile, NatProfile, set[str]]] = {
    # what it claims, what it is, and the rows that say so
    "it maps by address": (profile_of("eim-eif"), but(profile_of("eim-eif"), mapping=AD), {"mapping"}),
    "it filters by port": (profile_of("eim-adf"), but(profile_of("eim-adf"), filtering=APD), {"filtering"}),
    "it preserves no ports": (
        NatProfile(),
        but(NatProfile(), ports=Ports(preserve=False)),
        {"ports.preserve", "early inbound packet"},
    ),
    "it counts": (RANDOM, but(RANDOM, ports=SEQUENTIAL), {"ports.otherwise", "ports.range"}),
    "it counts in threes": (
        but(RANDOM, ports=SEQUENTIAL),
        but(RANDOM, ports=SEQUENTIAL.model_copy(update={"step": 3})),
        {"ports.step"},
    ),
    "its range is smaller": (
        RANDOM,
        but(RANDOM, ports=Ports(preserve=False, range=(1024, 25000))),
        {"ports.range"},
    ),
    "it does not keep parity": (
        but(RANDOM, ports=Ports(preserve=False, parity=True)),
        RANDOM,
        {"ports.parity"},
    ),
    "its blocks are smaller": (
        but(RANDOM, ports=BLOCKS),
        but(RANDOM, ports=Ports(preserve=False, block=64)),
        {"ports.block"},
    ),
    "it overloads kept ports, and knows no limit": (NatProfile(), NATIVE, {"ports.overload", "max_mappings"}),
    "it overloads random ports": (
        RANDOM,
        but(RANDOM, ports=Ports(preserve=False, overload=True), engine=Engine.EXPLICIT),
        {"ports.overload"},
    ),
    "it has two addresses": (NatProfile(), but(NatProfile(), external_addresses=2), {"external_addresses"}),
    "it does not pair": (
        but(RANDOM, external_addresses=4),
        but(RANDOM, external_addresses=4, pooling=Pooling.ARBITRARY),
        {"pooling"},
    ),
    "it hairpins": (
        NatProfile(),
        but(NatProfile(), hairpinning=Hairpinning.EXTERNAL_SOURCE),
        {"hairpinning"},
    ),
    "it hairpins with inside sources": (
        but(NatProfile(), hairpinning=Hairpinning.EXTERNAL_SOURCE),
        but(NatProfile(), hairpinning=Hairpinning.INTERNAL_SOURCE),
        {"hairpinning"},
    ),
    "it answers by session": (
        but(RANDOM, filtering=EI),
        but(RANDOM, filtering=EI, session_reply=True),
        {"session_reply"},
    ),
    "its table is smaller": (NatProfile(), but(NatProfile(), max_mappings=200), {"max_mappings"}),
    "its table is larger": (
        but(NatProfile(), max_mappings=20),
        but(NatProfile(), max_mappings=21),
        {"max_mappings"},
    ),
    "it forgets sooner": (NatProfile(), but(NatProfile(), udp_timeout=150 * SECOND), {"udp_timeout"}),
    "native, it forgets later": (NATIVE, but(NATIVE, udp_timeout=300 * SECOND), {"udp_timeout"}),
    "what comes in does not refresh": (NatProfile(), but(NatProfile(), refresh=Refresh.OUTBOUND), {"refresh"}),
    "what goes out does not refresh": (NatProfile(), but(NatProfile(), refresh=Refresh.INBOUND), {"refresh"}),
    "it rejects": (
        NatProfile(),
        but(NatProfile(), unsolicited=Unsolicited.ICMP_UNREACHABLE),
        {"unsolicited"},
    ),
    "it resets": (NatProfile(), but(NatProfile(), unsolicited=Unsolicited.TCP_RESET), {"unsolicited"}),
    "its own stack listens": (
        NATIVE,
        but(NATIVE, unsolicited=Unsolicited.ACCEPT),
        {"unsolicited", "early inbound packet"},
    ),
    "it drops open connections sooner": (
        NatProfile(),
        but(NatProfile(), tcp_timeout=TcpTimeout(established=3600 * SECOND)),
        {"tcp_timeout.established"},
    ),
    "native, it drops opening connections later": (
        NATIVE,
        but(NATIVE, tcp_timeout=TcpTimeout(transitory=300 * SECOND)),
        {"tcp_timeout.transitory"},
    ),
    "its blocks that come and go are smaller": (
        PBA,
        but(PBA, ports=PBA.ports.model_copy(update={"block": 8, "blocks_per_host": 4})),
        {"ports.block", "ports.blocks_per_host", "ports.block_allocation"},
    ),
    "it gives a block more": (
        PBA,
        but(PBA, ports=PBA.ports.model_copy(update={"blocks_per_host": 3})),
        {"ports.blocks_per_host"},
    ),
    "its blocks do not come back": (
        but(RANDOM, ports=COMING_AND_GOING),
        but(RANDOM, ports=Ports(preserve=False, block=64)),
        {"ports.block_allocation"},
    ),
    "it drops opening connections sooner": (FINER, finer(partially_open=25 * SECOND), {"tcp_timeout.partially_open"}),
    "it keeps closing connections": (FINER, finer(closing=90 * SECOND), {"tcp_timeout.closing"}),
    "it keeps reset connections": (FINER, finer(reset=6 * SECOND), {"tcp_timeout.reset"}),
    "userspace, it hairpins": (
        but(RANDOM, engine=Engine.USERSPACE),
        but(RANDOM, engine=Engine.USERSPACE, hairpinning=Hairpinning.EXTERNAL_SOURCE),
        {"hairpinning"},
    ),
    "it claims to block UDP": (but(FIREWALL, udp_blocked=True), FIREWALL, {"udp_blocked"}),
    "a firewall claims to admit all": (
        but(FIREWALL, filtering=Dependence.NONE),
        but(FIREWALL, filtering=EI),
        {"filtering"},
    ),
}
SABOTAGE: Mapping[str, tuple[Subject, str]] = {
    "SYNs from outside are dropped": (Subject(NATIVE, more_rules=NO_SYN), "tcp simultaneous open"),
    "ICMP errors are dropped": (Subject(NATIVE, more_rules=NO_ERRORS), "icmp errors inward"),
}


@pytest.fixture(scope="module")
def certificates() -> Mapping[str, Certificate]:
    """Of all of the above, measured together: most of the time they wait for timers."""
    subjects = {name: Subject(profile) for name, profile in HONEST.items()}
    subjects |= {name: Subject(claim, made) for name, (claim, made, _) in LIES.items()}
    subjects |= {name: subject for name, (subject, _) in SABOTAGE.items()}
    for subject in subjects.values():
        for profile in (subject.profile, subject.made or subject.profile):
            assert list(refusals(profile)) == []
    return dict(zip(subjects, certify(list(subjects.values())), strict=True))


@pytest.mark.parametrize("name", HONEST)
def test_a_nat_is_what_its_profile_says(name: str, certificates: Mapping[str, Certificate]) -> None:
    found = certificates[name]
    assert [str(row) for row in found.disagreements] == []
    assert found.agrees
    assert [row.name for row in found.rows] == list(expectations(HONEST[name], engine_of(HONEST[name])))


@pytest.mark.parametrize("name", LIES)
def test_a_nat_that_lies_is_caught_in_the_row_it_lies_about(name: str, certificates: Mapping[str, Certificate]) -> None:
    found = certificates[name]
    assert {row.name for row in found.disagreements} == LIES[name][2], [str(row) for row in found.disagreements]
    assert not found.agrees


@pytest.mark.parametrize("name", SABOTAGE)
def test_rules_beside_the_nats_own_are_noticed(name: str, certificates: Mapping[str, Certificate]) -> None:
    assert [row.name for row in certificates[name].disagreements] == [SABOTAGE[name][1]]


def test_a_restart_that_keeps_mappings_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Stage.start

    def lazy(stage: Stage, made: NatProfile | None = None) -> None:
        if not hasattr(stage, "is_started"):
            real(stage, made)
        stage.is_started = True  # type: ignore[attr-defined]

    def restarted(stage: Stage) -> dict[str, Seen]:
        with monkeypatch.context() as patch:
            patch.setattr(Stage, "start", lazy)
            return duration.restarted(stage)

    rows = tuple(replace(m, measure=restarted) if m.rows == ("restart",) else m for m in MEASUREMENTS)
    monkeypatch.setattr("testbed.certify.certificate.MEASUREMENTS", rows)
    (found,) = certify([Subject(NATIVE)])
    assert [row.name for row in found.disagreements] == ["restart"]


def test_every_row_that_there_is_is_lied_about() -> None:
    """One planted lie a behaviour: a new row needs one, too."""
    told = {name for _, _, names in LIES.values() for name in names} | {name for _, name in SABOTAGE.values()}
    assert told | {"restart"} == {name for measurement in MEASUREMENTS for name in measurement.rows}


def test_the_short_form_has_the_rows_that_decide_a_meeting() -> None:
    profiles = [profile_of("eim-adf"), NATIVE, FIREWALL, but(RANDOM, ports=SEQUENTIAL)]
    for profile, found in zip(profiles, quick(profiles), strict=True):
        assert found.agrees, [str(row) for row in found.disagreements]
        wanted = expectations(profile, engine_of(profile))
        assert [row.name for row in found.rows] == [name for name in wanted if name in QUICK]


def test_certificates_leave_nothing_and_come_in_order() -> None:
    before = socket.if_nameindex()
    found = quick([profile_of(name) for name in KINDS])
    assert [one.profile for one in found] == list(KINDS)
    assert socket.if_nameindex() == before
