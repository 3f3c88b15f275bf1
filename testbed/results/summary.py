"""From the records of a run to its document.

Rule 1: every trial that finished is counted once: of a trial with several attempts the last, and the
        broken ones before it are named in the warnings. Nothing is left out silently.
Rule 2: `unsupported` and `broken` trials enter no rate and no metric; they stand apart.
Rule 3: a cell agrees with its prediction where their intervals meet. The intervals are joint: at 95 % for all cells
        of the run together (Bonferroni), because 81 single ones would cry wolf four times a run.
Rule 4: a warning that many trials or cells share is said once, with how many they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from testbed import stats
from testbed.plan.events import describe as describe_event
from testbed.plan.outcomes import Outcome
from testbed.results.document import (
    SCHEMA,
    Cell,
    Document,
    ExpectationResult,
    Lab,
    Metric,
    Outcomes,
    Prediction,
    Quantile,
    Rate,
    ScenarioEvent,
)
from testbed.results.population import PlannedPopulation, Population, summarise_population
from testbed.results.record import METRICS, Record, sample, warning_kind
from testbed.spec.event import Event
from testbed.spec.model import Model
from testbed.spec.scenario import Bound, Expectation
from testbed.units import PPM, format_probability, seconds

LISTED = 10
"""So many broken trials are named one by one; the rest are counted."""


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell of the plan, as a document names it."""

    id: str
    factors: Mapping[str, JsonValue]
    trials: int


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of a run beside its records."""

    name: str
    scenario: str
    seed: int
    lab: Lab
    environment: Mapping[str, JsonValue]
    cells: Sequence[PlannedCell]
    """In the plan's order."""
    expect: Sequence[Expectation] = ()
    events: Sequence[Event] = ()
    population: PlannedPopulation | None = None
    notes: Sequence[str] = field(default=())
    """Warnings that are about the run as a whole."""
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    """By cell, of those that the model can play."""


def summarise(run: Run, records: Iterable[Record]) -> Document:
    """The document of a run, finished or not; of the records, those that the plan holds."""
    by_cell, superseded, strangers = _sort(run, records)
    warnings = [*run.notes, *_about_trials(by_cell, superseded)]
    if strangers:
        warnings.append(f"{strangers} records are of trials that this plan does not hold; they do not count")
    missing = sum(cell.trials - len(by_cell[cell.id]) for cell in run.cells)
    if missing:
        warnings.append(f"{missing} of {sum(c.trials for c in run.cells)} trials have not run")
    cells = tuple(_cell(cell, by_cell[cell.id], run.predictions) for cell in run.cells)
    expectations = tuple(_expectation(e, run.cells, by_cell) for e in run.expect)
    warnings += [*_about_gates(run, expectations), *_about_predictions(cells), *_about_numbers(cells)]
    return Document(
        schema_=SCHEMA,
        run=run.name,
        scenario=run.scenario,
        seed=run.seed,
        lab=run.lab,
        environment=dict(run.environment),
        events=tuple(ScenarioEvent(at=seconds(event.at), what=describe_event(event)) for event in run.events),
        cells=cells,
        population=_population(run, cells),
        expectations=expectations,
        warnings=tuple(warnings),
    )


def brief(record: Record) -> str:
    """One trial in one line: `cell nat_a=…, trial 7: broken: the wire process died (signal 9)`."""
    again = f" (attempt {record.attempt})" if record.attempt > 1 else ""
    why = f": {record.reason}" if record.reason else ""
    return f"cell {record.cell}, trial {record.index}{again}: {record.outcome}{why}"


def plain(value: Any) -> JsonValue:
    """A factor's value as JSON has it: text and numbers as they are, an external program as its mapping."""
    if isinstance(value, Model):
        found: JsonValue = value.model_dump(mode="json")
        return found
    return value  # type: ignore[no-any-return]


def selects(where: Mapping[str, Any], factors: Mapping[str, JsonValue]) -> bool:
    """Whether a cell with these factors is one that `where` means."""
    return all(key in factors and factors[key] == plain(value) for key, value in where.items())


