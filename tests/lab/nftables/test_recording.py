"""What is sent as bytes is what the text says; and what was dropped can be read."""

from __future__ import annotations

import time
from ipaddress import IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import BrokenError, MachineError
from testbed.lab.namespaces import new_namespace
from testbed.lab.nftables import library
from testbed.lab.nftables.droplog import PacketLog, counters
from testbed.lab.nftables.library import Nftables
from testbed.lab.nftables.netfilter import Request, batch
from testbed.lab.nftables.prepare import load_text, prepare, scratch, text
from testbed.lab.nftables.recording import canonical, read_back
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
    Refresh,
    Unsolicited,
)
from testbed.spec.profile import Ports as P
from tests.lab.nftables.bench import EXTERNAL, INSIDE, bench
from tests.lab.nftables.strategies import profiles

pytestmark = pytest.mark.lab

APD = Dependence.ADDRESS_AND_PORT_DEPENDENT
FURTHER = {
    "hairpin internal": NatProfile(hairpinning=Hairpinning.INTERNAL_SOURCE),
    "hairpin external": NatProfile(hairpinning=Hairpinning.EXTERNAL_SOURCE),
    "hairpin external apdm": NatProfile(mapping=APD, hairpinning=Hairpinning.EXTERNAL_SOURCE),
    "several addresses": NatProfile(external_addresses=3),
    "arbitrary pooling": NatProfile(external_addresses=3, pooling=Pooling.ARBITRARY),
    "blocks": NatProfile(ports=P(block=2048)),
    "blocks on several addresses": NatProfile(ports=P(block=2048), external_addresses=2),
    "parity": NatProfile(ports=P(parity=True)),
    "counting down": NatProfile(ports=P(preserve=False, otherwise=Otherwise.SEQUENTIAL, step=-7)),
    "overload": NatProfile(ports=P(overload=True), engine=Engine.EXPLICIT),
    "session reply": NatProfile(mapping=APD, session_reply=True),
    "refresh outbound": NatProfile(refresh=Refresh.OUTBOUND),
    "refresh inbound": NatProfile(refresh=Refresh.INBOUND),
    "icmp": NatProfile(unsolicited=Unsolicited.ICMP_UNREACHABLE),
    "reset": NatProfile(unsolicited=Unsolicited.TCP_RESET),
    "udp blocked": NatProfile(udp_blocked=True),
    "few mappings": NatProfile(max_mappings=10),
    "masquerade": NatProfile(engine=Engine.NATIVE, ports=P(overload=True)),
    "masquerade random": NatProfile(engine=Engine.NATIVE, mapping=APD, ports=P(preserve=False, overload=True)),
    "masquerade accept": NatProfile(engine=Engine.NATIVE, unsolicited=Unsolicited.ACCEPT, ports=P(overload=True)),
    "firewall": NatProfile(mapping=Dependence.NONE),
    "open router": NatProfile(mapping=Dependence.NONE, filtering=Dependence.NONE),
}
NINES = {f"{name}-{suffix}": kind(f"{name}-{suffix}") for name in KINDS for suffix in PORTS}


@pytest.mark.parametrize("name", [*NINES, *FURTHER])
def test_replayed_is_loaded(name: str) -> None:
    """The same seed by both ways: object for object and byte for byte the same table in the kernel."""
    profile = NINES.get(name) or FURTHER[name]
    external = tuple(EXTERNAL + number for number in range(profile.external_addresses))
    several = (INSIDE, IPv4Network("10.1.0.0/16"))
    for seed, inside in ((0, several), (12345, several[1:])):
        translation = Translation(profile, external, inside)
        prepared = prepare(translation)
        with scratch() as netfilter:
            load_text(text(translation, seed))
            loaded = canonical(read_back(netfilter))
        with scratch() as netfilter:
            prepared.load(seed)
            assert canonical(read_back(netfilter)) == loaded
        assert any(request.command == 6 for request in loaded)


@given(profiles(), st.integers(0, 2**63 - 1), st.integers(8, 30))
@settings(max_examples=40)
def test_every_profile_is_refused_or_loaded(profile: NatProfile, seed: int, length: int) -> None:
    """Whatever is not refused, the kernel takes, and by both ways it is the same."""
    if list(refusals(profile)) or engine_of(profile) is Engine.USERSPACE:
        return
    external = tuple(EXTERNAL + number for number in range(profile.external_addresses))
    translation = Translation(profile, external, (IPv4Network((int(INSIDE[0]) >> 4 << 4, length), strict=False),))
    with scratch() as netfilter:
        load_text(text(translation, seed))
        loaded = canonical(read_back(netfilter))
    with scratch() as netfilter:
        prepare(translation).load(seed)
        assert canonical(read_back(netfilter)) == loaded


