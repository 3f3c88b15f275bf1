"""Factors: what may vary, and which values mean something.

Rule 1: a factor is a nat or a router (its profile), `strategy`, `agent`, or a dotted path into the topology.
Rule 2: a factor that names nothing, or a value that means nothing, is told at its place in the scenario.
Rule 3: a dotted factor is a change to the topology as it was written; the changed text is validated again, so a
        scenario cannot make a network that a file could not say.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from testbed.errors import SpecError
from testbed.spec import topology_rules
from testbed.spec.model import describe
from testbed.spec.problems import Source, suggestion
from testbed.spec.profile import Dependence, NatProfile
from testbed.spec.scenario import AGENTS, STRATEGIES, Agent, Command
from testbed.spec.topology import Node, NodeKind, Topology
from testbed.spec.yaml_text import Path

MAX_CELLS = 10_000
VARIABLE = ("link", "lan", "uplink")
"""What of a node a dotted factor may change."""

Factors = Mapping[str, Any]
ProfileOf = Callable[[str], NatProfile]
"""A profile by name; SpecError where there is none, or where its file is broken."""


def text(value: Any) -> str:
    """A factor's value as one writes it on the command line."""
    if isinstance(value, Command):
        return " ".join(value.command)
    return str(value).lower() if isinstance(value, bool) else str(value)


def misfit(node: Node, profile: NatProfile) -> str | None:
    """Why a nat or router cannot have a profile; None where it can."""
    translates = profile.mapping is not Dependence.NONE
    if node.kind is NodeKind.NAT and not translates:
        return f"{profile.name!r} is a firewall (mapping: none) and translates nothing; make the node a router"
    if node.kind is NodeKind.ROUTER and translates:
        return f"{profile.name!r} translates; a router has a firewall (mapping: none), or make the node a nat"
    return None


def tell(source: Source, path: Path, error: SpecError, *, key: bool = False) -> None:
    """Problems that an attempt to follow a name gave: those without a file belong to the place of the name, which may
    be a key.
    """
    for problem in error.problems:
        if problem.file:
            source.problems.append(problem)
        else:
            source.add(path, problem.message, key=key)


