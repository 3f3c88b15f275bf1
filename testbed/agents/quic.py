"""The QUIC agent: `quic_peer` over sockets. A connection through the relay, rounds of path probes, migration."""

from __future__ import annotations

from random import Random

import trio

from testbed.agents.contract import AgentResult, AgentSetup, OnEvent, OpenSocket
from testbed.agents.loop import Loop, bind_seeded
from testbed.agents.quic_peer import QuicPeer
from testbed.agents.quic_private import check_aioquic
from testbed.agents.quic_tls import certificate
from testbed.traversal.events import Event, Failed
from testbed.traversal.strategies import strategy


def warm() -> None:
    """What each process needs once: call it before forking. Raises MachineError where aioquic will not do."""
    check_aioquic()
    certificate()


async def run_quic_agent(
    setup: AgentSetup, *, open_socket: OpenSocket, on_event: OnEvent, stop: trio.Event
) -> AgentResult:
    """Run one end until `stop`, or until it has given up. Raises OSError where no socket can be bound, MachineError
    where aioquic is not the version that this agent is made for.
    """
    warm()
    sockets = bind_seeded(setup.addresses, setup.seed, open_socket)
    peer = QuicPeer(
        name=setup.name,
        peer=setup.peer,
        role=setup.role,
        bases=tuple(sockets),
        servers=setup.servers,
        strategy=strategy(setup.strategy, setup.parameters),
        deadline=setup.deadline,
        setup_deadline=setup.setup_deadline,
        rng=Random(setup.seed),
    )
    events: list[Event] = []

    def report(event: Event) -> None:
        events.append(event)
        on_event(event)
        if isinstance(event, Failed):
            loop.stop()

    loop = Loop(peer, report)
    loop.add(sockets)
    peer.start(loop.now())
    await loop.run(stop=stop)
    return AgentResult(tuple(events), lateness=loop.lateness, secrets=peer.secrets)
