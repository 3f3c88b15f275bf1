"""The explanation of a trial for a person: the sentence, the timeline, the checks, what theory says.

Rule 1: it shows the document and nothing else, in the order in which a person asks: why, then what happened, then
        what should have.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.text import Text

from testbed.report import lines, words
from testbed.report.page import console
from testbed.report.words import Glyphs
from testbed.results.explanation import Ending, Entry, Explanation, Flow

STYLES: Mapping[str, str] = {"direct": "green", "relayed": "yellow", "failed": "red", "broken": "bold red"}
WIDEST = 120
"""Columns of running text."""
SHOWN = 3
"""Of the addresses of one flow."""


def print_explanation(
    explanation: Explanation, file: TextIO, environ: Mapping[str, str], width: int | None = None
) -> None:
    """Write it to `file`. `width` in columns; by default that of the terminal, or what is needed."""
    out = console(file, environ, width)
    for line in page(explanation, out.width, words.glyphs(out.encoding)):
        out.print(line, soft_wrap=True)


def page(explanation: Explanation, width: int, g: Glyphs = words.UNICODE) -> list[Text]:
    """The lines, top to bottom."""
    wide = min(width, WIDEST)
    paragraphs = [
        _title(explanation, wide, g),
        _running(Text(explanation.sentence), wide),
        _timeline(explanation.timeline, wide),
        _flows(explanation, wide, g),
        _theory(explanation, wide),
        [line for note in explanation.notes for line in lines.hanging(Text("!", style="yellow"), Text(note), wide)],
    ]
    return [line for paragraph in paragraphs if paragraph for line in (*paragraph, Text())][:-1]


def _title(explanation: Explanation, width: int, g: Glyphs) -> list[Text]:
    attempt = f" {g.dot} attempt {explanation.attempt}" if explanation.attempt > 1 else ""
    facts = Text.assemble(
        f"trial {explanation.index}{attempt} {g.dot} seed {explanation.seed} {g.dot} ",
        (str(explanation.outcome), STYLES.get(str(explanation.outcome), "")),
    )
    name = Text(explanation.cell or explanation.run, style="bold")
    one = Text.assemble(name, ": ", facts)
    return [one] if one.cell_len <= width else [name, facts]


def _running(text: Text, width: int) -> list[Text]:
    found = textwrap.wrap(text.plain, max(width, 20), break_long_words=False, break_on_hyphens=False)
    return [Text(line, style="bold") for line in found]


def _timeline(entries: Sequence[Entry], width: int) -> list[Text]:
    if not entries:
        return []
    times = [f"{1000 * entry.t:.1f}" for entry in entries]
    columns = [max(map(len, [*times, "ms"])), max(len(entry.who) for entry in entries)]
    head = lines.align([Text("ms"), Text("who"), Text("what")], [*columns, 4], ["right", "left", "left"])
    head.stylize("bold")
    shown = [head]
    for time, entry in zip(times, entries, strict=True):
        mark = lines.align([Text(time), Text(entry.who)], columns, ["right", "left"])
        mark.append(" " * (sum(columns) + lines.GAP - mark.cell_len + 1))
        shown += lines.hanging(mark, Text(entry.text), width)
        for ending in entry.endings:
            blank = Text(" " * (sum(columns) + lines.GAP + 3))
            shown += lines.hanging(blank, _ending(ending), width)
    return shown


def _ending(ending: Ending) -> Text:
    style = "green" if ending.arrived else "red"
    return Text(f"{ending.count} {ending.phrase(ending.count > 1)}", style=style)


def _flows(explanation: Explanation, width: int, g: Glyphs) -> list[Text]:
    if not explanation.flows or explanation.told_by == "record":
        return []
    who = {"capture": "by the captured packets", "model": "by the model: no packets were kept"}[explanation.told_by]
    shown = [Text.assemble(("what became of checks", "bold"), (f", {who}", "dim"))]
    for flow in explanation.flows:
        shown += lines.hanging(Text(f" {g.dot}"), _flow(flow), width)
    for name, dropped in explanation.nats.items():
        counts = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        if counts:
            shown += lines.hanging(Text(f" {g.dot}"), Text(f"{name} counts what it dropped: {counts}"), width)
    return shown


def _flow(flow: Flow) -> Text:
    count, noun = (flow.checks, "check") if flow.checks else (flow.others, "packet")
    kind = f"{flow.receiver}'s {flow.type} " if flow.type else ""
    ports = f" and {flow.ports - 1} ports more" if flow.ports > 1 else ""
    text = Text(f"{flow.sender}: {count} {noun}{'' if count == 1 else 's'} to {kind}{flow.remote}{ports}")
    if flow.left_by:
        more = flow.addresses - len(flow.left_by[:SHOWN])
        text.append(
            f", leaving by {', '.join(flow.left_by[:SHOWN])}{f' and {more} others' if more else ''}", style="dim"
        )
    text.append(": ")
    for i, ending in enumerate(flow.endings):
        text.append(", " if i else "").append_text(_ending(ending))
    if flow.checks and flow.others:
        text.append(f"; {flow.others} more with answers and application bytes", style="dim")
    return text


def _theory(explanation: Explanation, width: int) -> list[Text]:
    theory = explanation.theory
    if theory is None:
        return []
    text = Text.assemble(f"the model, with the same seed, comes out {theory.outcome}: ")
    text.append(*(("it agrees", "green") if theory.agrees else ("it does not agree", "bold red")))
    if theory.differs is None:
        text.append("; candidates, addresses and drops are the same")
    else:
        text.append(f"; the first difference: {theory.differs}")
    return lines.hanging(Text("theory:", style="bold"), text, width)
