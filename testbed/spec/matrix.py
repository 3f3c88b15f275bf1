"""From a scenario to its cells: every combination of factors, with what it means.

Rule 1: cells come in the order of the products; within a product the last factor varies fastest.
Rule 2: two cells with the same factors are one.
Rule 3: a dotted factor is a change to the topology as it was written; the changed text is validated again, so a
        scenario cannot make a network that a file could not say.
Rule 4: a factor that names nothing, or a value that means nothing, is told at its place in the scenario.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from testbed.errors import SpecError
from testbed.spec import topology_rules
from testbed.spec.model import describe
from testbed.spec.problems import Source, dotted, suggestion
from testbed.spec.profile import NatProfile
from testbed.spec.scenario import AGENTS, DEFAULT_STRATEGY, STRATEGIES, Agent, Command, Scenario
from testbed.spec.topology import Node, NodeKind, Topology
from testbed.spec.yaml_text import Path

MAX_CELLS = 10_000
VARIABLE = ("link", "lan", "uplink")
"""What of a node a dotted factor may change."""

Factors = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CellSpec:
    """One combination of factors, and all that it decides."""

    factors: Factors
    """As written, in the order of the matrix."""
    topology: Topology
    """With the dotted factors put in."""
    profiles: Mapping[str, NatProfile]
    """Of every nat, and of every router that is a firewall."""
    strategy: str
    agent: Agent
    pairs: tuple[tuple[str, str], ...]

    @property
    def id(self) -> str:
        """`nat_a=apdm-apdf,nat_b=eim-eif`; `all` where nothing is varied."""
        return ",".join(f"{name}={text(value)}" for name, value in self.factors.items()) or "all"


def text(value: Any) -> str:
    """A factor's value as one writes it on the command line."""
    if isinstance(value, Command):
        return " ".join(value.command)
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(slots=True)
class Expansion:
    """The cells of one scenario while they are being made."""

    source: Source
    scenario: Scenario
    base: Topology
    raw: Mapping[str, Any]
    """The topology's data as written."""
    topology_source: Source
    profile_of: Callable[[str], NatProfile]
    """A profile by name; SpecError where there is none, or where its file is broken."""
    _variants: dict[tuple[tuple[str, Any], ...], Topology | None] = field(default_factory=dict)
    _profiles: dict[str, NatProfile | None] = field(default_factory=dict)

    def cells(self) -> tuple[CellSpec, ...]:
        """Every cell, once. What is wrong is told in `source`."""
        before = len(self.source.problems)
        pairs = self._pairs()
        for index, factors in enumerate(self.scenario.matrix):
            self._check_product(index, factors)
        if len(self.source.problems) > before:
            return ()
        found: dict[frozenset[tuple[str, str]], CellSpec] = {}
        for index, factors in enumerate(self.scenario.matrix):
            for values in product(*factors.values()):
                chosen = dict(zip(factors, values, strict=True))
                key = frozenset((name, f"{type(value).__name__} {text(value)}") for name, value in chosen.items())
                if key not in found:
                    cell = self._cell(("matrix", index), chosen, pairs)
                    if cell is None:
                        return ()
                    found[key] = cell
        cells = tuple(found.values())
        self._check_expectations(cells)
        return cells

    # ---- one cell

    def _cell(self, path: Path, factors: Factors, pairs: tuple[tuple[str, str], ...]) -> CellSpec | None:
        changes = tuple((name, value) for name, value in factors.items() if "." in name)
        topology = self._variant(path, changes)
        if topology is None:
            return None
        profiles: dict[str, NatProfile] = {}
        for name, node in topology.nodes.items():
            word = factors.get(name, node.profile)
            if word is not None and (profile := self._profile(word)) is not None:
                profiles[name] = profile
            elif node.kind is NodeKind.NAT:
                mend = f"write {name}: [eim-apdf] here, or profile: in the topology"
                self.source.add(path, f"the nat {name!r} has no profile: {mend}")
                return None
        return CellSpec(
            factors,
            topology,
            profiles,
            str(factors.get("strategy", DEFAULT_STRATEGY)),
            factors.get("agent", self.scenario.agent),
            pairs,
        )

    def _variant(self, path: Path, changes: tuple[tuple[str, Any], ...]) -> Topology | None:
        """The topology with these changes; None, told once, where they make none."""
        if not changes:
            return self.base
        if changes not in self._variants:
            raw: Any = self.raw
            for name, value in sorted(changes, key=lambda change: change[0].count(".")):
                raw = change(raw, name.split("."), value)
            scratch = Source(self.topology_source.file, self.topology_source.tree)
            self._variants[changes] = topology_rules.build(scratch, raw, self.base.name)
            for problem in scratch.problems:
                place = (*path, changes[0][0]) if len(changes) == 1 else path
                self.source.add(place, f"with {_listed(changes)}: {problem.path}: {problem.message}")
        return self._variants[changes]

    def _profile(self, word: str) -> NatProfile | None:
        if word not in self._profiles:
            try:
                self._profiles[word] = self.profile_of(word)
            except SpecError:
                self._profiles[word] = None
        return self._profiles[word]

    # ---- what is written

    def _check_product(self, index: int, factors: Mapping[str, Sequence[Any]]) -> None:
        path: Path = ("matrix", index)
        if (count := prod(len(values) for values in factors.values())) > MAX_CELLS:
            self.source.add(path, f"has {count} cells, more than the {MAX_CELLS} that a run can have")
            return
        for name, values in factors.items():
            here = (*path, name)
            if not values:
                self.source.add(here, "has no values")
            seen: list[str] = []
            for place, value in enumerate(values):
                if text(value) in seen:
                    self.source.add((*here, place), f"{text(value)!r} is given twice")
                seen.append(text(value))
                self._check_value(here, place, name, value)
        for name in factors:
            for other in factors:
                if other.startswith(f"{name}.") and "." in name:
                    self.source.add((*path, other), f"{name!r} varies the whole of which this is a part", key=True)

    def _check_value(self, here: Path, place: int, name: str, value: Any) -> None:
        node = self.base.nodes.get(name)
        if name == "strategy":
            self._check_strategy((*here, place), value)
        elif name == "agent":
            check_agent(self.source, (*here, place), value)
        elif "." in name:
            if place == 0 and (wrong := self._wrong_path(name)):
                self.source.add(here, wrong, key=True)
            elif not self._wrong_path(name):
                self._check_change((*here, place), name, value)
        elif node is None or not node.kind.forwards:
            if place == 0:
                self.source.add(here, self._wrong_factor(name, node), key=True)
        elif not isinstance(value, str):
            self.source.add((*here, place), f"{describe(value)} where the name of a profile is due")
        else:
            self._check_profile((*here, place), value)

    def _wrong_factor(self, name: str, node: Node | None) -> str:
        if node is not None:
            return f"{name!r} is a {node.kind.value} and has no profile; a link is varied as nodes.{name}.link.loss"
        nats = [name for name, other in self.base.nodes.items() if other.kind.forwards]
        return f"there is no factor {name!r}{suggestion(name, ['strategy', 'agent', *nats])}"

    def _check_strategy(self, path: Path, value: Any) -> None:
        if value not in STRATEGIES:
            self.source.add(path, f"there is no strategy {text(value)!r}{suggestion(text(value), STRATEGIES)}")

    def _check_profile(self, path: Path, word: str) -> None:
        try:
            self.profile_of(word)
        except SpecError as error:
            for problem in error.problems:
                if problem.file:
                    self.source.problems.append(problem)
                else:
                    self.source.add(path, problem.message)

    def _wrong_path(self, name: str) -> str | None:
        """Why a dotted factor leads nowhere; None where it leads somewhere."""
        steps = name.split(".")
        if steps[0] == "regions" and len(steps) == 3:
            return None
        if steps[0] != "nodes" or len(steps) < 3 or not all(steps):
            return f"{name!r} leads nowhere: write for example nodes.alice.link.loss"
        if steps[1] not in self.base.nodes:
            return f"the topology has no node {steps[1]!r}{suggestion(steps[1], self.base.nodes)}"
        if steps[2] not in VARIABLE:
            if steps[2] == "profile":
                return f"a profile is varied by the node's name alone: {steps[1]}: [...]"
            return f"{steps[2]!r} cannot be varied{suggestion(steps[2], VARIABLE)}"
        links = self.raw["nodes"][steps[1]].get("link")
        if steps[2] == "link" and isinstance(links, list) and (len(steps) > 3 and not steps[3].isdigit()):
            return f"{steps[1]!r} has {len(links)} links: say which, as in nodes.{steps[1]}.link.0.{steps[3]}"
        return None

    def _check_change(self, path: Path, name: str, value: Any) -> None:
        if isinstance(value, Command):
            self.source.add(path, "a program where a value of the topology is due")
            return
        scratch = Source(self.topology_source.file, self.topology_source.tree)
        try:
            raw = change(self.raw, name.split("."), value)
        except LookupError:
            self.source.add(path[:-1], f"{name!r} leads nowhere in the topology", key=True)
            return
        if topology_rules.build(scratch, raw, self.base.name) is None:
            for problem in scratch.problems:
                about = "" if problem.path in (name, "") else f"{problem.path}: "
                self.source.add(path, f"{about}{problem.message}")

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        peers = [name for name, node in self.base.nodes.items() if node.kind is NodeKind.PEER]
        named = f"the topology {self.base.name!r}"
        if not any(node.kind is NodeKind.RENDEZVOUS for node in self.base.nodes.values()):
            self.source.add(("topology",), f"{named} has no rendezvous: its peers could not find each other")
        if len(peers) < 2:
            self.source.add(("topology",), f"{named} has {len(peers)} peers: a trial needs two")
        elif not self.scenario.pairs and len(peers) > 2:
            mend = f"say who meets whom, as in pairs: [[{peers[0]}, {peers[1]}]]"
            self.source.add(("topology",), f"{named} has {len(peers)} peers: {mend}")
        seen: list[frozenset[str]] = []
        for index, pair in enumerate(self.scenario.pairs):
            for place, name in enumerate(pair):
                if name not in peers:
                    self.source.add(("pairs", index, place), f"{name!r} is no peer{suggestion(name, peers)}")
            if pair[0] == pair[1]:
                self.source.add(("pairs", index), "a peer does not meet itself")
            if frozenset(pair) in seen:
                self.source.add(("pairs", index), f"{pair[0]} and {pair[1]} are given twice")
            seen.append(frozenset(pair))
        return self.scenario.pairs or ((peers[0], peers[1]),)

    def _check_expectations(self, cells: Sequence[CellSpec]) -> None:
        for index, expectation in enumerate(self.scenario.expect):
            path: Path = ("expect", index, "where")
            names = list(dict.fromkeys(name for cell in cells for name in cell.factors))
            fits = True
            for name, value in expectation.where.items():
                values = [text(v) for v in dict.fromkeys(cell.factors[name] for cell in cells if name in cell.factors)]
                if not values:
                    fits = False
                    self.source.add((*path, name), f"no factor is called {name!r}{suggestion(name, names)}", key=True)
                elif text(value) not in values:
                    fits = False
                    message = f"no cell has {name}={text(value)}{suggestion(text(value), values)}"
                    self.source.add((*path, name), message)
            if fits and not any(selects(expectation.where, cell.factors) for cell in cells):
                self.source.add(path, f"selects no cell: none has {' and '.join(_each(expectation.where))}")


