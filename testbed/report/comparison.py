"""Two runs beside each other, for a person: the verdict, every metric over all cells, and the cells that changed.

Rule 1: it shows the document and nothing else; whoever has the document can print it again.
Rule 2: what has not changed is counted, not listed, unless all is asked for: in 121 cells nobody finds the three that
        have.
Rule 3: a row is never cut or wrapped. What gives way: the factors' columns become headings, then p goes, then the
        intervals of both sides; the change keeps its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from rich.text import Text

from testbed.comparison.effects import Kind
from testbed.comparison.verdicts import ALPHA, Better, Rule, Verdict
from testbed.report import factors, lines, words
from testbed.report.lines import Justify
from testbed.report.page import console
from testbed.report.words import Glyphs
from testbed.results.comparison import SUCCESS_RATE, ComparedCell, ComparisonDocument, MetricComparison, Value

STYLES: Mapping[Verdict | None, str] = {
    Verdict.REGRESSED: "bold red",
    Verdict.IMPROVED: "bold green",
    Verdict.NO_CHANGE: "",
    Verdict.INCONCLUSIVE: "yellow",
    None: "dim",
}
LABELS: Mapping[str, str] = {
    SUCCESS_RATE: "success, %",
    "candidate_discovery_time": "discovery, ms",
    "time_to_traverse": "traversal, ms",
    "connect_time": "connect, ms",
    "relay_rtt": "relay rtt, ms",
    "direct_rtt": "direct rtt, ms",
    "probes_sent": "probes sent",
    "attempts": "attempts",
}
HEAD = ("metric", "base", "new", "change", "p", "verdict", "needed")
_JUSTIFY: tuple[Justify, ...] = ("left", "left", "left", "left", "right", "left", "right")
WIDEST = 120
"""Columns of running text."""


def print_comparison(
    document: ComparisonDocument,
    file: TextIO,
    environ: Mapping[str, str],
    *,
    every: bool = False,
    width: int | None = None,
) -> None:
    """Write it to `file`; with `every`, the cells that have not changed too. `width` in columns; by default what is."""
    out = console(file, environ, width)
    for line in page(document, out.width, words.glyphs(out.encoding), every=every):
        out.print(line, soft_wrap=True)


def page(document: ComparisonDocument, width: int, g: Glyphs = words.UNICODE, *, every: bool = False) -> list[Text]:
    """The lines, top to bottom."""
    wide = min(width, WIDEST)
    paragraphs = [
        list(_title(document, g)),
        _headline(document, width, g),
        _changed(document, width, g, every=every),
        list(_counted(document, wide, every=every)),
        list(_legend(document, wide)),
        list(_warnings(document, wide)),
    ]
    return [line for paragraph in paragraphs if paragraph for line in (*paragraph, Text())][:-1]


def shown(document: ComparisonDocument, *, every: bool) -> list[tuple[ComparedCell, list[MetricComparison]]]:
    """The cells that are listed, and what of them."""
    changes = (Verdict.REGRESSED, Verdict.IMPROVED)
    found = [(c, [row for row in c.metrics if every or row.verdict in changes]) for c in document.cells]
    return [(cell, rows) for cell, rows in found if rows]


def texts(row: MetricComparison, g: Glyphs = words.UNICODE) -> tuple[str, ...]:
    """A row under `HEAD`, as text."""
    return (
        LABELS.get(row.metric, row.metric),
        value_text(row, row.base, g),
        value_text(row, row.new, g),
        change_text(row, g),
        p_text(row.p_adjusted),
        verdict_text(row),
        "" if row.needed is None else str(row.needed),
    )


def verdict_text(row: MetricComparison) -> str:
    """The verdict, or that there is none."""
    return "not judged" if row.verdict is None else str(row.verdict)


def value_text(row: MetricComparison, value: Value, g: Glyphs) -> str:
    """`125 [119–134]` ms, `97 [83–99]` per cent; among censored values what it exceeds."""
    if value.value is None:
        return g.dash if value.exceeds is None else f">{value.exceeds:.3g} s"
    low, high = (g.ellipsis if end is None else _number(row, end) for end in (value.low, value.high))
    return f"{_number(row, value.value)} [{low}{g.dash}{high}]"


def change_text(row: MetricComparison, g: Glyphs) -> str:
    """`×1.04 [1.01–1.07]`, or in percentage points `-3.3 [-15 to +8.4]`."""
    change = row.change
    if change.value is None:
        return g.dash
    if change.kind is Kind.RATIO:
        low, high = (g.ellipsis if end is None else _ratio(end) for end in (change.low, change.high))
        return f"{g.times}{_ratio(change.value)} [{low}{g.dash}{high}]"
    value, low, high = (
        g.ellipsis if end is None else f"{100 * end:+.1f}" for end in (change.value, change.low, change.high)
    )
    return f"{value} [{low} to {high}]"


def p_text(p: float | None) -> str:
    """`0.031`; what is smaller than three digits can say is `<0.001`."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def rule_text(document: ComparisonDocument) -> str:
    """What makes a change one, in a sentence."""
    points = f"{100 * document.threshold:g}"
    size = f"{points}% of a time, {points} points of a rate"
    if document.rule is Rule.POINT:
        return f"rule `point`: a change is what moved by more than {size}; p and intervals have no say"
    return (
        f"a change: p < {ALPHA:g} after Benjamini and Hochberg, the whole 95 % interval beyond no change, and more "
        f"than {size}"
    )


