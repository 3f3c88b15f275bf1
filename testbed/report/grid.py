"""The grids: where two NATs vary, how often on one and how fast on another, rows by the one, columns by the other.

Rule 1: a grid is shown only where it is full: each pair of profiles has its cell. Else the table is clearer.
Rule 2: one question per grid; each number has its interval, beside it where there is room, else below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from testbed.report import factors, lines, words
from testbed.report.lines import Justify, Row
from testbed.report.table import rate_style
from testbed.report.words import Glyphs
from testbed.results.document import Cell

FEWEST = 3
"""Rows, and columns, of a grid that says more than a table would."""

Said = tuple[Text, str]
"""A number, and its interval."""

Page = dict[tuple[str, str], Cell]


def render(cells: Sequence[Cell], varied: Sequence[str], width: int, g: Glyphs) -> list[Text]:
    """Two grids for each combination of the other factors; nothing where grids do not fit these cells."""
    nats = factors.nats(varied)
    if len(nats) != 2:
        return []
    rows, columns = (factors.values(cells, name) for name in nats)
    if min(len(rows), len(columns)) < FEWEST:
        return []
    rest = [name for name in varied if name not in nats]
    drawn: list[Text] = []
    for others, page in _pages(cells, nats, rest).items():
        if len(page) != len(rows) * len(columns):
            return []
        title = "".join(f"{words.factor_name(n)} {v}, " for n, v in zip(rest, others, strict=True))
        for question, say in (("success rate, %", _success), ("time to traverse, median ms", _time)):
            grid = _grid(page, rows, columns, say, width, g)
            if not grid:
                return []
            drawn += [*([Text()] if drawn else []), _title(title, question, nats), Text(), *grid]
    return [*drawn, Text(), _discovery(cells, g)]


def _title(others: str, question: str, nats: Sequence[str]) -> Text:
    rows, columns = map(words.factor_name, nats)
    return Text.assemble((f"{others}{question}", "bold"), (f"  rows {rows}, columns {columns}", "dim"))


def _pages(cells: Sequence[Cell], nats: Sequence[str], rest: Sequence[str]) -> dict[tuple[str, ...], Page]:
    pages: dict[tuple[str, ...], Page] = {}
    for cell in cells:
        others = tuple(factors.value(cell, name) for name in rest)
        pages.setdefault(others, {})[factors.value(cell, nats[0]), factors.value(cell, nats[1])] = cell
    return pages


def _grid(
    page: Page,
    rows: Sequence[str],
    columns: Sequence[str],
    say: Callable[[Cell, Glyphs, bool], Said],
    width: int,
    g: Glyphs,
) -> list[Text]:
    """In one line a cell where that fits, else in two, else in two with less between them, else not at all."""
    right: Justify = "right"
    justify: list[Justify] = ["left", *[right] * len(columns)]
    for two, gap in ((False, lines.GAP), (True, lines.GAP), (True, 1)):
        head = _head([Text(c, style="bold") for c in columns], two)
        body: list[Row] = []
        for row in rows:
            said = [say(page[row, column], g, two) for column in columns]
            body += _body(Text(row, style="bold"), said, two)
        wide = lines.widths([*head, *body])
        if lines.total(wide, gap) <= width:
            rule = Text(g.rule * lines.total(wide, gap), style="dim")
            above, below = ([lines.align(r, wide, justify, gap) for r in part] for part in (head, body))
            return [*above, rule, *below]
    return []


def _head(names: Sequence[Text], two: bool) -> list[Row]:
    """In one line, or each name broken after its first hyphen."""
    if not two:
        return [[Text(), *names]]
    return [[Text(), *half] for half in zip(*map(_halves, names), strict=True)]


def _halves(name: Text) -> tuple[Text, Text]:
    first, hyphen, second = name.plain.partition("-")
    return Text(first + hyphen, style=name.style), Text(second, style=name.style)


def _body(name: Text, said: Sequence[Said], two: bool) -> list[Row]:
    if not two:
        return [[name, *(Text.assemble(value, (f" [{i}]" if i else "", "dim")) for value, i in said)]]
    first, second = _halves(name)
    return [[first, *(value for value, _ in said)], [second, *(Text(interval, style="dim") for _, interval in said)]]


def _success(cell: Cell, g: Glyphs, narrow: bool) -> Said:
    rate = cell.success_rate
    value = Text(g.dash if rate.value is None else words.percent(rate.value), style=f"bold {rate_style(rate)}")
    marks = ["!"] * bool(cell.outcomes.broken) + [g.differs] * (cell.agrees is False)
    mark = Text("".join(marks), style="bold red")
    return Text.assemble(mark, value), words.rate_interval(rate, g, whole=narrow)


def _time(cell: Cell, g: Glyphs, narrow: bool) -> Said:
    del narrow  # three digits are short enough for both
    p50 = cell.time_to_traverse.p50
    if p50.value is None:
        return Text(words.quantile_value(p50, g), style="dim"), ""
    return Text(words.quantile_value(p50, g)), words.quantile_interval(p50, g)


def _discovery(cells: Sequence[Cell], g: Glyphs) -> Text:
    medians = [m.value for c in cells if (m := c.candidate_discovery_time.p50).value is not None]
    if not medians:
        return Text("candidate discovery: not measured", style="dim")
    low, high = (words.milliseconds(v) for v in (min(medians), max(medians)))
    span = low if low == high else f"{low}{g.dash}{high}"
    return Text(f"candidate discovery: the medians of the cells are {span} ms", style="dim")
