"""A table of rules under construction: text in the order in which nft wants it.

Rule 1: every drop ends in a chain that belongs to its reason; that chain counts it, logs the packet's first bytes to
        the netlink log, and drops. Nothing else in the rules drops, except what a hook's policy catches.
Rule 2: nft's words stay here and in the files that compile; nobody else writes or reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from testbed.lab.drops import SNAP

NAME = "testbed"
"""The table's name, in every namespace."""
LOG_GROUP = 7

REASONS = (
    "no-mapping",
    "no-permission",
    "port-exhausted",
    "table-full",
    "udp-blocked",
    "not-translated",
    "hairpin-refused",
)
"""Why a NAT drops a packet.

no-mapping: it came from outside, for an endpoint that is assigned to nobody.
no-permission: there is a mapping, but its filter does not admit this remote.
port-exhausted: no external port is free for a new mapping.
table-full: there are as many mappings as the profile allows.
udp-blocked: the network forwards no UDP.
not-translated: it is nothing that can be translated (another protocol, a segment that belongs to no connection).
hairpin-refused: an inside host asks for an external endpoint of its own NAT.
"""

ICMP_ERRORS = "icmp type { destination-unreachable, time-exceeded, parameter-problem }"


def counter(reason: str) -> str:
    """The name of a reason's counter: nft's names have no hyphens."""
    return reason.replace("-", "_")


def drop(reason: str) -> str:
    """The end of a rule that drops for this reason."""
    return f"goto drop_{counter(reason)}"


def log(reason: str) -> str:
    """Count and log a packet without deciding about it."""
    return f'counter name "{counter(reason)}" log prefix "{reason}" group {LOG_GROUP} snaplen {SNAP} queue-threshold 1'


def any_of(values: Sequence[IPv4Address] | Sequence[IPv4Network]) -> str:
    """One value, or a set of several."""
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else "{ " + ", ".join(texts) + " }"


def duration(value: int) -> str:
    """Nanoseconds in nft's words; whole milliseconds (plan/engines.py sees to that)."""
    seconds, milliseconds = divmod(value // 1_000_000, 1000)
    return (f"{seconds}s" if seconds or not milliseconds else "") + (f"{milliseconds}ms" if milliseconds else "")


@dataclass(slots=True)
class Table:
    """Declarations and chains, in the order of their making."""

    _declared: list[str] = field(default_factory=list)
    _chains: list[str] = field(default_factory=list)

    def declare(self, line: str) -> None:
        """A set, a map, an object."""
        self._declared.append(f"  {line}")

    def chain(self, name: str, rules: Iterable[str], *, hook: str = "") -> None:
        """A chain; `hook` as nft writes it, e.g. `filter hook forward priority 0; policy drop`."""
        head = [f"    type {hook};"] if hook else []
        self._chains.append("\n".join([f"  chain {name} {{", *head, *(f"    {rule}" for rule in rules), "  }"]))

    def text(self) -> str:
        """What libnftables reads, and a person."""
        counters = [f"  counter {counter(reason)} {{ }}" for reason in REASONS]
        endings = [f"  chain drop_{counter(reason)} {{\n    {log(reason)} drop\n  }}" for reason in REASONS]
        parts = [f"table ip {NAME} {{", *counters, *self._declared, *endings, *self._chains, "}"]
        return "\n".join(parts) + "\n"
