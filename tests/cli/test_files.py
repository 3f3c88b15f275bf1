"""`check`, `list`, `schema`: what a person sees who writes files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import cli
from testbed.cli import COMMANDS
from testbed.spec.places import FileKind
from testbed.spec.schema import schema
from tests.spec.corpus import BROKEN, MISTAKES, ROOT, SHIPPED

Run = Callable[..., tuple[int, str, str]]

HEAVY = ("yaml", "pydantic", "pyroute2", "aioquic", "scipy", "trio", "scapy", "rich")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line as `testbed ARGS` would: status, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["testbed", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return int(exit_.value.code), out, err

    return call


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("no-such-command",)], ids=" ".join)
def test_help_imports_click_and_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\n"
        "from testbed.cli import main\n"
        f"sys.argv = ['testbed', *{arguments!r}]\n"
        "try: main()\n"
        f"finally: print('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr


@pytest.mark.parametrize("name", ["check", "list", "schema"])
def test_help_of_a_command_shows_examples(run: Run, name: str) -> None:
    status, out, err = run(name, "--help")
    assert (status, err) == (0, "")
    assert f"Usage: testbed {name}" in out
    assert "Examples:" in out
    assert COMMANDS[name][1].rstrip(".").split(";")[0].split(",")[0] in " ".join(out.split())


def test_every_shipped_file_is_ok(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    status, out, err = run("check", *map(str, SHIPPED))
    assert (status, err) == (0, "")
    assert [line.split(": OK, ")[0] for line in out.splitlines()] == [str(path) for path in SHIPPED]


def test_every_problem_of_every_file_is_told_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    status, out, err = run("check", *map(str, MISTAKES), "two_homes")
    expected = {line for path in MISTAKES for line in path.with_suffix(".expected").read_text("utf-8").splitlines()}
    assert (status, set(err.splitlines())) == (2, expected)
    assert len(err.splitlines()) == len(expected)
    assert out.endswith("two_homes.yaml: OK, a topology of 5 nodes\n"), "good files are told as such all the same"


WORDS = [
    ("no_such_file.yaml", "testbed: no_such_file.yaml: no such file\n"),
    ("two_homs", "testbed: there is no topology 'two_homs', did you mean 'two_homes'?\n"),
    ("clasic", "testbed: there is no scenario 'clasic', did you mean 'classic'?\n"),
    ("qqqqqqqq", "testbed: no such file or name: qqqqqqqq\n"),
    ("eim-eif", "testbed: 'eim-eif' is one of the built-in kinds of NAT, and no file\n"),
]


@pytest.mark.parametrize(("word", "message"), WORDS, ids=[row[0] for row in WORDS])
def test_what_is_not_there_is_told(run: Run, tmp_path: Path, word: str, message: str) -> None:
    assert run("check", word) == (2, "", message)


def test_show_draws_the_network_that_was_understood(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("world.yaml").write_text(
        "description: A small world.\n"
        "regions: {lon: {par: 5ms}, par: {}}\n"
        "nodes:\n"
        "  nat: {kind: nat, uplink: lon, lan: 10.0.0.0/24, link: {preset: cable, loss: {p: 1%, r: 10%}, mtu: 1400}}\n"
        "  alice: {kind: peer, uplink: nat}\n"
        "  bob: {kind: peer, uplink: [nat, par], link: [{up: {delay: 1ms}}, wifi]}\n"
    )
    status, out, _ = run("check", "--show", "world.yaml")
    assert status == 0
    assert out.splitlines() == [
        "world.yaml: OK, a topology of 3 nodes",
        "  A small world.",
        "  lon  5ms to par",
        "  └─ nat (nat, no profile of its own, lan 10.0.0.0/24)  delay: 14ms, loss: {p: 1%, r: 10%};"
        " up {rate: 1mbit}; down {rate: 5mbit}; mtu: 1400",
        "     ├─ alice (peer)  nothing impaired",
        "     └─ bob (peer)  up {delay: 1ms}",
        "  par",
        "  └─ bob (peer)  delay: 1.5ms, jitter: 1ms, distribution: pareto",
    ]


def test_show_says_what_stands_in_for_an_unknown(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nat.yaml").write_text(
        "mapping: {value: address-dependent, source: a book}\n"
        "ports: {value: unknown, source: a book}\n"
        "hairpinning: {value: unknown, source: a book}\n"
    )
    _, out, _ = run("check", "--show", "nat.yaml")
    lines = [line.strip() for line in out.splitlines()]
    assert "mapping: address-dependent  (a book)" in lines
    assert "hairpinning: none  (unknown; this stands in for it)" in lines
    assert "ports.preserve: true  (unknown; this stands in for it)" in lines
    assert "refresh: both" in lines


def test_show_lists_the_cells_of_a_scenario(run: Run) -> None:
    _, out, _ = run("check", "--show", "symmetric_nat")
    lines = [line.strip() for line in out.splitlines()]
    assert "expect: nat_b=eim-eif: success_rate at_least: 80%" in lines
    assert "cell 1: nat_a=apdm-apdf,nat_b=eim-eif,strategy=reflexive" in lines
    assert len([line for line in lines if line.startswith("cell ")]) == 15


def test_show_says_what_happens_and_how_common_each_profile_is(run: Run) -> None:
    _, out, _ = run("check", "--show", "nat_restart")
    assert "  event: 250ms: nat_a: restart\n  event: 250ms: link nat_a: loss: 100%\n" in out
    _, out, _ = run("check", "--show", "population")
    assert "  population: nat_b: linux-masquerade 39.2 %, pf-static-port 13.1 %, " in out


def test_list_shows_what_a_name_finds(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("topologies").mkdir()
    Path("topologies/mine.yaml").write_text("description: My own\n  network.\n")
    Path("topologies/torn.yaml").write_text("nodes: [\n")
    Path("topologies/notes.txt").write_text("not a topology\n")
    status, out, err = run("list", "topologies")
    assert (status, err) == (0, "")
    assert re.search(r"^mine +My own network\.$", out, re.MULTILINE)
    assert re.search(r"^torn +\(cannot be read: see `testbed check topologies/torn\.yaml`\)$", out, re.MULTILINE)
    assert re.search(r"^two_homes +Two homes", out, re.MULTILINE)
    assert "notes" not in out


def test_list_as_json_is_one_document(run: Run) -> None:
    status, out, _ = run("list", "--json")
    document = json.loads(out)
    assert (status, list(document)) == (0, ["topologies", "profiles", "scenarios", "agents"])
    assert {"name", "description", "source"} == set(document["agents"][0])
    assert [entry["name"] for entry in document["agents"]] == ["quic", "udp"]
    assert document["profiles"][0]["source"] == "built in"
    assert {entry["name"] for entry in document["profiles"]} >= {"apdm-apdf", "linux-masquerade"}
    assert all(entry["description"] for entries in document.values() for entry in entries)


def test_list_of_all_has_a_heading_for_each(run: Run) -> None:
    _, out, _ = run("list")
    assert [line for line in out.splitlines() if line.endswith(":")] == [
        "topologies:",
        "profiles:",
        "scenarios:",
        "agents:",
    ]


@pytest.mark.parametrize("kind", FileKind)
def test_schema_prints_the_schema(run: Run, kind: FileKind) -> None:
    status, out, err = run("schema", kind.value)
    assert (status, err) == (0, "")
    assert json.loads(out) == schema(kind)


def test_an_unknown_kind_of_schema_is_refused(run: Run) -> None:
    status, _, err = run("schema", "topologie")
    assert status == 2
    assert "topology" in err
