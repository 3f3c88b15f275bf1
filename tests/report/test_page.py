"""The page as a person sees it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from testbed.report import lines
from testbed.report.page import console, page, print_report
from testbed.report.words import ASCII
from testbed.results.document import Document
from testbed.results.summary import summarise
from testbed.spec.scenario import Bound, Expectation
from tests.results.build import fields, played, record, run

FOUR = ["eim-eif", "eim-adf", "eim-apdf", "apdm-apdf"]
NINE = [f"{m}-{f}" for m in ("eim", "adm", "apdm") for f in ("eif", "adf", "apdf")]
STRATEGIES = ["reflexive", "port-prediction", "birthday"]

SCENARIOS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "one cell": [{"nat_a": "eim-eif"}],
    "no factors": [{}],
    "a loss": fields(**{"nodes.alice.link.loss": ["0%", "1%", "5%", "20%"]}),
    "not a product": fields(nat_a=["apdm-apdf"], nat_b=FOUR, strategy=STRATEGIES)
    + fields(nat_a=FOUR[:3], nat_b=["apdm-apdf"], strategy=["reflexive"]),
    "four by four": fields(nat_a=FOUR, nat_b=FOUR),
    "nine by nine": fields(nat_a=NINE, nat_b=NINE),
    "four by four by two": fields(nat_a=FOUR, nat_b=FOUR, strategy=STRATEGIES[:2]),
    "three NATs": fields(nat_a=FOUR[:2], nat_b=FOUR[:2], nat_c=FOUR[:2]),
}


def document(name: str, trials: int = 30) -> Document:
    gates = [
        Expectation(where={"nat_b": "eim-eif"}, success_rate=Bound(at_least=800_000)),
        Expectation(success_rate=Bound(at_least=950_000)),
    ]
    made = run(SCENARIOS[name], trials, scenario=name.replace(" ", "_"), expect=gates)
    return summarise(made, played(made))


def text(shown: Document, width: int) -> str:
    return "\n".join(line.plain for line in page(shown, width))


ONE_CELL = """\
one_cell: 1 cell × 30 trials · seed 1 · wire links · nat_a eim-eif
30 trials: 30 direct, 0 relayed, 0 failed

direct  relayed  failed  success rate, %             traversal, ms  discovery, ms
────────────────────────────────────────────────────────────────────────────────────
    30        0       0  ██████████  100 [88.6–100]  114 [112–116]  56.1 [56.1–56.1]

success rate = direct / (direct + relayed + failed), 95 % Wilson interval
times: medians, intervals of at least 95 %

? nat_b=eim-eif: success rate at least 80%: inconclusive, no trial counted
? all cells: success rate at least 95%: inconclusive, 100 % [88.4–100] of 30; 72 trials would tell

! expectation 'nat_b=eim-eif: success rate at least 80%' is about no cell of this run"""

NOT_A_PRODUCT = """\
nat_b      strategy         dir  rel  fail  success, %        traverse ms
───────────────────────────────────────────────────────────────────────────
nat_a apdm-apdf
eim-eif    reflexive         30    0     0   100 [88.6–100]   114 [112–116]
eim-eif    port-prediction   30    0     0   100 [88.6–100]   115 [113–117]
eim-eif    birthday          30    0     0   100 [88.6–100]   115 [114–116]
"""

NINE_BY_NINE = """\
time to traverse, median ms  rows nat_a, columns nat_b

         eim-    eim-    eim-    adm-    adm-    adm-   apdm-   apdm-   apdm-
          eif     adf    apdf     eif     adf    apdf     eif     adf    apdf
─────────────────────────────────────────────────────────────────────────────
eim-      114     115     115     115     113     114     114     116     114
eif   112–116 113–117 114–116 114–119 112–115 113–117 113–117 113–120 113–118
"""

FOUR_BY_FOUR = """\
success rate, %  rows nat_a, columns nat_b

                  eim-eif         eim-adf        eim-apdf       apdm-apdf
─────────────────────────────────────────────────────────────────────────
eim-eif    100 [88.6–100]  100 [88.6–100]  100 [88.6–100]  100 [88.6–100]
eim-adf    100 [88.6–100]  100 [88.6–100]  100 [88.6–100]  100 [88.6–100]
eim-apdf   100 [88.6–100]  100 [88.6–100]  100 [88.6–100]      0 [0–11.4]
apdm-apdf  100 [88.6–100]  100 [88.6–100]      0 [0–11.4]      0 [0–11.4]