def describe(expectation: Expectation) -> str:
    """`nat_b=eim-eif: success rate at least 80%`."""
    where = ", ".join(f"{key}={label(plain(value))}" for key, value in expectation.where.items())
    bound = expectation.success_rate
    sides = [("at least", bound.at_least), ("at most", bound.at_most)]
    demands = " and ".join(f"{word} {format_probability(ppm)}" for word, ppm in sides if ppm is not None)
    return f"{where or 'all cells'}: success rate {demands or 'of any size'}"


def label(value: JsonValue) -> str:
    """A factor's value in a few letters; of an external program its name."""
    if isinstance(value, dict) and isinstance(value.get("command"), list):
        return " ".join(map(str, value["command"]))  # type: ignore[arg-type]
    return str(value)


def _sort(run: Run, records: Iterable[Record]) -> tuple[dict[str, list[Record]], list[Record], int]:
    """The records that count, by cell and in order; the broken ones that were tried again; how many are strange."""
    planned = {cell.id: cell.trials for cell in run.cells}
    last: dict[tuple[str, int], Record] = {}
    superseded, strangers = [], 0
    for record in records:
        record = record.without_events()
        if record.index >= planned.get(record.cell, 0):
            strangers += 1
            continue
        earlier = last.get((record.cell, record.index))
        if earlier is not None and earlier.attempt > record.attempt:
            earlier, record = record, earlier
        if earlier is not None and earlier.attempt < record.attempt and earlier.outcome is Outcome.BROKEN:
            superseded.append(earlier)
        last[record.cell, record.index] = record
    by_cell: dict[str, list[Record]] = {cell.id: [] for cell in run.cells}
    for key in sorted(last):
        by_cell[key[0]].append(last[key])
    return by_cell, superseded, strangers


def _cell(planned: PlannedCell, records: Sequence[Record], predictions: Mapping[str, Prediction]) -> Cell:
    counts = {outcome.value: sum(r.outcome is outcome for r in records) for outcome in Outcome}
    counting = [r for r in records if r.outcome.counts]
    metrics = {name: _metric(unit, sample(counting, name)) for name, unit in METRICS.items()}
    return Cell.model_validate(
        {
            "id": planned.id,
            "factors": dict(planned.factors),
            "trials": len(records),
            "outcomes": Outcomes(**counts),
            "success_rate": _rate(stats.wilson(counts["direct"], len(counting))),
            "prediction": predictions.get(planned.id),
            "agrees": _agrees(predictions.get(planned.id), counts["direct"], len(counting), len(predictions)),
            **metrics,
        }
    )


def _population(run: Run, cells: Sequence[Cell]) -> Population | None:
    if run.population is None:
        return None
    seen = {cell.id: stats.wilson(cell.outcomes.direct, cell.success_rate.n) for cell in cells}
    predicted = {
        cell: stats.Proportion(p.success_rate, p.low, p.high, stats.CONFIDENCE, p.method, p.n)
        for cell, p in run.predictions.items()
    }
    return summarise_population(run.population, seen, predicted)


def _agrees(prediction: Prediction | None, direct: int, n: int, cells: int) -> bool | None:
    if prediction is None or not n:
        return None
    confidence = 1 - (1 - stats.CONFIDENCE) / cells
    seen = stats.clopper_pearson(direct, n, confidence)
    value, low, high = prediction.success_rate, prediction.success_rate, prediction.success_rate
    if prediction.method == "simulated":
        model = stats.clopper_pearson(round(value * prediction.n), prediction.n, confidence)
        low, high = model.low, model.high
    return low <= seen.high and seen.low <= high


def _metric(unit: str, values: stats.Sample) -> Metric:
    p50, p95 = (_quantile(values.percentile(p)) for p in (0.5, 0.95))
    return Metric.model_validate(
        {"unit": unit, "n": values.n, "censored": len(values.censored), "p50": p50, "p95": p95}
    )


def _quantile(found: stats.Percentile) -> Quantile:
    value, low, high, exceeds = (
        None if v is None else round(v, 9) for v in (found.value, found.low, found.high, found.exceeds)
    )
    return Quantile(value=value, low=low, high=high, exceeds=exceeds)


