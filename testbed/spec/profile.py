"""A NAT profile: one field for each behaviour that RFC 4787 names, each with its evidence.

`unknown` in a file is kept in `unknowns`; the value that stands in for it is the field's default, and
a run says so. Two axes everywhere, mapping and filtering: RFC 4787 dropped the older one-word names.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from testbed.spec.model import Duration, Model

PORT_MIN, PORT_MAX = 1024, 65535
SECOND = 1_000_000_000


class Dependence(StrEnum):
    """What of the remote endpoint a behaviour can see (RFC 4787 §4.1 for mapping, §5 for filtering)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    NONE = "none"
    """Mapping: no translation at all (a firewall). Filtering: everything may come in."""


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


class Engine(StrEnum):
    """What makes the NAT in a lab."""

    AUTO = "auto"
    EXPLICIT = "explicit"
    """RFC 4787 state in nftables maps: every combination, exactly."""
    NATIVE = "native"
    """The kernel's own masquerade, as on a real Linux router."""


class Ports(Model):
    """Port assignment (RFC 4787 §4.2)."""

    preserve: bool = True
    """Port preservation: keep the internal port where it is free."""
    otherwise: Otherwise = Otherwise.RANDOM
    """The choice where the port is not preserved."""
    step: Annotated[int, Field(ge=-1024, le=1024)] = 1
    """Distance from one sequential port to the next; negative counts down."""
    range: tuple[int, int] = (PORT_MIN, PORT_MAX)
    """First and last port that may be assigned, written `1024-65535`."""
    parity: bool = False
    """Port parity preservation: even stays even (REQ-4)."""
    block: int | None = None
    """Ports a subscriber gets as one block (RFC 7422), or none."""
    overload: bool = False
    """Port overloading: two inside hosts may share one external endpoint (REQ-1)."""


class TcpTimeout(Model):
    """Idle timers of TCP mappings (RFC 5382 REQ-5)."""

    established: Duration = 7440 * SECOND
    """After the handshake."""
    transitory: Duration = 240 * SECOND
    """While opening or closing."""


class NatProfile(Model):
    """How one kind of NAT, or firewall, behaves. Defaults are those of DESIGN: a strict, dropping NAT."""

    name: str = "unnamed"
    description: str = ""
    sources: tuple[str, ...] = ()
    observed_on: tuple[str, ...] = ()
    mapping: Dependence = Dependence.ENDPOINT_INDEPENDENT
    filtering: Dependence = Dependence.ADDRESS_AND_PORT_DEPENDENT
    ports: Ports = Ports()
    pooling: Pooling = Pooling.PAIRED
    external_addresses: Annotated[int, Field(ge=1, le=64)] = 1
    session_reply: bool = False
    hairpinning: Hairpinning = Hairpinning.NONE
    udp_timeout: Duration = 180 * SECOND
    tcp_timeout: TcpTimeout = TcpTimeout()
    refresh: Refresh = Refresh.BOTH
    unsolicited: Unsolicited = Unsolicited.DROP
    max_mappings: Annotated[int, Field(ge=1, le=65535)] = 65535
    udp_blocked: bool = False
    """Forward no UDP at all (RFC 8445 calls such networks UDP-hostile)."""
    engine: Engine = Engine.AUTO
    unknowns: tuple[str, ...] = ()
    """Fields whose value no source states; each holds its default."""
