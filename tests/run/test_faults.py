"""What is killed or stopped: nothing lost, nothing left, and the blame where it belongs.

Each moment of a kill is drawn from a seed; what must hold, must hold at every moment.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from testbed.plan.outcomes import Outcome
from testbed.results.record import Record
from tests.run.command import (
    SLOW,
    Ran,
    Running,
    call,
    children,
    lines,
    named_namespaces,
    records,
    scenario,
    start,
    tree,
    wait_for_end,
)

pytestmark = pytest.mark.lab

SLEEPER = """#!/bin/sh
echo '{"event": "start"}'
(setsid sleep 1000 &)
echo ready > "$READY"
exec sleep 1000
"""


def check_nothing_left(running: Running, folder: Path) -> None:
    """A namespace lives by a process, a descriptor in one, or a mount."""
    running.gone()
    assert named_namespaces() == []
    assert not [name for name in tree(folder.parent) if "draft" in name]


# ---------------------------------------------------------------------------- SIGKILL


@pytest.mark.parametrize("moment", range(3))
def test_a_killed_run_keeps_what_is_done_and_can_be_resumed(moment: int, tmp_path: Path) -> None:
    scenario(tmp_path, SLOW)
    die = Random(moment)
    done, wait = die.randrange(3), die.random() * 0.5
    running = start("run", "own.yaml", "--out", "out", "--jobs", 2, "--no-nat-test", at=tmp_path)
    running.until(lambda: (tmp_path / "out/trials.jsonl").exists() and lines(tmp_path / "out") >= done)
    running.outlive(wait)
    running.kill()
    running.wait()
    check_nothing_left(running, tmp_path / "out")
    kept = records(tmp_path / "out")
    assert len(kept) >= done
    assert "out/result.json" not in tree(tmp_path)

    refused = call("run", "own.yaml", "--out", "out", at=tmp_path)
    assert refused.status == 2
    assert "--resume" in refused.err

    resumed = call("run", "own.yaml", "--out", "out", "--resume", "--json", at=tmp_path)
    assert resumed.status == 0, resumed.err
    assert [(r.index, r.outcome) for r in records(tmp_path / "out")] == [(i, Outcome.RELAYED) for i in range(4)]
    assert {r.index: r for r in kept} == {
        r.index: r for r in records(tmp_path / "out") if r.index in {k.index for k in kept}
    }


def run_and_hit(at: Path, text: str, victim: Callable[[Running], int], moment: float) -> tuple[Ran, list[Record]]:
    """A run of one trial in which one process is killed."""
    scenario(at, text)
    running = start("run", "own.yaml", "--trials", 1, "--out", "out", "--no-nat-test", at=at)
    running.until(lambda: trials_of(running))
    running.outlive(moment)
    os.kill(victim(running), signal.SIGKILL)
    ran = running.wait()
    check_nothing_left(running, at / "out")
    return ran, records(at / "out")


def trials_of(running: Running) -> list[int]:
    """Children with a wire of their own; another one predicts."""
    return [child for child in children(running.pid) if children(child)]


def trial_of(running: Running) -> int:
    (trial,) = trials_of(running)
    return trial


def wire_of(running: Running) -> int:
    return children(trial_of(running))[0]


@pytest.mark.parametrize("moment", range(2))
@pytest.mark.parametrize(
    ("victim", "words"),
    [(trial_of, "the trial's process died (signal 9)"), (wire_of, "the wire process died (signal 9)")],
)
def test_a_killed_part_of_ours_is_broken(
    victim: Callable[[Running], int], words: str, moment: int, tmp_path: Path
) -> None:
    ran, (record,) = run_and_hit(tmp_path, SLOW, victim, Random(f"{words}/{moment}").random() * 0.6)
    assert ran.status == 4, ran.err
    assert record.outcome is Outcome.BROKEN
    assert record.reason is not None
    assert words in record.reason
    assert words in ran.out, "the report shows it"
    again = call("run", "own.yaml", "--trials", 1, "--out", "out", "--resume", at=tmp_path)
    assert again.status == 0, again.err
    assert [(r.attempt, r.outcome) for r in records(tmp_path / "out")][-1] == (2, Outcome.RELAYED)


def external(at: Path) -> tuple[str, dict[str, str]]:
    """A scenario whose ends are programs that wait, and have daemons."""
    program = at / "sleeper"
    program.write_text(SLEEPER)
    program.chmod(0o755)
    text = SLOW.replace("agent: udp", f"setup_deadline: 2s\nagent: {{command: [{program}]}}")
    return text, {"READY": str(at / "ready")}


def inside(running: Running) -> dict[int, int]:
    """Processes in PID namespaces below the run's: what they are called there -> one that is called so."""
    found = {}
    for pid in all_below(running.pid):
        with suppress(OSError):
            numbers = re.search(r"^NSpid:(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            if numbers is not None and len(own := numbers[1].split()) == len(outside()) + 1:
                found[int(own[-1])] = pid
    return found


def outside() -> list[str]:
    numbers = re.search(r"^NSpid:(.*)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert numbers is not None
    return numbers[1].split()


def first_of_pids(running: Running) -> int:
    return inside(running)[1]


def program_of(running: Running) -> int:
    return inside(running)[2]


@pytest.mark.parametrize("victim", [first_of_pids, program_of])
def test_a_killed_program_has_failed(victim: Callable[[Running], int], tmp_path: Path) -> None:
    text, env = external(tmp_path)
    scenario(tmp_path, text)
    running = start("run", "own.yaml", "--trials", 1, "--out", "out", at=tmp_path, env=env)
    running.until(lambda: (tmp_path / "ready").exists())
    running.until(lambda: {1, 2} <= inside(running).keys())
    everybody = all_below(running.pid)
    os.kill(victim(running), signal.SIGKILL)
    ran = running.wait()
    for pid in everybody:
        wait_for_end(pid)
    assert ran.status == 0, ran.err
    (record,) = records(tmp_path / "out")
    assert record.outcome is Outcome.FAILED
    reasons = [
        entry.model_dump()["reason"] for said in record.agents.values() for entry in said if entry.event == "failed"
    ]
    assert "the program ended by signal 9" in reasons


def all_below(pid: int) -> set[int]:
    found = set(children(pid))
    for child in children(pid):
        found |= all_below(child)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_programs_and_their_daemons_end_with_the_run(number: signal.Signals, tmp_path: Path) -> None:
    text, env = external(tmp_path)
    scenario(tmp_path, text)
    running = start("run", "own.yaml", "--out", "out", at=tmp_path, env=env)
    running.until(lambda: (tmp_path / "ready").exists())
    everybody = all_below(running.pid)
    assert len(everybody) > 4
    running.kill(number)
    running.wait()
    for pid in everybody:
        wait_for_end(pid)
    running.gone()


def test_a_run_that_is_stopped_for_a_while_takes_no_harm(tmp_path: Path) -> None:
    """Ctrl-Z reaches every process of the terminal; only the parent stops, and trials go on without it."""
    scenario(tmp_path, SLOW.replace("[apdm-apdf]", "[eim-eif]"))
    running = start("run", "own.yaml", "--trials", 12, "--out", "out", at=tmp_path)
    running.until(lambda: lines(tmp_path / "out") >= 2)
    running.kill(signal.SIGSTOP)
    for pid in running.processes().keys() - {running.pid}:
        os.kill(pid, signal.SIGTSTP)
    running.outlive(1.5)
    running.kill(signal.SIGCONT)
    assert running.wait().status == 0
    found = records(tmp_path / "out")
    assert {record.outcome for record in found} == {Outcome.DIRECT}
    late = [float(ms) for record in found for text in record.warnings for ms in re.findall(r"([0-9.]+) ms", text)]
    assert max(late, default=0) < 1000, "a trial stood still"
