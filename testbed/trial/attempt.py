"""One trial inside a lab: servers up, both ends run, the capture drained, what serves the lab watched.

Rule 1: nothing is slept for. The rendezvous is ready when it is bound; the ends are stopped when both are finished.
Rule 2: whatever of ours dies ends the trial at once and is its reason for being `broken`.
Rule 3: events of the scenario happen at their time from when both ends have said that they start. What is due later
        than the ends are finished does not happen.
Rule 4: a watchdog on the wall clock, later than every deadline, makes `broken` of a trial that hangs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

import trio

from testbed.agents.contract import AgentResult, AgentSetup, ServerAddresses
from testbed.agents.external import run_external_agent
from testbed.agents.quic import run_quic_agent
from testbed.agents.rendezvous import run_rendezvous
from testbed.agents.udp import run_udp_agent
from testbed.errors import BrokenError, TestbedError
from testbed.lab.child import Child
from testbed.lab.events import apply
from testbed.lab.lab import Lab
from testbed.plan.events import PlannedEvent
from testbed.plan.seeds import derive
from testbed.plan.trials import CellPlan, TrialSettings
from testbed.spec.scenario import Command
from testbed.traversal.candidates import Role
from testbed.traversal.events import Event
from testbed.traversal.metrics import is_over
from testbed.units import NS_PER_SECOND, seconds

DRAIN_EVERY = 0.05
"""Seconds between two looks into the capture's taps."""
GRACE = 10.0
"""Seconds beyond all deadlines after which a trial is taken for hung."""
REFERENCE = {"quic": run_quic_agent, "udp": run_udp_agent}


@dataclass(frozen=True, slots=True)
class Applied:
    """An event that happened."""

    event: PlannedEvent
    due: int
    """On CLOCK_MONOTONIC, in nanoseconds."""
    done: int


@dataclass(slots=True)
class Attempt:
    """What both ends said, and what of ours broke."""

    results: dict[str, AgentResult] = field(default_factory=dict)
    seen: dict[str, list[Event]] = field(default_factory=dict)
    applied: list[Applied] = field(default_factory=list)
    """The first of the cell's events, in their order."""
    broken: str | None = None


def run_attempt(lab: Lab, cell: CellPlan, settings: TrialSettings, seed: int) -> Attempt:
    """Run both ends of `cell` in `lab` until both are finished."""
    attempt = Attempt(seen={name: [] for name in cell.ends})
    try:
        trio.run(_run, lab, cell, settings, seed, attempt)
    except* (TestbedError, OSError) as group:
        attempt.broken = str(first_error(group))
    return attempt


def first_error(error: BaseException) -> BaseException:
    """The first of what went wrong at once; the others follow from it."""
    return first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def _run(lab: Lab, cell: CellPlan, settings: TrialSettings, seed: int, attempt: Attempt) -> None:
    limit = seconds(settings.setup_deadline + settings.deadline) + GRACE
    stop = trio.Event()
    with trio.move_on_after(limit) as watchdog:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, lab)
            nursery.start_soon(watch_children, lab)
            serve = partial(
                run_rendezvous,
                cell.servers,
                open_socket=partial(lab.open_socket, cell.rendezvous),
                seed=derive(seed, "rendezvous"),
            )
            servers: ServerAddresses = await nursery.start(serve)
            started = trio.Event()
            nursery.start_soon(_let_happen, lab, cell, attempt, started, stop)
            async with trio.open_nursery() as ends:
                for name in cell.ends:
                    setup = _setup(cell, name, servers, settings, seed)
                    ends.start_soon(_run_end, lab, cell, setup, attempt, started, stop)
            nursery.cancel_scope.cancel()
    if watchdog.cancelled_caught:
        attempt.broken = f"the trial hung: an end was not finished {limit:g} s after its start"


def _setup(cell: CellPlan, name: str, servers: ServerAddresses, settings: TrialSettings, seed: int) -> AgentSetup:
    controlling, controlled = cell.ends
    return AgentSetup(
        name=name,
        peer=controlled if name == controlling else controlling,
        role=Role.CONTROLLING if name == controlling else Role.CONTROLLED,
        addresses=tuple(map(str, cell.network.boxes[name].addresses())),
        servers=servers,
        deadline=settings.deadline,
        setup_deadline=settings.setup_deadline,
        seed=derive(seed, "agent", name),
        strategy=cell.strategy,
        parameters=settings.parameters,
    )


async def _let_happen(lab: Lab, cell: CellPlan, attempt: Attempt, started: trio.Event, stop: trio.Event) -> None:
    """Let the cell's events happen, each at its time, until the ends are finished."""
    await started.wait()
    start = max(said[0].t for said in attempt.seen.values())
    for event in cell.events:
        due = start + event.at
        with trio.move_on_after(max(0, due - time.monotonic_ns()) / NS_PER_SECOND):
            await stop.wait()
        if stop.is_set():
            return
        apply(lab, event)
        attempt.applied.append(Applied(event, due, time.monotonic_ns()))


async def _run_end(
    lab: Lab, cell: CellPlan, setup: AgentSetup, attempt: Attempt, started: trio.Event, stop: trio.Event
) -> None:
    def on_event(event: Event) -> None:
        attempt.seen[setup.name].append(event)
        if all(attempt.seen.values()):
            started.set()
        if is_over(attempt.seen):
            stop.set()

    if isinstance(cell.agent, Command):
        result = await run_external_agent(
            setup,
            command=cell.agent.command,
            spawn=partial(lab.spawn, setup.name),
            on_event=on_event,
            stop=stop,
        )
    else:
        run = REFERENCE[cell.agent]
        result = await run(setup, open_socket=partial(lab.open_socket, setup.name), on_event=on_event, stop=stop)
    attempt.results[setup.name] = result


async def _drain(lab: Lab) -> None:
    while lab.capture is not None:
        lab.capture.drain()
        await trio.sleep(DRAIN_EVERY)


async def watch_children(lab: Lab) -> None:
    """Raise BrokenError once a process that serves the lab has died, which to both ends looks like a network that is
    down.
    """
    async with trio.open_nursery() as nursery:
        for child in lab.children:
            nursery.start_soon(_watch, child)


async def _watch(child: Child) -> None:
    await trio.lowlevel.wait_readable(child.fileno())
    child.last_words()  # says how it died, as an error
    raise BrokenError(f"{child.what} ended by itself")
