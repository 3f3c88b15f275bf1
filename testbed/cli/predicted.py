"""Predictions as a table for a person, and as a document: `testbed.prediction/1`.

Rule 1: every rate stands beside how it is known: `exact`, or `simulated` with its n and its interval.
Rule 2: times are medians; one among trials that were not direct is not known, and shown as beyond the deadline.
Rule 3: the document's rates and percentiles read like those of a result (results/document.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from testbed.plan.population import Condition, rate
from testbed.plan.trials import CellPlan, TrialSettings
from testbed.sim.prediction import Prediction, can_play, predict_cell
from testbed.spec.factor_rules import text
from testbed.spec.model import CONTEXT_WRITTEN, Model
from testbed.spec.population import shares
from testbed.spec.scenario import Scenario
from testbed.stats import Proportion, Sample

SCHEMA = "testbed.prediction/1"
NOTHING = "-"
GAP = "  "


@dataclass(frozen=True, slots=True)
class Predicted:
    """A cell and its prediction, or why there is none."""

    id: str
    factors: Mapping[str, Any]
    prediction: Prediction | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Mixed:
    """A population, to be predicted as a whole."""

    scenario: Scenario
    conditions: Sequence[Condition]
    sampled: Mapping[str, int] | None
    """How many trials were drawn of each cell; None where cells are weighted."""


def predict(plan: CellPlan, settings: TrialSettings, seed: int, trials: int) -> Predicted:
    """The prediction of a cell."""
    if why := can_play(plan):
        return Predicted(plan.id, plan.factors, None, why)
    found = predict_cell(plan, settings, seed, trials)
    return Predicted(plan.id, plan.factors, found, found.reason)


# ---------------------------------------------------------------------------- for a person


def lines(scenario: str, seed: int, cells: Sequence[Predicted], mix: Mixed | None = None) -> Iterator[str]:
    """A title, the table, the reasons; of a population what all of it says."""
    yield f"{scenario}: {len(cells)} {'cell' if len(cells) == 1 else 'cells'}, seed {seed}, predicted"
    yield ""
    names = list(dict.fromkeys(name for cell in cells for name in cell.factors))
    head = [*names, "success", "interval", "traversal, ms", "discovery, ms", "source"]
    rows = [[*(text(cell.factors[n]) if n in cell.factors else NOTHING for n in names), *_row(cell)] for cell in cells]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield GAP.join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    certain = [cell for cell in cells if cell.prediction and cell.prediction.success_rate.value == 1]
    yield f"{len(certain)} of {len(cells)} cells connect every time"
    for why in dict.fromkeys(cell.reason for cell in cells if cell.prediction is None and cell.reason):
        yield f"not predicted: {why}"
    if mix is not None:
        yield ""
        yield from _population_lines(mix, cells)


def _population_lines(mix: Mixed, cells: Sequence[Predicted]) -> Iterator[str]:
    for condition in mix.conditions:
        found = _rate_of(mix, condition, cells)
        where = ", ".join(f"{name}={text(value)}" for name, value in condition.factors.items())
        of = f"{len(condition.weights)} weighted cells" if mix.sampled is None else f"{found.n} trials drawn"
        head = f"population, {where}" if where else "population"
        if found.value is None:
            yield f"{head}: not predicted"
        else:
            yield f"{head}: {_percent(found.value)} of {of} [{_percent(found.low)}-{_percent(found.high)}]"
    for figure in mix.scenario.published:
        yield f"  beside it: {figure.text} ({figure.source})" + (f": {figure.about}" if figure.about else "")
    if mix.scenario.leaves_out:
        yield f"  left out: {' '.join(mix.scenario.leaves_out.split())}"


def _rate_of(mix: Mixed, condition: Condition, cells: Sequence[Predicted]) -> Proportion:
    """What the model says of a condition: exact cells have the value alone; in a sample each drawn trial counts."""
    shares = {cell.id: cell.prediction.success_rate for cell in cells if cell.prediction is not None}
    if mix.sampled is None:
        return rate(condition, shares, is_sampled=False)
    drawn = {name: replace(share, n=mix.sampled[name]) for name, share in shares.items()}
    return rate(condition, drawn, is_sampled=True)


def _row(cell: Predicted) -> list[str]:
    if cell.prediction is None:
        return [NOTHING] * 5
    rate = cell.prediction.success_rate
    is_exact = cell.prediction.source == "exact"
    return [
        _percent(rate.value),
        NOTHING if is_exact else f"{_percent(rate.low)}-{_percent(rate.high)}",
        _median(cell.prediction.time_to_traverse),
        _median(cell.prediction.candidate_discovery_time),
        "exact" if is_exact else f"simulated, n = {rate.n}",
    ]


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f}".removesuffix(".0") + "%"


def _median(sample: Sample) -> str:
    found = sample.percentile(0.5)
    if found.value is None:
        return NOTHING if found.exceeds is None else f"> {1000 * found.exceeds:.0f}"
    return f"{1000 * found.value:.1f}"


# ---------------------------------------------------------------------------- for a program


def document(scenario: str, seed: int, cells: Sequence[Predicted], mix: Mixed | None = None) -> str:
    """The JSON document, with its newline."""
    body: dict[str, object] = {"schema": SCHEMA, "scenario": scenario, "seed": seed}
    body["cells"] = [_cell(cell) for cell in cells]
    if mix is not None:
        body["population"] = _population(mix, cells)
    return json.dumps(body, indent=1) + "\n"


def _cell(cell: Predicted) -> dict[str, object]:
    factors = {n: v.model_dump(mode="json") if isinstance(v, Model) else v for n, v in cell.factors.items()}
    found: dict[str, object] = {"id": cell.id, "factors": factors, "source": None, "reason": cell.reason}
    if cell.prediction is None:
        return found
    return found | {
        "source": cell.prediction.source,
        "success_rate": _share(cell.prediction.success_rate),
        "outcomes": dict(cell.prediction.outcomes),
        "time_to_traverse": _metric(cell.prediction.time_to_traverse),
        "candidate_discovery_time": _metric(cell.prediction.candidate_discovery_time),
    }


def _share(share: Proportion) -> dict[str, object]:
    return {
        "value": share.value,
        "low": round(share.low, 6),
        "high": round(share.high, 6),
        "confidence": share.confidence,
        "method": share.method,
        "n": share.n,
    }


def _population(mix: Mixed, cells: Sequence[Predicted]) -> dict[str, object]:
    return {
        "form": "weighted" if mix.sampled is None else "sampled",
        "weights": shares(mix.scenario.population),
        "conditions": [
            {
                "factors": {name: text(value) for name, value in condition.factors.items()},
                "cells": len(condition.weights),
                "success_rate": _share(_rate_of(mix, condition, cells)),
            }
            for condition in mix.conditions
        ],
        "published": [figure.model_dump(mode="json", context=CONTEXT_WRITTEN) for figure in mix.scenario.published],
        "leaves_out": mix.scenario.leaves_out,
    }


def _metric(sample: Sample) -> dict[str, object]:
    return {
        "unit": "s",
        "n": sample.n,
        "censored": len(sample.censored),
        "p50": _quantile(sample, 0.5),
        "p95": _quantile(sample, 0.95),
    }


def _quantile(sample: Sample, p: float) -> dict[str, float | None]:
    found = sample.percentile(p)
    values = {"value": found.value, "low": found.low, "high": found.high}
    if found.exceeds is not None:
        values["exceeds"] = found.exceeds
    return {name: None if value is None else round(value, 9) for name, value in values.items()}
