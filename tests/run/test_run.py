"""`testbed run` end to end: exit statuses, the document, the folder, and what each network shows."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # comes with check-jsonschema
import pytest

from testbed.plan.outcomes import Outcome
from testbed.results.document import json_schema
from testbed.trial import campaign
from tests.run.command import Ran, call, lines, records, scenario, start, tree

pytestmark = pytest.mark.lab

QUICK = """
topology: two_homes
agent: udp
matrix: {nat_a: [eim-apdf], nat_b: [eim-apdf, apdm-apdf]}
trials: 1
deadline: 1s
"""


MISTAKES = [
    ("a scenario that is not there", ("nosuch.yaml",), "nosuch.yaml"),
    ("an unknown cell", ("own.yaml", "--only", "nat_b=eim-eif"), "nat_b=eim-eif"),
    ("an unknown factor", ("own.yaml", "--only", "nat_x=eim-eif"), "nat_x"),
    ("a resumption of nothing in particular", ("own.yaml", "--resume"), "--out DIR"),
    ("a resumption where there is no run", ("own.yaml", "--resume", "--out", "void"), "no run to resume"),
    ("a folder that is not empty", ("own.yaml", "--out", "full"), "full is not empty"),
    ("a results folder that is a file", ("own.yaml", "--out", "own.yaml"), "own.yaml is a file"),
    ("no trials at all", ("own.yaml", "--trials", "0"), "--trials"),
    ("a program that is not there", ("absent.yaml",), "no-such-program"),
]


@pytest.mark.parametrize(("sentence", "arguments", "words"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_status_2_and_leaves_nothing(
    sentence: str, arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    scenario(tmp_path, QUICK)
    scenario(tmp_path, QUICK.replace("udp", "{command: [no-such-program]}"), "absent")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/something").touch()
    ran = call("run", *arguments, at=tmp_path)
    assert ran.status == 2, ran.err
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert tree(tmp_path) == ["absent.yaml", "full", "full/something", "own.yaml"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A small run: one cell that connects, one that does not."""
    at = tmp_path_factory.mktemp("quick")
    scenario(at, QUICK)
    return at, call("run", "own.yaml", "--trials", 2, "--out", "out", "--json", at=at)


def test_json_is_the_one_document_and_nothing_else(quick: tuple[Path, Ran]) -> None:
    at, ran = quick
    assert ran.status == 0, ran.err
    jsonschema.validate(json.loads(ran.out), json_schema())
    assert ran.out.encode() == (at / "out/result.json").read_bytes()
    assert [cell.outcomes.direct for cell in ran.document.cells] == [2, 0]
    assert [cell.outcomes.relayed for cell in ran.document.cells] == [0, 2]


def test_the_folder_holds_what_the_design_says(quick: tuple[Path, Ran]) -> None:
    at, _ = quick
    assert tree(at / "out") == [
        "captures",
        "captures/nat_a=eim-apdf,nat_b=apdm-apdf-0.pcapng",
        "captures/nat_a=eim-apdf,nat_b=apdm-apdf-1.pcapng",
        "inputs",
        "inputs/run.json",
        "inputs/scenarios",
        "inputs/scenarios/own.yaml",
        "inputs/topologies",
        "inputs/topologies/two_homes.yaml",
        "result.json",
        "trials.jsonl",
    ]


def test_trials_are_in_the_order_of_the_plan(quick: tuple[Path, Ran]) -> None:
    at, ran = quick
    ids = [cell.id for cell in ran.document.cells]
    assert [(r.cell, r.index) for r in records(at / "out")] == [(cell, index) for cell in ids for index in (0, 1)]


def test_the_inputs_are_enough_to_run_it_again(quick: tuple[Path, Ran], tmp_path: Path) -> None:
    at, ran = quick
    shutil.copytree(at / "out/inputs", tmp_path, dirs_exist_ok=True)
    again = call("run", "scenarios/own.yaml", "--trials", 2, "--out", "out", "--json", at=tmp_path)
    assert again.status == 0, again.err
    assert [r.seed for r in records(tmp_path / "out")] == [r.seed for r in records(at / "out")]
    assert again.document.cells[0].factors == ran.document.cells[0].factors


def test_a_missed_expectation_is_status_1(tmp_path: Path) -> None:
    scenario(tmp_path, QUICK + "expect: [{where: {nat_b: apdm-apdf}, success_rate: {at_least: 95%}}]\n")
    ran = call("run", "own.yaml", "--trials", 4, "--only", "nat_b=apdm-apdf", "--out", "out", at=tmp_path)
    assert ran.status == 1, ran.err
    assert "missed" in ran.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_keeps_what_is_done(number: signal.Signals, tmp_path: Path) -> None:
    scenario(tmp_path, QUICK)
    running = start("run", "own.yaml", "--trials", 50, "--out", "out", "--json", "--jobs", 2, at=tmp_path)
    running.until(lambda: lines(tmp_path / "out") >= 3)
    running.kill(number)
    ran = running.wait()
    running.gone()
    assert ran.status == 130, ran.err
    document = ran.document
    done = sum(cell.trials for cell in document.cells)
    assert 3 <= done < 100
    assert f"{100 - done} of 100 trials have not run" in document.warnings
    assert len(records(tmp_path / "out")) == done
    assert not [name for name in tree(tmp_path / "out") if "draft" in name]
    assert sum(cell.outcomes.broken for cell in document.cells) == 0


