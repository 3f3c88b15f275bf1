"""How many trials run at once.

Rule 1: trials mostly wait, some far more than others: one that punches through needs a core for an eighth of its
        time, one that runs into its deadlines for a fiftieth. So what is bounded is not their number but how busy they
        keep the machine.
Rule 2: how busy a trial will be is what the earlier ones of its cell were; before there are any, what those of the
        other cells were; and before that, an eighth, which makes six a core.
Rule 3: whoever asks for a number of jobs gets that number.
Rule 4: of the trials that are next, those start first that take longest, so that a run does not end with waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import fmean

BUSY = 0.8
"""The share of all cores that trials may need; what is left is the kernel's, which takes labs apart."""
GUESS = 0.125
_ROUNDING = 1e-9
LEAST_PER_CORE, MOST_PER_CORE = 2, 16
_WEIGHT = 0.25
"""Of the newest trial in a cell's estimate."""


@dataclass(slots=True)
class Pace:
    """Decides whether one more may start, and which."""

    cores: int
    jobs: int | None = None
    """So many, if a number was asked for."""
    _shares: dict[str, float] = field(default_factory=dict)
    """Cell -> the share of a core that one of its trials needs."""
    _times: dict[str, float] = field(default_factory=dict)
    """Cell -> the nanoseconds that one of its trials takes."""

    def share(self, cell: str) -> float:
        """What a trial of this cell is expected to need of a core."""
        if cell in self._shares:
            return self._shares[cell]
        return fmean(self._shares.values()) if self._shares else GUESS

    def learn(self, cell: str, busy: int, took: int) -> None:
        """A trial of this cell needed `busy` nanoseconds of a core in the `took` that it ran."""
        if took <= 0:
            return
        for found, new in ((self._shares, min(1.0, busy / took)), (self._times, float(took))):
            old = found.get(cell, new)
            found[cell] = old + (new - old) * _WEIGHT

    def first(self, cells: Sequence[str]) -> int:
        """Which of these trials, each named by its cell, starts first: its number. A new cell's time is to be found."""
        return max(range(len(cells)), key=lambda number: self._times.get(cells[number], inf))

    def allows(self, running: Iterable[str], cell: str) -> bool:
        """Whether a trial of `cell` may start beside these, each named by its cell."""
        beside = list(running)
        if self.jobs is not None:
            return len(beside) < self.jobs
        if len(beside) < LEAST_PER_CORE * self.cores:
            return True
        needed = sum(map(self.share, beside)) + self.share(cell)
        return len(beside) < MOST_PER_CORE * self.cores and needed <= BUSY * self.cores + _ROUNDING
