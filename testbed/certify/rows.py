"""What a certificate says: of each behaviour what is declared, what was observed, and whether the two agree.

Rule 1: a row is in a certificate where its behaviour can be seen from outside the NAT; what a profile cannot mean has
        no row (a firewall has no ports to assign, ports that are shared out in blocks are not overloaded).
Rule 2: what no source says is declared as unknown; what stands in for it is measured like everything else.
Rule 3: nothing here asks a NAT: `expectations` is a function of the profile, a `Row` of two texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from testbed.spec.kinds import MAPPINGS
from testbed.spec.profile import (
    PORT_MAX,
    Dependence,
    Engine,
    NatProfile,
    Otherwise,
    Unsolicited,
)
from testbed.units import format_duration

SCHEMA = "testbed.nat-test/1"
FEWEST_PORTS = 32
"""Of fewer ports it cannot be told in which order they are assigned, nor whether one was kept by chance."""
NO_TRACE, CLASH = "leaves no trace", "moves the port"
ERRORS_COME_IN = "reach their host, and no others do"
CONNECTS = "connects"
PHASES = ("partially_open", "closing", "reset")
"""Of a TCP connection: those whose timer is the transitory one, or one of their own."""
STARTS_ANEW = "mappings gone, new ones work"
QUICK = ("mapping", "filtering", "ports.preserve", "ports.otherwise", "ports.step", "unsolicited", "udp_blocked")
"""What the short form has of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One behaviour."""

    name: str
    """A field of the profile, or the name of what follows from several."""
    declared: str
    observed: str
    agrees: bool
    how: str
    """How it was measured."""

    def __str__(self) -> str:
        return f"{self.name} declared {self.declared}, observed {self.observed}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one NAT is."""

    profile: str
    engine: str
    rows: tuple[Row, ...]

    @property
    def agrees(self) -> bool:
        """Whether it is what its profile says, in every row."""
        return all(row.agrees for row in self.rows)

    @property
    def disagreements(self) -> tuple[Row, ...]:
        """The rows in which it is not."""
        return tuple(row for row in self.rows if not row.agrees)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the document."""
        behaviours = [asdict(row) for row in self.rows]
        return {"profile": self.profile, "engine": self.engine, "agrees": self.agrees, "behaviours": behaviours}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Certificate:
        """The inverse of `to_json`."""
        return cls(data["profile"], data["engine"], tuple(Row(**row) for row in data["behaviours"]))


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation, before it is compared."""

    observed: str
    how: str
    agrees: bool | None = None
    """What the measurement itself has decided; None where the texts are to be compared."""


def row(profile: NatProfile, name: str, expected: str, seen: Seen) -> Row:
    """Compare what was seen with what the profile, or the default that stands in for an unknown, says."""
    agrees = seen.observed == expected if seen.agrees is None else seen.agrees
    declared = f"unknown (the default, {expected}, stands in)" if is_unknown(profile, name) else expected
    return Row(name, declared, seen.observed, agrees, seen.how)


def is_unknown(profile: NatProfile, name: str) -> bool:
    """Whether no source says this field of the profile."""
    return any(f"{name}.".startswith(f"{unknown}.") for unknown in profile.unknowns)


def expectations(profile: NatProfile, engine: Engine) -> dict[str, str]:
    """Every behaviour that a NAT of this profile shows, in the order of a certificate -> what it should be."""
    found = dict(_of_datagrams(profile, engine))
    if profile.mapping is not Dependence.NONE or profile.filtering is not Dependence.NONE:
        found["unsolicited"] = profile.unsolicited.value
    found["udp_blocked"] = _flag(profile.udp_blocked)
    if profile.udp_blocked and profile.mapping is not Dependence.NONE:
        found = {"mapping": profile.mapping.value, **found}
    if profile.filtering is not Dependence.NONE:
        found["tcp_timeout.established"] = format_duration(profile.tcp_timeout.established)
        if len(own := profile.tcp_timeout.own) < len(PHASES):
            found["tcp_timeout.transitory"] = format_duration(profile.tcp_timeout.transitory)
        found |= {f"tcp_timeout.{name}": format_duration(timer) for name, timer in own.items()}
        found["tcp simultaneous open"] = CONNECTS
    return found


def can_draw(profile: NatProfile, engine: Engine) -> bool:
    """Whether a NAT can be made to assign another port than the one that a host has."""
    ports = profile.ports
    shares = ports.overload and profile.mapping is Dependence.ENDPOINT_INDEPENDENT and engine is not Engine.NATIVE
    return not ports.preserve or not shares or ports.range[0] > 1


def session_reply_shows(profile: NatProfile) -> bool:
    """Whether a stranger may come in through a mapping that an answer to him would not use."""
    order = list(MAPPINGS.values())
    if profile.mapping not in order or profile.filtering not in order:
        return False
    return order.index(profile.filtering) < order.index(profile.mapping)


def _of_datagrams(profile: NatProfile, engine: Engine) -> Iterator[tuple[str, str]]:
    if profile.udp_blocked:
        return
    yield "mapping", profile.mapping.value
    yield "filtering", profile.filtering.value
    if profile.mapping is not Dependence.NONE:
        yield from _of_ports(profile, engine)
        yield from _of_addresses(profile, engine)
    if profile.filtering is not Dependence.NONE:
        yield "udp_timeout", format_duration(profile.udp_timeout)
        yield "refresh", profile.refresh.value
        yield "restart", STARTS_ANEW
    if profile.mapping is not Dependence.NONE and (
        profile.ports.preserve or profile.mapping is Dependence.ENDPOINT_INDEPENDENT
    ):
        yield "early inbound packet", CLASH if profile.unsolicited is Unsolicited.ACCEPT else NO_TRACE
    yield "icmp errors inward", ERRORS_COME_IN


def _of_ports(profile: NatProfile, engine: Engine) -> Iterator[tuple[str, str]]:
    ports = profile.ports
    if profile.ports.most_of_host >= FEWEST_PORTS:
        yield "ports.preserve", _flag(ports.preserve)
    if profile.ports.most_of_host >= FEWEST_PORTS and can_draw(profile, engine):
        yield "ports.otherwise", ports.otherwise.value
        if ports.otherwise is Otherwise.SEQUENTIAL:
            # an even port gets the next even one
            yield "ports.step", str(ports.step * 2 if ports.parity and abs(ports.step) == 1 else ports.step)
        yield "ports.range", f"{ports.range[0]}-{ports.range[1]}"
        yield "ports.parity", _flag(ports.parity)
    if ports.block is not None:
        yield "ports.block", str(ports.block)
        if ports.is_dynamic:
            yield "ports.block_allocation", ports.block_allocation.value
            yield "ports.blocks_per_host", str(ports.blocks_per_host)
    else:
        yield "ports.overload", _flag(ports.overload)


def _of_addresses(profile: NatProfile, engine: Engine) -> Iterator[tuple[str, str]]:
    if profile.ports.block is None:
        yield "external_addresses", str(profile.external_addresses)
        if profile.external_addresses > 1:
            yield "pooling", profile.pooling.value
    yield "hairpinning", profile.hairpinning.value
    if engine is not Engine.NATIVE and session_reply_shows(profile):
        yield "session_reply", _flag(profile.session_reply)
    if engine is not Engine.NATIVE and (profile.max_mappings < PORT_MAX or profile.ports.most_of_host > 2048):
        yield "max_mappings", str(profile.max_mappings)


def _flag(value: bool) -> str:
    return "true" if value else "false"
