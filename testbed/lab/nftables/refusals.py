"""What an engine cannot do of a profile, by name and with the reason, before anything is built.

Rule 1: a sentence begins with the field that it is about; a field that is not refused is done as it says.
Rule 2: what no engine here does says so; what the other engine does names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from testbed.lab.nftables.keys import at_least_as_strict
from testbed.spec.profile import (
    PORT_MAX,
    SECOND,
    Dependence,
    Engine,
    Hairpinning,
    NatProfile,
    Pooling,
    Refresh,
    Unsolicited,
)

_MILLISECOND = 1_000_000
_SHORTEST = 20 * _MILLISECOND
"""A map's timer is exact to a few jiffies of 4 ms."""
_LONGEST = 10 * 365 * 24 * 3600 * SECOND
_SMALLEST_BLOCK = 64
_LEAST_LAST_PORT = 1024


def refusals(profile: NatProfile) -> Iterable[str]:
    """Sentences `field: why`; none where the profile can be done as it stands."""
    engine = engine_of(profile)
    if profile.mapping is Dependence.NONE:
        return tuple(_refused_of_firewall(profile))
    return tuple(_refused_by_native(profile) if engine is Engine.NATIVE else _refused_by_explicit(profile))


def engine_of(profile: NatProfile) -> Engine:
    """The engine that makes this profile: the one it names, else the first that can, else the explicit one."""
    if profile.engine is not Engine.AUTO:
        return profile.engine
    if any(_refused_by_explicit(profile)) and not any(_refused_by_native(profile)):
        return Engine.NATIVE
    return Engine.EXPLICIT


def _refused_by_explicit(profile: NatProfile) -> Iterator[str]:
    ports = profile.ports
    yield from _refused_timers(profile)
    if profile.filtering is Dependence.NONE:
        yield "filtering: 'none' means a NAT without a filter; write endpoint-independent, which admits every remote"
    if profile.unsolicited is Unsolicited.ACCEPT:
        yield (
            "unsolicited: the port clash comes from the kernel's own port choice, which the explicit engine does not "
            "use; engine: native has it"
        )
    if ports.overload and profile.mapping is not Dependence.ENDPOINT_INDEPENDENT:
        if not at_least_as_strict(profile.filtering, profile.mapping):
            yield (
                "ports.overload: mappings to different remotes can share an external endpoint only where the filter "
                "tells the remotes apart; make filtering as strict as mapping"
            )
        if profile.hairpinning is not Hairpinning.NONE:
            yield "hairpinning: a shared external endpoint does not say which host is meant; set overload: false"
    if ports.overload and ports.block is not None:
        yield "ports.overload: a block belongs to one subscriber, who does not share it"
    if ports.block is not None and profile.pooling is Pooling.ARBITRARY:
        yield "pooling: a block lies on one external address, so its subscriber keeps that address"
    if ports.block is not None and ports.block < _SMALLEST_BLOCK:
        yield f"ports.block: fewer than {_SMALLEST_BLOCK} ports a subscriber would need a thousand chains of rules"
    if ports.range[1] < _LEAST_LAST_PORT:
        yield f"ports.range: a range must end at {_LEAST_LAST_PORT} or above, where hosts have their ports"


def _refused_by_native(profile: NatProfile) -> Iterator[str]:
    ports, other = profile.ports, "; engine: explicit can"
    first = Dependence.ENDPOINT_INDEPENDENT if ports.preserve else Dependence.ADDRESS_AND_PORT_DEPENDENT
    why = "keeps the port, whatever the remote" if ports.preserve else "takes a random port for each connection"
    if profile.mapping is not first:
        yield f"mapping: masquerade {why}: write {first.value}, or say otherwise in ports.preserve{other} do this one"
    if profile.filtering is not Dependence.ADDRESS_AND_PORT_DEPENDENT:
        yield f"filtering: masquerade admits answers only, which is address-and-port-dependent{other} admit more"
    if ports.otherwise.value != "random":
        yield f"ports.otherwise: the kernel's own choice is random{other} count"
    if ports.parity:
        yield f"ports.parity: the kernel does not keep it{other}"
    if ports.block is not None:
        yield f"ports.block: the kernel knows no blocks{other} give each subscriber one"
    if not ports.overload:
        yield (
            "ports.overload: masquerade shares an external endpoint between connections to different remotes: say "
            f"overload: true{other} keep endpoints apart"
        )
    if profile.external_addresses > 1:
        yield f"external_addresses: masquerade uses one address{other} use more"
    if profile.hairpinning is not Hairpinning.NONE:
        yield f"hairpinning: masquerade has none{other}"
    if profile.refresh is not Refresh.BOTH:
        yield f"refresh: connection tracking is refreshed by both directions{other} tell them apart"
    if profile.max_mappings != PORT_MAX:
        yield f"max_mappings: connection tracking has one limit for the whole machine{other} count"
    for name, value in _durations(profile):
        if value % SECOND or value < SECOND:
            yield f"{name}: connection tracking counts whole seconds{other} count milliseconds"
    if max(value for _, value in _durations(profile)) > _LONGEST:
        yield "udp_timeout: longer than ten years is more than the kernel counts"


def _refused_of_firewall(profile: NatProfile) -> Iterator[str]:
    yield from _refused_timers(profile)
    if profile.engine is Engine.NATIVE:
        yield "engine: a firewall translates nothing, so there is no masquerade in it; leave engine out"
    if profile.unsolicited is Unsolicited.ACCEPT:
        yield "unsolicited: 'accept' hands a packet to the NAT's own stack, and a firewall is not its address; drop it"


def _refused_timers(profile: NatProfile) -> Iterator[str]:
    for name, value in _durations(profile):
        if value % _MILLISECOND:
            yield f"{name}: the kernel's maps count whole milliseconds"
        elif not _SHORTEST <= value <= _LONGEST:
            yield f"{name}: the kernel's maps are exact from 20 ms to ten years"


def _durations(profile: NatProfile) -> tuple[tuple[str, int], ...]:
    tcp = profile.tcp_timeout
    return (
        ("udp_timeout", profile.udp_timeout),
        ("tcp_timeout.established", tcp.established),
        ("tcp_timeout.transitory", tcp.transitory),
    )
