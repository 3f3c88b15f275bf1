"""Predictions as a table for a person, and as a document: `testbed.prediction/1`.

Rule 1: every rate stands beside how it is known: `exact`, or `simulated` with its n and its interval.
Rule 2: times are medians; one among trials that were not direct is not known, and shown as beyond the deadline.
Rule 3: the document's rates and percentiles read like those of a result (results/document.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.plan.trials import CellPlan
from testbed.sim.prediction import Prediction, Settings, can_play, predict_cell
from testbed.spec.factor_rules import text
from testbed.spec.model import Model
from testbed.stats import Sample

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


def predict(plan: CellPlan, settings: Settings, seed: int, trials: int) -> Predicted:
    """The prediction of a cell."""
    if why := can_play(plan):
        return Predicted(plan.id, plan.factors, None, why)
    found = predict_cell(plan, settings, seed, trials)
    return Predicted(plan.id, plan.factors, found, found.reason)


# ---------------------------------------------------------------------------- for a person


def lines(scenario: str, seed: int, cells: Sequence[Predicted]) -> Iterator[str]:
    """A title, the table, the reasons."""
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


def document(scenario: str, seed: int, cells: Sequence[Predicted]) -> str:
    """The JSON document, with its newline."""
    body = {"schema": SCHEMA, "scenario": scenario, "seed": seed, "cells": [_cell(cell) for cell in cells]}
    return json.dumps(body, indent=1) + "\n"


def _cell(cell: Predicted) -> dict[str, object]:
    factors = {n: v.model_dump(mode="json") if isinstance(v, Model) else v for n, v in cell.factors.items()}
    found: dict[str, object] = {"id": cell.id, "factors": factors, "source": None, "reason": cell.reason}
    if cell.prediction is None:
        return found
    rate = cell.prediction.success_rate
    return found | {
        "source": cell.prediction.source,
        "success_rate": {
            "value": rate.value,
            "low": round(rate.low, 6),
            "high": round(rate.high, 6),
            "confidence": rate.confidence,
            "method": rate.method,
            "n": rate.n,
        },
        "outcomes": dict(cell.prediction.outcomes),
        "time_to_traverse": _metric(cell.prediction.time_to_traverse),
        "candidate_discovery_time": _metric(cell.prediction.candidate_discovery_time),
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