@dataclass(frozen=True, slots=True)
class FactorRules:
    """Checks one scenario's factors against its topology."""

    source: Source
    """The scenario."""
    base: Topology
    raw: Mapping[str, Any]
    """The topology's data as written."""
    topology_source: Source
    profile_of: ProfileOf

    def check_product(self, path: Path, factors: Mapping[str, Sequence[Any]]) -> None:
        """Tell what is wrong with one product of the matrix."""
        if (count := prod(len(values) for values in factors.values())) > MAX_CELLS:
            self.source.add(path, f"has {count} cells, more than the {MAX_CELLS} that a run can have")
            return
        for name, values in factors.items():
            self._check_factor((*path, name), name, values)
        paths = [name for name in factors if "." in name and not self._wrong_name(name)]
        for name in paths:
            for other in paths:
                if other.startswith(f"{name}."):
                    self.source.add((*path, other), f"{name!r} varies the whole of which this is a part", key=True)

    def _check_factor(self, here: Path, name: str, values: Sequence[Any]) -> None:
        if wrong := self._wrong_name(name):
            self.source.add(here, wrong, key=True)
            return
        seen: list[str] = []
        for place, value in enumerate(values):
            if text(value) in seen:
                self.source.add((*here, place), f"{text(value)!r} is given twice")
                continue
            seen.append(text(value))
            if name == "strategy":
                check_strategy(self.source, (*here, place), value)
            elif name == "agent":
                check_agent(self.source, (*here, place), value)
            elif "." in name:
                self._check_change((*here, place), name, value)
            else:
                self._check_profile((*here, place), self.base.nodes[name], value)

    def _wrong_name(self, name: str) -> str | None:
        """Why a factor leads nowhere; None where it leads somewhere."""
        if name in ("strategy", "agent"):
            return None
        if name == "pair":
            return "who meets whom is varied by `pairs:`, as in pairs: [[alice, bob], [alice, carol]]"
        if "." in name:
            return self._wrong_path(name)
        node = self.base.nodes.get(name)
        if node is not None and node.kind.forwards:
            return None
        if node is not None:
            return f"{name!r} is a {node.kind.value} and has no profile; a link is varied as nodes.{name}.link.loss"
        nats = [name for name, other in self.base.nodes.items() if other.kind.forwards]
        return f"there is no factor {name!r}{suggestion(name, ['strategy', 'agent', *nats])}"

    def _wrong_path(self, name: str) -> str | None:
        steps = name.split(".")
        if steps[0] == "regions" and len(steps) == 3:
            return None
        if steps[0] != "nodes" or len(steps) < 3 or not all(steps):
            return f"{name!r} leads nowhere: write for example nodes.alice.link.loss"
        if steps[1] not in self.base.nodes:
            return f"the topology has no node {steps[1]!r}{suggestion(steps[1], self.base.nodes)}"
        if steps[2] == "profile":
            return f"a profile is varied by the node's name alone: {steps[1]}: [...]"
        if steps[2] not in VARIABLE:
            return f"{steps[2]!r} cannot be varied{suggestion(steps[2], VARIABLE)}"
        links = self.raw["nodes"][steps[1]].get("link")
        if steps[2] == "link" and isinstance(links, list) and (len(steps) > 3 and not steps[3].isdigit()):
            return f"{steps[1]!r} has {len(links)} links: say which, as in nodes.{steps[1]}.link.0.{steps[3]}"
        return None

    def _check_profile(self, path: Path, node: Node, value: Any) -> None:
        if not isinstance(value, str):
            self.source.add(path, f"{describe(value)} where the name of a profile is due")
            return
        try:
            wrong = misfit(node, self.profile_of(value))
        except SpecError as error:
            tell(self.source, path, error)
        else:
            if wrong:
                self.source.add(path, wrong)

    def _check_change(self, path: Path, name: str, value: Any) -> None:
        if isinstance(value, Command):
            self.source.add(path, "a program where a value of the topology is due")
            return
        try:
            raw = change(self.raw, name.split("."), value)
        except LookupError:
            self.source.add(path[:-1], f"{name!r} leads nowhere in the topology", key=True)
            return
        scratch = Source(self.topology_source.file, self.topology_source.tree)
        if topology_rules.build(scratch, raw, self.base.name) is None:
            for problem in scratch.problems:
                about = "" if problem.path in (name, "") else f"{problem.path}: "
                self.source.add(path, f"{about}{problem.message}")


def check_strategy(source: Source, path: Path, value: Any) -> None:
    """Tell where a name is that of no strategy."""
    if value not in STRATEGIES:
        source.add(path, f"there is no strategy {text(value)!r}{suggestion(text(value), STRATEGIES)}")


def check_agent(source: Source, path: Path, value: Agent) -> None:
    """Tell where a name is that of no reference agent."""
    if not isinstance(value, Command) and value not in AGENTS:
        source.add(path, f"there is no agent {text(value)!r}{suggestion(text(value), AGENTS)}")


def change(data: Any, steps: Sequence[str], value: Any) -> Any:
    """A copy of a file's data with one value put in. A link by name becomes a mapping with `preset:`.

    Raises LookupError where there is nothing to put it into.
    """
    step, rest = steps[0], steps[1:]
    if isinstance(data, list):
        index = int(step) if step.isdigit() else len(data)
        return [*data[:index], change(data[index], rest, value) if rest else value, *data[index + 1 :]]
    if isinstance(data, str):
        data = {"preset": data}
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise LookupError(step)
    changed = {**data}
    changed[step] = change(data.get(step), rest, value) if rest else copy.deepcopy(value)
    return changed
