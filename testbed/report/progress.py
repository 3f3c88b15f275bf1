"""How far a run is, on stderr: a live table on a terminal, plain lines otherwise.

Rule 1: no thread. The parent that forks trials must have one thread only, so nothing here refreshes by
        itself: the caller says what happened, and calls `tick` when `next_tick` is due.
Rule 2: `now` is an argument, monotonic nanoseconds.
Rule 3: whoever watches a run that hangs must see that it hangs: without news a plain run says so too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from testbed import stats
from testbed.errors import UsageError
from testbed.plan.outcomes import Outcome
from testbed.report import lines, words
from testbed.report.page import console
from testbed.report.words import Glyphs
from testbed.results.document import Outcomes
from testbed.results.record import Record
from testbed.results.summary import PlannedCell, brief
from testbed.units import NS_PER_SECOND, seconds

Mode = Literal["auto", "live", "plain", "none"]

FRAME = NS_PER_SECOND // 8
HEARTBEAT = 10 * NS_PER_SECOND
ROWS = 12
"""Cells that the live table shows at most: those that run, and before them the last that finished."""


@dataclass(slots=True)
class Tally:
    """One cell so far."""

    planned: int
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))

    @property
    def done(self) -> int:
        """Trials that finished, in whichever way."""
        return sum(self.outcomes.values())

    def text(self, g: Glyphs) -> str:
        """`29 direct, 1 relayed, 96.7 % [83.3–99.4]`."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items() if count)
        counting = sum(count for outcome, count in self.outcomes.items() if outcome.counts)
        if not counting:
            return counts or "waiting"
        share = stats.wilson(self.outcomes[Outcome.DIRECT], counting)
        assert share.value is not None
        interval = f"[{words.percent(share.low)}{g.dash}{words.percent(share.high)}]"
        return f"{counts}, {words.percent(share.value)} % {interval}"


class Progress:
    """What every way of showing progress counts; by itself it shows nothing."""

    def __init__(self, cells: Sequence[PlannedCell], now: int, g: Glyphs = words.UNICODE) -> None:
        self._g = g
        self._started = now
        self._cells = {cell.id: Tally(cell.trials) for cell in cells}
        self._total = sum(cell.trials for cell in cells)
        self._done = 0
        self._fresh = 0

    def resumed(self, record: Record) -> None:
        """A trial that an earlier run finished; it says nothing about our speed."""
        self._count(record)

    def finished(self, record: Record, now: int) -> None:
        """A trial finished."""
        del now
        self._count(record)
        self._fresh += 1

    def tick(self, now: int) -> None:
        """Show what is new, if it is time to."""

    def next_tick(self) -> int | None:
        """When `tick` should be called next, whatever happens; None if never."""
        return None

    def note(self, text: str, now: int) -> None:
        """Say something that is not about one trial, without spoiling what is shown."""

    def close(self) -> None:
        """Nothing more will happen."""

    def left(self, now: int) -> int | None:
        """The time that the rest will take at the speed so far, in ns; None before there is one."""
        if not self._fresh:
            return None
        return (now - self._started) * (self._total - self._done) // self._fresh

    def _count(self, record: Record) -> None:
        tally = self._cells.get(record.cell)
        if tally is not None:
            tally.outcomes[record.outcome] += 1
            self._done += 1

    def _summary(self, now: int) -> str:
        """`120/480 trials, 3/16 cells, about 40 s left`."""
        cells = sum(tally.done >= tally.planned for tally in self._cells.values())
        left = self.left(now)
        eta = "" if left is None or self._done >= self._total else f", about {_duration(left)} left"
        return f"{self._done}/{self._total} trials, {cells}/{len(self._cells)} cells{eta}"


class PlainProgress(Progress):
    """A line for each finished cell and each broken trial, and a sign of life when there is none for long."""

    def __init__(self, cells: Sequence[PlannedCell], now: int, file: TextIO, g: Glyphs = words.UNICODE) -> None:
        super().__init__(cells, now, g)
        self._file = file
        self._said = now

    def finished(self, record: Record, now: int) -> None:
        """Say so if the trial was broken, or was the last of its cell."""
        super().finished(record, now)
        if record.outcome is Outcome.BROKEN:
            self.note(brief(record), now)
        tally = self._cells.get(record.cell)
        if tally is not None and tally.done == tally.planned:
            self.note(f"{self._done}/{self._total}  {record.cell or 'the one cell'}: {tally.text(self._g)}", now)

    def tick(self, now: int) -> None:
        """The sign of life."""
        if now >= self._said + HEARTBEAT:
            self.note(self._summary(now), now)

    def next_tick(self) -> int:
        """Ten seconds after the last line."""
        return self._said + HEARTBEAT

    def note(self, text: str, now: int) -> None:
        """A line, with the time since the start."""
        self._said = now
        print(f"[{seconds(now - self._started):6.1f} s] {text}", file=self._file, flush=True)


