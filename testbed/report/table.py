"""The table: one row per cell.

Rule 1: a row is never cut or wrapped to fit. What gives way, in this order: the long headings, the bars,
        the discovery times; then a leading factor becomes the heading of sections, and it starts again.
Rule 2: the columns for unsupported and broken trials, and for predictions, are there only when there are such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.text import Text

from testbed.report import factors, lines, words
from testbed.report.lines import Justify, Row
from testbed.report.words import Glyphs
from testbed.results.document import Cell, Outcomes, Quantile, Rate

BAR = 10
SHORT = {"direct": "dir", "relayed": "rel", "failed": "fail", "unsupported": "uns", "broken": "brk"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How much of what there is is shown."""

    headings: int = 0
    """How many leading factors are headings of sections instead of columns."""
    long: bool = True
    """Column headings in full."""
    bars: bool = True
    discovery: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a layout, and how their columns are set."""

    layout: Layout
    head: Row
    rows: Sequence[Row]
    justify: Sequence[Justify]

    @property
    def widths(self) -> list[int]:
        """Of the columns, over all sections."""
        return lines.widths([self.head, *self.rows])


def layouts(varied: int) -> Iterator[Layout]:
    """From the richest to the narrowest."""
    for headings in range(max(varied, 1)):
        layout = Layout(headings)
        yield layout
        for less in ({"long": False}, {"bars": False}, {"discovery": False}):
            layout = replace(layout, **less)
            yield layout


def render(cells: Sequence[Cell], varied: Sequence[str], width: int, g: Glyphs) -> list[Text]:
    """The lines of the table in the richest layout that `width` has room for; of the narrowest if none has."""
    for layout in layouts(len(varied)):
        table = _table(cells, varied, layout, g)
        if lines.total(table.widths) <= width:
            break
    return _draw(table, cells, varied, g)


def rate_style(rate: Rate) -> str:
    """Green where nearly all succeed, red where nearly none do."""
    if rate.value is None:
        return "dim"
    return "green" if rate.value >= 0.9 else "red" if rate.value <= 0.1 else "yellow"


def outcomes_seen(cells: Sequence[Cell]) -> list[str]:
    """The outcomes worth a column."""
    always = ("direct", "relayed", "failed")
    return [n for n in Outcomes.model_fields if n in always or any(getattr(c.outcomes, n) for c in cells)]


def _draw(table: Table, cells: Sequence[Cell], varied: Sequence[str], g: Glyphs) -> list[Text]:
    heading = varied[: table.layout.headings]
    columns = table.widths
    drawn = [lines.align(table.head, columns, table.justify), Text(g.rule * lines.total(columns), style="dim")]

    def section(pair: tuple[Cell, Row]) -> tuple[str, ...]:
        return tuple(factors.value(pair[0], name) for name in heading)

    for i, (names, group) in enumerate(groupby(zip(cells, table.rows, strict=True), key=section)):
        if heading:
            drawn += [Text()] if i else []
            said = [
                Text.assemble((f"{words.factor_name(name)} ", "dim"), (text, "bold"))
                for name, text in zip(heading, names, strict=True)
            ]
            drawn.append(Text("  ").join(said))
        drawn += [lines.align(row, columns, table.justify) for _, row in group]
    if not table.layout.discovery:
        drawn += [Text(), Text("a wider terminal also shows candidate discovery; result.json has it", style="dim")]
    return drawn


def _table(cells: Sequence[Cell], varied: Sequence[str], layout: Layout, g: Glyphs) -> Table:
    shown = varied[layout.headings :]
    counts = outcomes_seen(cells)
    times = {"time_to_traverse": "traversal, ms" if layout.long else "traverse ms"}
    if layout.discovery:
        times["candidate_discovery_time"] = "discovery, ms" if layout.long else "discover ms"
    head = [words.factor_name(name) for name in shown]
    head += [name if layout.long else SHORT[name] for name in counts]
    has_predictions = any(c.prediction is not None for c in cells)
    predicted = [("predicted" if layout.long else "pred")] if has_predictions else []
    head += ["success rate, %" if layout.long or layout.bars else "success, %", *predicted, *times.values()]
    left: Justify = "left"
    right: Justify = "right"
    justify = [left] * len(shown) + [right] * len(counts) + [left] + [right] * len(predicted) + [left] * len(times)

    columns = [_factor_column(cells, varied, layout.headings + i) for i in range(len(shown))]
    columns += [[_count(getattr(c.outcomes, name), name) for c in cells] for name in counts]
    columns.append([_rate(c.success_rate, BAR if layout.bars else 0, g) for c in cells])
    if has_predictions:
        columns.append([prediction(c, g) for c in cells])
    columns += [_times([c.metric(name).p50 for c in cells], g) for name in times]
    rows = list(zip(*columns, strict=True))
    return Table(layout, [Text(text, style="bold") for text in head], rows, justify)


def _factor_column(cells: Sequence[Cell], varied: Sequence[str], which: int) -> list[Text]:
    """A value that is as in the row above, with all to its left, is dimmed: the eye finds the change."""
    texts = []
    before: list[str] = []
    for cell in cells:
        values = [factors.value(cell, name) for name in varied[: which + 1]]
        texts.append(Text(values[-1], style="dim" if values == before else ""))
        before = values
    return texts


def prediction(cell: Cell, g: Glyphs) -> Text:
    """The predicted rate in per cent, marked where the trials do not agree."""
    if cell.prediction is None:
        return Text(g.dash, style="dim")
    value = words.percent(cell.prediction.success_rate)
    if cell.agrees is False:
        return Text(f"{g.differs} {value}", style="bold red")
    return Text(value, style="dim")


def _count(count: int, name: str) -> Text:
    return Text(str(count), style="dim" if count == 0 else "bold red" if name == "broken" else "")


def _rate(rate: Rate, width: int, g: Glyphs) -> Text:
    filled, empty = words.bar(rate.value, width, g)
    style = rate_style(rate)
    text = Text.assemble((filled, style), (empty, "dim"), " " if width else "")
    if rate.value is None:
        return text.append("no trial counted", style="dim")
    text.append(f"{words.percent(rate.value):>4} ", style=f"bold {style}")
    return text.append(f"[{words.rate_interval(rate, g)}]", style="dim")


def _times(quantiles: Sequence[Quantile], g: Glyphs) -> list[Text]:
    """Values flush right, their intervals after them."""
    widest = max((len(words.quantile_value(q, g)) for q in quantiles if q.value is not None), default=0)
    return [_time(q, widest, g) for q in quantiles]


def _time(quantile: Quantile, width: int, g: Glyphs) -> Text:
    value = words.quantile_value(quantile, g).rjust(width)
    if quantile.value is None:
        return Text(value, style="dim")
    return Text.assemble(value, (f" [{words.quantile_interval(quantile, g)}]", "dim"))
