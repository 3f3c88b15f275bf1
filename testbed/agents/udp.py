"""The UDP agent: `traversal.udp_peer` over sockets. Rounds of STUN checks, no QUIC."""

from __future__ import annotations

from random import Random

import trio

from testbed.agents.contract import AgentResult, AgentSetup, OnEvent, OpenSocket
from testbed.agents.end import run_end
from testbed.agents.loop import bind_seeded
from testbed.traversal.strategies import strategy
from testbed.traversal.udp_peer import UdpPeer


async def run_udp_agent(
    setup: AgentSetup, *, open_socket: OpenSocket, on_event: OnEvent, stop: trio.Event
) -> AgentResult:
    """Run one end until `stop`, or until it has given up. Raises OSError where no socket can be bound."""
    sockets = bind_seeded(setup.addresses, setup.seed, open_socket)
    peer = UdpPeer(
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
    return await run_end(peer, sockets, open_socket=open_socket, on_event=on_event, stop=stop)
