"""Records and runs made up for tests."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from testbed.plan.outcomes import Outcome
from testbed.results.document import Lab
from testbed.results.record import Record
from testbed.results.summary import PlannedCell, Run

DEADLINE = 10.0


def record(cell: str = "nat_a=eim-eif", index: int = 0, outcome: str = "direct", **more: Any) -> Record:
    """A trial of this outcome, with the metrics that go with it."""
    took = more.pop("took", 0.1112)
    metrics: dict[str, float | None] = {
        "candidate_discovery_time": 0.0561,
        "time_to_traverse": None,
        "relay_rtt": 0.051,
    }
    censored: dict[str, float] = {}
    if outcome == "direct":
        metrics |= {"time_to_traverse": took, "direct_rtt": 0.052}
    elif outcome in ("relayed", "failed"):
        censored["time_to_traverse"] = DEADLINE
    else:
        metrics = {}
    value = {"cell": cell, "index": index, "seed": 1, "factors": {}, "outcome": Outcome(outcome)}
    return Record.model_validate({**value, "metrics": metrics, "censored": censored, **more})


def run(cells: Sequence[Mapping[str, Any]], trials: int = 30, **more: Any) -> Run:
    """A run of cells with these factors."""
    planned = [PlannedCell(",".join(f"{k}={v}" for k, v in f.items()), dict(f), trials) for f in cells]
    facts: dict[str, Any] = {
        "name": "20261123T120000Z-made_up-1",
        "scenario": "made_up",
        "seed": 1,
        "lab": Lab(kernel="host", links="wire", time="real"),
        "environment": {"kernel": "6.12.0", "cpu": "a processor", "load": [0.1, 0.2, 0.3]},
    }
    return Run(**{**facts, "cells": planned, **more})


def fields(**factors: Sequence[str]) -> list[dict[str, str]]:
    """The product of these factors."""
    return [dict(zip(factors, combination, strict=True)) for combination in product(*factors.values())]


def theory(cell: PlannedCell) -> bool:
    """Whether two plain NATs let each other through: not when one maps by port and the other filters by it."""
    a, b = (str(cell.factors.get(name, "eim-eif")) for name in ("nat_a", "nat_b"))
    return not any(
        one.startswith("apdm") and (other.endswith("apdf") or other.startswith("apdm"))
        for one, other in ((a, b), (b, a))
    )


def played(made_up: Run, seed: int = 1) -> list[Record]:
    """Every trial of a run, as theory has it, with times that vary a little."""
    dice = random.Random(seed)
    return [
        record(
            cell.id,
            index,
            "direct"
            if theory(cell) or (cell.factors.get("strategy") == "birthday" and dice.random() < 0.6)
            else "relayed",
            took=0.1112 + dice.expovariate(200),
        )
        for cell in made_up.cells
        for index in range(cell.trials)
    ]
