"""Two or more subjects, taken in turns: ratios of one run, with n and interval.

Rule 1: the datum is a round, in which every subject runs once, in an order that turns round (ABBA). A machine that
        grows slower does so for all of them.
Rule 2: a ratio is the median over rounds of the rounds' own ratios, with the order statistics' interval at 95 %.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from testbed.stats import Percentile, Sample


@dataclass(frozen=True)
class Rounds:
    """Milliseconds of each subject in each round."""

    times: Mapping[str, list[float]]

    @property
    def n(self) -> int:
        return len(next(iter(self.times.values())))

    def median(self, subject: str) -> Percentile:
        return Sample(tuple(self.times[subject])).percentile(0.5)

    def ratio(self, slower: str, faster: str) -> Percentile:
        """How many times as long `slower` takes."""
        pairs = zip(self.times[slower], self.times[faster], strict=True)
        return Sample(tuple(a / b for a, b in pairs)).percentile(0.5)


def take_turns(subjects: Mapping[str, Callable[[], float | None]], rounds: int) -> Rounds:
    """Run every subject `rounds` times, after one round that does not count.

    A subject may say itself how many milliseconds what counts has taken.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    order = list(subjects)
    for number in range(rounds + 1):
        for name in order if number % 2 else reversed(order):
            before = time.perf_counter_ns()
            took = subjects[name]()
            if number:
                times[name].append((time.perf_counter_ns() - before) / 1e6 if took is None else took)
    return Rounds(times)


def said(found: Percentile, unit: str, digits: int = 1) -> str:
    """`31.2 ms [30.1-33.0]`."""
    assert found.value is not None
    sides = ["…" if side is None else f"{side:.{digits}f}" for side in (found.low, found.high)]
    return f"{found.value:.{digits}f} {unit} [{sides[0]}-{sides[1]}]"


def show(rounds: Rounds, subject: str, promises: Mapping[str, float] | None = None) -> int:
    """Print every median, and the ratio of each to `subject`; how many promised ratios were missed."""
    missed = 0
    for name in rounds.times:
        line = f"{name:<28} {said(rounds.median(name), 'ms'):<28} n={rounds.n}"
        if name != subject:
            ratio = rounds.ratio(name, subject)
            assert ratio.value is not None
            promised = (promises or {}).get(name)
            line += f"  {said(ratio, 'x', 2)}"
            if promised is not None:
                is_kept = ratio.value >= promised
                missed += not is_kept
                line += f"  promised {promised:g} x: {'kept' if is_kept else 'MISSED'}"
        print(line, flush=True)
    return missed


def promise(what: str, value: float, most: float, unit: str) -> int:
    """Print a promise about an absolute figure; 1 where it was missed."""
    is_kept = value <= most
    print(
        f"{what}: {value:.1f} {unit}, promised at most {most:g} {unit}: {'kept' if is_kept else 'MISSED'}", flush=True
    )
    return int(not is_kept)
