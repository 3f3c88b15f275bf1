"""What holds of every NAT, whatever its profile and whatever it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.datagram import Endpoint
from testbed.nat.nat import Nat
from testbed.nat.packet import (
    NO_FLAGS,
    AnyPacket,
    Decision,
    Dropped,
    Flag,
    Forwarded,
    Hairpinned,
    IcmpError,
    Packet,
    Reason,
    Transport,
)
from testbed.plan.network import Translation
from testbed.spec.profile import Dependence, NatProfile, Refresh
from tests.lab.nftables.strategies import profiles
from tests.nat.bench import EXTERNAL, INSIDE, SECOND, Bench, external, host, remote

DEPENDENCES = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT_DEPENDENT,
)
CALM = settings(max_examples=40)
"""A busy machine breaks no law."""
HOSTS = st.builds(host, st.sampled_from((5000, 5001)), st.integers(0, 2))
REMOTES = st.builds(remote, st.sampled_from((7000, 7001)), st.integers(0, 2))
FLAGS = st.sampled_from((Flag.SYN, Flag.SYN | Flag.ACK, Flag.ACK, Flag.FIN | Flag.ACK, Flag.RST, Flag(0)))
TRANSPORTS = st.sampled_from(Transport)


@dataclass(frozen=True)
class Step:
    """One packet, after a while. An external endpoint is named by its number among those seen so far."""

    wait: int
    source: Endpoint
    to: Endpoint | int
    transport: Transport = Transport.UDP
    flags: Flag = NO_FLAGS
    is_error: bool = False


WAITS = st.sampled_from((0, 0, 1, 50_000_000, 20 * SECOND, 200 * SECOND))


def steps(transports: st.SearchStrategy[Transport], errors: st.SearchStrategy[bool]) -> st.SearchStrategy[Step]:
    """From inside to anywhere, and from outside to the NAT or past it."""
    return st.one_of(
        st.builds(Step, WAITS, HOSTS, REMOTES | HOSTS | st.integers(0, 9), transports, FLAGS, errors),
        st.builds(Step, WAITS, REMOTES, st.integers(0, 9) | HOSTS, transports, FLAGS, errors),
    )


STEPS = steps(TRANSPORTS, st.booleans())
SCRIPTS = st.lists(STEPS, max_size=40)


class Played:
    """A script played to a NAT: what it decided, and when."""

    def __init__(self, profile: NatProfile, script: list[Step], seed: int = 1, fixed: bool = False) -> None:
        """`fixed`: the numbers name ports, so that two NATs are sent the same packets."""
        addresses = tuple(EXTERNAL + number for number in range(profile.external_addresses))
        self.nat = Nat(Translation(profile, addresses, (INSIDE,)), seed)
        self.now = SECOND
        self.seen: list[Endpoint] = []
        self.decisions: list[Decision] = []
        for step in script:
            self.now += step.wait
            destination = step.to if isinstance(step.to, Endpoint) else self._external(step.to, fixed)
            self.decisions.append(self._send(step, destination))

    def _external(self, number: int, fixed: bool) -> Endpoint:
        if fixed or not self.seen:
            return external(5000 + number)
        return self.seen[number % len(self.seen)]

    def _send(self, step: Step, destination: Endpoint) -> Decision:
        packet: AnyPacket = Packet(step.transport, step.source, destination, step.flags)
        if step.is_error:
            packet = IcmpError(step.source.host, destination.host, Packet(step.transport, destination, step.source))
        is_inside = step.source.host.startswith("192.")
        decision = (self.nat.outbound if is_inside else self.nat.inbound)(packet, self.now)
        match decision:
            case Forwarded(Packet(source=source)) if is_inside:
                self.seen.append(source)
        return decision

    def shared(self) -> list[tuple[Endpoint, Endpoint]]:
        """Pairs of live mappings that share an external endpoint."""
        live = self.nat.mappings(self.now)
        return [
            (one.external, other.external)
            for one, other in combinations(live, 2)
            if (one.transport, one.external) == (other.transport, other.external)
        ]


@CALM
@given(profiles(), SCRIPTS)
def test_never_crashes_and_decides_the_same_again(profile: NatProfile, script: list[Step]) -> None:
    assert Played(profile, script).decisions == Played(profile, script).decisions


@CALM
@given(profiles(), SCRIPTS)
def test_forgetting_changes_no_decision(profile: NatProfile, script: list[Step]) -> None:
    """`handle_timeout` is housekeeping: who never calls it sees the same NAT."""
    swept = Played(profile, [])
    for step in script:
        swept.now += step.wait
        swept.nat.handle_timeout(swept.now)
        due = swept.nat.next_timeout()
        assert due is None or due > swept.now
        destination = step.to if isinstance(step.to, Endpoint) else swept._external(step.to, False)
        swept.decisions.append(swept._send(step, destination))
    assert swept.decisions == Played(profile, script).decisions


@CALM
@given(profiles(), SCRIPTS)
def test_no_two_mappings_share_an_endpoint_unless_they_may(profile: NatProfile, script: list[Step]) -> None:
    """RFC 4787 REQ-1: no port overloading, unless the profile has it."""
    played = Played(profile, script)
    translates = profile.mapping is not Dependence.NONE
    if translates and not profile.ports.overload and profile.engine.value != "native":
        assert played.shared() == []


@CALM
@given(profiles(), SCRIPTS)
def test_inside_addresses_do_not_leak(profile: NatProfile, script: list[Step]) -> None:
    """What goes out shows an external address, what comes in reaches an inside one, and the other end is untouched."""
    played = Played(profile, script)
    for step, decision in zip(script, played.decisions, strict=True):
        match decision:
            case Forwarded(Packet(source=source, destination=destination)) if profile.mapping is not Dependence.NONE:
                if step.source.host.startswith("12."):
                    assert source == step.source
                    assert destination.host.startswith("192.")
                elif destination.host.startswith("12."):
                    assert source.host.startswith("11.")
            case Hairpinned(packet):
                assert packet.destination.host.startswith("192.")
            case Dropped(reason):
                assert isinstance(reason, Reason)


@CALM
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200 * SECOND)), min_size=1, max_size=30))
def test_expiry_is_exact_whoever_renews(script: list[tuple[bool, int]]) -> None:
    """A mapping is there if and only if less than its lifetime has passed since the last packet that renewed it."""
    bench = Bench(NatProfile(filtering=Dependence.ENDPOINT_INDEPENDENT))
    last = None
    for is_outbound, wait in script:
        bench.now += wait
        alive = last is not None and bench.now - last < 180 * SECOND
        assert len(bench.nat.mappings(bench.now)) == alive
        if is_outbound:
            bench.out(host(), remote())
        else:
            assert bench.admits(remote(), external()) is alive
        if is_outbound or alive:
            last = bench.now


@pytest.mark.parametrize("mapping", DEPENDENCES)
@CALM
@given(st.lists(steps(st.just(Transport.UDP), st.just(False)), max_size=40))
def test_a_stricter_filter_never_helps_a_packet(mapping: Dependence, script: list[Step]) -> None:
    """What a stricter filter lets through, a laxer one lets through too: packet by packet, the same packets.

    Where packets from outside renew mappings, or choose the way of an answer, a packet that was let through changes
    what comes later; so this law is about NATs where they do neither.
    """
    played = [
        Played(NatProfile(mapping=mapping, filtering=filtering, refresh=Refresh.OUTBOUND), script, fixed=True)
        for filtering in DEPENDENCES
    ]
    for lax, strict in pairwise(played):
        for one, other in zip(lax.decisions, strict.decisions, strict=True):
            assert not isinstance(one, Dropped) or isinstance(other, Dropped)
            assert isinstance(other, Dropped) or one == other
