"""A comparison as GitHub's Markdown, for a pull request.

Rule 1: it says what the page of the terminal says, in the same words; what has not changed is folded away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from testbed.comparison.verdicts import Rule, Verdict
from testbed.report import comparison as page
from testbed.report import factors, words
from testbed.results.comparison import ComparedCell, ComparisonDocument, MetricComparison

_BOLD = (Verdict.REGRESSED, Verdict.IMPROVED)
Listed = Sequence[tuple[ComparedCell, Sequence[MetricComparison]]]


def markdown(document: ComparisonDocument) -> str:
    """The whole, with its last newline."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: ComparisonDocument) -> Iterator[str]:
    yield f"### {_escaped(document.base.name)} → {_escaped(document.new.name)}: {document.verdict}\n"
    yield from _table(["over all cells", *page.HEAD[1:]], (_row(row) for row in document.headline))
    changed = page.shown(document, every=False)
    if changed:
        yield "\nCells that changed:\n"
        yield from _cells(document, changed)
    yield f"\nIn cells: {page.counted_text(document)}."
    for name, cells in ((document.base.name, document.only_base), (document.new.name, document.only_new)):
        if cells:
            yield f"Only in {_escaped(name)}: {_escaped('; '.join(cells))}."
    if document.rule is Rule.POINT:
        yield f"\n**{page.price_text(document)}.**"
    for text in (*document.warnings, *page.about_rows(document)):
        yield f"\n> {_escaped(text)}"
    yield "\n<details><summary>Every cell, and what the words mean</summary>\n"
    yield from _cells(document, page.shown(document, every=True))
    rule = page.rule_text(document)
    yield f"\n{rule[0].upper()}{rule[1:]}. Success: rates, changes in percentage points; times: medians,"
    yield "changes as ratios; intervals of 95 %. Needed: an estimate of the trials a side that would tell.\n"
    yield "</details>"


def _cells(document: ComparisonDocument, listed: Listed) -> Iterator[str]:
    varied, constant = factors.split(document.cells)
    names = varied or list(constant)
    rows = (
        [*(_escaped(factors.value(cell, name)) for name in names), *_row(row)]
        for cell, found in listed
        for row in found
    )
    yield from _table([*(_escaped(words.factor_name(name)) for name in names), *page.HEAD], rows)


def _row(row: MetricComparison) -> list[str]:
    bold = "**" if row.verdict in _BOLD else ""
    return [
        f"{bold}{_escaped(text)}{bold}" if name == "verdict" else _escaped(text)
        for name, text in zip(page.HEAD, page.texts(row), strict=True)
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