def _rate(share: stats.Proportion) -> Rate:
    value = None if share.value is None else round(share.value, 6)
    low, high = round(share.low, 6), round(share.high, 6)
    return Rate.model_validate(
        {"value": value, "low": low, "high": high, "confidence": share.confidence, "method": share.method, "n": share.n}
    )


def _expectation(
    expectation: Expectation, cells: Sequence[PlannedCell], by_cell: Mapping[str, Sequence[Record]]
) -> ExpectationResult:
    records = [r for c in cells if selects(expectation.where, c.factors) for r in by_cell[c.id] if r.outcome.counts]
    direct = sum(r.outcome is Outcome.DIRECT for r in records)
    share = stats.clopper_pearson(direct, len(records))
    bounds = _bounds(expectation.success_rate)
    verdict = stats.judge(share, *bounds)
    open_still = verdict is stats.Verdict.INCONCLUSIVE and share.value is not None
    needed = stats.needed_trials(direct / len(records), *bounds) if open_still else None
    return ExpectationResult(text=describe(expectation), verdict=verdict, needed=needed, success_rate=_rate(share))


def _bounds(bound: Bound) -> tuple[float | None, float | None]:
    low, high = (None if ppm is None else ppm / PPM for ppm in (bound.at_least, bound.at_most))
    return low, high


def _about_trials(by_cell: Mapping[str, Sequence[Record]], superseded: Sequence[Record]) -> Iterator[str]:
    """Broken trials one by one, then what records warn of, kind by kind."""
    records = [record for cell in by_cell.values() for record in cell]
    broken = [r for r in records if r.outcome is Outcome.BROKEN]
    yield from map(brief, broken[:LISTED])
    if len(broken) > LISTED:
        yield f"and {len(broken) - LISTED} more broken trials; trials.jsonl has them all"
    for record in superseded:
        yield f"{brief(record)}; tried again"
    unsupported = [r for r in records if r.outcome is Outcome.UNSUPPORTED]
    if unsupported:
        yield f"{len(unsupported)} trials are unsupported, the first: {brief(unsupported[0])}"
    kinds: dict[str, list[tuple[Record, str]]] = defaultdict(list)
    for record in records:
        for kind, text in {warning_kind(w): w for w in record.warnings}.items():
            kinds[kind].append((record, text))
    for kind, found in sorted(kinds.items()):
        first, text = found[0]
        example = f"cell {first.cell}, trial {first.index}" + (f": {text[len(kind) + 2 :]}" if text != kind else "")
        yield f"{kind} in {len(found)} of {len(records)} trials, the first: {example}"


def _about_gates(run: Run, results: Sequence[ExpectationResult]) -> Iterator[str]:
    for expectation, result in zip(run.expect, results, strict=True):
        if not any(selects(expectation.where, cell.factors) for cell in run.cells):
            yield f"expectation {result.text!r} is about no cell of this run"
        elif result.verdict is stats.Verdict.INCONCLUSIVE and result.needed is None and result.success_rate.n:
            yield f"expectation {result.text!r} cannot be told by any number of trials: the rate seen lies on the bound"


def _about_predictions(cells: Sequence[Cell]) -> Iterator[str]:
    for cell in cells:
        if cell.agrees is False and cell.prediction is not None and cell.success_rate.value is not None:
            seen, predicted = (100 * rate for rate in (cell.success_rate.value, cell.prediction.success_rate))
            yield (
                f"cell {cell.id} is not as predicted: {predicted:.3g} % in the model, {seen:.3g} % of "
                f"{cell.success_rate.n} trials here"
            )


def _about_numbers(cells: Sequence[Cell]) -> Iterator[str]:
    """Percentiles that their n cannot bound, once for each percentile: more trials are the mend for all."""
    for p, name in ((0.5, "p50"), (0.95, "p95")):
        enough = stats.smallest_n(p)
        few = [c for c in cells if 0 < c.success_rate.n < enough]
        if few:
            most = max(c.success_rate.n for c in few)
            count = "every cell" if len(few) == len(cells) else f"{len(few)} of {len(cells)} cells"
            yield f"{name} has no bounded interval in {count}: it takes {enough} trials, not {most}"
