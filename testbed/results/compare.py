"""From two runs to their comparison.

Rule 1: only what was measured alike is compared: another environment is refused unless the caller insists, another unit
        always, and times beyond the earlier of two deadlines count as censored on both sides.
Rule 2: trials are paired where both sides ran the same ones: the same indexes with the same seeds in a cell. A pair in
        which one trial counts in no rate is left out, and a warning says how many those are.
Rule 3: what one side lacks is named, never skipped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import inf
from typing import Literal

from testbed import stats
from testbed.comparison import effects, prices, verdicts
from testbed.comparison.significance import Counts, Pairs
from testbed.comparison.verdicts import ALPHA, Asked, Better, Comparison, Rule
from testbed.errors import UsageError
from testbed.plan.outcomes import Outcome
from testbed.results import compare_notes, environment
from testbed.results.comparison import (
    SCHEMA,
    SUCCESS_RATE,
    Change,
    ComparedCell,
    ComparedRun,
    ComparisonDocument,
    MetricComparison,
    Value,
)
from testbed.results.record import METRICS, Record, sample
from testbed.results.side import Side
from testbed.stats import Sample

BETTER: Mapping[str, Better] = {
    name: Better.SMALLER if unit == "s" else Better.NEITHER for name, unit in METRICS.items()
}
"""Times are better when they are smaller. More probes or attempts are neither: it is their end that matters."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A metric of one cell, or over all cells."""

    metric: str
    values: tuple[Value, Value]
    found: Comparison
    price: Callable[[float], float | None] | None = None
    """False alarms of the rule `point` at a threshold; None over all cells."""


def compare(base: Side, new: Side, asked: Asked, *, allow_different_machine: bool = False) -> ComparisonDocument:
    """The comparison. Raises UsageError where it would compare unlike things."""
    unlike = list(environment.differences(base.document, new.document))
    if unlike and not allow_different_machine:
        listed = "\n".join(f"  {line}" for line in unlike)
        raise UsageError(
            f"{base.name} and {new.name} were not measured alike, so a change may be the machine's:\n{listed}\n"
            "measure both on one machine, or compare them all the same with --allow-different-machine"
        )
    compare_notes.check_units(base, new)
    cells = [cell.id for cell in base.document.cells if cell.id in new.trials]
    if not cells:
        raise UsageError(
            f"{base.name} and {new.name} have no cell in common: scenario {base.document.scenario!r} has "
            f"{base.document.cells[0].id if base.document.cells else 'none'!r}, {new.document.scenario!r} has "
            f"{new.document.cells[0].id if new.document.cells else 'none'!r}; compare runs of one scenario"
        )
    paired_cells = sum(paired(base, new, cell) is not None for cell in cells)
    rows = {cell: list(_cell(base, new, cell)) for cell in cells}
    judged = iter(_judge([row for cell in cells for row in rows[cell]], asked))
    factors = {cell.id: cell.factors for cell in base.document.cells}
    compared = tuple(
        ComparedCell(id=cell, factors=factors[cell], metrics=tuple(islice(judged, len(rows[cell])))) for cell in cells
    )
    headline = tuple(_judge(_headline(base, new, cells), asked))
    each = [row for cell in compared for row in cell.metrics]
    prices = [row.false_alarms for row in each if row.false_alarms is not None]
    return ComparisonDocument(
        schema_=SCHEMA,
        base=_run(base),
        new=_run(new),
        rule=asked.rule,
        threshold=asked.threshold,
        false_discovery_rate=ALPHA,
        verdict=verdicts.overall([row.verdict for row in (*headline, *each)]),
        headline=headline,
        cells=compared,
        only_base=tuple(cell.id for cell in base.document.cells if cell.id not in new.trials),
        only_new=tuple(cell.id for cell in new.document.cells if cell.id not in base.trials),
        expected_false_alarms=round(sum(prices), 6) if asked.rule is Rule.POINT else None,
        warnings=tuple(compare_notes.warnings(base, new, cells, unlike, paired_cells)),
    )


def _cell(base: Side, new: Side, cell: str) -> Iterator[_Row]:
    """Every metric of one cell."""
    a, b = base.counting(cell), new.counting(cell)
    pairs = paired(base, new, cell)
    counts = (_direct(a), _direct(b))
    shares = (_share(counts[0]), _share(counts[1]))
    if pairs is None:
        found = verdicts.compare_shares([counts], Better.LARGER)
        yield _Row(SUCCESS_RATE, shares, found, partial(prices.of_shares, *counts))
    else:
        found = verdicts.compare_pairs([pairs], Better.LARGER)
        yield _Row(SUCCESS_RATE, shares, found, partial(prices.of_pairs, pairs))
    for metric in METRICS:
        sides = _samples(a, b, metric)
        found = verdicts.compare_times([sides], BETTER[metric])
        notes = found.warnings
        if BETTER[metric] is not Better.NEITHER:
            notes += tuple(compare_notes.about_missing(sides, (len(a), len(b))))
        price = partial(prices.of_medians, *sides) if all(side.n for side in sides) else None
        yield _Row(metric, (_median(sides[0]), _median(sides[1])), replace(found, warnings=notes), price)


