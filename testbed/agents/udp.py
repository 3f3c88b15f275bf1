"""The UDP agent: `traversal.udp_peer` over sockets. Rounds of STUN checks, no QUIC."""

from __future__ import annotations

from random import Random

import trio

from testbed.agents.contract import AgentResult, AgentSetup, OnEvent, OpenSocket
from testbed.agents.end import attempt_of, run_end
from testbed.agents.loop import bind_seeded
from testbed.traversal.udp_peer import UdpPeer


async def run_udp_agent(
    setup: AgentSetup, *, open_socket: OpenSocket, on_event: OnEvent, stop: trio.Event
) -> AgentResult:
    """Run one end until `stop`, or until it has given up. Raises OSError where no socket can be bound."""
    sockets = bind_seeded(setup.addresses, setup.seed, open_socket)
    peer = UdpPeer(rng=Random(setup.seed), **attempt_of(setup, sockets))
    return await run_end(peer, sockets, open_socket=open_socket, on_event=on_event, stop=stop)