def selects(where: Factors, factors: Factors) -> bool:
    """Whether a cell with these factors is one that `where` means."""
    return all(name in factors and factors[name] == value for name, value in where.items())


def check_agent(source: Source, path: Path, value: Agent) -> None:
    """Tell where a name is that of no reference agent."""
    if not isinstance(value, Command) and value not in AGENTS:
        hint = suggestion(text(value), AGENTS)
        source.add(path, f"there is no agent {text(value)!r}{hint}")


def check_parameters(source: Source, scenario: Scenario) -> None:
    """Tell what a strategy would not understand."""
    named = [factors.get("strategy", (DEFAULT_STRATEGY,)) for factors in scenario.matrix]
    for strategy in dict.fromkeys(name for names in named for name in names if name in STRATEGIES):
        known = STRATEGIES[str(strategy)]
        for name, value in scenario.parameters.items():
            path = ("parameters", name)
            if name not in known:
                source.add(path, f"the strategy {strategy!r} has no {name!r}{suggestion(name, known)}", key=True)
                continue
            least, most = known[name]
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                source.add(path, f"{describe(value)} is not a whole number from {least} to {most}")


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


def _each(factors: Factors) -> Iterator[str]:
    return (f"{name}={text(value)}" for name, value in factors.items())


def _listed(changes: Sequence[tuple[str, Any]]) -> str:
    return ", ".join(f"{name}={text(value)}" for name, value in changes)


__all__ = ["CellSpec", "Expansion", "change", "check_agent", "check_parameters", "dotted", "selects", "text"]
