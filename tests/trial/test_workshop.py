"""Trials that follow each other in one process: what one of them leaves for the next, which is nothing."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import pytest

from testbed.lab.blueprint import draw
from testbed.plan.outcomes import Outcome
from testbed.plan.trials import CellPlan, TrialSettings
from testbed.results.record import Record
from testbed.spec.profile import Engine, NatProfile
from testbed.spec.scenario import Command
from testbed.trial.door import Door
from testbed.trial.work import Task, Workshop
from tests.agents.test_external import EXAMPLE
from tests.sim.build import SECOND, cell

USERSPACE = NatProfile(engine=Engine.USERSPACE)
KINDS: list[tuple[str, Callable[[], CellPlan]]] = [
    ("over a wire", lambda: cell(nat_b="apdm-apdf")),
    ("with a userspace NAT", lambda: cell(nat_a=USERSPACE)),
    ("over QUIC", lambda: cell(agent="quic")),
    ("of programs", lambda: cell(agent=Command(command=(sys.executable, str(EXAMPLE))))),
]


class Deaf(Door):
    """A door behind which nobody is; it keeps the last result."""

    def __init__(self) -> None:
        self.payload = b""

    def building(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    def result(self, payload: bytes, *, children: int = 0) -> None:
        self.payload = payload


def held() -> tuple[int, int, int]:
    """How much this process holds: descriptors, children (dead ones too), threads."""
    children = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            children += entry.read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    return len(os.listdir("/proc/self/fd")), children, len(os.listdir("/proc/self/task"))


@pytest.mark.lab
@pytest.mark.parametrize(("sentence", "planned"), KINDS, ids=[row[0] for row in KINDS])
def test_a_trial_leaves_nothing_behind(sentence: str, planned: Callable[[], CellPlan]) -> None:
    """Four of a kind: after the first there are the processes that serve the next ones, and later no more than that."""
    plan = planned()
    blueprint, settings = draw(plan.network, "wire"), TrialSettings(3 * SECOND, 5 * SECOND)
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        found: list[tuple[str | None, object]] = []
        try:
            workshop, door = Workshop(), Deaf()
            for index in range(4):
                workshop(Task(plan, blueprint, index, 1, index, settings, "none", None), door)
                record = Record.from_line(door.payload)
                found.append((record.reason if record.outcome is Outcome.BROKEN else None, held()))
            os.write(writing, b"the same" if found == found[:1] * 4 and found[0][0] is None else repr(found).encode())
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(worker, 0)
    assert said == "the same", sentence
