"""A run tests its NATs first: cells on a NAT that lies are broken, the others are run; and it can be left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.certify import suspects
from testbed.certify.rows import Certificate, Row
from testbed.lab.nftables.prepare import Prepared, prepare
from testbed.plan.network import Translation
from testbed.plan.outcomes import Outcome
from testbed.plan.trials import plan_cell
from testbed.spec.load import load_scenario
from testbed.spec.profile import Dependence, NatProfile
from tests.run.command import call, records, scenario

SCENARIO = """
topology: two_homes
agent: udp
matrix: {nat_a: [eim-apdf], nat_b: [eim-apdf, eim-adf]}
trials: 2
deadline: 2s
"""


def lie(translation: Translation) -> Prepared:
    """Of `eim-adf` the rules of a NAT that maps by address and port."""
    profile = translation.profile
    if profile.name == "eim-adf":
        profile = profile.model_copy(update={"mapping": Dependence.ADDRESS_AND_PORT_DEPENDENT})
    return prepare(Translation(profile, translation.external, translation.inside))


@pytest.mark.lab
def test_cells_on_a_nat_that_lies_are_broken_and_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.certify.stage.prepare", lie)
    scenario(tmp_path, SCENARIO)
    ran = call("run", "own.yaml", "--json", "--out", "out", at=tmp_path)
    assert ran.status == 4, ran.err
    found = {(record.cell, record.index): record for record in records(tmp_path / "out")}
    assert len(found) == 4
    for (cell, _), record in found.items():
        is_sound = cell == "nat_a=eim-apdf,nat_b=eim-apdf"
        assert record.outcome is (Outcome.DIRECT if is_sound else Outcome.BROKEN)
        assert record.reason == (
            None
            if is_sound
            else "profile eim-adf is not what it says: mapping declared endpoint-independent, "
            "observed address-and-port-dependent"
        )
    resumed = call("run", "own.yaml", "--json", "--out", "out", "--resume", "--no-nat-test", at=tmp_path)
    assert resumed.status == 0, "a broken trial is run again when a person resumes the run"
    assert sum(cell.outcomes.direct for cell in resumed.document.cells) == 4


@pytest.mark.lab
def test_the_test_can_be_left_out_and_the_result_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_test(_: object) -> dict[str, str]:
        raise AssertionError("the NATs are tested")

    note = "NATs were not tested before the first trial (--no-nat-test)"
    scenario(tmp_path, SCENARIO)
    tested = call("run", "own.yaml", "--json", "--trials", "1", at=tmp_path)
    assert note not in tested.document.warnings
    monkeypatch.setattr("testbed.trial.campaign.refuted", no_test)
    ran = call("run", "own.yaml", "--json", "--trials", "1", "--no-nat-test", at=tmp_path)
    assert ran.status == 0, ran.err
    assert note in ran.document.warnings


def test_each_behaviour_is_tested_once_and_every_cell_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def quick(profiles: list[NatProfile]) -> list[Certificate]:
        asked.extend(profile.name for profile in profiles)
        rows = {name: (Row("mapping", "one", "another", name != "apdm-apdf", "x"),) for name in asked}
        return [Certificate(profile.name, "explicit", rows[profile.name]) for profile in profiles]

    monkeypatch.setattr(suspects, "quick", quick)
    plans = [plan_cell(cell) for cell in load_scenario("classic").cells]
    found = suspects.refuted(plans)
    assert sorted(asked) == ["apdm-apdf", "eim-adf", "eim-apdf", "eim-eif"]
    assert set(found) == {plan.id for plan in plans if "apdm-apdf" in plan.id}
    assert set(found.values()) == {"profile apdm-apdf is not what it says: mapping declared one, observed another"}
