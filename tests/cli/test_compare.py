"""`testbed compare` and `testbed baseline`: what they print, refuse and return."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner

from testbed.cli import group
from testbed.errors import ExitStatus, TestbedError, UsageError
from testbed.results.comparison import json_schema
from testbed.results.folder import RESULT
from tests.results.test_compare import direct, failing, side, written

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in a folder that has three runs, with no baselines yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TESTBED_BASELINES", str(tmp_path / "baselines"))
    for name, make in (("before", direct()), ("same", direct()), ("slower", direct(1.3))):
        written(tmp_path / name, side(make, name))
    written(tmp_path / "elsewhere", side(environment={"cpu_model": "another"}))

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(group, list(words), prog_name="testbed", standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return done.return_value or 0, done.stdout

    return run


@pytest.mark.parametrize(
    ("words", "status", "first"),
    [
        (["before", "slower"], 1, "before -> slower: regressed"),
        (["slower", "before"], 0, "slower -> before: improved"),
        (["before", "same"], 0, "before -> same: inconclusive"),
        (["before", "slower", "--threshold", "50%"], 0, "before -> slower: no-change"),
        (["before", "same", "--rule", "point"], 0, "before -> same: no-change"),
        (["before/result.json", "./slower"], 1, "before/result.json -> ./slower: regressed"),
        (["before", "elsewhere", "--allow-different-machine"], 0, "before -> elsewhere: inconclusive"),
    ],
)
def test_compare(testbed: Command, words: list[str], status: int, first: str) -> None:
    returned, shown = testbed("compare", *words)
    assert (returned, shown.splitlines()[0]) == (status, first)


def test_what_has_changed_is_listed_and_the_rest_with_all(testbed: Command) -> None:
    _, changed = testbed("compare", "before", "slower")
    _, every = testbed("compare", "before", "slower", "--all")
    assert changed.count("traversal, ms") == 3
    assert changed.count("success, %") == 1
    assert every.count("success, %") == 3
    assert "--all lists every one" in changed
    assert "--all" not in every


def test_json_is_a_document_of_its_schema(testbed: Command) -> None:
    returned, shown = testbed("compare", "before", "slower", "--json")
    document = json.loads(shown)
    jsonschema.validate(document, json_schema())
    assert (returned, document["schema"], document["verdict"]) == (1, "testbed.comparison/1", "regressed")


def test_markdown_is_tables(testbed: Command) -> None:
    returned, shown = testbed("compare", "before", "slower", "--markdown")
    assert returned == 1
    lines = shown.splitlines()
    assert lines[0] == "### before → slower: regressed"
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in tables} == {8, 9}
    assert "**regressed**" in shown
    assert lines[-1] == "</details>"


def test_the_price_of_the_point_rule_is_told(testbed: Command) -> None:
    for form in ([], ["--markdown"]):
        assert (
            "had nothing changed, it would call" in testbed("compare", "before", "slower", "--rule", "point", *form)[1]
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "befor", "same"], "there is no folder 'befor', and no baseline of that name in"),
        (
            ["compare", "no/where", "same"],
            "there is no folder no/where; `testbed run SCENARIO --out no/where` makes one",
        ),
        (["compare", "before", "elsewhere"], "or compare them all the same with --allow-different-machine"),
        (["compare", "before", "same", "--threshold", "5"], "--threshold: 5 has no unit"),
        (["compare", "before", "same", "--threshold", "5ms"], "--threshold: '5ms' is not a share"),
        (["compare", "before", "same", "--threshold", "0%"], "no number of trials tells a change of 0% from none"),
        (["compare", "before", "same", "--json", "--markdown"], "are two documents: write one of them"),
        (["compare", "before", "same", "--json", "--all"], "--json and --markdown have every cell: leave it out"),
        (["baseline", "save", "a/b", "before"], "'a/b' cannot be the name of a baseline"),
        (["baseline", "save", "main", "nowhere"], "nowhere is not a results folder: there is no result.json"),
        (["baseline", "show", "main"], "`testbed baseline save main RESULTS_FOLDER` makes it"),
        (["baseline", "rename", "main", "x"], "there is no baseline 'main'"),
        (["baseline", "remove", "main"], "there is no baseline 'main'"),
        (["baseline", "export", "main"], "there is no baseline 'main'"),
        (["baseline", "import", "before/result.json"], "is not an archive of a baseline"),
    ],
)
def test_what_cannot_be_done_is_told_with_the_next_step(testbed: Command, words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        testbed(*words)
    assert message in str(refused.value)
    assert refused.value.exit_status is ExitStatus.USAGE


def test_a_place_that_cannot_be_written_is_the_machines_fault(testbed: Command) -> None:
    with pytest.raises(TestbedError) as refused:
        testbed("baseline", "save", "main", "before", "--baselines", f"before/{RESULT}/x")
    assert refused.value.exit_status is ExitStatus.MACHINE


def test_a_baseline_from_save_to_remove(testbed: Command, tmp_path: Path) -> None:
    assert testbed("baseline", "list") == (0, "")
    assert testbed("baseline", "save", "main", "before") == (0, "main\n")
    assert testbed("compare", "main", "slower")[0] == 1
    assert testbed("baseline", "export", "main") == (0, "main.tar.gz\n")
    assert testbed("baseline", "import", "main.tar.gz", "--name", "again") == (0, "again\n")
    assert testbed("baseline", "rename", "again", "old") == (0, "old\n")
    assert testbed("baseline", "save", "main", "slower", "--force") == (0, "main\n")
    assert testbed("compare", "old", "main", "--json")[0] == 1
    _, listed = testbed("baseline", "list")
    assert [line.split()[0] for line in listed.splitlines()] == ["name", "main", "old"]
    document = json.loads(testbed("baseline", "list", "--json")[1])
    assert document["schema"] == "testbed.baselines/1"
    assert [entry["name"] for entry in document["baselines"]] == ["main", "old"]
    assert document["baselines"][0]["environment"]["cpu_model"] == "a processor"
    testbed("baseline", "remove", "old")
    assert [entry["name"] for entry in json.loads(testbed("baseline", "list", "--json")[1])["baselines"]] == ["main"]


def test_show_says_where_from(testbed: Command) -> None:
    testbed("baseline", "save", "main", "before")
    _, shown = testbed("baseline", "show", "main")
    assert "  scenario: made_up, seed 1, 60 trials in 2 cells" in shown.splitlines()
    assert "  machine: it was measured elsewhere than it was saved" in shown.splitlines()
    document = json.loads(testbed("baseline", "show", "main", "--json")[1])
    assert (document["name"], document["schema"], document["machine"]) == ("main", "testbed.baseline/1", None)


def test_an_option_names_another_place(testbed: Command, tmp_path: Path) -> None:
    testbed("baseline", "save", "main", "before", "--baselines", "kept")
    assert (tmp_path / "kept" / "main" / RESULT).exists()
    assert testbed("compare", "main", "same", "--baselines", "kept")[1].startswith("main -> same: ")
    with pytest.raises(UsageError, match="no baseline of that name"):
        testbed("compare", "main", "same")


def test_lost_successes_are_a_regression_and_no_speed_up(testbed: Command, tmp_path: Path) -> None:
    written(tmp_path / "lost", side(failing(0.4), "lost"))
    returned, shown = testbed("compare", "before", "lost")
    assert returned == 1
    assert "improved" not in shown
