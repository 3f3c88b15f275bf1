"""A run: from a loaded scenario to its document, trial by trial, each kept before anything else happens.

Rule 1: all that can fail for reasons of this machine fails before the folder is made.
Rule 2: the parent prepares (imports, messages, rules) and forks; it never enters a lab.
Rule 3: a trial that is broken stays broken: it is run again only when a person resumes the run.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from testbed import __version__
from testbed.agents import quic
from testbed.certify.suspects import refuted
from testbed.errors import MachineError, UsageError
from testbed.lab import events, links, namespaces, probe
from testbed.lab.blueprint import Blueprint, Links, draw
from testbed.plan import population
from testbed.plan.outcomes import Outcome
from testbed.plan.trials import CellPlan, plan_cell, settings_of, trial_seed
from testbed.results.document import Document, Lab, Prediction
from testbed.results.environment import environment
from testbed.results.folder import Folder, run_name
from testbed.results.inputs import Manifest
from testbed.results.population import PlannedPopulation
from testbed.results.record import CAPTURE_LOST, Key, Record, warning_kind
from testbed.results.summary import PlannedCell, Run, plain, summarise
from testbed.spec import scenario as spec
from testbed.spec.loader import LoadedScenario
from testbed.spec.population import shares
from testbed.spec.scenario import Command
from testbed.trial.attempt import GRACE
from testbed.trial.engine import Engine, Finished
from testbed.trial.forecast import Forecast
from testbed.trial.interrupt import Interrupt
from testbed.trial.pace import Pace
from testbed.trial.work import CaptureKept, Task, Workshop, broken
from testbed.units import seconds

STARTUP = 5.0
"""Seconds beyond the trial's own watchdog after which its process is ended."""


class Watcher(Protocol):
    """Who is told how far a run is (report/progress.py has this shape)."""

    def resumed(self, record: Record) -> None:
        """A trial that an earlier run finished."""

    def finished(self, record: Record, now: int) -> None:
        """A trial finished."""

    def tick(self, now: int) -> None:
        """Time has passed."""

    def note(self, text: str, now: int) -> None:
        """Something that is not about one trial."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the command line says beyond the scenario."""

    jobs: int | None = None
    links: spec.Links | None = None
    keep: CaptureKept = "failed"
    nat_test: bool = True
    """Whether every NAT is tested before the first trial."""
    sample: int | None = None
    """How many trials of each condition are drawn from the scenario's population, instead of so many of each cell."""


