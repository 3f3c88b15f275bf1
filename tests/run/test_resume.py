"""What `--resume` goes on with, and what it refuses; a killed run that it completes is in test_faults.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.command import SLOW, call, records, scenario

pytestmark = pytest.mark.lab


CHANGES = [
    ("another seed", ("--seed", 2), None, "seed: 1 then, 2 now"),
    ("other cells", ("--only", "nat_b=apdm-apdf"), None, "cells:"),
    ("another file", (), "deadline: 2s", "line 6: 'deadline: 1s' then, 'deadline: 2s' now"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("finished")
    scenario(at, SLOW.replace("[apdm-apdf]", "[apdm-apdf, eim-eif]"))
    assert call("run", "own.yaml", "--trials", 1, "--out", "out", at=at).status == 0
    return at


@pytest.mark.parametrize(("sentence", "more", "line", "words"), CHANGES, ids=[row[0] for row in CHANGES])
def test_a_run_of_other_things_is_not_resumed(
    sentence: str, more: tuple[object, ...], line: str | None, words: str, finished: Path
) -> None:
    path = finished / "own.yaml"
    before, kept = path.read_text(), (finished / "out/trials.jsonl").read_bytes()
    if line is not None:
        path.write_text(before.replace("deadline: 1s", line))
    try:
        ran = call("run", "own.yaml", "--trials", 1, "--out", "out", "--resume", *more, at=finished)
    finally:
        path.write_text(before)
    assert ran.status == 2
    assert words in ran.err
    assert (finished / "out/trials.jsonl").read_bytes() == kept


def test_another_version_does_not_go_on(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.trial.campaign.__version__", "99.0")
    ran = call("run", "own.yaml", "--trials", 1, "--out", "out", "--resume", at=finished)
    assert ran.status == 2
    assert "99.0 now" in ran.err


def test_a_finished_run_is_resumed_by_more_trials(finished: Path, tmp_path: Path) -> None:
    ran = call("run", "own.yaml", "--trials", 2, "--out", "out", "--resume", "--json", at=finished)
    assert ran.status == 0, ran.err
    assert [(r.cell.rpartition("=")[2], r.index) for r in records(finished / "out")] == [
        (nat, index) for nat in ("apdm-apdf", "eim-eif") for index in (0, 1)
    ]