def test_an_interrupt_during_the_start_is_130_too(tmp_path: Path) -> None:
    scenario(tmp_path, QUICK)

    def interrupt_soon() -> None:
        def draw_interrupted(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        setattr(campaign, "draw", draw_interrupted)  # noqa: B010  # mypy knows that it takes something else

    ran = call("run", "own.yaml", "--out", "out", at=tmp_path, before=interrupt_soon)
    assert ran.status == 130, ran.err
    assert ran.err.strip() == "testbed: interrupted"
    assert tree(tmp_path) == ["own.yaml"]


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """`nohup` and `command &` in a script mean it."""
    scenario(tmp_path, QUICK)

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    running = start(
        "run", "own.yaml", "--only", "nat_b=eim-apdf", "--trials", 3, "--out", "out", at=tmp_path, before=ignore
    )
    running.until(lambda: lines(tmp_path / "out") >= 1)
    running.kill(signal.SIGHUP)
    running.kill(signal.SIGINT)
    assert running.wait().status == 0
    assert {r.outcome for r in records(tmp_path / "out")} == {Outcome.DIRECT}


@pytest.mark.skipif(os.geteuid() != 0, reason="sudo makes root of somebody")
def test_what_a_run_under_sudo_makes_belongs_to_its_caller(tmp_path: Path) -> None:
    scenario(tmp_path, QUICK)
    sudo = {"SUDO_UID": "65534", "SUDO_GID": "65534"}
    assert call("run", "own.yaml", "--out", "deep/out", "--capture", "all", at=tmp_path, env=sudo).status == 0
    made = [path for path in tmp_path.rglob("*") if path.name != "own.yaml"]
    assert len(made) > 8
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(65534, 65534)}


# ---------------------------------------------------------------------------- populations

MIX = """
topology: two_homes
agent: udp
population:
  nat_a: &homes {eim-eif: 3, apdm-apdf: 1}
  nat_b: *homes
published:
  - {name: Somebody, success_rate: 70%, plus_or_minus: 7.1%, source: a paper}
leaves_out: all other NATs
trials: 2
deadline: 2s
"""


def test_a_population_has_one_rate_of_all_cells(tmp_path: Path) -> None:
    scenario(tmp_path, MIX)
    ran = call("run", "own.yaml", "--out", "out", "--capture", "none", "--json", at=tmp_path)
    assert ran.status == 0, ran.err
    found = ran.document.population
    assert found is not None
    (condition,) = found.conditions
    assert (found.form, condition.cells, condition.agrees) == ("weighted", 4, True)
    assert (condition.success_rate.value, condition.success_rate.n) == (0.9375, 8)
    assert condition.prediction is not None
    assert condition.prediction.low < 0.9375 < condition.prediction.high
    assert found.weights["nat_a"] == {"eim-eif": 0.75, "apdm-apdf": 0.25}
    assert found.leaves_out == "all other NATs"


def test_a_sample_is_drawn_resumed_and_compared_with_all_of_the_population(tmp_path: Path) -> None:
    scenario(tmp_path, MIX)
    arguments = ("run", "own.yaml", "--out", "out", "--capture", "none", "--seed", 3, "--json")
    ran = call(*arguments, "--sample", 5, at=tmp_path)
    assert ran.status == 0, ran.err
    found = ran.document.population
    assert found is not None
    (condition,) = found.conditions
    assert (found.form, condition.success_rate.n, condition.success_rate.method) == ("sampled", 5, "wilson")
    assert sum(cell.trials for cell in ran.document.cells) == 5 == len(records(tmp_path / "out"))
    assert len(ran.document.cells) < condition.cells == 4
    assert condition.prediction is not None
    again = call(*arguments, "--sample", 5, "--resume", at=tmp_path)
    assert again.status == 0, again.err
    assert again.document.population == found
    assert call(*arguments, "--sample", 6, "--resume", at=tmp_path).status == 2
    text = call("run", "own.yaml", "--sample", 5, "--seed", 3, "--out", "other", at=tmp_path).out
    assert "of 5 trials drawn" in text
    assert "beside it Somebody 70 % ± 7.1 % (a paper)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--sample", 3, "--trials", 2), "write one of them"), (("--sample", 0), "0 is not in the range")],
)
def test_mistakes_about_samples(arguments: tuple[object, ...], message: str, tmp_path: Path) -> None:
    scenario(tmp_path, MIX)
    ran = call("run", "own.yaml", *arguments, at=tmp_path)
    assert (ran.status, message in ran.err) == (2, True), ran.err
