"""One trial in virtual time: the rendezvous, both ends, and the verdict by the rules that a lab's trials are judged by.

Rule 1: a trial here has the seeds of the lab's trial of the same number: sockets' ports, tokens, links, NATs.
Rule 2: the verdict is `plan.outcomes.judge`'s, on both ends' words and on the datagrams at their interfaces.
Rule 3: the times are those of `traversal.metrics`, as in a lab.

Both ends start at the same instant; a lab's start some milliseconds apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from testbed.datagram import Endpoint
from testbed.errors import UsageError
from testbed.plan.events import PlannedEvent
from testbed.plan.outcomes import Claim, End, Outcome, Passage, Verdict, judge
from testbed.plan.seeds import derive
from testbed.plan.trials import CellPlan, TrialSettings
from testbed.sim.network import Attached, Certainty, Crowded, Lost, Seen, VirtualNetwork
from testbed.sim.quic_connection import ModelledConnector
from testbed.sim.routes import Routes
from testbed.spec.scenario import Command
from testbed.traversal.bases import FIRST_PORTS, CloseBase
from testbed.traversal.candidates import Role
from testbed.traversal.events import Connected, Event, Relay
from testbed.traversal.metrics import discovery_time, is_over, traversal_time
from testbed.traversal.peer import Peer
from testbed.traversal.quic_peer import QuicPeer
from testbed.traversal.rendezvous import Rendezvous
from testbed.traversal.strategies import strategy
from testbed.traversal.turn_server import OpenRelay
from testbed.traversal.udp_peer import UdpPeer


def modelled_quic_peer(*, rng: Random, **arguments: Any) -> QuicPeer:
    """The QUIC agent's machine over modelled connections."""
    return QuicPeer(connector=ModelledConnector(rng), rng=rng, **arguments)


ENDS: Mapping[str, Callable[..., Peer]] = {"udp": UdpPeer, "quic": modelled_quic_peer}
"""Agent -> the machine that plays it, the agent's own."""


@dataclass(frozen=True, slots=True)
class Played:
    """A trial that was played."""

    verdict: Verdict
    events: Mapping[str, Sequence[Event]]
    """Of both ends."""
    seen: Mapping[str, Sequence[Seen]]
    """The datagrams at the interfaces of both ends, in order."""
    lost: Sequence[Lost]
    offered: Sequence[int]
    """Frames that each line of `Routes.lines` was offered."""
    happened: Sequence[PlannedEvent]
    """Of the cell's events those that the trial lasted for."""
    discovery: int | None
    """Nanoseconds from the start until every server had answered or was given up, of the slower end."""
    traversal: int | None
    """Nanoseconds from the first check of either end until application bytes had arrived at both; of a direct trial."""


def play(
    plan: CellPlan,
    settings: TrialSettings,
    seed: int,
    *,
    routes: Routes | None = None,
    certainty: Certainty | None = None,
) -> Played:
    """The trial of `plan` with this seed. `routes`: of its network, where they are known already.

    Raises UsageError where nothing here can play the cell's agent.
    """
    routes = routes or Routes(plan.network)
    for exact_lines in (False, True):
        trial = _Trial(plan, settings, seed, VirtualNetwork(routes, seed, certainty=certainty, exact_lines=exact_lines))
        try:
            trial.run()
            break
        except Crowded:
            continue
    return trial.played()


def can_play(plan: CellPlan) -> str | None:
    """Why there is no prediction for a cell; None where there is one."""
    if isinstance(plan.agent, Command):
        return "an external program cannot be predicted: only the reference agents are known here"
    return None


class _Trial:
    def __init__(self, plan: CellPlan, settings: TrialSettings, seed: int, network: VirtualNetwork) -> None:
        if why := can_play(plan):
            raise UsageError(why)
        self._plan, self._settings, self._seed = plan, settings, seed
        self._network = network
        self._said: dict[str, list[Event]] = {name: [] for name in plan.ends}
        self._rendezvous = Rendezvous(plan.servers, Random(derive(seed, "rendezvous")))
        server = self._network.attach(
            self._rendezvous, plan.rendezvous, self._rendezvous.locals, lambda now: self._serve(server, now)
        )
        self._ends = {name: self._make(name) for name in plan.ends}

    def _make(self, name: str) -> tuple[Peer, Attached]:
        plan, seed = self._plan, derive(self._seed, "agent", name)
        one, other = plan.ends
        rng = Random(seed)
        bases = [Endpoint(str(a), rng.choice(FIRST_PORTS)) for a in plan.network.boxes[name].addresses()]
        peer: Peer = ENDS[str(plan.agent)](
            name=name,
            peer=other if name == one else one,
            role=Role.CONTROLLING if name == plan.controlling else Role.CONTROLLED,
            bases=bases,
            servers=self._rendezvous.servers,
            strategy=strategy(plan.strategy, self._settings.parameters),
            deadline=self._settings.deadline,
            setup_deadline=self._settings.setup_deadline,
            rng=Random(seed),
        )
        attached = self._network.attach(peer, name, bases, lambda now: self._listen(name, peer, attached, now))
        return peer, attached

    def run(self) -> None:
        """Until both ends are finished."""
        self._network.plan(self._plan.events)
        for peer, attached in self._ends.values():
            peer.start(0)
            self._network.flush(attached)
        limit = self._settings.setup_deadline + self._settings.deadline
        self._network.run(limit)

    def _listen(self, name: str, peer: Peer, attached: Attached, now: int) -> None:
        said = self._said[name]
        while events := peer.events():
            for event in events:
                if isinstance(event, Event):
                    said.append(event)
                elif isinstance(event, CloseBase):
                    self._network.close(attached, event.endpoint)
                elif self._network.open(attached, event.endpoint):
                    peer.base_opened(event.endpoint, now)
                else:
                    peer.base_refused(event.endpoint, now)
            if is_over(self._said):
                self._network.stop()

    def _serve(self, server: Attached, now: int) -> None:
        while events := self._rendezvous.events():
            for event in events:
                if not isinstance(event, OpenRelay):
                    self._network.close(server, event.endpoint)
                elif self._network.open(server, event.endpoint):
                    self._rendezvous.relay_opened(event.endpoint, now)
                else:
                    self._rendezvous.relay_refused(event.endpoint, now)

    def played(self) -> Played:
        """What came of it."""
        one, other = (self._end(name) for name in self._plan.ends)
        relays = frozenset(self._plan.servers)
        verdict = judge(one, other, relays)
        said = self._said
        direct = verdict.outcome is Outcome.DIRECT
        return Played(
            verdict,
            said,
            {name: attached.seen for name, (_, attached) in self._ends.items()},
            self._network.lost,
            tuple(self._network.offered),
            tuple(self._network.happened),
            discovery_time(said),
            traversal_time(said, relays) if direct else None,
        )

    def _end(self, name: str) -> End:
        said, (_, attached) = self._said[name], self._ends[name]
        claim = next(
            (Claim(e.local, e.remote, e.received_from) for e in said if isinstance(e, Connected)),
            None,
        )
        return End(
            frozenset(map(str, self._plan.network.boxes[name].addresses())),
            claim=claim,
            relayed=any(isinstance(event, Relay) for event in said),
            sent=frozenset(_passages(attached.seen, True)) if claim else frozenset(),
            received=frozenset(_passages(attached.seen, False)) if claim else frozenset(),
        )


def _passages(seen: Iterable[Seen], is_outgoing: bool) -> Iterable[Passage]:
    return (Passage(d.source, d.destination, hash(d.data)) for way, d in seen if way is is_outgoing)
