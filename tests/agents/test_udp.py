"""The UDP agent and the rendezvous over real sockets of this machine's loopback."""

from __future__ import annotations

import time

import trio

from testbed.agents.udp import run_udp_agent
from testbed.traversal.candidates import CandidateType
from testbed.traversal.events import Connected, Failed, Relay
from tests.agents.meeting import run_pair, unanswered
from tests.agents.sockets import address


def test_two_agents_meet_relay_first_then_direct() -> None:
    before = time.monotonic_ns()
    results = trio.run(run_pair, run_udp_agent, (1, 2), (3,), (4,))
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
    events = unanswered(run_udp_agent, 5, 6)
    assert isinstance(events[-1], Failed)
    assert "time for setting up" in events[-1].reason
