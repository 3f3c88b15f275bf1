"""Port prediction on the kernel's NATs while others behind the same NAT open flows of their own.

What is predicted are the ports after the last one that was measured. So an attempt gets through exactly if fewer ports
than the window holds were taken in between; and of Poisson traffic so many come in a gap t with P(Poisson(rate x t) <=
window - 1). The model is held to the same two in tests/traversal/test_strategies.py.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import exp, factorial
from random import Random

import pytest

from testbed.lab import namespaces
from testbed.lab.blueprint import Blueprint, draw
from testbed.lab.lab import Lab, build
from testbed.lab.processes import die_with_parent
from testbed.plan.seeds import derive
from testbed.plan.trials import CellPlan, TrialSettings
from testbed.stats import clopper_pearson
from testbed.traversal.events import Connected, Prediction
from testbed.trial.attempt import Attempt, run_attempt
from testbed.trial.door import Door, Work
from testbed.trial.engine import Engine
from testbed.trial.pace import Pace
from tests.sim.build import SECOND, TWO_HOMES, cell, node

RATE, TRIALS = 12.0, 50
"""New flows a second; trials of each window."""
WINDOWS = (1, 2, 4)


@contextmanager
def others(lab: Lab, server: str, seed: int) -> Iterator[None]:
    """Another host of alice's home, each of whose datagrams is a new flow, as long as the trial lasts."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(parent)
        rng = Random(seed)
        try:
            with lab.boxes["other"]:
                while True:
                    select.select([], [], [], rng.expovariate(RATE))
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                        sock.sendto(b"another flow", (server, 9))
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def seen(lab: Lab, attempt: Attempt, plan: CellPlan) -> dict[str, float | int | bool] | None:
    """How many ports were taken between measuring and punching, in how many seconds, and whether it got through."""
    (prediction,) = (event for event in attempt.seen["alice"] if isinstance(event, Prediction))
    ports = [endpoint.port for endpoint in prediction.predicted]
    if not ports or any(after - before != 1 for before, after in pairwise([prediction.observed[-1].port, *ports])):
        return None  # others came between the questions: no step was found, or a wrong one
    assert lab.capture is not None
    there = {str(address) for address in plan.network.boxes["nat_b"].translation.external}  # type: ignore[union-attr]
    passing = list(lab.capture.udp("nat_a"))
    leaving = {packet.digest: packet for packet in passing if packet.is_outgoing}
    coming = [packet for packet in passing if not packet.is_outgoing]
    measured = next(packet for packet in leaving.values() if packet.source == prediction.observed[-1])
    (own,) = {packet.source for packet in coming if packet.digest == measured.digest}
    first = next(leaving[p.digest] for p in coming if p.source == own and p.destination.host in there)
    return {
        "between": first.source.port - ports[0],
        "gap": (first.time - measured.time) / SECOND,
        "direct": all(any(isinstance(event, Connected) for event in said) for said in attempt.seen.values()),
    }


def run(window: int) -> list[dict[str, float]]:
    plan = cell(
        {**TWO_HOMES, "other": node("host", "nat_a")},
        strategy="port-prediction",
        nat_a="apdm-apdf-sequential",
        nat_b="eim-apdf",
    )
    blueprint: Blueprint = draw(plan.network, "wire")
    settings = TrialSettings(10 * SECOND, 10 * SECOND, {"rounds": 1, "window": window})

    def workshop() -> Work[int]:
        namespaces.enter_world()

        def work(seed: int, door: Door) -> None:
            with build(blueprint, seed) as lab:
                with others(lab, plan.servers[0], derive(seed, "others")):
                    attempt = run_attempt(lab, plan, settings, seed)
                assert attempt.broken is None, attempt.broken
                lab.capture.drain()  # type: ignore[union-attr]
                door.result(json.dumps(seen(lab, attempt, plan)).encode())

        return work

    engine: Engine[int] = Engine(workshop, pace=Pace(2, 6), kind=str, builders=2, limit=lambda _: 60.0)
    found = []
    for finished in engine.run([derive(window, "cross traffic", index) for index in range(TRIALS)]):
        assert finished.payload is not None, finished.died
        found.append(json.loads(finished.payload))
    return [one for one in found if one is not None]


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
def test_prediction_under_cross_traffic(window: int) -> None:
    trials = run(window)
    assert len(trials) > TRIALS * 3 / 4
    for one in trials:
        assert one["direct"] == (one["between"] < window), one
    expected = sum(
        exp(-RATE * one["gap"]) * (RATE * one["gap"]) ** k / factorial(k) for one in trials for k in range(window)
    ) / len(trials)
    successes = sum(one["direct"] for one in trials)
    rate = clopper_pearson(int(successes), len(trials), 1 - 0.05 / len(WINDOWS))
    assert rate.low <= expected <= rate.high
