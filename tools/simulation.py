"""How often each rule of a comparison calls a change where there is none, and how often it finds one: simulated.

Rule 1: what is simulated is made here, with dice of a seed, and judged by the program's own functions.
Rule 2: every rate has its number of repetitions, and thereby its interval.

`python -m tools.simulation` writes docs/evidence/alarms.json, from which `make docs` writes the table of
docs/comparing.md. The tests run the same with fewer repetitions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from testbed import stats
from testbed.comparison.significance import Counts, Pairs
from testbed.comparison.verdicts import (
    Asked,
    Better,
    Comparison,
    Rule,
    Verdict,
    compare_pairs,
    compare_shares,
    compare_times,
    judge,
)
from testbed.report.words import percent
from testbed.stats import Sample

ROOT = Path(__file__).parent.parent
EVIDENCE = ROOT / "docs" / "evidence" / "alarms.json"
REPETITIONS, MATRICES = 2000, 400
SEED = 1
DEADLINE = 10.0
ROUND = 0.05
"""Seconds from one round of checks to the next: what makes the times have several modes."""
CELLS = 15

Dice: TypeAlias = np.random.Generator
Make: TypeAlias = Callable[[Dice], tuple[Any, ...]]


def times(dice: Dice, n: int, factor: float = 1.0, fails: float = 0.05) -> Sample:
    """N trials: most at 120 ms; a fifth takes a round more, a fifth of these another one; `fails` never succeed."""
    bulk = 0.1 + dice.gamma(4.0, 0.005, n)
    found = factor * (bulk + ROUND * (dice.geometric(0.8, n) - 1))
    failed = (dice.random(n) < fails) | (found > DEADLINE)
    return Sample(tuple(map(float, found[~failed])), (DEADLINE,) * int(failed.sum()))


def unimodal(dice: Dice, n: int, factor: float = 1.0) -> Sample:
    """N trials of one mode: 120 ms, with a standard deviation of 12 ms."""
    return Sample(tuple(map(float, factor * dice.gamma(100.0, 0.0012, n))))


def pairs(dice: Dice, n: int, rate: float, lost: float, own: float = 0.01) -> Pairs:
    """Shared dice succeed at this rate; each side spoils `own` of these, and the new one `lost` of them too."""
    shared = dice.random(n) < rate
    base = shared & (dice.random(n) >= own)
    new = shared & (dice.random(n) >= own) & (dice.random(n) >= lost)
    both, base_only, new_only = (int(m.sum()) for m in (base & new, base & ~new, new & ~base))
    return Pairs(both, base_only, new_only, n - both - base_only - new_only)


# ---------------------------------------------------------------------------- rules


def _mean(base: Sample, new: Sample) -> bool:
    """As benchmarks of functions do it: the mean of what succeeded."""
    return abs(float(np.log(np.mean(new.values) / np.mean(base.values)))) > float(np.log(1.05))


def _verdict(found: Comparison, rule: Rule = Rule.TESTED) -> Verdict | None:
    return judge([found], Asked(rule=rule))[0].verdict


def _is_change(verdict: Verdict | None) -> bool:
    return verdict in (Verdict.REGRESSED, Verdict.IMPROVED)


def _times(base: Sample, new: Sample) -> Comparison:
    return compare_times([(base, new)], Better.SMALLER)


TIMES: Mapping[str, Callable[[Sample, Sample], bool]] = {
    "mean changed > 5 %": _mean,
    "median changed > 5 % (`--rule point`)": lambda a, b: _is_change(_verdict(_times(a, b), Rule.POINT)),
    "Mann–Whitney p < 0.05": lambda a, b: (_times(a, b).p or 0.0) < 0.05,
    "interval of the ratio beyond 1": lambda a, b: _times(a, b).effect.beyond != 0,
    "all three (`--rule tested`)": lambda a, b: _is_change(_verdict(_times(a, b))),
}
SHARES: Mapping[str, Callable[[Pairs, Counts, Counts], bool]] = {
    "rate changed > 5 points, other seeds": lambda p, a, b: abs(a.successes / a.n - b.successes / b.n) > 0.05,
    "Fisher, interval, > 5 points, other seeds": lambda p, a, b: _is_change(
        _verdict(compare_shares([(a, b)], Better.LARGER))
    ),
    "McNemar, interval, > 5 points, the same seeds": lambda p, a, b: _is_change(
        _verdict(compare_pairs([p], Better.LARGER))
    ),
}


def _shares(dice: Dice, n: int, lost: float) -> tuple[Pairs, Counts, Counts]:
    """The same trials on both sides, and others."""
    same, other = pairs(dice, n, 0.9, lost), pairs(dice, n, 0.9, lost)
    return same, same.sides[0], other.sides[1]


@dataclass(frozen=True)
class _Matrix:
    """A run of `CELLS` cells × 30 trials: a rate and two times of each, and of all."""

    cells: Sequence[Comparison]
    headline: Sequence[Comparison]


def _matrix(dice: Dice, slow: float) -> tuple[_Matrix]:
    """In the first cell times are slower."""
    factors = [slow, *[1.0] * (CELLS - 1)]
    same = [pairs(dice, 30, 0.9, 0.0) for _ in factors]
    strata = [[(make(dice, 30), make(dice, 30, factor)) for factor in factors] for make in (times, unimodal)]
    cells = [compare_pairs([one], Better.LARGER) for one in same]
    cells += [_times(*one) for metric in strata for one in metric]
    headline = [compare_pairs(same, Better.LARGER), *(compare_times(metric, Better.SMALLER) for metric in strata)]
    return (_Matrix(cells, headline),)


MATRIX: Mapping[str, Callable[[_Matrix], bool]] = {
    "anything changed, `--rule point`": lambda m: any(_is_change(_verdict(one, Rule.POINT)) for one in m.cells),
    "anything changed, p not adjusted": lambda m: any(_is_change(_verdict(one)) for one in m.cells),
    "anything changed, `--rule tested`": lambda m: any(
        _is_change(one.verdict) for family in (m.cells, m.headline) for one in judge(family, Asked())
    ),
}


# ---------------------------------------------------------------------------- rates


@dataclass(frozen=True)
class Row:
    """A rule at one number of trials: how often it called a change, of how many repetitions."""

    about: str
    rule: str
    trials: str
    alarms: int
    change: str
    found: int
    repetitions: int


def simulate(repetitions: int, matrices: int, seed: int = SEED) -> Iterator[Row]:
    """Every rule, at the sizes that matter; `matrices`: how often whole runs are compared."""

    def rows(
        about: str, rules: Mapping[str, Callable[..., bool]], n: int, change: str, count: int, none: Make, some: Make
    ) -> Iterator[Row]:
        alarms, found = (_counted(rules, count, seed, make) for make in (none, some))
        yield from (Row(about, rule, str(n), alarms[rule], change, found[rule], count) for rule in rules)

    for n, factor in ((30, 1.25), (100, 1.10)):
        both = partial(_two, n=n, factor=1.0), partial(_two, n=n, factor=factor)
        yield from rows("time", TIMES, n, f"×{factor:.2f}", repetitions, *both)
    for n, lost in ((60, 0.1), (60, 0.2)):
        shares = partial(_shares, n=n, lost=0.0), partial(_shares, n=n, lost=lost)
        yield from rows("rate", SHARES, n, f"{100 * lost:.0f} % lost", repetitions, *shares)
    whole = partial(_matrix, slow=1.0), partial(_matrix, slow=1.25)
    yield from rows(f"{CELLS} cells", MATRIX, 30, "×1.25 in one", matrices, *whole)


def _two(dice: Dice, n: int, factor: float) -> tuple[Sample, Sample]:
    return times(dice, n), times(dice, n, factor)


def _counted(rules: Mapping[str, Callable[..., bool]], repetitions: int, seed: int, make: Make) -> dict[str, int]:
    dice = np.random.default_rng(seed)
    counts = dict.fromkeys(rules, 0)
    for _ in range(repetitions):
        made = make(dice)
        for name, rule in rules.items():
            counts[name] += rule(*made)
    return counts


def table(path: Path = EVIDENCE) -> Iterator[str]:
    """The lines of the table in docs/comparing.md."""
    yield "| of | rule | trials a side | false alarms, % | change | found, % |"
    yield "|---|---|---|---|---|---|"
    for row in (Row(**value) for value in json.loads(path.read_bytes())):
        alarms, found = (_rate(k, row.repetitions) for k in (row.alarms, row.found))
        yield f"| {row.about} | {row.rule} | {row.trials} | {alarms} | {row.change} | {found} |"


def _rate(k: int, n: int) -> str:
    share = stats.wilson(k, n)
    assert share.value is not None
    return f"{percent(share.value)} [{percent(share.low)}–{percent(share.high)}]"


if __name__ == "__main__":
    EVIDENCE.write_text(
        json.dumps([asdict(row) for row in simulate(REPETITIONS, MATRICES)], indent=1) + "\n", encoding="utf-8"
    )
