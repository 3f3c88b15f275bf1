"""From a scenario to its cells: every combination of factors, with what it means.

Rule 1: cells come in the order of the products; within a product the last factor varies fastest, after the factors of
        the matrix those of the population, and then the pair of peers.
Rule 2: two cells whose factors read the same are one; so `id` names a cell.
Rule 3: where more than one pair meets, the pair is a factor too: each trial is about one pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from testbed.spec import topology_rules
from testbed.spec.event import Event
from testbed.spec.event_rules import check_places
from testbed.spec.factor_rules import MAX_CELLS, FactorRules, Factors, ProfileOf, change, text
from testbed.spec.population import shares
from testbed.spec.population_rules import check_population
from testbed.spec.problems import Source
from testbed.spec.profile import NatProfile
from testbed.spec.scenario import DEFAULT_STRATEGY, Agent, Scenario
from testbed.spec.scenario_rules import Pair, check_expectations, pairs_of
from testbed.spec.topology import NodeKind, Topology
from testbed.spec.yaml_text import Path

PAIR = "pair"
"""The factor that names a pair of peers, where there are several."""


@dataclass(frozen=True, slots=True)
class CellSpec:
    """One combination of factors, and all that it decides."""

    factors: Factors
    """As written, in the order of the matrix; then `pair` where there are several."""
    topology: Topology
    """With the dotted factors put in."""
    profiles: Mapping[str, NatProfile]
    """Of every nat, and of every router that is a firewall."""
    strategy: str
    agent: Agent
    pair: Pair
    """Who meets whom; the first is the QUIC client."""
    events: tuple[Event, ...] = ()
    """What happens while a trial runs, in the file's order."""
    weight: float = 1.0
    """Its share of the population: the product of its profiles' shares."""

    @property
    def id(self) -> str:
        """`nat_a=apdm-apdf,nat_b=eim-eif`; `all` where nothing is varied."""
        return ",".join(f"{name}={text(value)}" for name, value in self.factors.items()) or "all"


@dataclass(slots=True)
class Expansion:
    """The cells of one scenario while they are being made."""

    source: Source
    scenario: Scenario
    base: Topology
    raw: Mapping[str, Any]
    """The topology's data as written."""
    topology_source: Source
    own_profiles: Mapping[str, NatProfile]
    """Node -> the profile that the topology itself gives it."""
    profile_of: ProfileOf
    """A profile by a name that the scenario says."""
    _variants: dict[tuple[tuple[str, Any], ...], Topology | None] = field(default_factory=dict)

    def cells(self) -> tuple[CellSpec, ...]:
        """Every cell, once. What is wrong is told in `source`."""
        before = len(self.source.problems)
        pairs = pairs_of(self.source, self.scenario, self.base)
        rules = FactorRules(self.source, self.base, self.raw, self.topology_source, self.profile_of)
        for index, factors in enumerate(self.scenario.matrix):
            rules.check_product(("matrix", index), factors)
        check_population(self.source, self.scenario, self.base, self.profile_of)
        if len(self.source.problems) > before:
            return ()
        seen: set[frozenset[tuple[str, str]]] = set()
        cells: list[CellSpec] = []
        for path, chosen in self._combinations():
            key = frozenset((name, text(value)) for name, value in chosen.items())
            if key in seen:
                continue
            seen.add(key)
            made = self._cells_of(path, chosen, pairs)
            if not made:
                return ()
            cells += made
            if len(cells) > MAX_CELLS:
                self.source.add(("matrix",), f"has more than the {MAX_CELLS} cells that a run can have")
                return ()
        check_expectations(self.source, self.scenario, [cell.factors for cell in cells])
        check_places(self.source, self.scenario, cells)
        return tuple(cells)

    def _combinations(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        mixes = {name: tuple(mix) for name, mix in self.scenario.population.items()}
        for index, factors in enumerate(self.scenario.matrix):
            whole = {**factors, **mixes}
            for values in product(*whole.values()):
                yield ("matrix", index), dict(zip(whole, values, strict=True))

    def _cells_of(self, path: Path, factors: Factors, pairs: Sequence[Pair]) -> list[CellSpec]:
        """One combination as a cell for each pair; none, told in `source`, where it means nothing."""
        topology = self._variant(path, tuple((name, value) for name, value in factors.items() if "." in name))
        profiles = self._profiles(path, factors)
        if topology is None or profiles is None:
            return []
        return [
            CellSpec(
                {**factors, PAIR: "-".join(pair)} if len(pairs) > 1 else factors,
                topology,
                profiles,
                str(factors.get("strategy", DEFAULT_STRATEGY)),
                factors.get("agent", self.scenario.agent),
                pair,
                self.scenario.events,
                prod(mix[str(factors[name])] for name, mix in shares(self.scenario.population).items()),
            )
            for pair in pairs
        ]

    def _profiles(self, path: Path, factors: Factors) -> dict[str, NatProfile] | None:
        profiles = {**self.own_profiles}
        for name, node in self.base.nodes.items():
            if name in factors:
                profiles[name] = self.profile_of(factors[name])
            elif node.kind is NodeKind.NAT and node.profile is None:
                where = ("topology",) if path[1] == 0 and not self.scenario.matrix[0] else path
                mend = f"write {name}: [eim-apdf] in the matrix, or profile: in the topology"
                self.source.add(where, f"the nat {name!r} has no profile: {mend}")
                return None
        return profiles

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


def _listed(changes: Sequence[tuple[str, Any]]) -> str:
    return ", ".join(f"{name}={text(value)}" for name, value in changes)
