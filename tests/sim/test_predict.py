"""`testbed predict`: what a person and a program see, and that it stays light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import cli
from testbed.cli.spread import spread
from testbed.errors import BrokenError, UsageError

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent.parent
HEAVY = ("pyroute2", "scapy", "aioquic", "scipy", "trio", "rich", "testbed.lab", "testbed.agents", "testbed.results")
TOPOLOGY = """
nodes:
  meet:  {kind: rendezvous, uplink: internet, link: {delay: 10ms}}
  nat_a: {kind: nat,  uplink: internet, link: {delay: 10ms}}
  alice: {kind: peer, uplink: nat_a,    link: {delay: 1ms}}
  nat_b: {kind: nat,  uplink: internet, link: {delay: 15ms}}
  bob:   {kind: peer, uplink: nat_b,    link: {delay: 1ms}}
"""
SCENARIO = """
topology: homes
agent: udp
matrix:
  nat_a: [eim-apdf, apdm-apdf]
  nat_b: [eim-apdf]
  nodes.bob.link.loss: [0%, 5%]
trials: 6
"""

MIX = """
topology: homes
agent: udp
population:
  nat_a: &homes {eim-apdf: 3, apdm-apdf: 1}
  nat_b: *homes
published:
  - {name: Somebody, success_rate: 70%, plus_or_minus: 7.1%, about: something else, source: a paper}
  - {name: Another, at_least: 80%, source: a talk}
