"""What was understood of a user's file, as lines for a person.

Rule 1: what is shown is the value, not the text: presets are resolved, defaults are there, cells are expanded.
Rule 2: quantities are shown as they are written in files, so that a line can be copied back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbed.plan.events import describe
from testbed.spec.link import Link
from testbed.spec.load import Loaded, LoadedScenario, LoadedTopology
from testbed.spec.model import CONTEXT_WRITTEN, Model
from testbed.spec.population import shares
from testbed.spec.profile import NatProfile
from testbed.spec.topology import INTERNET, Node, Topology
from testbed.units import format_duration


def summary(loaded: Loaded) -> str:
    """What a file is, in a few words."""
    match loaded:
        case LoadedTopology():
            return f"a topology of {_counted(len(loaded.topology.nodes), 'node')}"
        case NatProfile():
            return f"a NAT profile: {loaded.mapping} mapping, {loaded.filtering} filtering"
        case LoadedScenario():
            cells, trials = len(loaded.cells), loaded.scenario.trials
            return f"a scenario of {_counted(cells, 'cell')}, {_counted(cells * trials, 'trial')}"


def lines(loaded: Loaded) -> Iterator[str]:
    """All that was understood."""
    match loaded:
        case LoadedTopology():
            yield from _described(loaded.topology.description)
            yield from tree(loaded.topology)
        case NatProfile():
            yield from _profile(loaded)
        case LoadedScenario():
            yield from _scenario(loaded)


def tree(topology: Topology) -> Iterator[str]:
    """The network from its cores down; a multi-homed node stands below each of its uplinks."""

    def branch(above: str, indent: str) -> Iterator[str]:
        below = [
            (name, node, attachment.link)
            for name, node in topology.nodes.items()
            for attachment in node.attachments
            if attachment.uplink == above
        ]
        for index, (name, node, link) in enumerate(below):
            is_last = index == len(below) - 1
            yield f"{indent}{'└─' if is_last else '├─'} {_node(name, node)}  {link_text(link)}"
            yield from branch(name, indent + ("   " if is_last else "│  "))

    for core in tuple(topology.regions) or (INTERNET,):
        delays = ", ".join(
            f"{format_duration(delay)} to {name}" for name, delay in topology.regions.get(core, {}).items()
        )
        yield f"{core}  {delays}".rstrip()
        yield from branch(core, "")


def link_text(link: Link) -> str:
    """A link on one line: what is not the default, both directions apart where they differ."""
    up, down = (_said(direction) for direction in (link.up, link.down))
    same = {key: value for key, value in up.items() if down.get(key) == value}
    parts = [_joined(same)] if same else []
    for name, direction in (("up", up), ("down", down)):
        own = {key: value for key, value in direction.items() if key not in same}
        parts += [f"{name} {{{_joined(own)}}}"] if own else []
    parts += [_joined(_said(link, exclude={"up", "down"}))] if _said(link, exclude={"up", "down"}) else []
    return "; ".join(parts) or "nothing impaired"


def _node(name: str, node: Node) -> str:
    more = f", profile {node.profile}" if node.profile else ", no profile of its own" if node.kind == "nat" else ""
    more += f", lan {node.lan}" if node.lan else ""
    return f"{name} ({node.kind}{more})"


def _profile(profile: NatProfile) -> Iterator[str]:
    yield from _described(profile.description)
    written = profile.model_dump(mode="json", context=CONTEXT_WRITTEN, exclude={"name", "description", "evidence"})
    unknowns = written.pop("unknowns")
    for key, value in _flat(written, ""):
        note = "  (unknown; this stands in for it)" if any(f"{key}.".startswith(f"{u}.") for u in unknowns) else ""
        source = profile.evidence.get(key)
        yield f"{key}: {value}{note}" + (f"  ({source})" if source else "")


def _scenario(loaded: LoadedScenario) -> Iterator[str]:
    scenario = loaded.scenario
    yield from _described(scenario.description)
    said = scenario.model_dump(mode="json", context=CONTEXT_WRITTEN)
    for key in ("topology", "trials", "deadline", "setup_deadline", "seed"):
        yield f"{key}: {said[key]}"
    yield f"links: {scenario.lab.links}"
    for expectation in said["expect"]:
        where = ", ".join(f"{name}={value}" for name, value in expectation["where"].items()) or "all cells"
        bound = _joined({key: value for key, value in expectation["success_rate"].items() if value is not None})
        yield f"expect: {where}: success_rate {bound}"
    for name, mix in shares(scenario.population).items():
        yield f"population: {name}: {', '.join(f'{word} {100 * share:.3g} %' for word, share in mix.items())}"
    for event in loaded.scenario.events:
        yield f"event: {format_duration(event.at)}: {describe(event)}"
    for number, cell in enumerate(loaded.cells, start=1):
        yield f"cell {number}: {cell.id}"
    yield from tree(loaded.topology)


def _described(description: str) -> Iterator[str]:
    if description:
        yield " ".join(description.split())


def _flat(data: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, list):
            yield f"{before}{key}", "; ".join(map(str, value)) or "none"
        else:
            yield f"{before}{key}", str(value).lower() if isinstance(value, bool) else str(value)


def _said(model: Model, exclude: set[str] | None = None) -> dict[str, Any]:
    return model.model_dump(mode="json", context=CONTEXT_WRITTEN, exclude_defaults=True, exclude=exclude)


def _joined(said: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}: {{{_joined(value)}}}" if isinstance(value, dict) else f"{key}: {value}" for key, value in said.items()
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
