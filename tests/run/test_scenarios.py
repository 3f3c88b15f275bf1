"""Every shipped scenario runs here, and none breaks a trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.plan.outcomes import Outcome
from tests.run.command import call, records
from tests.spec.corpus import ROOT

LARGE = ("grid", "grid_session_reply", "population")
SCENARIOS = sorted(path.stem for path in (ROOT / "scenarios").glob("*.yaml"))


@pytest.mark.lab
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in SCENARIOS]
)
def test_a_shipped_scenario_runs(name: str, tmp_path: Path) -> None:
    ran = call("run", name, "--trials", 1, "--out", "out", "--json", at=tmp_path)
    assert ran.status == 0, ran.err
    document = ran.document
    found = records(tmp_path / "out")
    assert len(found) == len(document.cells)
    assert not [record.reason for record in found if record.outcome in (Outcome.BROKEN, Outcome.UNSUPPORTED)]
