"""What a trial of a cell is made of, and its seed.

Rule 1: a trial and its seed are functions of (run's seed, cell, index), so any order and any shard give the same set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.plan.addressing import plan_network, server_addresses
from testbed.plan.events import PlannedEvent, address_changes, plan_events, with_varying_links
from testbed.plan.network import Network
from testbed.plan.seeds import derive
from testbed.spec.matrix import CellSpec
from testbed.spec.scenario import Agent, Scenario
from testbed.spec.topology import NodeKind


@dataclass(frozen=True, slots=True)
class CellPlan:
    """One combination of factors, as a network and two ends in it."""

    id: str
    factors: Mapping[str, Any]
    network: Network
    rendezvous: str
    """The node that serves both ends: the first of its kind in the file."""
    servers: tuple[str, str]
    """Its two addresses."""
    ends: tuple[str, str]
    """Both peers; the first is the controlling one (the QUIC client)."""
    agent: Agent
    strategy: str
    events: tuple[PlannedEvent, ...] = ()
    """What happens to the network while a trial runs, in that order."""

    @property
    def controlling(self) -> str:
        """The end that decides."""
        return self.ends[0]


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """What is the same for every trial of a run; durations in nanoseconds."""

    deadline: int
    setup_deadline: int
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Of the strategy."""


def settings_of(scenario: Scenario) -> TrialSettings:
    """What a scenario says of every trial."""
    return TrialSettings(scenario.deadline, scenario.setup_deadline, dict(scenario.parameters))


def plan_cell(spec: CellSpec) -> CellPlan:
    """The plan of a cell, which has a rendezvous. Raises UsageError where its network cannot be addressed."""
    network = plan_network(spec.topology, spec.profiles, address_changes(spec.events))
    events = plan_events(spec.events, network)
    network = with_varying_links(network, events)
    rendezvous = next(name for name, node in spec.topology.nodes.items() if node.kind is NodeKind.RENDEZVOUS)
    first, second = server_addresses(network, rendezvous)
    servers = (str(first), str(second))
    return CellPlan(spec.id, spec.factors, network, rendezvous, servers, spec.pair, spec.agent, spec.strategy, events)


def trial_seed(seed: int, cell: str, index: int) -> int:
    """The seed of one trial of a run with this seed."""
    return derive(seed, cell, index)
