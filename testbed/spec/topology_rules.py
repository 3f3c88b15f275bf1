"""From what a person wrote to a topology: what a network must be beyond its grammar.

Rule 1: whatever can be known to fail without looking at a machine fails here, at the place that is wrong.
Rule 2: every rule is told for every node that breaks it; rules look at what was written, so one mistake does
        not hide another.
Rule 3: what is not possible yet is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from itertools import combinations
from typing import Any

from testbed.spec.presets import contradictions, presets, resolve
from testbed.spec.problems import Source, suggestion
from testbed.spec.topology import INTERNET, Attachment, Node, NodeKind, Topology
from testbed.spec.written import NODE_NAME, REGION_NAME, IpVersions, WrittenNode, WrittenTopology
from testbed.spec.yaml_text import Path

RESERVED = (INTERNET, "strategy", "agent", "pair", "topology")
"""Words that a scenario uses beside the names of nodes."""
CORE_ADDRESSES = IPv4Network("11.0.0.0/8")
"""Where plan/addressing.py puts what faces the Internet."""
Told = Iterator[tuple[Path, str]]


def build(source: Source, data: Mapping[str, Any], name: str) -> Topology | None:
    """The topology that `data` means; None, and problems in `source`, where it is not one."""
    if "name" in data:
        source.add(("name",), "unknown key 'name': a topology is called as its file is", key=True)
        data = {key: value for key, value in data.items() if key != "name"}
    written = source.validate(WrittenTopology, data)
    if written is None:
        return None
    before = len(source.problems)
    for path, message in _problems(written):
        source.add(path, message, key=_is_about_a_key(path))
    if len(source.problems) > before:
        return None
    return Topology(
        name=name,
        description=written.description,
        regions=written.regions,
        nodes={key: _node(node) for key, node in written.nodes.items()},
    )


def _is_about_a_key(path: Path) -> bool:
    return len(path) == 2


def _node(written: WrittenNode) -> Node:
    links = [resolve(link) for link in written.link]
    if len(links) == 1:
        links *= len(written.uplink)
    attachments = (Attachment(uplink=uplink, link=link) for uplink, link in zip(written.uplink, links, strict=True))
    return Node(kind=written.kind, attachments=tuple(attachments), profile=written.profile, lan=written.lan)


def _problems(written: WrittenTopology) -> Told:
    if written.ipv6 is not IpVersions.NONE:
        yield ("ipv6",), f"{written.ipv6.value!r} is not possible yet: networks speak IPv4 (none)"
    yield from _about_regions(written.regions)
    for name, node in written.nodes.items():
        path: Path = ("nodes", name)
        yield from _about_name(path, name, written)
        yield from _about_uplinks(path, node, written)
        yield from _about_links(path, node)
        yield from _about_role(path, node)
    yield from _about_cycles(written.nodes)
    yield from _about_prefixes(written.nodes)
    yield from _about_rendezvous(written.nodes)


def _about_regions(regions: Mapping[str, Mapping[str, int]]) -> Told:
    for name, delays in regions.items():
        if not re.fullmatch(REGION_NAME, name):
            yield ("regions", name), _bad_name(name, 31)
        for other in delays:
            if other == name:
                yield ("regions", name, other), "a region has no delay to itself"
            elif other not in regions:
                yield ("regions", name, other), f"{other!r} is not a region{suggestion(other, regions)}"
    for one, other in combinations(regions, 2):
        there, back = regions[one].get(other), regions[other].get(one)
        if there is None and back is None:
            yield ("regions", one), f"the delay to {other!r} is missing: every two regions have one"
        elif there is not None and back is not None and there != back:
            yield ("regions", other, one), f"differs from the delay from {one!r} to {other!r}; say it once"


def _about_name(path: Path, name: str, written: WrittenTopology) -> Told:
    if name in RESERVED:
        yield path, f"{name!r} is a reserved word and cannot be the name of a node"
    elif name in written.regions:
        yield path, f"{name!r} is a region and cannot be the name of a node too"
    elif not re.fullmatch(NODE_NAME, name):
        yield path, _bad_name(name, 12)


def _bad_name(name: str, most: int) -> str:
    return f"{name!r} cannot be a name: a small letter, then small letters, digits, '_' or '-', at most {most} in all"


def _about_uplinks(path: Path, node: WrittenNode, written: WrittenTopology) -> Told:
    cores = tuple(written.regions) or (INTERNET,)
    above = [name for name, other in written.nodes.items() if other.kind.forwards]
    for index, uplink in enumerate(node.uplink):
        here = (*path, "uplink", index)
        if uplink in cores:
            continue
        other = written.nodes.get(uplink)
        if uplink == path[1]:
            yield here, "a node cannot be its own uplink"
        elif other is None and uplink == INTERNET:
            yield here, f"where there are regions there is no 'internet': attach to one of {', '.join(cores)}"
        elif other is None:
            yield here, f"there is no {uplink!r} to attach to{suggestion(uplink, [*cores, *above])}"
        elif not other.kind.forwards:
            yield here, f"{uplink!r} is a {other.kind.value}: only a nat or a router has nodes below it"
        elif uplink in node.uplink[:index]:
            yield here, f"{uplink!r} is given twice: two interfaces on one segment would answer for each other"
    if node.kind.forwards and len(node.uplink) > 1:
        what = "a nat" if node.kind is NodeKind.NAT else "a router"
        yield (*path, "uplink"), f"{what} with more than one uplink is not possible: it would need a routing protocol"


def _about_links(path: Path, node: WrittenNode) -> Told:
    if len(node.link) not in (1, len(node.uplink)):
        yield (
            (*path, "link"),
            f"{len(node.link)} links for {len(node.uplink)} uplinks: write one for all, or one for each",
        )
    for index, link in enumerate(node.link):
        here = (*path, "link", index)
        if link.preset is not None and link.preset not in presets():
            yield (*here, "preset"), f"there is no link preset {link.preset!r}{suggestion(link.preset, presets())}"
        else:
            yield from ((here, message) for message in contradictions(resolve(link)))


def _about_role(path: Path, node: WrittenNode) -> Told:
    if not node.kind.forwards:
        for key in ("profile", "lan"):
            if getattr(node, key) is not None:
                yield (*path, key), f"a {node.kind.value} has none: only a nat or a router does"
    if node.ipv6 not in (None, IpVersions.NONE):
        yield (*path, "ipv6"), f"{node.ipv6.value!r} is not possible yet: networks speak IPv4 (none)"


def _about_cycles(nodes: Mapping[str, WrittenNode]) -> Told:
    told: set[str] = set()
    for start in nodes:
        trail: list[str] = []
        name = start
        while name in nodes and name not in trail and name not in told:
            trail.append(name)
            name = nodes[name].uplink[0]
        if name in trail and len(cycle := trail[trail.index(name) :]) > 1:
            told.update(cycle)
            yield ("nodes", name, "uplink"), f"uplinks form a cycle: {' -> '.join([*cycle, name])}"


def _about_prefixes(nodes: Mapping[str, WrittenNode]) -> Told:
    for name, node in nodes.items():
        if node.lan is None:
            continue
        path = ("nodes", name, "lan")
        below = sum(name in other.uplink for other in nodes.values())
        if node.lan.overlaps(CORE_ADDRESSES):
            yield path, f"{node.lan} overlaps {CORE_ADDRESSES}, where the Internet's addresses are"
        elif node.lan.is_multicast or node.lan.is_loopback or node.lan.is_reserved or node.lan.is_link_local:
            yield path, f"{node.lan} holds no addresses that a segment could have"
        elif node.lan.prefixlen < 8:
            yield path, f"{node.lan} is larger than any segment; /8 is the largest"
        elif node.lan.num_addresses - 3 < below:
            room = max(0, node.lan.num_addresses - 3)
            yield path, f"{node.lan} has room for {room} of the {below} nodes that hang below {name!r}"
        for above in _ancestors(name, nodes):
            prefix = nodes[above].lan
            if prefix is not None and prefix.overlaps(node.lan):
                yield path, f"{node.lan} overlaps {prefix}, the segment of {above!r} above it"


def _about_rendezvous(nodes: Mapping[str, WrittenNode]) -> Told:
    for name, node in nodes.items():
        if node.kind is not NodeKind.RENDEZVOUS:
            continue
        nats = [above for above in _ancestors(name, nodes) if nodes[above].kind is NodeKind.NAT]
        if nats:
            yield ("nodes", name, "uplink"), f"a rendezvous behind the nat {nats[0]!r} cannot be reached from outside"


def _ancestors(name: str, nodes: Mapping[str, WrittenNode]) -> Iterator[str]:
    """Every nat or router above a node, each once."""
    seen: set[str] = {name}
    waiting = [*nodes[name].uplink]
    while waiting:
        above = waiting.pop(0)
        if above in nodes and above not in seen:
            seen.add(above)
            yield above
            waiting += nodes[above].uplink
