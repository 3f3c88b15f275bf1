"""The table of behaviours × engines on docs/nat.md: what each can do, and why not, from the refusals themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbed.plan.engines import refusals
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
    Unsolicited,
)

EI, AD, APD = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT_DEPENDENT,
)
CAN = "yes"

BEHAVIOURS: Mapping[str, Mapping[str, Any]] = {
    "`mapping: endpoint-independent`": {},
    "`mapping: address-dependent`": {"mapping": AD},
    "`mapping: address-and-port-dependent`, ports at random": {"mapping": APD, "ports": {"preserve": False}},
    "`mapping: address-and-port-dependent`, ports kept": {"mapping": APD},
    "`filtering: endpoint-independent`": {"filtering": EI},
    "`filtering: address-dependent`": {"filtering": AD},
    "`filtering: address-and-port-dependent`": {"filtering": APD},
    "`ports.otherwise: sequential`, any step": {"ports": {"otherwise": Otherwise.SEQUENTIAL, "step": -3}},
    "`ports.range`": {"ports": {"range": (2000, 9999)}},
    "`ports.parity`": {"ports": {"parity": True}},
    "`ports.block`": {"ports": {"block": 128}},
    "`ports.overload: true`": {"ports": {"overload": True}},
    "`ports.overload: false`": {"ports": {"overload": False}},
    "`external_addresses`, paired": {"external_addresses": 4},
    "`external_addresses`, arbitrary": {"external_addresses": 4, "pooling": Pooling.ARBITRARY},
    "`hairpinning: internal-source`": {"hairpinning": Hairpinning.INTERNAL_SOURCE},
    "`hairpinning: external-source`": {"hairpinning": Hairpinning.EXTERNAL_SOURCE},
    "`udp_timeout` of whole seconds": {"udp_timeout": 3 * SECOND},
    "`udp_timeout` of milliseconds": {"udp_timeout": SECOND // 2},
    "`refresh: outbound`": {"refresh": Refresh.OUTBOUND},
    "`refresh: inbound`": {"refresh": Refresh.INBOUND},
    "`unsolicited: icmp-unreachable`": {"unsolicited": Unsolicited.ICMP_UNREACHABLE},
    "`unsolicited: tcp-reset`": {"unsolicited": Unsolicited.TCP_RESET},
    "`unsolicited: accept`": {"unsolicited": Unsolicited.ACCEPT},
    "`max_mappings`": {"max_mappings": 100},
    "`udp_blocked`": {"udp_blocked": True},
}
"""By what a person writes: what is changed of a profile that the engine can do."""


def table() -> Iterator[str]:
    """The lines of the table."""
    yield "| behaviour | explicit | native |"
    yield "|---|---|---|"
    for label, changes in BEHAVIOURS.items():
        explicit, native = (_answer(engine, changes) for engine in (Engine.EXPLICIT, Engine.NATIVE))
        yield f"| {label} | {explicit} | {native} |"


def _answer(engine: Engine, changes: Mapping[str, Any]) -> str:
    """`yes`, or why not, without what to write instead."""
    overload = engine is Engine.NATIVE
    ports = Ports(**{"overload": overload, **changes.get("ports", {})})
    profile = NatProfile(**{**changes, "ports": ports, "engine": engine})
    whys = [sentence.partition(": ")[2].partition("; engine:")[0].partition(": ")[0] for sentence in refusals(profile)]
    return "; ".join(whys) or CAN
