"""What the pages say is true: files load, documents parse, links lead somewhere, words and options exist.

A page that names what there is not is a mistake of the page or of the program; which of both, a person decides.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from click.testing import CliRunner

from testbed import stats
from testbed.agents.contract import AgentSetup
from testbed.agents.external import environment
from testbed.cli import COMMANDS, group
from testbed.errors import ExitStatus
from testbed.lab.nftables.table import REASONS
from testbed.plan.outcomes import CLAIM_REFUTED, ENDS_DISAGREE, Outcome
from testbed.results.document import Document, json_schema
from testbed.results.explanation import ENDINGS
from testbed.results.record import BUSY_MACHINE, CAPTURE_DROPS, LATE_EVENT, LATE_EVENT_LOOP, METRICS, Record
from testbed.spec.kinds import OLDER_NAMES
from testbed.spec.load import load_any
from testbed.traversal import events
from testbed.traversal.candidates import Role
from testbed.traversal.rendezvous import Rendezvous
from tests.docs.pages import BLOCKS, PAGES, ROOT, TEXTS, Block, anchors, code, commands, of_language, options

EVERYTHING = "\n".join(TEXTS.values())

# ---------------------------------------------------------------------------- blocks

SCENARIO = "topology: two_homes\nmatrix: {nat_a: [eim-apdf], nat_b: [eim-apdf]}\n"
"""What a fragment of a scenario is tried in."""
WRONG = "wrong.yaml"
"""The one block whose mistakes are the point; tests/docs/test_consoles.py looks at them."""


def test_every_block_has_a_language() -> None:
    known = {"yaml", "json", "jsonl", "console", "text"}
    assert [str(block) for block in BLOCKS if block.language not in known] == []


@pytest.mark.parametrize("page", PAGES)
def test_yaml_is_what_the_program_reads(page: str, tmp_path: Path) -> None:
    blocks = [block for block in of_language("yaml") if block.page == page]
    for block in blocks:
        if block.name is not None:
            (tmp_path / Path(block.name).name).write_text(block.text)
    for block in blocks:
        if block.name == WRONG:
            continue
        if block.name is not None and block.name.startswith(".github/"):
            assert "jobs" in yaml.safe_load(block.text), block
        else:
            load_any(_written(block, tmp_path))


def _written(block: Block, folder: Path) -> Path:
    """A block as a file: as it is where it has a name, else as keys of a scenario."""
    if block.name is not None:
        return folder / block.name
    path = folder / "fragment.yaml"
    said = yaml.safe_load(block.text)
    assert isinstance(said, dict), block
    unsaid = [line for line in SCENARIO.splitlines(keepends=True) if line.partition(":")[0] not in said]
    rest = "".join(line for line in unsaid if not ("population" in said and line.startswith("matrix:")))
    path.write_text(rest + block.text)
    return path


@pytest.mark.parametrize("block", of_language("json"), ids=str)
def test_json_is_what_the_program_writes(block: Block) -> None:
    value = json.loads(block.text)
    if "schema" in value:
        jsonschema.validate(value, json_schema())
        Document.from_json(block.text)
    else:
        Record.from_line(json.dumps(value))


@pytest.mark.parametrize("block", of_language("jsonl"), ids=str)
def test_json_lines_are_events(block: Block) -> None:
    for line in block.text.splitlines():
        events.from_json(json.loads(line))


def test_the_run_that_is_shown_is_a_result() -> None:
    text = (ROOT / "docs" / "evidence" / "symmetric_nat.json").read_text(encoding="utf-8")
    schema = json.loads((ROOT / "docs" / "schema" / "result.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(text), schema)
    assert Document.from_json(text).exit_status() is ExitStatus.OK


# ---------------------------------------------------------------------------- links


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (PAGES[page].parent / file).resolve() if file else PAGES[page]
        assert path.exists(), f"{page}: {target}"
        if anchor:
            other = path.relative_to(ROOT).as_posix()
            assert anchor in anchors(other), f"{page}: {target} (there are {sorted(anchors(other))})"


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    """`agents/loop.py` is a file of the package, `scenarios/x.yaml` one of the checkout."""
    for word in code(page):
        if re.fullmatch(r"[a-z_][\w./]*/[\w.]*", word) and not word.startswith(
            ("/", "results/", "captures/", "inputs/")
        ):
            roots = (ROOT, ROOT / "testbed", ROOT / "docs", ROOT / "testbed" / "agents")
            is_made = word in {"nat_a/wan0", "meet/eth0"}  # interfaces, written as captures write them
            assert is_made or any((root / word).exists() for root in roots), f"{page}: {word}"


# ---------------------------------------------------------------------------- the command line

FOREIGN = {"--privileged", "--cap-add", "--security-opt", "--net"}
"""Options of docker and nsenter."""


@pytest.mark.parametrize("page", PAGES)
def test_options_exist(page: str) -> None:
    known = commands()
    everywhere = {option for command in known.values() for option in options(command)} | {"--version"} | FOREIGN
    for fragment in code(page):
        ours = fragment.partition(" -- ")[0]
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours))
        command = re.search(r"\btestbed ([a-z]+)", ours)
        allowed = options(known[command[1]]) if command and command[1] in known else everywhere
        assert named <= allowed, f"{page}: {fragment!r}"
        assert command is None or command[1] in known, f"{page}: {fragment!r}"


def test_every_command_and_every_option_is_on_a_page_that_a_person_wrote() -> None:
    written = "\n".join(text for page, text in TEXTS.items() if page != "docs/commands.md")
    for name, command in commands().items():
        assert f"testbed {name}" in written
        for option in options(command) - {"--help"}:
            assert option in written, f"testbed {name} {option}"


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_use_options_that_exist(name: str) -> None:
    shown = CliRunner().invoke(group, [name, "--help"], prog_name="testbed").output
    for line in re.findall(rf"^\s+(?:sudo )?testbed {name} (.*)$", shown, re.MULTILINE):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line.partition(" -- ")[0]))
        assert named <= options(commands()[name]), line


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        target for page in PAGES for said in code(page) for target in re.findall(r"\bmake (?:-C \w+ )?(\w+)", said)
    }
    assert {"run", "install", "docs", "contracts"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


# ---------------------------------------------------------------------------- words and numbers


def _column(page: str, heading: str, head: str) -> list[str]:
    """The words between backticks in the first column of the table with this head, below this heading."""
    text = TEXTS[page].partition(f"\n{heading}\n")[2]
    rows = text[text.index(f"| {head} |") :].partition("\n\n")[0].splitlines()[2:]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])]


def _told() -> list[str]:
    servers = Rendezvous(("11.0.0.2", "11.128.0.1"), Random(1)).servers
    return list(environment(AgentSetup("alice", "bob", Role.CONTROLLING, ("192.168.1.2",), servers, 1, 1, 1)))


TABLES = [
    # every outcome is defined, in the order of the code
    ("docs/concepts.md", "## Outcomes", "outcome", [outcome.value for outcome in Outcome]),
    # every metric is defined
    ("docs/concepts.md", "## Metrics", "metric", list(METRICS)),
    # every warning that a record may carry is explained
    (
        "docs/concepts.md",
        "## Warnings",
        "warning",
        [LATE_EVENT_LOOP, LATE_EVENT, BUSY_MACHINE, CAPTURE_DROPS, ENDS_DISAGREE, CLAIM_REFUTED],
    ),
    # every way in which a packet may end
    ("docs/concepts.md", "## Explanations", "ending", list(ENDINGS)),
    # every reason for which a NAT drops
    ("docs/design.md", "### A trial's record", "reason", list(REASONS)),
    # every event that a program may report
    ("docs/agents.md", "### What it says", "event", list(events.VOCABULARY)),
    # every variable that a program is told
    ("docs/agents.md", "### What it is told", "variable", _told()),
]


@pytest.mark.parametrize(("page", "heading", "head", "words"), TABLES, ids=[head for _, _, head, _ in TABLES])
def test_tables_are_complete(page: str, heading: str, head: str, words: list[str]) -> None:
    assert sorted(_column(page, heading, head)) == sorted(words)


def test_exit_statuses_are_those_of_the_program() -> None:
    text = TEXTS["docs/concepts.md"].partition("\n## Exit statuses\n")[2].partition("\n## ")[0]
    assert [int(row) for row in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == [130, 2, 3, 4, 1, 0]
    assert {int(status) for status in ExitStatus} == {130, 2, 3, 4, 1, 0}


def test_older_words_mean_what_the_program_takes_them_for() -> None:
    rows = [row.split("|")[1:] for row in TEXTS["docs/concepts.md"].splitlines() if row.count("|") == 5]
    said = {word.strip(): row[3].strip() for row in rows for word in row[0].replace("-", " ").split(",")}
    assert {older: said[older.replace("-", " ")] for older in OLDER_NAMES} == {
        older: f"`{meant}`" for older, meant in OLDER_NAMES.items()
    }


def test_numbers_of_the_prose() -> None:
    assert f"{100 * stats.clopper_pearson(30, 30).low:.0f}" == "88"
    assert stats.needed_trials(1.0, at_least=0.95) == 72
    assert [stats.smallest_n(p) for p in (0.5, 0.9, 0.95, 0.99)] == [6, 34, 76, 377]
    assert f"{100 * stats.wilson(10, 10).low:.0f}" == "72"


def test_messages_that_are_explained_are_messages_of_the_program() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "testbed").rglob("*.py"))
    rows = [row for row in TEXTS["docs/troubleshooting.md"].splitlines() if row.startswith("| `")]
    shown = [message for row in rows for message in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(shown) > 15
    for message in shown:
        # A message is put together from pieces in the source; one piece of some length is enough to know it by.
        pieces = [piece.strip() for piece in re.findall(r"[A-Za-z][A-Za-z ',]{8,}", message)]
        assert not pieces or any(piece in source for piece in pieces), message
