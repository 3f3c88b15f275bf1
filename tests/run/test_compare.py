"""Two runs of a lab, kept and compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.run.command import call, scenario

pytestmark = pytest.mark.lab

ONE = """
topology: two_homes
agent: udp
matrix: {nat_a: [eim-eif], nat_b: [eim-eif]}
trials: 2
deadline: 2s
"""


def test_a_run_is_kept_and_compared_with_the_next_one(tmp_path: Path) -> None:
    path = scenario(tmp_path, ONE)
    for out in ("first", "second"):
        assert call("run", path, "--out", out, "--progress", "none", "--no-nat-test", at=tmp_path).status == 0
    kept = ("--baselines", "kept")
    assert call("baseline", "save", "main", "first", *kept, at=tmp_path).out == "main\n"
    shown = json.loads(call("baseline", "show", "main", "--json", *kept, at=tmp_path).out)
    assert (shown["trials"], shown["cells"]) == (2, 1)
    assert shown["machine"]["memory_bytes"] > 0, "it was measured on this machine, a moment ago"
    ran = call("compare", "main", "second", "--json", *kept, at=tmp_path)
    assert ran.status == 0, "two trials prove nothing"
    document = json.loads(ran.out)
    assert (document["verdict"], document["warnings"]) == ("inconclusive", [])
    assert all(metric["paired"] for metric in document["headline"] if metric["metric"] == "success_rate")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["compare", "a", "b"], 2, "testbed: there is no folder 'a', and no baseline of that name in kept;"),
        (["baseline", "list"], 0, "no baselines in kept; `testbed baseline save NAME RESULTS_FOLDER` makes one"),
        (["baseline", "save", "main"], 2, "Usage: testbed baseline save [OPTIONS] NAME RUN"),
    ],
)
def test_words_of_the_command_line(tmp_path: Path, words: list[str], status: int, said: str) -> None:
    ran = call(*words, "--baselines", "kept", at=tmp_path)
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(said)
