"""What a scenario must be beyond its grammar, whatever its cells are.

Rule 1: keys of later versions of the format are refused by name, not as spelling mistakes.
Rule 2: a gate that no rate could meet, or that every rate meets, is a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed.spec.event_rules import check_shapes
from testbed.spec.factor_rules import check_agent, text
from testbed.spec.model import describe
from testbed.spec.population_rules import check_published
from testbed.spec.problems import Source, suggestion
from testbed.spec.scenario import DEFAULT_STRATEGY, NOT_YET, STRATEGIES, Scenario
from testbed.spec.topology import NodeKind, Topology
from testbed.spec.yaml_text import Path

Pair = tuple[str, str]


def build(source: Source, data: Mapping[str, Any], name: str) -> Scenario | None:
    """The scenario that `data` means; None where its grammar is wrong. All that is wrong is told in `source`: what
    keeps to the grammar is returned all the same, so that more can be told of it.
    """
    for path in NOT_YET:
        whole = data if len(path) == 1 else data.get(path[0])
        if isinstance(whole, dict) and path[-1] in whole:
            source.add(path, f"{path[-1]!r} is not possible yet", key=True)
    if "name" in data:
        source.add(("name",), "unknown key 'name': a scenario is called as its file is", key=True)
    scenario = source.validate(Scenario, _without(data, (("name",), *NOT_YET)), hidden=("name",))
    if scenario is None:
        return None
    check_agent(source, ("agent",), scenario.agent)
    check_parameters(source, scenario)
    for key in ("deadline", "setup_deadline"):
        if getattr(scenario, key) == 0:
            source.add((key,), "nothing can be reached in no time")
    check_shapes(source, scenario)
    check_published(source, scenario)
    for index, expectation in enumerate(scenario.expect):
        here: Path = ("expect", index, "success_rate")
        least, most = expectation.success_rate.at_least, expectation.success_rate.at_most
        if least is None and most is None:
            source.add(here, "says neither at_least nor at_most")
        elif least is not None and most is not None and least > most:
            source.add(here, "no rate is at least that and at most this")
    return scenario.model_copy(update={"name": name})


def _without(data: Mapping[str, Any], paths: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """The data without the keys at these paths, of one step or two."""
    kept = {key: value for key, value in data.items() if (key,) not in paths}
    for outer, inner in (path for path in paths if len(path) == 2):
        if isinstance(kept.get(outer), dict):
            kept[outer] = {key: value for key, value in kept[outer].items() if key != inner}
    return kept


def check_parameters(source: Source, scenario: Scenario) -> None:
    """Tell what a strategy would not understand."""
    named = [factors.get("strategy", (DEFAULT_STRATEGY,)) for factors in scenario.matrix]
    strategies = dict.fromkeys(str(name) for names in named for name in names if name in STRATEGIES)
    for strategy in strategies:
        known = STRATEGIES[strategy]
        for name, value in scenario.parameters.items():
            path = ("parameters", name)
            if name not in known:
                source.add(path, f"the strategy {strategy!r} has no {name!r}{suggestion(name, known)}", key=True)
                continue
            least, most, *_ = known[name]
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                source.add(path, f"{describe(value)} is not a whole number from {least} to {most}")


def pairs_of(source: Source, scenario: Scenario, topology: Topology) -> tuple[Pair, ...]:
    """Who meets whom. What is wrong is told in `source`."""
    peers = [name for name, node in topology.nodes.items() if node.kind is NodeKind.PEER]
    named = f"the topology {topology.name!r}"
    if not any(node.kind is NodeKind.RENDEZVOUS for node in topology.nodes.values()):
        source.add(("topology",), f"{named} has no rendezvous: its peers could not find each other")
    if len(peers) < 2:
        source.add(("topology",), f"{named} has {_counted(len(peers), 'peer')}: a trial needs two")
        return ()
    if not scenario.pairs and len(peers) > 2:
        mend = f"say who meets whom, as in pairs: [[{peers[0]}, {peers[1]}]]"
        source.add(("topology",), f"{named} has {len(peers)} peers: {mend}")
    for index, pair in enumerate(scenario.pairs):
        for place, name in enumerate(pair):
            if name not in peers:
                source.add(("pairs", index, place), f"{name!r} is no peer{suggestion(name, peers)}")
        if pair[0] == pair[1]:
            source.add(("pairs", index), "a peer does not meet itself")
        if pair in scenario.pairs[:index]:
            source.add(("pairs", index), f"{pair[0]} and {pair[1]} are given twice")
    return scenario.pairs or ((peers[0], peers[1]),)


def check_expectations(source: Source, scenario: Scenario, cells: Sequence[Mapping[str, Any]]) -> None:
    """Tell which gates are about nothing. `cells`: the factors of each."""
    for index, expectation in enumerate(scenario.expect):
        path: Path = ("expect", index, "where")
        fits = True
        for name, value in expectation.where.items():
            if unknown := unknown_factor(cells, name):
                fits = False
                source.add((*path, name), unknown, key=True)
            elif unknown := unknown_value(cells, name, text(value)):
                fits = False
                source.add((*path, name), unknown)
        if fits and not any(selects(expectation.where, factors) for factors in cells):
            source.add(path, f"selects no cell: none has {' and '.join(_each(expectation.where))}")


def selects(where: Mapping[str, Any], factors: Mapping[str, Any]) -> bool:
    """Whether a cell with these factors is one that `where` means."""
    return all(name in factors and factors[name] == value for name, value in where.items())


def unknown_factor(cells: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """What to say where no cell has a factor of this name."""
    names = dict.fromkeys(name for factors in cells for name in factors)
    if name in names:
        return None
    return f"no factor is called {name!r}{suggestion(name, names)}" if names else f"{name!r}: nothing is varied here"


def unknown_value(cells: Sequence[Mapping[str, Any]], name: str, value: str) -> str | None:
    """What to say where no cell has this value of the factor."""
    values = dict.fromkeys(text(factors[name]) for factors in cells if name in factors)
    return None if value in values else f"no cell has {name}={value}{suggestion(value, values)}"


def _each(factors: Mapping[str, Any]) -> Iterator[str]:
    return (f"{name}={text(value)}" for name, value in factors.items())


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count or 'no'} {what}s"
