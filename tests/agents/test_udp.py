"""The UDP agent and the rendezvous over real sockets of this machine's loopback."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from testbed.agents.contract import AgentResult, AgentSetup, ServerAddresses, is_finished
from testbed.agents.rendezvous import run_rendezvous
from testbed.agents.udp import run_udp_agent
from testbed.datagram import Endpoint
from testbed.traversal.candidates import CandidateType, Role
from testbed.traversal.events import Connected, Event, Failed, Relay
from testbed.traversal.turn import Credentials
from tests.agents.sockets import address, open_socket

SECOND = 1_000_000_000


def setup_of(name: str, servers: ServerAddresses, number: int, *, setup_deadline: int = 10 * SECOND) -> AgentSetup:
    role = Role.CONTROLLING if name == "alice" else Role.CONTROLLED
    other = "bob" if name == "alice" else "alice"
    return AgentSetup(name, other, role, (address(number),), servers, 10 * SECOND, setup_deadline, seed=number)


async def run_pair() -> dict[str, AgentResult]:
    results: dict[str, AgentResult] = {}
    seen: dict[str, list[Event]] = {"alice": [], "bob": []}
    stop = trio.Event()

    def on_event(name: str, event: Event) -> None:
        seen[name].append(event)
        if all(map(is_finished, seen.values())):
            stop.set()

    async def run(setup: AgentSetup) -> None:
        results[setup.name] = await run_udp_agent(
            setup, open_socket=open_socket, on_event=partial(on_event, setup.name), stop=stop
        )

    async with trio.open_nursery() as nursery:
        serve: Callable[..., Awaitable[None]] = partial(
            run_rendezvous, (address(1), address(2)), open_socket=open_socket, seed=1, loopback_peers=True
        )
        servers: ServerAddresses = await nursery.start(serve)
        async with trio.open_nursery() as agents:
            agents.start_soon(run, setup_of("alice", servers, 3))
            agents.start_soon(run, setup_of("bob", servers, 4))
        nursery.cancel_scope.cancel()
    return results


def test_two_agents_meet_relay_first_then_direct() -> None:
    before = time.monotonic_ns()
    results = trio.run(run_pair)
    after = time.monotonic_ns()
    for name, other in (("alice", 4), ("bob", 3)):
        events = results[name].events
        connected = next(event for event in events if isinstance(event, Connected))
        assert connected.remote.host == address(other)
        assert connected.types == (CandidateType.HOST, CandidateType.HOST)
        assert any(isinstance(event, Relay) and event.rtt for event in events)
        times = [event.t for event in events]
        assert before <= times[0]
        assert times[-1] <= after
        assert times == sorted(times)


def test_an_agent_that_no_server_answers_gives_up_in_its_time() -> None:
    async def run() -> AgentResult:
        nobody = Endpoint(address(6), 3478)
        servers = ServerAddresses((nobody,), nobody, Credentials("nobody", "nothing"), "testbed", nobody)
        setup = setup_of("alice", servers, 5, setup_deadline=SECOND // 20)
        return await run_udp_agent(setup, open_socket=open_socket, on_event=lambda _: None, stop=trio.Event())

    events = trio.run(run).events
    assert isinstance(events[-1], Failed)
    assert "time for setting up" in events[-1].reason