class LiveProgress(Progress):
    """A table that is redrawn eight times a second, and gone at the end: then the report says it better."""

    def __init__(self, cells: Sequence[PlannedCell], now: int, out: Console) -> None:
        super().__init__(cells, now, words.glyphs(out.encoding))
        self._out = out
        self._drawn = now
        self._live = Live(console=out, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def finished(self, record: Record, now: int) -> None:
        """Count; a broken trial is said at once, above the table."""
        super().finished(record, now)
        if record.outcome is Outcome.BROKEN:
            self._out.print(Text(brief(record), style="red"), soft_wrap=True)

    def note(self, text: str, now: int) -> None:
        """A line above the table."""
        self._out.print(Text(text), soft_wrap=True)

    def tick(self, now: int) -> None:
        """Redraw."""
        if now >= self._drawn + FRAME:
            self._drawn = now
            self._live.update(self.frame(now), refresh=True)

    def next_tick(self) -> int:
        """An eighth of a second after the last."""
        return self._drawn + FRAME

    def close(self) -> None:
        """Take the table away."""
        self._live.update(Text())
        self._live.stop()

    def frame(self, now: int) -> Group:
        """What is on the screen."""
        g, width = self._g, self._out.width
        share = self._done / self._total if self._total else 1.0
        filled, empty = words.bar(share, max(min(width - 60, 40), 10), g)
        bar = Text.assemble((filled, "cyan"), (empty, "dim"), f" {self._summary(now)}")
        shown = list(self._shown())
        rows = [self._row(name, tally) for name, tally in shown]
        columns = lines.widths(rows) if rows else []
        hidden = len(self._cells) - len(rows)
        more = [Text(f"and {hidden} more cells", style="dim")] if hidden else []
        right: lines.Justify = "right"
        table = [lines.align(row, columns, ["left", *[right] * (len(columns) - 1)]) for row in rows]
        for line in table:
            line.truncate(width)
        return Group(*table, *more, bar)

    def _shown(self) -> Iterator[tuple[str, Tally]]:
        """As many cells as fit, around the first that is not finished."""
        cells = list(self._cells.items())
        room = max(min(ROWS, self._out.height - 4), 1)
        first_open = next((i for i, (_, t) in enumerate(cells) if t.done < t.planned), len(cells))
        start = max(min(first_open - room // 3, len(cells) - room), 0)
        yield from cells[start : start + room]

    def _row(self, name: str, tally: Tally) -> lines.Row:
        state = "dim" if not tally.done else "" if tally.done < tally.planned else "bold"
        shown = [o for o in Outcomes.model_fields if any(t.outcomes[Outcome(o)] for t in self._cells.values())]
        counts = [(o, tally.outcomes[Outcome(o)]) for o in shown]
        return [
            Text(name or "the one cell", style=state),
            Text(f"{tally.done}/{tally.planned}", style=state),
            *(Text(f"{count} {o}" if count else "", style=_STYLES[o]) for o, count in counts),
            *(Text() for _ in range(len(Outcome) - len(counts))),
        ]


_STYLES: Mapping[str, str] = {
    "direct": "green",
    "relayed": "yellow",
    "failed": "red",
    "unsupported": "dim",
    "broken": "bold red",
}


@contextmanager
def progress(
    mode: Mode, cells: Sequence[PlannedCell], now: int, file: TextIO, environ: Mapping[str, str]
) -> Iterator[Progress]:
    """The progress of a run on `file`; `auto` is live on a terminal that can redraw, else plain. Raises UsageError."""
    out = console(file, environ)
    can_redraw = out.is_terminal and not out.is_dumb_terminal
    if mode == "auto":
        mode = "live" if can_redraw else "plain"
    if mode == "live" and not can_redraw:
        raise UsageError("--progress live needs a terminal on stderr; use --progress plain")
    shown: Progress
    if mode == "live":
        shown = LiveProgress(cells, now, out)
    elif mode == "plain":
        shown = PlainProgress(cells, now, file, words.glyphs(out.encoding))
    else:
        shown = Progress(cells, now)
    try:
        yield shown
    finally:
        shown.close()


def _duration(ns: int) -> str:
    """`40 s`, `3 min`, `1 h 20 min`: as exact as a guess deserves."""
    whole = round(seconds(ns))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
