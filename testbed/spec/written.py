"""The shapes that people write where they differ from the values that the program runs on.

Rule 1: these models are the grammar: what is read is validated by them, and the JSON Schema is made from them.
Rule 2: they hold what was written, and no more. What follows from it, presets and lists of uplinks, is resolved
        in presets.py and topology_rules.py.

A NAT profile and a scenario are written as their values are; only these two differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from testbed.spec.link import Impairment
from testbed.spec.model import Duration, Model, OneOrMore, Shorthand, Whole, describe
from testbed.spec.topology import NodeKind

NODE_NAME = r"[a-z][a-z0-9_-]{0,11}"
"""Twelve letters at most: with the ending that a device needs, the kernel takes fifteen (IFNAMSIZ)."""
REGION_NAME = r"[a-z][a-z0-9_-]{0,30}"


class IpVersions(StrEnum):
    """Which versions of IP a network or a node speaks."""

    NONE = "none"
    DUAL = "dual"
    ONLY = "only"


def _read_prefix(value: Any) -> Any:
    if isinstance(value, IPv4Network):
        return value
    if not isinstance(value, str) or "/" not in value:
        raise ValueError(f"{describe(value)} is not a prefix: write for example 192.168.1.0/24")
    try:
        prefix = IPv4Network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is not an IPv4 prefix: write for example 192.168.1.0/24") from None
    if not value.startswith(f"{prefix.network_address}/"):
        raise ValueError(f"{value!r} is an address in a prefix, which is {prefix}")
    return prefix


Prefix = Annotated[
    IPv4Network,
    BeforeValidator(_read_prefix),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+/[0-9]+$", "examples": ["192.168.1.0/24"]}),
]


PRESET_NAME: Mapping[str, Any] = {"type": "string", "description": "A preset's name."}
"""Its schema; schema.py puts the names in."""


class WrittenChange(Impairment):
    """What a link does to frames from some time on: a preset, what both directions share, and what each has of its own.

    What is not said stays as it is.
    """

    preset: Annotated[str, WithJsonSchema(dict(PRESET_NAME))] | None = None
    """A link by name; the keys beside it override it."""
    up: Impairment = Impairment()
    """From the node towards its uplink; overrides the keys above."""
    down: Impairment = Impairment()
    """From the uplink towards the node; overrides the keys above."""


class WrittenLink(WrittenChange):
    """A link: a preset, what both directions share, and what each has of its own."""

    mtu: Annotated[Whole, Field(ge=576, le=65535)] = 1500
    """Largest IP packet; 1280 is the least that carries QUIC (RFC 9000 §14)."""
    seed: Annotated[Whole, Field(ge=0, lt=2**64)] | None = None
    """The link's own random seed; derived from the trial's unless said."""


def _as_preset(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


LinkOrPreset = Annotated[WrittenLink, Shorthand(_as_preset, dict(PRESET_NAME))]
ChangeOrPreset = Annotated[WrittenChange, Shorthand(_as_preset, dict(PRESET_NAME))]


class WrittenNode(Model):
    """One line of a topology: a node, its uplink, and the link to it."""

    kind: NodeKind
    """What the node is for."""
    uplink: Annotated[tuple[str, ...], Field(min_length=1), OneOrMore()]
    """`internet`, a region, a nat or a router; or a list of those, where the node is multi-homed."""
    link: Annotated[tuple[LinkOrPreset, ...], OneOrMore()] = (WrittenLink(),)
    """The link to the uplink; a list of as many where there are several that differ."""
    profile: str | None = None
    """How a nat translates, or a router filters; a scenario may say it instead."""
    lan: Prefix | None = None
    """The prefix of the segment below a nat or router; chosen in file order unless said."""
    ipv6: IpVersions | None = None
    """Which versions of IP this node speaks; the topology's unless said."""


class WrittenTopology(Model):
    """A network: one line per node, each with its uplink."""

    description: str = ""
    """One sentence; `testbed list` shows it."""
    ipv6: IpVersions = IpVersions.NONE
    """Which versions of IP there are."""
    regions: dict[str, dict[str, Duration]] = Field(
        default_factory=dict, json_schema_extra={"propertyNames": {"pattern": f"^{REGION_NAME}$"}}
    )
    """Region -> {other region: one-way delay}. Without any there is one core, `internet`."""
    nodes: Annotated[
        dict[str, WrittenNode],
        Field(min_length=1, json_schema_extra={"propertyNames": {"pattern": f"^{NODE_NAME}$"}}),
    ]
    """In file order, which is the order of addresses."""
