"""A trial, from its task to its one record.

Rule 1: a world of its own, a fresh lab in it, both ends, the verdict, the record; then all of it is given back. What
        stays for the next trial in this process are processes that know nothing: this one, and those that serve labs.
Rule 2: a lab is built while holding a token of a core (`Door.building`): building is all CPU.
Rule 3: the capture gets its name when it is whole, so that a killed trial leaves no part of a file. One that cannot be
        written does not spoil the trial, whose record says so; the run ends there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from testbed.agents.contract import AgentResult
from testbed.errors import MachineError, TestbedError
from testbed.lab import namespaces
from testbed.lab.blueprint import Blueprint
from testbed.lab.child import Child
from testbed.lab.lab import Lab, build
from testbed.lab.tap import Packet
from testbed.lab.userspace.process import Report as UserspaceReport
from testbed.lab.userspace.process import RunningNat, Userspace
from testbed.lab.wire.process import Wire
from testbed.lab.wire.report import WireReport
from testbed.plan.outcomes import CLAIM_REFUTED, Outcome, Verdict, judge
from testbed.plan.trials import CellPlan, TrialSettings
from testbed.results.disk import write_whole
from testbed.results.record import (
    BUSY_MACHINE,
    CAPTURE_DROPS,
    CAPTURE_LOST,
    LATE_EVENT,
    LATE_EVENT_LOOP,
    Happening,
    NatReport,
    Record,
    warning,
)
from testbed.results.record import Event as RecordEvent
from testbed.results.summary import plain
from testbed.traversal.events import Connected, to_json
from testbed.traversal.metrics import Limits, Measured, measure
from testbed.trial.attempt import Attempt, run_attempt
from testbed.trial.door import Door
from testbed.trial.drops import Drops
from testbed.trial.evidence import end_of

C = TypeVar("C", bound=Child)
CaptureKept = Literal["failed", "all", "none"]

LATE = 20_000_000
"""Nanoseconds by which a loop or a link may be late before a trial says so."""


@dataclass(frozen=True, slots=True)
class Task:
    """One trial that is to be run."""

    cell: CellPlan
    blueprint: Blueprint
    index: int
    attempt: int
    seed: int
    settings: TrialSettings
    keep: CaptureKept
    capture: Path | None
    """Where its packets go, if they are kept."""


class Workshop:
    """Runs trials in this process, which is its own, one after another."""

    def __init__(self) -> None:
        namespaces.enter_world()
        sys.setswitchinterval(1)  # there is one thread
        self._wire: Wire | None = None
        self._userspace: Userspace | None = None

    def __call__(self, task: Task, door: Door) -> None:
        """Run one trial; the record goes through `door`, then the lab is taken apart."""
        with ExitStack() as scope:
            with door.building():
                try:
                    lab = scope.enter_context(self._build(task))
                except (TestbedError, OSError) as error:
                    door.result(broken(task, f"the lab could not be built: {error}").to_line())
                    return
            attempt = run_attempt(lab, task.cell, task.settings, task.seed)
            wire, drops = _finish_wire(lab, attempt), _read_drops(lab, attempt)
            userspace = _finish_userspace(lab, attempt)
            record = _record(task, lab, attempt, wire, drops)
            busy = sum(report.busy for report in (wire, userspace) if report is not None)
            door.result(record.to_line(), children=busy)

    def _build(self, task: Task) -> Lab:
        blueprint = task.blueprint
        self._wire = _idle(self._wire, Wire) if blueprint.wires else self._wire
        self._userspace = _idle(self._userspace, Userspace) if blueprint.is_played else self._userspace
        return build(blueprint, task.seed, wire=self._wire, userspace=self._userspace)


def _idle(child: C | None, new: Callable[[], C]) -> C:
    """The process of the trial before, or a new one where that has died or was left in the middle of its work."""
    if child is not None and (child.is_serving or child.is_dead):
        child.close()
        child = None
    return child or new()


def broken(task: Task, reason: str) -> Record:
    """The record of a trial that the testbed itself has spoilt."""
    return Record(
        cell=task.cell.id,
        index=task.index,
        attempt=task.attempt,
        seed=task.seed,
        factors={name: plain(value) for name, value in task.cell.factors.items()},
        outcome=Outcome.BROKEN,
        reason=reason.partition("\n")[0],
    )


def is_kept(keep: CaptureKept, outcome: Outcome) -> bool:
    """Whether the packets of a trial that came out so are kept."""
    return keep == "all" or (keep == "failed" and outcome is not Outcome.DIRECT and outcome is not Outcome.UNSUPPORTED)


# ---------------------------------------------------------------------------- the record


def _record(task: Task, lab: Lab, attempt: Attempt, report: WireReport | None, drops: Drops) -> Record:
    capture = lab.capture
    assert capture is not None
    capture.drain()
    verdict = _judge(task.cell, lab, attempt, capture.drops())
    measured = _measure(task, attempt, verdict)
    warnings = [*verdict.notes, *_about_wire(report), *_about_agents(attempt.results), *_about_events(attempt)]
    if count := capture.drops():
        warnings.append(warning(CAPTURE_DROPS, f"{count} packets"))
    record = broken(task, "").model_copy(
        update={
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "metrics": measured.metrics,
            "censored": measured.censored,
            "path": _path(task.cell, attempt) if verdict.outcome is Outcome.DIRECT else None,
            "agents": {
                name: tuple(RecordEvent.model_validate(to_json(event)) for event in said)
                for name, said in attempt.seen.items()
            },
            "nats": {name: NatReport(dropped=dict(found)) for name, found in drops.counts.items()},
            "events": tuple(_happenings(task.cell, attempt)),
            "warnings": tuple(warnings),
        }
    )
    if task.capture is not None and is_kept(task.keep, verdict.outcome):
        lost = _write_capture(task.capture, lab, record, attempt.results, drops)
        if lost is not None:
            record = record.model_copy(update={"warnings": (*warnings, warning(CAPTURE_LOST, lost))})
    return record


def _judge(cell: CellPlan, lab: Lab, attempt: Attempt, capture_drops: int) -> Verdict:
    assert lab.capture is not None
    one, other = (
        end_of(map(str, cell.network.boxes[name].addresses()), attempt.seen[name], lab.capture.udp(name))
        for name in cell.ends
    )
    verdict = judge(one, other, frozenset(cell.servers), attempt.broken)
    if CLAIM_REFUTED in verdict.notes and capture_drops:
        return Verdict(Outcome.BROKEN, f"{capture_drops} packets passed unseen, so a claim cannot be checked")
    return verdict


def _measure(task: Task, attempt: Attempt, verdict: Verdict) -> Measured:
    if not verdict.outcome.counts:
        return Measured({}, {})
    limits = Limits(task.settings.setup_deadline, task.settings.deadline)
    relays = frozenset(task.cell.servers)
    direct = verdict.outcome is Outcome.DIRECT
    return measure(attempt.seen, task.cell.controlling, relays, limits, direct=direct)


def _path(cell: CellPlan, attempt: Attempt) -> dict[str, tuple[str, ...]]:
    """The direct path: node -> its local and its remote address; types as the controlling end saw them."""
    claims = {name: next(event for event in attempt.seen[name] if isinstance(event, Connected)) for name in cell.ends}
    path = {name: (str(claim.local), str(claim.remote)) for name, claim in claims.items()}
    return {**path, "types": tuple(kind.value for kind in claims[cell.controlling].types)}


def _finish_wire(lab: Lab, attempt: Attempt) -> WireReport | None:
    """Ask the wire how it went; its death in the last moment is the trial's too."""
    if lab.wire is None or attempt.broken is not None:
        return None
    try:
        report = lab.wire.finish()
    except TestbedError as error:
        attempt.broken = str(error)
        return None
    if report.missing:
        attempt.broken = f"{report.missing} frames vanished in the wire though no link says so"
    return report