def _headline(base: Side, new: Side, cells: Sequence[str]) -> Iterator[_Row]:
    """Every metric over all cells. Pairs are compared as such where every cell has them."""
    sides = [(base.counting(cell), new.counting(cell)) for cell in cells]
    counts = [(_direct(a), _direct(b)) for a, b in sides]
    pairs = [one for cell in cells if (one := paired(base, new, cell)) is not None]
    found = (
        verdicts.compare_pairs(pairs, Better.LARGER)
        if len(pairs) == len(cells)
        else verdicts.compare_shares(counts, Better.LARGER)
    )
    shares = (_mean_share([a for a, _ in counts]), _mean_share([b for _, b in counts]))
    yield _Row(SUCCESS_RATE, shares, found)
    for metric in METRICS:
        samples = [_samples(a, b, metric) for a, b in sides]
        found = verdicts.compare_times(samples, BETTER[metric])
        yield _Row(metric, _mean_medians(samples), found)


def _judge(rows: Iterable[_Row], asked: Asked) -> Iterator[MetricComparison]:
    """One family."""
    rows = list(rows)
    for row, found in zip(rows, verdicts.judge([row.found for row in rows], asked), strict=True):
        priced = asked.rule is Rule.POINT and row.price is not None and found.verdict is not None
        effect = found.effect
        yield MetricComparison(
            metric=row.metric,
            unit=_unit(row.metric),
            better=found.better,
            base=row.values[0],
            new=row.values[1],
            change=Change(
                kind=effect.kind,
                value=_rounded(effect.value),
                low=_rounded(effect.low),
                high=_rounded(effect.high),
                confidence=effect.confidence,
                method=effect.method,
            ),
            test=found.test,
            paired=found.test == "mcnemar",
            p=found.p,
            p_adjusted=found.p_adjusted,
            verdict=found.verdict,
            needed=found.needed,
            false_alarms=_rounded(row.price(asked.threshold)) if priced and row.price is not None else None,
            warnings=found.warnings,
        )


# ---------------------------------------------------------------------------- trials


def _direct(trials: Mapping[int, Record]) -> Counts:
    return Counts(sum(record.outcome is Outcome.DIRECT for record in trials.values()), len(trials))


def paired(base: Side, new: Side, cell: str) -> Pairs | None:
    """None where the two sides did not run the same trials."""
    a, b = base.trials[cell], new.trials[cell]
    if a.keys() != b.keys() or any(a[index].seed != b[index].seed for index in a):
        return None
    both = [index for index in a if a[index].outcome.counts and b[index].outcome.counts]
    hits = [(a[index].outcome is Outcome.DIRECT, b[index].outcome is Outcome.DIRECT) for index in both]
    return Pairs(*(hits.count(seen) for seen in ((True, True), (True, False), (False, True), (False, False))))


def _samples(base: Mapping[int, Record], new: Mapping[int, Record], metric: str) -> tuple[Sample, Sample]:
    """Of both sides, censored at the earlier of their limits."""
    a, b = (sample(list(side.values()), metric) for side in (base, new))
    limit = min((*a.censored, *b.censored), default=inf)
    return a.censored_at(limit), b.censored_at(limit)


# ---------------------------------------------------------------------------- values


def _share(counts: Counts) -> Value:
    found = stats.wilson(counts.successes, counts.n)
    return Value(value=_rounded(found.value), low=_rounded(found.low), high=_rounded(found.high), n=counts.n)


def _mean_share(sides: Sequence[Counts]) -> Value:
    """Of cells that weigh alike."""
    known = [side for side in sides if side.n]
    found = stats.weighted([(1.0, stats.wilson(side.successes, side.n)) for side in known])
    return Value(value=_rounded(found.value), low=_rounded(found.low), high=_rounded(found.high), n=found.n)


def _median(side: Sample) -> Value:
    found = side.percentile(0.5)
    value, low, high, exceeds = map(_rounded, (found.value, found.low, found.high, found.exceeds))
    return Value(value=value, low=low, high=high, exceeds=exceeds, n=side.n, censored=len(side.censored))


def _mean_medians(samples: Sequence[tuple[Sample, Sample]]) -> tuple[Value, Value]:
    """Geometric means, of those cells in which both medians are known; their ratio is the change."""
    known = effects.with_medians(samples)
    return (
        _mean_median([a for a, _ in known], [a for a, _ in samples]),
        _mean_median([b for _, b in known], [b for _, b in samples]),
    )


def _mean_median(known: Sequence[Sample], every: Sequence[Sample]) -> Value:
    found = effects.mean_median(known)
    return Value(
        value=_rounded(found.value),
        low=_rounded(found.low),
        high=_rounded(found.high),
        n=sum(side.n for side in every),
        censored=sum(len(side.censored) for side in every),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)


def _unit(metric: str) -> Literal["s", "1"]:
    return "s" if METRICS.get(metric) == "s" else "1"


def _run(side: Side) -> ComparedRun:
    document = side.document
    return ComparedRun(
        name=side.name,
        run=document.run,
        scenario=document.scenario,
        seed=document.seed,
        lab=document.lab,
        environment=document.environment,
    )
