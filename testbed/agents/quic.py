"""The QUIC agent: `traversal.quic_peer` over aioquic's connections and real sockets."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from random import Random

import trio

from testbed.agents.contract import AgentResult, AgentSetup, OnEvent, OpenSocket
from testbed.agents.end import attempt_of, run_end
from testbed.agents.loop import bind_seeded
from testbed.agents.quic_private import check_aioquic
from testbed.agents.quic_session import AioquicConnector, Session
from testbed.datagram import Endpoint
from testbed.errors import BrokenError
from testbed.traversal.quic_happenings import Path
from testbed.traversal.quic_peer import QuicPeer
from testbed.traversal.quic_switch import TOKEN_SIZE


@cache
def warm() -> None:
    """What each process needs once: call it before forking. Raises MachineError where aioquic will not do.

    The handshake that is rehearsed makes OpenSSL fetch its algorithms and Python specialise its code: a first trial
    then takes 23 ms of CPU instead of 28.
    """
    check_aioquic()
    path, token, secrets = Path(Endpoint("0.0.0.0", 1), Endpoint("0.0.0.0", 2)), bytes(TOKEN_SIZE), io.StringIO()
    client = Session.dial(path, token, secrets, 0)
    ((initial, _),) = client.datagrams_to_send(0)
    server = Session.accept(initial, path, token, secrets, 0)
    if server is None:
        raise BrokenError("a QUIC server does not take its own client's first packet")
    for sender, receiver in ((server, client), (client, server), (server, client)):
        for data, _ in sender.datagrams_to_send(0):
            receiver.receive(data, path, 0)


async def run_quic_agent(
    setup: AgentSetup, *, open_socket: OpenSocket, on_event: OnEvent, stop: trio.Event
) -> AgentResult:
    """Run one end until `stop`, or until it has given up. Raises OSError where no socket can be bound, MachineError
    where aioquic is not the version that this agent is made for.
    """
    warm()
    sockets = bind_seeded(setup.addresses, setup.seed, open_socket)
    connector = AioquicConnector()
    peer = QuicPeer(rng=Random(setup.seed), connector=connector, **attempt_of(setup, sockets))
    result = await run_end(peer, sockets, open_socket=open_socket, on_event=on_event, stop=stop)
    return replace(result, secrets=connector.secrets)