def price_text(document: ComparisonDocument) -> str:
    """What the rule `point` is worth here."""
    judged = [row for cell in document.cells for row in cell.metrics if row.false_alarms is not None]
    called = sum(row.verdict in (Verdict.REGRESSED, Verdict.IMPROVED) for row in judged)
    expected = document.expected_false_alarms or 0.0
    return (
        f"rule `point` calls {called} of {len(judged)} comparisons in cells a change; had nothing changed, it would "
        f"call {expected:.1f} of them one"
    )


def counted_text(document: ComparisonDocument) -> str:
    """`3 regressed, 70 no-change, 17 inconclusive, 30 not judged`, of the comparisons in cells."""
    counts = Counter(row.verdict for cell in document.cells for row in cell.metrics)
    said = [f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]]
    return ", ".join([*said, *([f"{counts[None]} not judged"] if counts[None] else [])])


def _ratio(value: float) -> str:
    """Three digits: `1.04`, `12.3`, `0.071`."""
    return f"{value:.2f}" if 0.995 <= value < 9.995 else f"{value:#.3g}".rstrip(".")


def _number(row: MetricComparison, value: float) -> str:
    if row.metric == SUCCESS_RATE:
        return words.percent(value)
    return words.milliseconds(value) if row.unit == "s" else f"{value:.3g}"


def _title(document: ComparisonDocument, g: Glyphs) -> Iterator[Text]:
    names = Text.assemble((document.base.name, "bold"), " -> ", (document.new.name, "bold"), ":")
    yield Text.assemble(names, " ", (str(document.verdict), STYLES[document.verdict]))
    cells = f"{len(document.cells)} {'cell' if len(document.cells) == 1 else 'cells'} on both sides"
    seeds = {document.base.seed, document.new.seed}
    facts = [
        document.new.scenario,
        cells,
        f"seed {document.new.seed}" if len(seeds) == 1 else f"seeds {document.base.seed} and {document.new.seed}",
        f"{document.new.lab.links} links",
    ]
    yield Text(f" {g.dot} ".join(facts), style="dim")


def _headline(document: ComparisonDocument, width: int, g: Glyphs) -> list[Text]:
    return _table([_styled(row, g) for row in document.headline], width, g, ["over all cells", *HEAD[1:]], [])