class Campaign:
    """A run that is ready to start. Making one raises MachineError or UsageError, and leaves nothing."""

    def __init__(self, loaded: LoadedScenario, choices: Choices, now: int) -> None:
        """`now`: nanoseconds since 1970, for the run's name."""
        self._loaded, self._choices = loaded, choices
        scenario = loaded.scenario
        self._conditions = population.conditions(scenario, loaded.cells)
        self._trials = population.trials_of(scenario, loaded.cells, self._conditions, choices.sample)
        self.plans = tuple(plan_cell(cell) for cell in loaded.cells if cell.id in self._trials)
        self._check_programs()
        namespaces.ensure_rights()
        probe.ensure_basics()
        self.links: Links = links.choose(choices.links or scenario.lab.links)
        if any(plan.agent == "quic" for plan in self.plans):
            quic.warm()
        self._blueprints = _blueprints(self.plans, self.links)
        self._refuted = refuted(self.plans) if choices.nat_test else {}
        self._settings = settings_of(scenario)
        self._cores = len(os.sched_getaffinity(0))
        self.manifest = Manifest(
            run=run_name(scenario.name, scenario.seed, now),
            testbed=__version__,
            seed=scenario.seed,
            settings={
                "links": self.links,
                "cells": [plan.id for plan in self.plans],
                **({"sample": choices.sample} if choices.sample is not None else {}),
            },
        )
        self.inputs: Mapping[str, str] = dict(loaded.files)

    @property
    def cells(self) -> tuple[PlannedCell, ...]:
        """As progress and document name them."""
        return tuple(
            PlannedCell(plan.id, {name: plain(value) for name, value in plan.factors.items()}, self._trials[plan.id])
            for plan in self.plans
        )

    def run(self, folder: Folder, watcher: Watcher, interrupt: Interrupt | None = None) -> None:
        """Run every trial that the folder does not hold yet; what is finished is kept.

        An interrupt raises KeyboardInterrupt.
        """
        done = folder.finished()
        last: dict[tuple[str, int], Record] = {}
        for key in sorted(done):
            last[key.cell, key.index] = done[key]
        for record in last.values():
            if record.outcome is not Outcome.BROKEN:
                watcher.resumed(record)
        tasks = []
        for task in self._tasks(folder, last):
            if (reason := self._refuted.get(task.cell.id)) is None:
                tasks.append(task)
                continue
            record = broken(task, reason)
            folder.append(record)
            watcher.finished(record, time.monotonic_ns())
        engine = Engine(
            Workshop,
            pace=Pace(self._cores, self._choices.jobs),
            kind=lambda task: task.cell.id,
            builders=self._cores,
            limit=lambda _: seconds(self._settings.setup_deadline + self._settings.deadline) + GRACE + STARTUP,
            on_tick=lambda: watcher.tick(time.monotonic_ns()),
            interrupt=interrupt,
        )
        told: set[str | None] = set()
        with closing(engine.run(tasks)) as ends:  # whatever happens, no worker is left
            for finished in ends:
                record = _record_of(finished)
                if (words := finished.died) is not None and "\n" in words and record.reason not in told:
                    told.add(record.reason)
                    watcher.note(words, time.monotonic_ns())  # once: what a report of the mistake needs
                folder.append(record)
                if (capture := finished.task.capture) is not None and capture.exists():
                    folder.adopt(capture)
                watcher.finished(record, time.monotonic_ns())
                _stop_where_captures_are_lost(record)

    def forecast(self) -> Forecast:
        """Begin to find out what the model says of the cells."""
        scenario, settings = self._loaded.scenario, self._settings
        if not self._conditions:
            return Forecast(self.plans, settings, scenario.seed, scenario.trials)
        whole = [plan_cell(cell) for cell in self._loaded.cells]  # what a sample has left out, too
        return Forecast(whole, settings, scenario.seed, max(scenario.trials, population.PLAYED))

    def document(self, folder: Folder, predictions: Mapping[str, Prediction], notes: Sequence[str] = ()) -> Document:
        """What the trials gave so far, beside what was predicted. `notes`: what a reader should know of the run."""
        scenario = self._loaded.scenario
        run = Run(
            name=folder.manifest.run,
            scenario=scenario.name,
            seed=scenario.seed,
            lab=Lab(kernel="host", links=self.links, time="real"),
            environment=environment(),
            cells=self.cells,
            expect=scenario.expect,
            events=scenario.events,
            population=self._population(),
            notes=(*folder.notes, *notes, *_unknowns(self._loaded), *self._untested()),
            predictions=predictions,
        )
        return summarise(run, folder.records())

    def _tasks(self, folder: Folder, last: Mapping[tuple[str, int], Record]) -> Iterator[Task]:
        """What is to be run; a trial that was broken gets another attempt.

        The first trial of every cell, then the second: a machine that becomes slower is slower for all cells alike, and
        those that run into their deadlines wait beside others that do not.
        """
        for index in range(max(self._trials.values())):
            for plan in self.plans:
                if index >= self._trials[plan.id]:
                    continue
                before = last.get((plan.id, index))
                if before is not None and before.outcome is not Outcome.BROKEN:
                    continue
                attempt = 1 if before is None else before.attempt + 1
                yield Task(
                    plan,
                    self._blueprints[plan.id],
                    index,
                    attempt,
                    trial_seed(self._loaded.scenario.seed, plan.id, index),
                    self._settings,
                    self._choices.keep,
                    None if self._choices.keep == "none" else folder.capture_path(Key(plan.id, index, attempt)),
                )

    def _population(self) -> PlannedPopulation | None:
        scenario = self._loaded.scenario
        if not self._conditions:
            return None
        return PlannedPopulation(
            form="weighted" if self._choices.sample is None else "sampled",
            weights=shares(scenario.population),
            conditions=self._conditions,
            published=scenario.published,
            leaves_out=scenario.leaves_out,
        )

    def _untested(self) -> tuple[str, ...]:
        return () if self._choices.nat_test else ("NATs were not tested before the first trial (--no-nat-test)",)

    def _check_programs(self) -> None:
        for plan in self.plans:
            if isinstance(plan.agent, Command) and shutil.which(plan.agent.command[0]) is None:
                raise UsageError(f"agent: command: there is no program {plan.agent.command[0]!r} that could be run")


def _record_of(finished: Finished[Task]) -> Record:
    task = finished.task
    if finished.payload is not None:
        return Record.from_line(finished.payload)
    return broken(task, finished.died or "the trial's process ended without a word")


def _stop_where_captures_are_lost(record: Record) -> None:
    """The trial is kept; those that follow would lose theirs as well. Raises MachineError."""
    for text in record.warnings:
        if warning_kind(text) == CAPTURE_LOST:
            raise MachineError(text.removeprefix(f"{CAPTURE_LOST}: "), mend="free some space there, or --capture none")


def _blueprints(plans: Sequence[CellPlan], made_with: Links) -> dict[str, Blueprint]:
    """Of every cell. What several cells have in common is prepared once (`prepare` remembers)."""
    for plan in plans:
        events.check(plan.network, plan.events, made_with)
    return {plan.id: draw(plan.network, made_with) for plan in plans}


def _unknowns(loaded: LoadedScenario) -> Iterator[str]:
    """Which default stands in for what no source says of a profile."""
    profiles = {profile.name: profile for cell in loaded.cells for profile in cell.profiles.values()}
    for profile in profiles.values():
        if profile.unknowns:
            yield f"profile {profile.name}: no source says {', '.join(profile.unknowns)}; the defaults stand in"
