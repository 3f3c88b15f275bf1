"""A NAT profile: one field for each behaviour that RFC 4787 names, each with its evidence.

`unknown` in a file is kept in `unknowns`; the value that stands in for it is the field's default, and
a run says so. Two axes everywhere, mapping and filtering: RFC 4787 dropped the older one-word names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, SerializationInfo, ValidationInfo, WithJsonSchema

from testbed.spec.model import DURATION_SCHEMA, Duration, Flag, Model, Whole, describe, from_file
from testbed.units import format_duration

PORT_MIN, PORT_MAX = 1024, 65535
SECOND = 1_000_000_000


class Dependence(StrEnum):
    """What of the remote endpoint a behaviour can see (RFC 4787 §4.1 for mapping, §5 for filtering)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    NONE = "none"
    """Mapping: no translation at all (a firewall). Filtering: everything may come in."""

    def sees_as_much_as(self, other: Dependence) -> bool:
        """Whether this sees at least as much of the remote as the other."""
        order = [Dependence.NONE, *(each for each in Dependence if each is not Dependence.NONE)]
        return order.index(self) >= order.index(other)


class Pooling(StrEnum):
    """Whether one inside host keeps one external address (RFC 4787 §4.1, REQ-2)."""

    PAIRED = "paired"
    ARBITRARY = "arbitrary"


class Hairpinning(StrEnum):
    """What source an inside host sees on a packet hairpinned to it (RFC 4787 §6, REQ-9)."""

    NONE = "none"
    INTERNAL_SOURCE = "internal-source"
    EXTERNAL_SOURCE = "external-source"


class Refresh(StrEnum):
    """Which direction keeps a mapping alive (RFC 4787 §4.3, REQ-6)."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"
    BOTH = "both"


class Unsolicited(StrEnum):
    """What becomes of an inbound packet that nothing permits."""

    DROP = "drop"
    ICMP_UNREACHABLE = "icmp-unreachable"
    TCP_RESET = "tcp-reset"
    ACCEPT = "accept"
    """Handed to the NAT's own stack: the port-clash defect of Linux without an input firewall."""


class Otherwise(StrEnum):
    """How a port is chosen where it is not, or cannot be, preserved (RFC 4787 §4.2)."""

    RANDOM = "random"
    SEQUENTIAL = "sequential"


class BlockAllocation(StrEnum):
    """When an inside host gets a block of ports, where ports are handed out in blocks (RFC 6888 §4)."""

    DETERMINISTIC = "deterministic"
    """It has one for good, which follows from its address (RFC 7422)."""
    DYNAMIC = "dynamic"
    """With its first mapping, and another where that one is full; a block goes back when its last mapping ends."""


class Engine(StrEnum):
    """What makes the NAT in a lab."""

    AUTO = "auto"
    EXPLICIT = "explicit"
    """RFC 4787 state in nftables maps: every combination of mapping, filtering and port choice."""
    NATIVE = "native"
    """The kernel's own masquerade, as on a real Linux router."""
    USERSPACE = "userspace"
    """The model of the prediction itself, on real packets: what rules of the kernel cannot."""


def _read_range(value: Any, info: ValidationInfo) -> Any:
    if not from_file(info):
        return value
    match = re.fullmatch(r"([0-9]{1,5})\s*-\s*([0-9]{1,5})", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{describe(value)} is not a range of ports: write for example {PORT_MIN}-{PORT_MAX}")
    first, last = int(match[1]), int(match[2])
    if not 1 <= first <= last <= PORT_MAX:
        raise ValueError(f"{value} is not a range of ports: the first is at least 1, the last at most {PORT_MAX}")
    return first, last


def _write_range(value: tuple[int, int], info: SerializationInfo) -> Any:
    return f"{value[0]}-{value[1]}" if info.context and info.context.get("written") else value


PortRange = Annotated[
    tuple[int, int],
    BeforeValidator(_read_range),
    PlainSerializer(_write_range),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,5}\s*-\s*[0-9]{1,5}$", "examples": ["1024-65535"]}),
]


