"""The QUIC agent and the rendezvous over real sockets of this machine's loopback."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from testbed.agents.contract import AgentResult, AgentSetup, ServerAddresses, is_finished
from testbed.agents.quic import run_quic_agent, warm
from testbed.agents.rendezvous import run_rendezvous
from testbed.datagram import Endpoint
from testbed.traversal.candidates import CandidateType, Role
from testbed.traversal.events import Check, Connected, Event, Failed, Relay
from testbed.traversal.turn import Credentials
from tests.agents.sockets import address, open_socket

SECOND = 1_000_000_000


def setup_of(name: str, servers: ServerAddresses, *numbers: int, setup_deadline: int = 10 * SECOND) -> AgentSetup:
    role = Role.CONTROLLING if name == "alice" else Role.CONTROLLED
    other = "bob" if name == "alice" else "alice"
    addresses = tuple(map(address, numbers))
    return AgentSetup(name, other, role, addresses, servers, 10 * SECOND, setup_deadline, seed=numbers[0])


async def run_pair(alice: tuple[int, ...], bob: tuple[int, ...]) -> dict[str, AgentResult]:
    results: dict[str, AgentResult] = {}
    seen: dict[str, list[Event]] = {"alice": [], "bob": []}
    stop = trio.Event()

    def on_event(name: str, event: Event) -> None:
        seen[name].append(event)
        if all(map(is_finished, seen.values())):
            stop.set()

    async def run(setup: AgentSetup) -> None:
        results[setup.name] = await run_quic_agent(
            setup, open_socket=open_socket, on_event=partial(on_event, setup.name), stop=stop
        )

    async with trio.open_nursery() as nursery:
        serve: Callable[..., Awaitable[None]] = partial(
            run_rendezvous, (address(11), address(12)), open_socket=open_socket, seed=1, loopback_peers=True
        )
        servers: ServerAddresses = await nursery.start(serve)
        async with trio.open_nursery() as agents:
            agents.start_soon(run, setup_of("alice", servers, *alice))
            agents.start_soon(run, setup_of("bob", servers, *bob))
        nursery.cancel_scope.cancel()
    return results


def test_two_agents_connect_through_the_relay_and_migrate() -> None:
    before = time.monotonic_ns()
    results = trio.run(run_pair, (13,), (14,))
    after = time.monotonic_ns()
    for name, other in (("alice", 14), ("bob", 13)):
        events = results[name].events
        connected = next(event for event in events if isinstance(event, Connected))
        assert connected.remote.host == address(other)
        assert connected.types == (CandidateType.HOST, CandidateType.HOST)
        assert any(isinstance(event, Relay) and event.rtt for event in events)
        assert any(isinstance(event, Check) for event in events)
        times = [event.t for event in events]
        assert before <= times[0]
        assert times[-1] <= after
        assert times == sorted(times)
    assert results["alice"].secrets
    assert set(results["alice"].secrets) == set(results["bob"].secrets)


def test_ends_of_several_addresses_connect_by_one_pair_of_them() -> None:
    results = trio.run(run_pair, (15, 16), (17, 18))
    claims = {name: next(e for e in result.events if isinstance(e, Connected)) for name, result in results.items()}
    assert claims["alice"].local == claims["bob"].remote
    assert claims["alice"].remote == claims["bob"].local


def test_an_agent_that_no_server_answers_gives_up_in_its_time() -> None:
    async def run() -> AgentResult:
        nobody = Endpoint(address(19), 3478)
        servers = ServerAddresses((nobody,), nobody, Credentials("nobody", "nothing"), "testbed", nobody)
        setup = setup_of("alice", servers, 20, setup_deadline=SECOND // 20)
        return await run_quic_agent(setup, open_socket=open_socket, on_event=lambda _: None, stop=trio.Event())

    events = trio.run(run).events
    assert isinstance(events[-1], Failed)
    assert "time for setting up" in events[-1].reason


def test_warming_twice_changes_nothing() -> None:
    warm()
    warm()
