"""The comparison as a person sees it."""

from __future__ import annotations

import io

import pytest
from rich.text import Text

from testbed.comparison.verdicts import Asked, Rule
from testbed.report import comparison
from testbed.report.markdown import markdown
from testbed.report.words import ASCII
from testbed.results.compare import compare
from testbed.results.comparison import ComparisonDocument
from tests.results.build import fields
from tests.results.test_compare import direct, failing, side

CELLS = fields(nat_a=["eim-eif", "eim-adf", "apdm-apdf"], nat_b=["eim-adf", "eim-apdf"], strategy=["reflexive"])


def document(rule: Rule = Rule.TESTED, lost: float = 0.4) -> ComparisonDocument:
    base, new = side(name="main", cells=CELLS), side(failing(lost), "a|<b>", cells=[*CELLS[1:], {"nat_a": "x"}])
    return compare(base, new, Asked(rule=rule))


def text(shown: ComparisonDocument, width: int, *, every: bool = False) -> list[str]:
    return [line.plain for line in comparison.page(shown, width, every=every)]


def test_the_page() -> None:
    lines = text(document(), 120)
    assert lines[0] == "main -> a|<b>: regressed"
    assert lines[1] == "made_up · 5 cells on both sides · seed 1 · wire links"
    success = next(line for line in lines if line.startswith("success, %"))
    assert success.split() == [
        "success,", "%", "100", "[94.9–100]", "60", "[52–68]", "-40.0", "[-48.0", "to", "-30.5]", "<0.001", "regressed",
    ]  # fmt: skip
    assert "only in main: nat_a=eim-eif,nat_b=eim-adf,strategy=reflexive" in lines
    assert "only in a|<b>: nat_a=x" in lines


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("every", [False, True])
def test_no_line_ends_in_blanks_and_all_fits_into_80_columns(width: int, every: bool) -> None:
    lines = text(document(), width, every=every)
    assert [line for line in lines if line != line.rstrip()] == []
    assert max(map(len, lines)) <= max(width, 80)


def test_factors_are_columns_where_there_is_room_and_headings_where_not() -> None:
    wide, narrow = text(document(), 160), text(document(), 80)
    assert any(line.startswith("nat_a      nat_b     metric") for line in wide)
    assert "nat_a apdm-apdf  nat_b eim-apdf" in narrow
    assert not any(" p  " in line for line in narrow)


def test_nothing_changed_is_short() -> None:
    same = compare(side(), side(), Asked())
    lines = text(same, 120)
    assert len(lines) < 25
    assert not any(line.startswith("eim-eif") for line in lines)
    assert len(text(same, 120, every=True)) > len(lines) + 16


def test_a_terminal_without_unicode() -> None:
    shown = "\n".join(line.plain for line in comparison.page(document(), 120, ASCII))
    assert shown.isascii()


def test_colours_are_for_terminals() -> None:
    out = io.StringIO()
    comparison.print_comparison(document(), out, {})
    assert "\x1b" not in out.getvalue()
    styles = {span.style for line in comparison.page(document(), 120) for span in line.spans}
    assert "bold red" in styles
    assert all(isinstance(line, Text) for line in comparison.page(document(), 120))


@pytest.mark.parametrize(
    ("p", "shown"),
    [(None, ""), (0.0, "<0.001"), (0.00099, "<0.001"), (0.001, "0.001"), (0.0312, "0.031"), (1.0, "1.000")],
)
def test_p(p: float | None, shown: str) -> None:
    assert comparison.p_text(p) == shown


def test_ratios_have_three_digits() -> None:
    found = compare(side(), side(direct(12.0), "new"), Asked())
    row = next(row for row in found.headline if row.metric == "time_to_traverse")
    assert comparison.change_text(row, ASCII).startswith("x11.9 [")
    back = compare(side(direct(12.0), "new"), side(), Asked())
    row = next(row for row in back.headline if row.metric == "time_to_traverse")
    assert comparison.change_text(row, ASCII).startswith("x0.084")


def test_a_warning_that_many_share_is_said_once() -> None:
    said = [line for line in text(document(lost=0.7), 400) if "among the censored" in line]
    assert len(said) == 1
    assert " and 4 more: " in said[0]


def test_markdown_says_the_same_and_is_safe_in_a_table() -> None:
    shown = markdown(document())
    assert "### main → a\\|&lt;b>: regressed" in shown
    assert (
        "| success, % | 100 [94.9–100] | 60 [52–68] | -40.0 [-48.0 to -30.5] | &lt;0.001 | **regressed** |  |" in shown
    )
    assert "Only in main: nat_a=eim-eif,nat_b=eim-adf,strategy=reflexive." in shown
    assert "A change: p < 0.05 after Benjamini and Hochberg" in shown
    body = shown.partition("<details>")
    assert body[0].count("\n| eim-adf ") == 3
    assert body[2].count("\n| eim-adf ") == 2 * 8
    assert "no-change" in body[2]


def test_the_price_of_the_point_rule() -> None:
    priced = document(Rule.POINT)
    assert priced.expected_false_alarms is not None
    said = f"it would call {priced.expected_false_alarms:.1f} of them one"
    assert any(said in line for line in text(priced, 200))
    assert said in markdown(priced)
