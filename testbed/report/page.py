"""The report of a run on a terminal: what was run, the table or the grids, the gates, the footnotes.

Rule 1: it shows the document and nothing else; whoever has the document can print it again.
Rule 2: colours only on a terminal that has them and whose owner has not said NO_COLOR; piped, it is
        plain text as wide as it needs to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from testbed.report import factors, grid, lines, population, table, words
from testbed.report.words import Glyphs
from testbed.results.document import Cell, Document, ExpectationResult
from testbed.stats import Verdict

PIPED_WIDTH = 200


def print_report(document: Document, file: TextIO, environ: Mapping[str, str], width: int | None = None) -> None:
    """Write the report to `file`. `width` in columns; by default that of the terminal, or what is needed."""
    out = console(file, environ, width)
    for line in page(document, out.width, words.glyphs(out.encoding)):
        out.print(line, soft_wrap=True)


def console(file: TextIO, environ: Mapping[str, str], width: int | None = None) -> Console:
    """A console that honours NO_COLOR and COLUMNS, and that does not break the lines of a pipe."""
    if width is None and not file.isatty() and not environ.get("COLUMNS", "").isdecimal():
        width = PIPED_WIDTH
    return Console(file=file, width=width, highlight=False, emoji=False, markup=False, _environ=environ)


def page(document: Document, width: int, g: Glyphs = words.UNICODE) -> list[Text]:
    """The lines of the report, top to bottom."""
    varied, constant = factors.split(document.cells)
    body = grid.render(document.cells, varied, width, g) or table.render(document.cells, varied, width, g)
    paragraphs = [
        _title(document, constant, width, g),
        body,
        _legend(document, g),
        population.render(document.population, width, g) if document.population is not None else [],
        [line for e in document.expectations for line in _expectation(e, width, g)],
        # The table shows no p95, so it need not say how far that can be trusted.
        [line for text in document.warnings if not text.startswith("p95 ") for line in _warning(text, width)],
    ]
    return [line for paragraph in paragraphs if paragraph for line in (*paragraph, Text())][:-1]


def _title(document: Document, constant: Mapping[str, str], width: int, g: Glyphs) -> list[Text]:
    cells = document.cells
    each = sorted({c.trials for c in cells}) or [0]
    trials = f"{each[0]}" if len(each) == 1 else f"{each[0]}{g.dash}{each[-1]}"
    facts = [
        f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'} {g.times} {trials} "
        f"{'trial' if trials == '1' else 'trials'}",
        f"seed {document.seed}",
        f"{document.lab.links} links",
        *(["own kernel"] if document.lab.kernel == "own" else []),
        *(["virtual time"] if document.lab.time == "virtual" else []),
        *(f"{words.factor_name(name)} {value}" for name, value in constant.items()),
    ]
    counts = ", ".join(f"{sum(getattr(c.outcomes, n) for c in cells)} {n}" for n in table.outcomes_seen(cells))
    first = lines.hanging(Text(f"{document.scenario}:", style="bold"), Text(f" {g.dot} ".join(facts)), width)
    total = sum(c.trials for c in cells)
    return [*first, Text(f"{total} {'trial' if total == 1 else 'trials'}: {counts}", style="dim")]


def _legend(document: Document, g: Glyphs) -> list[Text]:
    said = ["success rate = direct / (direct + relayed + failed), 95 % Wilson interval"]
    medians = [c.metric(n).p50 for c in document.cells for n in ("time_to_traverse", "candidate_discovery_time")]
    meaning = ["times: medians, intervals of at least 95 %"]
    if any(m.exceeds is not None for m in medians):
        meaning.append("> beyond deadline")
    if any(m.value is not None and (m.low is None or m.high is None) for m in medians):
        meaning.append(f"{g.ellipsis} not bounded")
    told = [Text(text, style="dim") for text in (*said, "; ".join(meaning))]
    return [*told, *_agreement(document.cells, g)]


def _agreement(cells: Sequence[Cell], g: Glyphs) -> list[Text]:
    """How theory and kernel stand to each other."""
    compared = [cell.agrees for cell in cells if cell.agrees is not None]
    if not compared:
        return []
    counted = f"{sum(compared)} of {len(compared)} cells are as the model predicts (intervals joint over all, 95 %)"
    if all(compared):
        return [Text(counted, style="dim")]
    return [Text(f"{counted}; {g.differs} marks the others", style="bold red")]


_MARKS: Mapping[Verdict, str] = {Verdict.MET: "green", Verdict.MISSED: "bold red", Verdict.INCONCLUSIVE: "yellow"}


def _expectation(result: ExpectationResult, width: int, g: Glyphs) -> Sequence[Text]:
    style = _MARKS[result.verdict]
    sign = {Verdict.MET: g.met, Verdict.MISSED: g.missed, Verdict.INCONCLUSIVE: g.unknown}[result.verdict]
    rate = result.success_rate
    text = Text.assemble(f"{result.text}: ", (str(result.verdict), style), f", {words.rate_text(rate, g)}")
    text.append(f" of {rate.n}" if rate.n else "")
    text.append(f"; {result.needed} trials would tell" if result.needed is not None else "")
    return lines.hanging(Text(sign, style=style), text, width)


def _warning(text: str, width: int) -> Sequence[Text]:
    style = "red" if ": broken" in text else ""
    return lines.hanging(Text("!", style="yellow"), Text(text, style=style), width)