def _changed(document: ComparisonDocument, width: int, g: Glyphs, *, every: bool) -> list[Text]:
    listed = shown(document, every=every)
    if not listed:
        return []
    varied, constant = factors.split(document.cells)
    names = varied or list(constant)
    columns = [words.factor_name(name) for name in names]
    rows: list[list[Text]] = []
    for cell, found in listed:
        for i, row in enumerate(found):
            said = [Text(factors.value(cell, name), style="dim" if i else "") for name in names]
            rows.append([*said, *_styled(row, g)])
    wide = [[Text(text) for text in (*columns, *HEAD)], *rows]
    if lines.total(lines.widths(wide)) <= width:
        return _table(rows, width, g, [*columns, *HEAD], ["left"] * len(columns))
    under: list[list[Text]] = []
    headings: dict[int, Text] = {}
    for cell, found in listed:
        heading = "  ".join(f"{words.factor_name(name)} {factors.value(cell, name)}" for name in names)
        headings[len(under)] = Text(heading, style="bold")
        under += [_styled(row, g) for row in found]
    drawn = _table(under, width, g, list(HEAD), [])
    return [
        line for i, text in enumerate(drawn) for line in ((headings[i - 2], text) if i - 2 in headings else (text,))
    ]


def _styled(row: MetricComparison, g: Glyphs) -> list[Text]:
    found = texts(row, g)
    style = STYLES[row.verdict]
    return [Text(text, style=style if HEAD[i] == "verdict" else "") for i, text in enumerate(found)]


def _table(
    rows: Sequence[Sequence[Text]], width: int, g: Glyphs, head: Sequence[str], before: Sequence[Justify]
) -> list[Text]:
    """The lines, with as much as there is room for."""
    table = [[Text(text, style="bold") for text in head], *map(list, rows)]
    justify = [*before, *_JUSTIFY]
    first = len(before)
    if lines.total(lines.widths(table)) > width:
        at = first + HEAD.index("p")
        table = [[*row[:at], *row[at + 1 :]] for row in table]
        justify = [*justify[:at], *justify[at + 1 :]]
    if lines.total(lines.widths(table)) > width:
        sides = [first + HEAD.index(name) for name in ("base", "new")]
        table = [[_without_interval(text) if i in sides else text for i, text in enumerate(row)] for row in table]
    columns = lines.widths(table)
    top, *rest = (lines.align(row, columns, justify) for row in table)
    return [top, Text(g.rule * lines.total(columns), style="dim"), *rest]


def _without_interval(text: Text) -> Text:
    return Text(text.plain.partition(" [")[0], style=text.style)


def _counted(document: ComparisonDocument, width: int, *, every: bool) -> Iterator[Text]:
    more = "" if every or not document.cells else "; --all lists every one, --json has them"
    yield from lines.hanging(Text("in cells:", style="dim"), Text(counted_text(document) + more), width)
    for name, cells in ((document.base.name, document.only_base), (document.new.name, document.only_new)):
        if cells:
            yield from lines.hanging(Text(f"only in {name}:", style="dim"), Text("; ".join(cells)), width)


def _legend(document: ComparisonDocument, width: int) -> Iterator[Text]:
    said = [rule_text(document)]
    said.append("success: rates, changes in percentage points; times: medians, changes as ratios; intervals of 95 %")
    if len(document.cells) > 1:
        said.append("over all cells: every cell weighs the same, and is compared with itself only")
    if any(row.needed is not None for cell in document.cells for row in cell.metrics):
        said.append("needed: an estimate of the trials a side (over all cells: of all of them) that would tell")
    for text in said:
        yield from (Text(line.plain.lstrip(), style="dim") for line in lines.hanging(Text(), Text(text), width))
    if document.rule is Rule.POINT:
        yield from lines.hanging(Text("!", style="yellow"), Text(price_text(document)), width)


def _warnings(document: ComparisonDocument, width: int) -> Iterator[Text]:
    for text in (*document.warnings, *about_rows(document)):
        yield from lines.hanging(Text("!", style="yellow"), Text(text), width)


def about_rows(document: ComparisonDocument) -> Iterator[str]:
    """What single comparisons warn of, once for each kind of warning."""
    found: dict[str, list[str]] = {}
    for cell in document.cells:
        for row in cell.metrics:
            if row.better is not Better.NEITHER:
                for text in row.warnings:
                    found.setdefault(text, []).append(f"{row.metric} of cell {cell.id}")
    for text, where in found.items():
        count = "" if len(where) == 1 else f" and {len(where) - 1} more"
        yield f"{where[0]}{count}: {text}"
    for row in document.headline:
        if row.better is not Better.NEITHER and len(document.cells) > 1:
            yield from (f"{row.metric} over all cells: {text}" for text in row.warnings)
