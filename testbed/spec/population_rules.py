"""What a population must be beyond its grammar.

Rule 1: a population is about profiles: of nats, and of routers that are firewalls. Anything else is varied in the
        matrix, and what the matrix varies the population does not.
Rule 2: a figure of the field says one thing, and stands beside a population.
"""

from __future__ import annotations

from testbed.errors import SpecError
from testbed.spec.factor_rules import ProfileOf, misfit, tell
from testbed.spec.problems import Source, suggestion
from testbed.spec.scenario import Scenario
from testbed.spec.topology import Topology


def check_population(source: Source, scenario: Scenario, topology: Topology, profile_of: ProfileOf) -> None:
    """Tell which nodes cannot have which profiles."""
    varied = {name for factors in scenario.matrix for name in factors}
    for name, mix in scenario.population.items():
        if wrong := _wrong_node(name, topology):
            source.add(("population", name), wrong, key=True)
            continue
        if name in varied:
            source.add(("population", name), f"the matrix varies {name!r} too: say it once", key=True)
        for word in mix:
            try:
                unfit = misfit(topology.nodes[name], profile_of(word))
            except SpecError as error:
                tell(source, ("population", name, word), error, key=True)
            else:
                if unfit:
                    source.add(("population", name, word), unfit, key=True)


def _wrong_node(name: str, topology: Topology) -> str | None:
    node = topology.nodes.get(name)
    if "." in name or name in ("strategy", "agent", "pair"):
        return "a population mixes the profiles of nats: vary this in the matrix"
    if node is None:
        return f"there is no nat {name!r}{suggestion(name, [n for n, o in topology.nodes.items() if o.kind.forwards])}"
    return None if node.kind.forwards else f"{name!r} is a {node.kind.value} and has no profile"


def check_published(source: Source, scenario: Scenario) -> None:
    """Tell which figures say nothing, or too much."""
    for key in ("published", "leaves_out"):
        if getattr(scenario, key) and not scenario.population:
            source.add((key,), "stands beside a population's rate, and there is no population", key=True)
    for index, figure in enumerate(scenario.published):
        said = [name for name in ("success_rate", "at_least") if getattr(figure, name) is not None]
        if len(said) != 1:
            both = "both success_rate and at_least" if said else "neither success_rate nor at_least"
            source.add(("published", index), f"says {both}: write one")
        if figure.plus_or_minus is not None and figure.success_rate is None:
            source.add(("published", index, "plus_or_minus"), "goes with success_rate")