def test_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """NATs of one profile share a recording, whatever their addresses."""
    profile = NatProfile(udp_timeout=77 * SECOND)
    prepare(Translation(profile, (EXTERNAL,), (INSIDE,)))
    monkeypatch.setattr("testbed.lab.nftables.prepare._record", None)
    prepare(Translation(profile, (EXTERNAL + 5,), (IPv4Network("10.9.8.0/24"),)))
    with pytest.raises(TypeError):
        prepare(Translation(profile, (EXTERNAL,), (INSIDE,), wan="wan7"))


def test_rules_that_name_no_external_address_fit_any_number_of_them() -> None:
    """A firewall has the same rules with one address and with three: one recording serves them."""
    for count in (3, 1, 2):
        profile = NatProfile(mapping=Dependence.NONE, external_addresses=count, udp_timeout=78 * SECOND)
        external = tuple(EXTERNAL + number for number in range(count))
        with scratch() as netfilter:
            prepare(Translation(profile, external, (INSIDE,))).load(1)
            assert list(read_back(netfilter))


def test_nothing_half_made() -> None:
    """A batch is one transaction: where one message is refused, nothing is there, and the message is named."""
    with scratch() as netfilter:
        load_text(text(Translation(NatProfile(), (EXTERNAL,), (INSIDE,)), 1))
        requests = list(read_back(netfilter))
    broken = [*requests[:-1], Request(6, 0xC00, requests[-1].body.replace(b"testbed\0", b"no such\0"))]
    with scratch() as netfilter:
        with pytest.raises(BrokenError, match=f"the kernel refuses message {len(broken)} of the rules"):
            netfilter.send(batch(broken))
        assert list(read_back(netfilter)) == []


def test_library_says_what_is_wrong() -> None:
    with scratch(), Nftables() as nftables:
        with pytest.raises(MachineError, match="too old for these rules"):
            nftables.run("add table ip t frobnicate\n")
        with pytest.raises(BrokenError, match="libnftables refuses the rules"):
            nftables.run("add table ip t\nadd rule ip t nowhere tcp dport 99999 accept\n")


def test_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_NAME", "libnftables.so.0")
    library._library.cache_clear()
    try:
        with pytest.raises(MachineError, match=r"libnftables.so.0 is missing[\s\S]*apt-get install nftables"):
            Nftables.version()
    finally:
        library._library.cache_clear()


def test_drops_have_reason_time_and_packet() -> None:
    with bench(NatProfile(max_mappings=1)) as b:
        started = time.monotonic_ns()
        b.out(b.host(5000), b.remote(7000))
        b.admits(b.remote(7001), (str(EXTERNAL), 5000))
        b.admits(b.remote(7000), (str(EXTERNAL), 5001))
        b.send(b.host(5001), b.remote(7000).getsockname())
        drops = b.log.read()
        ended = time.monotonic_ns()
        assert [drop.reason for drop in drops] == ["no-permission", "no-mapping", "table-full"]
        # the kernel stamps in microseconds, and its two clocks are compared to within some more
        assert all(started - 1_000_000 <= drop.time <= ended + 1_000_000 for drop in drops)
        assert drops[0].time < drops[1].time
        ports = [int.from_bytes(drop.packet[20:22]) for drop in drops]
        assert ports[:2] == [7001, 7000]
        assert all(drop.packet[0] == 0x45 and len(drop.packet) == 36 for drop in drops)
        assert b.log.read() == []
        with b.nat:
            assert counters() == b.dropped() == {"no-mapping": 1, "no-permission": 1, "table-full": 1}


def test_log_that_overflows_says_so() -> None:
    """Packets are lost from the log, never from the counters; as made by default, it has room for thousands."""
    for room, is_enough in ((8192, False), (4 << 20, True)):
        with bench(NatProfile(), room=room) as b:
            for _ in range(2000):
                b.remote(7000).sendto(bytes(100), (str(EXTERNAL), 5000))
            b.admits(b.remote(7000), (str(EXTERNAL), 5000))
            assert (len(b.log.read()) == 2001) is is_enough
            assert (b.log.lost == 0) is is_enough
            assert b.dropped() == {"no-mapping": 2001}


def test_log_needs_no_rules_and_rules_need_no_log() -> None:
    namespace = new_namespace()
    with namespace, PacketLog() as log:
        assert log.read() == []
        assert log.counters() == {}
    namespace.close()