time to traverse, median ms"""


@pytest.mark.parametrize(
    ("name", "width", "seen"),
    [
        pytest.param("one cell", 100, ONE_CELL, id="one cell, the whole page"),
        pytest.param("not a product", 80, NOT_A_PRODUCT, id="a narrow terminal: the first factor heads sections"),
        pytest.param("four by four", 80, FOUR_BY_FOUR, id="a grid with its intervals beside"),
        pytest.param("nine by nine", 80, NINE_BY_NINE, id="a grid with its intervals below"),
    ],
)
def test_pages(name: str, width: int, seen: str) -> None:
    assert seen in text(document(name), width)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_every_line_fits_and_none_ends_in_blanks(name: str, width: int) -> None:
    for line in page(document(name), width):
        assert line.cell_len <= width, line.plain
        assert line.plain == line.plain.rstrip()


@pytest.mark.parametrize("name", ["four by four", "nine by nine"])
def test_every_cell_is_in_the_grid(name: str) -> None:
    shown = text(document(name), 120)
    assert shown.count("88.6–100") + shown.count("89–100") == sum(
        c.success_rate.value == 1 for c in document(name).cells
    )


def test_a_grid_that_does_not_fit_is_a_table() -> None:
    shown = text(document("nine by nine"), 60)
    assert "rows nat_a" not in shown
    assert shown.count("\neim-eif    ") == 9


def test_what_a_narrow_table_leaves_out_is_said() -> None:
    assert "a wider terminal also shows candidate discovery" in text(document("not a product"), 80)
    assert "a wider terminal" not in text(document("not a product"), 120)


def test_broken_and_unsupported_trials_have_columns_only_where_there_are_some() -> None:
    made = run(SCENARIOS["a loss"], 6)
    records = played(made)
    assert "broken" not in text(summarise(made, records), 120)
    records[0] = record(records[0].cell, 0, "broken", reason="the wire died")
    records[7] = record(records[7].cell, 1, "unsupported", reason="no IPv4")
    shown = text(summarise(made, records), 120)
    assert "direct  relayed  failed  unsupported  broken" in shown
    assert "trial 0: broken: the wire died" in shown
    assert "24 trials: 22 direct, 0 relayed, 0 failed, 1 unsupported, 1 broken" in shown


def test_a_broken_trial_is_marked_in_the_grid() -> None:
    made = run(SCENARIOS["four by four"], 6)
    records = played(made)
    records[0] = record(records[0].cell, 0, "broken", reason="the wire died")
    assert "!100 [56.6–100]" in text(summarise(made, records), 80)


@pytest.mark.parametrize(
    ("at_least", "direct", "mark"),
    [
        pytest.param(800_000, 30, "✓ all cells: success rate at least 80%: met, 100 % [88.4–100] of 30", id="met"),
        pytest.param(800_000, 3, "✗ all cells: success rate at least 80%: missed, 10 % [2.1–26.5] of 30", id="missed"),
        pytest.param(950_000, 30, "inconclusive, 100 % [88.4–100] of 30; 72 trials would tell", id="inconclusive"),
    ],
)
def test_gates(at_least: int, direct: int, mark: str) -> None:
    made = run([{"nat_a": "x"}], expect=[Expectation(success_rate=Bound(at_least=at_least))])
    records = [record("nat_a=x", i, "direct" if i < direct else "relayed") for i in range(30)]
    assert mark in text(summarise(made, records), 120)


def test_a_run_without_a_finished_trial_has_a_page() -> None:
    shown = text(summarise(run(SCENARIOS["four by four"]), []), 80)
    assert "480 of 480 trials have not run" in shown
    assert "candidate discovery: not measured" in shown


class Screen(io.StringIO):
    """A terminal that takes colours."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def printed(file: io.StringIO, environ: Mapping[str, str], name: str = "four by four") -> str:
    print_report(document(name), file, environ)
    return file.getvalue()


def test_a_pipe_gets_plain_text_as_wide_as_it_needs() -> None:
    plain = printed(io.StringIO(), {"TERM": "xterm-256color"}, "not a product")
    assert "\x1b" not in plain
    assert "apdm-apdf  eim-apdf   birthday         " in plain
    assert "discovery, ms" in plain


def test_a_pipe_honours_columns() -> None:
    assert max(map(len, printed(io.StringIO(), {"COLUMNS": "80"}, "not a product").splitlines())) <= 80


def test_a_terminal_gets_colours_unless_its_owner_says_no() -> None:
    screen = {"TERM": "xterm-256color", "COLUMNS": "100"}
    assert "\x1b[1;32m100" in printed(Screen(), screen)
    without = printed(Screen(), {**screen, "NO_COLOR": "1"})
    assert not any(f"\x1b[{code}" in without for code in ("31", "32", "33", "1;31", "1;32", "1;33"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_terminal_without_unicode_gets_ascii(name: str) -> None:
    assert all(line.plain.isascii() for line in page(document(name), 100, ASCII))


def test_a_console_does_not_read_markup_in_names() -> None:
    file = io.StringIO()
    console(file, {}).print(Text("[red]loss[/red] :smile:"))
    assert file.getvalue() == "[red]loss[/red] :smile:\n"


@given(st.lists(st.text("ab-= ", min_size=1, max_size=30), max_size=12).map(" ".join), st.integers(24, 100))
def test_wrapped_lines_lose_no_word(words: str, width: int) -> None:
    wrapped = lines.hanging(Text("!"), Text(words), width)
    assert " ".join(line.plain[2:] for line in wrapped).split() == words.split()
    assert all(line.cell_len <= max(width, 33) for line in wrapped)
