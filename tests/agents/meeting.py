"""Two agents and a rendezvous over real sockets of this machine's loopback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import trio

from testbed.agents.contract import AgentResult, AgentSetup, ServerAddresses
from testbed.agents.rendezvous import run_rendezvous
from testbed.datagram import Endpoint
from testbed.traversal.candidates import Role
from testbed.traversal.events import Event
from testbed.traversal.metrics import is_over
from testbed.traversal.turn import Credentials
from tests.agents.sockets import address, open_socket

SECOND = 1_000_000_000
Agent: TypeAlias = Callable[..., Awaitable[AgentResult]]


def setup_of(name: str, servers: ServerAddresses, *numbers: int, setup_deadline: int = 10 * SECOND) -> AgentSetup:
    role = Role.CONTROLLING if name == "alice" else Role.CONTROLLED
    other = "bob" if name == "alice" else "alice"
    addresses = tuple(map(address, numbers))
    return AgentSetup(name, other, role, addresses, servers, 10 * SECOND, setup_deadline, seed=numbers[0])


async def run_pair(
    run_agent: Agent, servers: tuple[int, int], alice: tuple[int, ...], bob: tuple[int, ...]
) -> dict[str, AgentResult]:
    """Both ends and a rendezvous until the ends are finished; all by the numbers of their addresses."""
    results: dict[str, AgentResult] = {}
    seen: dict[str, list[Event]] = {"alice": [], "bob": []}
    stop = trio.Event()

    def on_event(name: str, event: Event) -> None:
        seen[name].append(event)
        if is_over(seen):
            stop.set()

    async def run(setup: AgentSetup) -> None:
        results[setup.name] = await run_agent(
            setup, open_socket=open_socket, on_event=partial(on_event, setup.name), stop=stop
        )

    async with trio.open_nursery() as nursery:
        serve: Callable[..., Awaitable[None]] = partial(
            run_rendezvous, tuple(map(address, servers)), open_socket=open_socket, seed=1, loopback_peers=True
        )
        found: ServerAddresses = await nursery.start(serve)
        async with trio.open_nursery() as agents:
            agents.start_soon(run, setup_of("alice", found, *alice))
            agents.start_soon(run, setup_of("bob", found, *bob))
        nursery.cancel_scope.cancel()
    return results


def unanswered(run_agent: Agent, number: int, server: int) -> tuple[Event, ...]:
    """What an end says whose servers are not there."""

    async def run() -> AgentResult:
        nobody = Endpoint(address(server), 3478)
        servers = ServerAddresses((nobody,), nobody, Credentials("nobody", "nothing"), "testbed", nobody)
        setup = setup_of("alice", servers, number, setup_deadline=SECOND // 20)
        return await run_agent(setup, open_socket=open_socket, on_event=lambda _: None, stop=trio.Event())

    return trio.run(run).events