def _read_block(value: Any) -> Any:
    return None if value == "none" else value


def _write_block(value: int | None, info: SerializationInfo) -> Any:
    return "none" if value is None and info.context and info.context.get("written") else value


Block = Annotated[
    Annotated[Whole, Field(ge=1, le=PORT_MAX)] | None,
    BeforeValidator(_read_block),
    PlainSerializer(_write_block),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": PORT_MAX}, {"const": "none"}]}),
]


class Ports(Model):
    """Port assignment (RFC 4787 §4.2)."""

    preserve: Flag = True
    """Port preservation: keep the internal port where it is free."""
    otherwise: Otherwise = Otherwise.RANDOM
    """The choice where the port is not preserved."""
    step: Annotated[Whole, Field(ge=-1024, le=1024)] = 1
    """Distance from one sequential port to the next; negative counts down."""
    range: PortRange = (PORT_MIN, PORT_MAX)
    """First and last port that may be assigned, written `1024-65535`."""
    parity: Flag = False
    """Port parity preservation: even stays even (REQ-4)."""
    block: Block = None
    """Ports that an inside host gets as one block, or `none`."""
    block_allocation: BlockAllocation = BlockAllocation.DETERMINISTIC
    """Whether a host has its block for good (RFC 7422), or gets blocks when it needs them and gives them back."""
    blocks_per_host: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Most blocks that a host has at once, where blocks are dynamic."""
    overload: Flag = False
    """Port overloading: two inside hosts may share one external endpoint (REQ-1)."""

    @property
    def is_dynamic(self) -> bool:
        """Whether blocks come and go."""
        return self.block is not None and self.block_allocation is BlockAllocation.DYNAMIC

    @property
    def most_of_host(self) -> int:
        """How many ports one inside host can have of one external address."""
        size = self.range[1] - self.range[0] + 1
        if self.block is None:
            return size
        return min(size, self.block * (self.blocks_per_host if self.is_dynamic else 1))


def _read_as_transitory(value: Any) -> Any:
    return None if value == "transitory" else value


def _write_as_transitory(value: int | None, info: SerializationInfo) -> Any:
    if info.context and info.context.get("written"):
        return "transitory" if value is None else format_duration(value)
    return value


OwnTimer = Annotated[
    Duration | None,
    BeforeValidator(_read_as_transitory),
    PlainSerializer(_write_as_transitory),
    WithJsonSchema({"anyOf": [DURATION_SCHEMA, {"const": "transitory"}]}),
]


class TcpTimeout(Model):
    """Idle timers of TCP mappings (RFC 5382 REQ-5, RFC 7857 §2)."""

    established: Duration = 7440 * SECOND
    """After the handshake."""
    transitory: Duration = 240 * SECOND
    """While opening or closing, where nothing finer is said."""
    partially_open: OwnTimer = None
    """Before the handshake is complete (RFC 7857 §2.1), or `transitory`."""
    closing: OwnTimer = None
    """After the first FIN (RFC 7857 §2.1), or `transitory`."""
    reset: OwnTimer = None
    """After a RST (RFC 7857 §2.2), or `transitory`."""

    @property
    def own(self) -> dict[str, int]:
        """The phases that have a timer of their own -> nanoseconds."""
        phases = {"partially_open": self.partially_open, "closing": self.closing, "reset": self.reset}
        return {name: timer for name, timer in phases.items() if timer is not None}


class NatProfile(Model):
    """How one kind of NAT, or firewall, behaves. What is not said is as in a strict NAT that keeps ports and drops."""

    name: str = "unnamed"
    """As its file is called."""
    description: str = ""
    """One sentence; `testbed list` shows it."""
    sources: tuple[str, ...] = ()
    """Where the values come from: documents, source files, measurements."""
    observed_on: tuple[str, ...] = ()
    """Which devices and versions behave like this."""
    mapping: Dependence = Dependence.ENDPOINT_INDEPENDENT
    """When a new remote gets a new mapping (RFC 4787 §4.1); `none` is a firewall, which translates nothing."""
    filtering: Dependence = Dependence.ADDRESS_AND_PORT_DEPENDENT
    """Which remotes may send in through a mapping (RFC 4787 §5); `none` lets everything in."""
    ports: Ports = Ports()
    """Port assignment (RFC 4787 §4.2)."""
    pooling: Pooling = Pooling.PAIRED
    """Whether one inside host keeps one external address (RFC 4787 §4.1)."""
    external_addresses: Annotated[Whole, Field(ge=1, le=64)] = 1
    """How many external addresses there are to map to."""
    session_reply: Flag = False
    """Whether the answer to an admitted inbound flow leaves by the mapping that the flow came in on. RFC 4787 does not
    say; with it, more pairs of address-dependent mappings can be punched."""
    hairpinning: Hairpinning = Hairpinning.NONE
    """Whether inside hosts reach each other by external endpoints, and what source they then see (RFC 4787 §6)."""
    udp_timeout: Duration = 180 * SECOND
    """How long an idle UDP mapping lives (RFC 4787 §4.3)."""
    tcp_timeout: TcpTimeout = TcpTimeout()
    """How long idle TCP mappings live (RFC 5382 REQ-5)."""
    refresh: Refresh = Refresh.BOTH
    """Which direction keeps a mapping alive (RFC 4787 §4.3)."""
    unsolicited: Unsolicited = Unsolicited.DROP
    """What becomes of an inbound packet that nothing permits."""
    max_mappings: Annotated[Whole, Field(ge=1, le=65535)] = 65535
    """Most mappings at once; a packet that would need one more is dropped."""
    udp_blocked: Flag = False
    """Forward no UDP at all, as a few percent of networks do (RFC 9308 §2)."""
    engine: Engine = Engine.AUTO
    """What makes this NAT in a lab."""
    unknowns: tuple[str, ...] = ()
    """Fields whose value no source states; each holds its default."""
    evidence: dict[str, str] = Field(default_factory=dict)
    """Field -> the source of its value, where it is written as `{value: …, source: …}`."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """(field, sentence) for what is said but could have no effect, or cannot be."""
        ports, written = self.ports, self.ports.model_fields_set
        if "step" in written and ports.otherwise is not Otherwise.SEQUENTIAL:
            yield "ports.step", "has no effect unless otherwise is 'sequential'"
        if ports.step == 0:
            yield "ports.step", "a step of 0 would give every mapping the same port"
        size = ports.range[1] - ports.range[0] + 1
        if ports.block is not None and ports.block > size:
            yield "ports.block", f"{ports.block} ports do not fit into the range of {size}"
        yield from self._contradictions_of_blocks()
        if len(self.tcp_timeout.own) == 3 and "transitory" in self.tcp_timeout.model_fields_set:
            yield "tcp_timeout.transitory", "has no effect where partially_open, closing and reset are all said"
        if self.external_addresses == 1 and "pooling" in self.model_fields_set and self.pooling is Pooling.ARBITRARY:
            yield "pooling", "'arbitrary' has no effect with one external address"
        if self.mapping is Dependence.NONE:
            yield from self._contradictions_of_a_firewall()

    def _contradictions_of_blocks(self) -> Iterator[tuple[str, str]]:
        ports, written = self.ports, self.ports.model_fields_set
        if "block_allocation" in written and ports.block is None:
            yield "ports.block_allocation", "has no effect unless block says how many ports a block has"
        if "blocks_per_host" in written and not ports.is_dynamic:
            yield (
                "ports.blocks_per_host",
                "has no effect unless block_allocation is 'dynamic': RFC 7422 gives one block",
            )

    def _contradictions_of_a_firewall(self) -> Iterator[tuple[str, str]]:
        translating = ("ports", "pooling", "external_addresses", "session_reply", "hairpinning", "max_mappings")
        for name in translating:
            if name in self.model_fields_set and name not in self.unknowns:
                yield name, "has no effect where mapping is 'none': a firewall translates nothing"
