"""`testbed explain` on the folder of a run: one that a lab has made, and one that the model has filled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from testbed import __version__
from testbed.cli import group
from testbed.errors import UsageError
from testbed.plan.trials import plan_cell, settings_of, trial_seed
from testbed.results.explanation import Explanation
from testbed.results.folder import Folder
from testbed.results.inputs import Manifest
from testbed.spec.load import load_scenario
from testbed.trial.explain import NOT_KEPT, explain
from tests.run.command import call, records, scenario
from tests.trial.test_explain import of_model

PAIRS = """
topology: two_homes
agent: udp
matrix: {nat_a: [eim-eif, apdm-apdf], nat_b: [eim-apdf]}
trials: 1
deadline: 1s
"""
HARD = "nat_a=apdm-apdf,nat_b=eim-apdf"


def _asked(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["explain", *arguments], standalone_mode=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a run of which only the records are there."""
    loaded = load_scenario(str(scenario(tmp_path, PAIRS)))
    wanted = loaded.scenario
    limits = settings_of(wanted)
    manifest = Manifest(run="a-run", testbed=__version__, seed=wanted.seed)
    with Folder.create(tmp_path / "out", manifest, loaded.files) as made:
        for plan in map(plan_cell, loaded.cells):
            kept = of_model(plan, trial_seed(wanted.seed, plan.id, 0), limits)
            made.append(kept.model_copy(update={"cell": plan.id, "index": 0, "factors": dict(plan.factors)}))
    return tmp_path / "out"


def test_records_alone_are_explained_by_the_model(folder: Path) -> None:
    found = explain(folder, None)
    assert (found.cell, found.outcome, found.told_by) == (HARD, "relayed", "model")
    assert found.theory is not None
    assert (found.theory.agrees, found.theory.differs) == (True, None)
    assert found.notes == (NOT_KEPT,)


def test_the_network_is_that_of_the_folder(folder: Path) -> None:
    topology = folder / "inputs" / "topologies" / "two_homes.yaml"
    topology.write_text(topology.read_text().replace("alice", "anna"))
    found = explain(folder, None)
    assert found.theory is not None
    assert (found.theory.differs or "").startswith("in the lab alice ")


def test_the_command_prints_a_page_or_a_document(folder: Path) -> None:
    shown, told = _asked(str(folder)), _asked(str(folder), "nat_a=eim-eif:0", "--json")
    assert shown.output.startswith(f"{HARD}: trial 0")
    document = json.loads(told.output)
    assert (document["schema"], document["outcome"]) == ("testbed.explanation/1", "direct")
    assert Explanation.model_validate(document, strict=False).sentence == document["sentence"]


NO_RUNS = [
    ("a folder that is not there", "nothing", "is not a results folder"),
    ("a folder of something else", ".", "is not a results folder"),
]


@pytest.mark.parametrize(("about", "name", "words"), NO_RUNS, ids=[row[0] for row in NO_RUNS])
def test_what_is_no_run_is_refused(about: str, name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        explain(tmp_path / name, None)


DAMAGED = [
    ("half of a capture", b"\n\r\r\n", "cannot be read"),
    ("what is no capture", b"", "cannot be read"),
]


@pytest.mark.parametrize(("about", "data", "words"), DAMAGED, ids=[row[0] for row in DAMAGED])
def test_a_capture_that_cannot_be_read_is_said_to_be_one(about: str, data: bytes, words: str, folder: Path) -> None:
    (folder / "captures").mkdir()
    (folder / "captures" / f"{HARD}-0.pcapng").write_bytes(data)
    found = explain(folder, None)
    assert found.told_by == "model", about
    assert words in found.notes[0], about


@pytest.mark.lab
def test_the_drops_of_a_lab_are_named(tmp_path: Path) -> None:
    scenario(tmp_path, PAIRS)
    assert call("run", "own.yaml", "--out", "out", "--capture", "all", at=tmp_path).status == 0
    found = explain(tmp_path / "out", None)
    kept = next(record for record in records(tmp_path / "out") if record.cell == HARD)
    assert (found.cell, found.told_by) == (HARD, "capture")
    assert found.sentence.startswith("Not direct: each of alice's ")
    assert "died at nat_b (no-permission), because they came from 11.0.0.6:" in found.sentence
    assert "nat_a maps by address and port and has those addresses for the rendezvous only" in found.sentence
    counted: dict[tuple[str, str], int] = {}
    for flow in found.flows:
        for ending in flow.endings:
            counted[ending.where, ending.reason] = counted.get((ending.where, ending.reason), 0) + ending.count
    for nat in ("nat_a", "nat_b"):
        assert counted[nat, "no-permission"] == kept.nats[nat].dropped["no-permission"], "the NAT's own counter"
    assert found.theory is not None
    assert (found.theory.agrees, found.theory.differs) == (True, None)
    direct = explain(tmp_path / "out", "nat_a=eim-eif:0")
    assert {ending.reason for flow in direct.flows for ending in flow.endings} >= {"arrived", "no-route"}
