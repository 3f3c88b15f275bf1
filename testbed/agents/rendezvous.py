"""The rendezvous over sockets: STUN, relay and signalling as one service inside one namespace.

Rule 1: it is ready when it is bound, and says so (`task_status`); nobody sleeps until it might be.
Rule 2: sockets of allocations are opened as they are needed, by the same function as the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import trio

from testbed.agents.contract import OpenSocket, ServerAddresses
from testbed.agents.loop import Loop
from testbed.traversal.rendezvous import SIGNALLING_PORT, STUN_PORTS, Rendezvous
from testbed.traversal.turn_server import OpenRelay, RelayEvent


async def run_rendezvous(
    addresses: Sequence[str],
    *,
    open_socket: OpenSocket,
    seed: int,
    ports: tuple[int, int] = STUN_PORTS,
    signalling_port: int = SIGNALLING_PORT,
    loopback_peers: bool = False,
    task_status: trio.TaskStatus[ServerAddresses] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. `addresses`: one, or two for behaviour discovery. Raises OSError where one is taken."""
    machine = Rendezvous(
        addresses, Random(seed), ports=ports, signalling_port=signalling_port, loopback_peers=loopback_peers
    )

    def on_event(event: RelayEvent) -> None:
        if not isinstance(event, OpenRelay):
            loop.remove(event.endpoint)
            return
        try:
            loop.add({event.endpoint: open_socket(event.endpoint)})
        except OSError:
            machine.relay_refused(event.endpoint, loop.now())
        else:
            machine.relay_opened(event.endpoint, loop.now())

    loop = Loop(machine, on_event)
    loop.add({local: open_socket(local) for local in machine.locals})
    task_status.started(machine.servers)
    await loop.run()
