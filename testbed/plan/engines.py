"""Which engine makes a NAT, and what each engine cannot do of a profile: by name, before anything is built.

Rule 1: a sentence begins with the field that it is about; a field that is not refused is done as it says.
Rule 2: what no engine does says so; what another engine does names it.
Rule 3: `engine: auto` takes the first engine that refuses nothing: rules of the kernel before a process of ours, whose
        packets cost more. Where all refuse, the userspace engine's reasons are told: it refuses least.
Rule 4: a firewall (a mapping of `none`) is rules of the kernel of its own kind, whichever name `explicit` stands for.

The decision is here, in the pure core, because the model asks it too: masquerade is a NAT of its own kind.
"""

from __future__ import annotations

from collections.abc import Iterator

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
_BY_PREFERENCE = (Engine.EXPLICIT, Engine.NATIVE, Engine.USERSPACE)


def engine_of(profile: NatProfile) -> Engine:
    """The engine that makes this profile: the one it names, else the first that can do all of it."""
    if profile.engine is not Engine.AUTO:
        return profile.engine
    able = (engine for engine in _BY_PREFERENCE if not refused_by(engine, profile))
    return next(able, Engine.USERSPACE)


def engine_name(profile: NatProfile) -> str:
    """What a person calls what makes it."""
    engine = engine_of(profile)
    return "firewall" if profile.mapping is Dependence.NONE and engine is not Engine.USERSPACE else engine.value


def refusals(profile: NatProfile) -> tuple[str, ...]:
    """Sentences `field: why` of the engine that makes it; none where the profile can be done as it stands."""
    return refused_by(engine_of(profile), profile)


def refused_by(engine: Engine, profile: NatProfile) -> tuple[str, ...]:
    """What one engine cannot do of a profile."""
    is_firewall = profile.mapping is Dependence.NONE
    if engine is Engine.NATIVE:
        return tuple(_of_native_firewall() if is_firewall else _of_native(profile))
    meaningless = tuple(_of_every_firewall(profile) if is_firewall else _without_meaning(profile))
    if engine is Engine.USERSPACE:
        return meaningless
    own = _timers_of_maps(profile) if is_firewall else _of_explicit(profile)
    return (*meaningless, *(f"{sentence}; engine: userspace can" for sentence in own))


def _of_every_firewall(profile: NatProfile) -> Iterator[str]:
    if profile.unsolicited is Unsolicited.ACCEPT:
        yield "unsolicited: 'accept' hands a packet to the NAT's own stack, and a firewall is not its address; drop it"


def _of_native_firewall() -> Iterator[str]:
    yield "engine: a firewall translates nothing, so there is no masquerade in it; leave engine out"


def _without_meaning(profile: NatProfile) -> Iterator[str]:
    """What contradicts itself in a NAT of RFC 4787, whatever makes it."""
    ports = profile.ports
    if profile.filtering is Dependence.NONE:
        yield "filtering: 'none' means a NAT without a filter; write endpoint-independent, which admits every remote"
    if ports.overload and profile.mapping is not Dependence.ENDPOINT_INDEPENDENT:
        if not profile.filtering.sees_as_much_as(profile.mapping):
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


def _of_explicit(profile: NatProfile) -> Iterator[str]:
    ports = profile.ports
    yield from _timers_of_maps(profile)
    if profile.unsolicited is Unsolicited.ACCEPT:
        yield "unsolicited: the port clash comes from the NAT's own stack, which the explicit engine keeps out of it"
    if ports.is_dynamic:
        yield "ports.block_allocation: rules cannot take a block back when the last of its mappings ends"
    elif ports.block is not None and ports.block < _SMALLEST_BLOCK:
        yield f"ports.block: fewer than {_SMALLEST_BLOCK} ports a subscriber would need a thousand chains of rules"
    if ports.range[1] < _LEAST_LAST_PORT:
        yield f"ports.range: a range must end at {_LEAST_LAST_PORT} or above, where hosts have their ports"


def _of_native(profile: NatProfile) -> Iterator[str]:
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
    durations = _durations(profile) | {f"tcp_timeout.{name}": value for name, value in profile.tcp_timeout.own.items()}
    for name, value in durations.items():
        if value % SECOND or value < SECOND:
            yield f"{name}: connection tracking counts whole seconds{other} count milliseconds"
    if max(durations.values()) > _LONGEST:
        yield "udp_timeout: longer than ten years is more than the kernel counts"


def _timers_of_maps(profile: NatProfile) -> Iterator[str]:
    for name, value in _durations(profile).items():
        if value % _MILLISECOND:
            yield f"{name}: the kernel's maps count whole milliseconds"
        elif not _SHORTEST <= value <= _LONGEST:
            yield f"{name}: the kernel's maps are exact from 20 ms to ten years"
    for name in profile.tcp_timeout.own:
        yield f"tcp_timeout.{name}: rules see whether a connection is established, and nothing finer of its state"


def _durations(profile: NatProfile) -> dict[str, int]:
    return {
        "udp_timeout": profile.udp_timeout,
        "tcp_timeout.established": profile.tcp_timeout.established,
        "tcp_timeout.transitory": profile.tcp_timeout.transitory,
    }
