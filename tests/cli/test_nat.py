"""`testbed nat`: what is listed and shown, and what a test prints and returns."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from click.testing import CliRunner

from testbed.cli import group
from testbed.errors import SpecError, UsageError
from testbed.lab.nftables.prepare import Prepared, prepare
from testbed.plan.network import Translation
from testbed.spec.kinds import KINDS
from testbed.spec.profile import Dependence


def run(*words: str) -> tuple[int, str]:
    """(what the command returns, what it prints on stdout)."""
    done = CliRunner().invoke(group, ["nat", *words], prog_name="testbed", standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value or 0, done.stdout


def test_list_has_every_kind_and_every_profile() -> None:
    _, shown = run("list", "--json")
    document = json.loads(shown)
    assert document["schema"] == "testbed.nat-list/1"
    names = [entry["profile"] for entry in document["profiles"]]
    assert names[:9] == list(KINDS)
    assert "openwrt" in names
    by_name = {entry["profile"]: entry for entry in document["profiles"]}
    assert by_name["openwrt"]["engine"] == "native"
    assert "hairpinning" in by_name["cisco-asa"]["unknowns"]


def test_list_for_a_person_marks_what_no_source_says() -> None:
    _, shown = run("list")
    lines = {line.split()[0]: line.split() for line in shown.splitlines()}
    assert lines["eim-adf"] == ["eim-adf", "endpoint", "address", "kept", "explicit"]
    assert lines["starlink"][1:3] == ["endpoint?", "address+port?"]


def test_show_has_fields_sources_unknowns_and_rules() -> None:
    _, shown = run("show", "cisco-asa", "--rules")
    assert "udp_timeout: 120s  (Cisco, ASA Command Reference: timeout udp 0:02:00)" in shown
    assert "(unknown; this stands in for it)" in shown
    assert "made by: explicit" in shown
    assert "table ip testbed {" in shown
    _, as_json = run("show", "cisco-asa", "--json")
    document = json.loads(as_json)
    assert document["schema"] == "testbed.nat/1"
    assert document["fields"]["udp_timeout"] == "120s"
    assert "rules" not in document


def test_rules_of_a_firewall_can_be_shown(tmp_path: Any) -> None:
    path = tmp_path / "wall.yaml"
    path.write_text("mapping: none\nfiltering: address-dependent\n")
    _, shown = run("show", str(path), "--rules")
    assert "made by: firewall" in shown
    assert "permitted_udp" in shown


@pytest.mark.parametrize("words", [[], ["--all", "eim-eif"]])
def test_a_test_wants_names_or_all(words: list[str]) -> None:
    with pytest.raises(UsageError, match="name the profiles to test, or --all"):
        run("test", *words)


def test_unknown_names_are_told_at_once() -> None:
    with pytest.raises(SpecError) as error:
        run("test", "eim-eiff", "opnwrt")
    assert "did you mean 'eim-eif'?" in str(error.value)
    assert "did you mean 'openwrt'?" in str(error.value)


def test_jobs_are_counted_from_one() -> None:
    with pytest.raises(click.UsageError):
        run("test", "eim-eif", "--jobs", "0")


@pytest.mark.lab
def test_one_profile_is_shown_row_by_row() -> None:
    status, shown = run("test", "udp-blocked")
    assert status == 0
    assert shown.splitlines()[0] == "udp-blocked (explicit)"
    assert any(line.split()[:3] == ["udp_blocked", "true", "true"] for line in shown.splitlines())


@pytest.mark.lab
def test_a_disagreement_is_told_and_makes_the_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def lie(translation: Translation) -> Prepared:
        """Of one profile rules that drop for another reason than they should."""
        profile = translation.profile
        if profile.name == "udp-blocked":
            filtering = Dependence.ENDPOINT_INDEPENDENT
            profile = profile.model_copy(update={"udp_blocked": False, "filtering": filtering})
        return prepare(Translation(profile, translation.external, translation.inside))

    monkeypatch.setattr("testbed.certify.stage.prepare", lie)
    status, shown = run("test", "udp-blocked", "eim-eif", "--json")
    assert status == 1
    document = json.loads(shown)
    assert document["schema"] == "testbed.nat-test/1"
    assert [(one["profile"], one["agrees"]) for one in document["profiles"]] == [
        ("udp-blocked", False),
        ("eim-eif", True),
    ]
    rows = {row["name"]: row for row in document["profiles"][0]["behaviours"]}
    assert rows["udp_blocked"] == {
        "name": "udp_blocked",
        "declared": "true",
        "observed": "false",
        "agrees": False,
        "how": "a datagram to the outside; a ping that follows gets through",
    }
    status, shown = run("test", "udp-blocked", "eim-eif")
    assert status == 1
    assert "udp-blocked  is not what it says:\n    udp_blocked declared true, observed false\n" in shown
