"""The QUIC agent and the rendezvous over real sockets of this machine's loopback."""

from __future__ import annotations

import time

import trio

from testbed.agents.quic import run_quic_agent, warm
from testbed.traversal.candidates import CandidateType
from testbed.traversal.events import Check, Connected, Failed, Relay
from tests.agents.meeting import run_pair, unanswered
from tests.agents.sockets import address


def test_two_agents_connect_through_the_relay_and_migrate() -> None:
    before = time.monotonic_ns()
    results = trio.run(run_pair, run_quic_agent, (11, 12), (13,), (14,))
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
    results = trio.run(run_pair, run_quic_agent, (11, 12), (15, 16), (17, 18))
    claims = {name: next(e for e in result.events if isinstance(e, Connected)) for name, result in results.items()}
    assert claims["alice"].local == claims["bob"].remote
    assert claims["alice"].remote == claims["bob"].local


def test_an_agent_that_no_server_answers_gives_up_in_its_time() -> None:
    events = unanswered(run_quic_agent, 20, 19)
    assert isinstance(events[-1], Failed)
    assert "time for setting up" in events[-1].reason


def test_warming_twice_changes_nothing() -> None:
    warm()
    warm()