def _read_drops(lab: Lab, attempt: Attempt) -> Drops:
    """What the NATs dropped; nothing where what would tell has died."""
    if attempt.broken is None:
        try:
            return Drops(lab.drop_logs)
        except TestbedError as error:
            attempt.broken = str(error)
    return Drops({name: log for name, log in lab.drop_logs.items() if not isinstance(log, RunningNat)})


def _finish_userspace(lab: Lab, attempt: Attempt) -> UserspaceReport | None:
    """The same of the process that plays NATs."""
    if lab.userspace is None or attempt.broken is not None:
        return None
    try:
        report = lab.userspace.finish()
    except TestbedError as error:
        attempt.broken = str(error)
        return None
    if report.missing:
        attempt.broken = f"{report.missing} frames vanished in the userspace engine though no NAT dropped them"
    return report


def _about_wire(report: WireReport | None) -> list[str]:
    late = report.lateness.p99 if report is not None else None
    return [warning(BUSY_MACHINE, f"links were {late / 1e6:.1f} ms late (p99)")] if late and late > LATE else []


def _about_agents(results: Mapping[str, AgentResult]) -> list[str]:
    told = []
    for name, result in results.items():
        told += [f"{name}: {text}" for text in result.warnings]
        if result.lateness > LATE:
            told.append(warning(LATE_EVENT_LOOP, f"{name}, {result.lateness / 1e6:.1f} ms"))
    return told


def _about_events(attempt: Attempt) -> list[str]:
    late = [(one.done - one.due, one.event) for one in attempt.applied if one.done - one.due > LATE]
    return [warning(LATE_EVENT, f"{event.place}: {event.text}, {by / 1e6:.1f} ms") for by, event in late]


def _happenings(cell: CellPlan, attempt: Attempt) -> Iterator[Happening]:
    done = [one.done for one in attempt.applied]
    why = "the trial was over" if attempt.broken is None else "the trial broke"
    for number, event in enumerate(cell.events):
        what = f"{event.place}: {event.text}"
        if number < len(done):
            yield Happening(at=event.at, t=done[number], what=what)
        else:
            yield Happening(at=event.at, t=None, what=what, not_applied=why)


# ---------------------------------------------------------------------------- the capture


def _write_capture(
    path: Path, lab: Lab, record: Record, results: Mapping[str, AgentResult], drops: Drops
) -> str | None:
    """Keep the packets; why that could not be."""
    assert lab.capture is not None
    secrets: Sequence[str] = [line for result in results.values() for line in result.secrets]
    about = f"cell {record.cell}, trial {record.index}, seed {record.seed}: {record.outcome}"
    if record.reason:
        about += f", {record.reason}"

    def describe(box: str, packet: Packet) -> str:
        return drops.comment(box, packet)

    blocks = lab.capture.write(secrets=secrets, comment=about, describe=describe)
    try:
        write_whole(path, blocks, None, synced=False)
    except MachineError as error:
        return str(error).partition("\n")[0]
    return None
