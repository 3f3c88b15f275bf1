"""The table of behaviours × engines on docs/nat.md: what each can do, and why not, from the refusals themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbed.plan.engines import refusals
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

EI, AD, APD = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT_DEPENDENT,
)
CAN = "yes"
ENGINES = (Engine.EXPLICIT, Engine.NATIVE, Engine.USERSPACE)

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
    "`ports.range` below 1024 alone": {"ports": {"range": (500, 900)}},
    "`ports.parity`": {"ports": {"parity": True}},
    "`ports.block`": {"ports": {"block": 128}},
    "`ports.block` of fewer than 64 ports": {"ports": {"block": 16}},
    "`ports.block_allocation: dynamic`": {"ports": {"block": 128, "block_allocation": BlockAllocation.DYNAMIC}},
    "`ports.overload: true`": {"ports": {"overload": True}},
    "`ports.overload: false`": {"ports": {"overload": False}},
    "`external_addresses`, paired": {"external_addresses": 4},
    "`external_addresses`, arbitrary": {"external_addresses": 4, "pooling": Pooling.ARBITRARY},
    "`hairpinning: internal-source`": {"hairpinning": Hairpinning.INTERNAL_SOURCE},
    "`hairpinning: external-source`": {"hairpinning": Hairpinning.EXTERNAL_SOURCE},
    "`udp_timeout` of whole seconds": {"udp_timeout": 3 * SECOND},
    "`udp_timeout` of milliseconds": {"udp_timeout": SECOND // 2},
    "`udp_timeout` below 20 ms": {"udp_timeout": SECOND // 100},
    "`tcp_timeout.established`, `.transitory`": {"tcp_timeout": TcpTimeout(established=9 * SECOND)},
    "`tcp_timeout.partially_open`, `.closing`, `.reset`": {
        "tcp_timeout": TcpTimeout(partially_open=3 * SECOND, closing=2 * SECOND, reset=SECOND)
    },
    "`refresh: outbound`": {"refresh": Refresh.OUTBOUND},
    "`refresh: inbound`": {"refresh": Refresh.INBOUND},
    "`unsolicited: icmp-unreachable`": {"unsolicited": Unsolicited.ICMP_UNREACHABLE},
    "`unsolicited: tcp-reset`": {"unsolicited": Unsolicited.TCP_RESET},
    "`unsolicited: accept`": {"unsolicited": Unsolicited.ACCEPT},
    "`max_mappings`": {"max_mappings": 100},
    "`udp_blocked`": {"udp_blocked": True},
    "`mapping: none`, a firewall": {"mapping": Dependence.NONE},
    "a firewall with `tcp_timeout.reset`": {"mapping": Dependence.NONE, "tcp_timeout": TcpTimeout(reset=SECOND)},
}
"""By what a person writes: what is changed of a profile that the engine can do."""


def table() -> Iterator[str]:
    """The lines of the table."""
    yield f"| behaviour | {' | '.join(ENGINES)} |"
    yield f"|---|{'---|' * len(ENGINES)}"
    for label, answers in answers_by_behaviour().items():
        yield f"| {label} | {' | '.join(answers[engine] for engine in ENGINES)} |"


def answers_by_behaviour() -> Mapping[str, Mapping[Engine, str]]:
    """Each behaviour, in the words of a person -> what each engine says to it: `yes`, or why not."""
    return {label: {engine: _answer(engine, changes) for engine in ENGINES} for label, changes in BEHAVIOURS.items()}


def _answer(engine: Engine, changes: Mapping[str, Any]) -> str:
    """`yes`, or why not, without what to write instead."""
    overload = engine is Engine.NATIVE
    ports = Ports(**{"overload": overload, **changes.get("ports", {})})
    profile = NatProfile(**{**changes, "ports": ports, "engine": engine})
    whys = [sentence.partition(": ")[2].partition("; ")[0].partition(": ")[0] for sentence in refusals(profile)]
    return "; ".join(dict.fromkeys(whys)) or CAN