leaves_out: all other NATs
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line beside a small scenario: status, stdout, stderr."""
    for folder, name, text in (("topologies", "homes", TOPOLOGY), ("scenarios", "small", SCENARIO)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.yaml").write_text(text)
    (tmp_path / "scenarios" / "mix.yaml").write_text(MIX)
    program = SCENARIO.replace("agent: udp", "agent: {command: [my-punch]}")
    (tmp_path / "scenarios" / "program.yaml").write_text(program)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["testbed", "predict", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return int(exit_.value.code), out, err

    return call


def test_the_table(run: Run) -> None:
    status, out, err = run("small")
    assert (status, err) == (0, "")
    lines = [line.split("  ") for line in out.splitlines()]
    words = [[word.strip() for word in line if word.strip()] for line in lines]
    assert words[0] == ["small: 4 cells, seed 1, predicted"]
    assert words[2] == [
        *("nat_a", "nat_b", "nodes.bob.link.loss"),
        *("success", "interval", "traversal, ms", "discovery, ms", "source"),
    ]
    assert words[3][:5] == ["eim-apdf", "eim-apdf", "0%", "100%", "-"]
    assert words[3][-1] == "exact"
    assert words[4][:5] == ["eim-apdf", "eim-apdf", "5%", "100%", "61%-100%"]
    assert words[4][-1] == "simulated, n = 6"
    assert words[5][3:6] == ["0%", "-", "> 10000"]
    assert words[-1] == ["2 of 4 cells connect every time"]


def test_the_document(run: Run) -> None:
    status, out, _ = run("small", "--json", "--trials", "8", "--seed", "5", "--only", "nat_a=eim-apdf")
    document = json.loads(out)
    assert status == 0
    assert {name: document[name] for name in ("schema", "scenario", "seed")} == {
        "schema": "testbed.prediction/1",
        "scenario": "small",
        "seed": 5,
    }
    exact, simulated = document["cells"]
    assert exact["id"] == "nat_a=eim-apdf,nat_b=eim-apdf,nodes.bob.link.loss=0%"
    assert exact["factors"] == {"nat_a": "eim-apdf", "nat_b": "eim-apdf", "nodes.bob.link.loss": "0%"}
    assert (exact["source"], exact["reason"], exact["outcomes"]) == ("exact", None, {"direct": 1})
    bounds = {"value": 1.0, "low": 1.0, "high": 1.0}
    assert exact["success_rate"] == bounds | {"confidence": 0.95, "method": "exact", "n": 1}
    assert (simulated["source"], simulated["success_rate"]["n"]) == ("simulated", 8)
    assert set(simulated["time_to_traverse"]) == {"unit", "n", "censored", "p50", "p95"}
    assert simulated["time_to_traverse"]["p50"]["value"] > 0


def test_a_percentile_beyond_the_deadline_says_so(run: Run) -> None:
    _, out, _ = run("small", "--json", "--only", "nat_a=apdm-apdf")
    quantile = json.loads(out)["cells"][0]["time_to_traverse"]["p50"]
    assert (quantile["value"], quantile["exceeds"]) == (None, 10)


def test_external_programs_are_not_predicted(run: Run) -> None:
    status, out, _ = run("program")
    assert status == 0
    assert "not predicted: an external program cannot be predicted" in out
    assert "0 of 4 cells connect every time" in out
    cells = json.loads(run("program", "--json")[1])["cells"]
    assert all(cell["source"] is None and "external program" in cell["reason"] for cell in cells)


def test_a_population_has_one_rate_of_all_cells(run: Run) -> None:
    status, out, _ = run("mix")
    assert status == 0
    assert out.splitlines()[-4:] == [
        "population: 56.2% of 4 weighted cells [56.2%-56.2%]",
        "  beside it: Somebody: 70% ± 7.1% (a paper): something else",
        "  beside it: Another: at least 80% (a talk)",
        "  left out: all other NATs",
    ]


def test_a_population_in_the_document(run: Run) -> None:
    document = json.loads(run("mix", "--json")[1])["population"]
    assert document["form"] == "weighted"
    assert document["weights"] == {name: {"eim-apdf": 0.75, "apdm-apdf": 0.25} for name in ("nat_a", "nat_b")}
    (condition,) = document["conditions"]
    rate = condition["success_rate"]
    assert (condition["factors"], condition["cells"], rate["value"], rate["method"]) == ({}, 4, 0.5625, "stratified")
    assert document["published"][0] == {
        "name": "Somebody", "success_rate": "70%", "at_least": None, "plus_or_minus": "7.1%", "about": "something else",
        "source": "a paper",
    }  # fmt: skip
    assert "population" not in json.loads(run("small", "--json")[1])


def test_a_sample_of_a_population(run: Run) -> None:
    document = json.loads(run("mix", "--json", "--sample", "40", "--seed", "5")[1])["population"]
    (condition,) = document["conditions"]
    rate = condition["success_rate"]
    assert (document["form"], rate["n"], rate["method"]) == ("sampled", 40, "wilson")
    assert rate["low"] < 0.5625 < rate["high"]
    assert run("mix", "--sample", "40", "--seed", "5")[1].splitlines()[-4].startswith("population: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("small", "--sample", "5"), "the scenario has no population"),
        (("mix", "--sample", "5", "--trials", "2"), "write one of them"),
        (("no-such-scenario",), "no-such-scenario"),
        (("small", "--only", "nat_c=eim-eif"), "nat_c"),
        (("small", "--trials", "0"), "0"),
    ],
)
def test_mistakes(run: Run, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\n"
        "from testbed.cli import main\n"
        "sys.argv = ['testbed', 'predict', 'one_public']\n"
        "try: main()\n"
        f"finally: print('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr


# ---------------------------------------------------------------------------- on all cores


def test_spread_keeps_the_order() -> None:
    for count in (0, 1, 7, 8, 40, 41):
        assert spread(lambda item: item * item, range(count), cores=3) == [item * item for item in range(count)]


@pytest.mark.parametrize("culprit", [0, 1, 2], ids=["in the parent", "in a child", "in the other child"])
def test_spread_raises_what_was_raised(culprit: int) -> None:
    def work(item: int) -> int:
        if item == culprit:
            raise UsageError(f"item {item}")
        return item

    with pytest.raises(UsageError, match=f"item {culprit}"):
        spread(work, range(30), cores=3)


def test_spread_says_when_a_child_dies() -> None:
    parent = os.getpid()

    def work(item: int) -> int:
        if os.getpid() != parent:
            os._exit(1)
        return item

    with pytest.raises(BrokenError, match="died"):
        spread(work, range(30), cores=2)
