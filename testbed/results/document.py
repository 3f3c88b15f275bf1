"""The result document, `testbed.result/1`: what a run gave, as `--json` prints it and `result.json` keeps it.

Rule 1: this file is the format. The models are the grammar, and the JSON Schema is generated from them.
Rule 2: keys may be added within a version; none changes its meaning or goes away.
Rule 3: a number stands beside its n, its interval and its method; what is not known is null.

`results/summary.py` makes documents from records, `report/` shows them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AllowInfNan,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from testbed.errors import ExitStatus, UsageError
from testbed.plan.outcomes import Outcome
from testbed.results.population import Population
from testbed.results.record import METRICS
from testbed.spec.model import Model
from testbed.stats import Verdict

SCHEMA: Literal["testbed.result/1"] = "testbed.result/1"

Number = Annotated[float, AllowInfNan(False)]
Share = Annotated[float, AllowInfNan(False), Field(ge=0, le=1)]


class Rate(Model):
    """A share of trials with its interval."""

    value: Share | None
    """Null where no trial counted."""
    low: Share
    high: Share
    confidence: Share
    method: Literal["wilson", "clopper-pearson"]
    n: NonNegativeInt


class Quantile(Model):
    """A percentile with its interval of order statistics, at a confidence of at least 95 %."""

    value: Number | None
    """Null where it falls among censored values, or where there are no values."""
    low: Number | None
    """Null where n is too small to bound this side."""
    high: Number | None
    """Null where n is too small to bound this side, or where it falls among censored values."""
    exceeds: Number | None = None
    """What the percentile is known to exceed; there only where it falls among censored values."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_said(self, inner: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = inner(self)
        return written if self.exceeds is not None else {k: v for k, v in written.items() if k != "exceeds"}


class Metric(Model):
    """One metric over the trials of a cell that count."""

    unit: Literal["s", "1"]
    n: NonNegativeInt
    """Values, the censored ones too."""
    censored: NonNegativeInt
    """How many of them are known only to exceed a limit."""
    p50: Quantile
    p95: Quantile


class Outcomes(Model):
    """How many trials came out in which way."""

    direct: NonNegativeInt
    relayed: NonNegativeInt
    failed: NonNegativeInt
    unsupported: NonNegativeInt
    broken: NonNegativeInt


class Prediction(Model):
    """What the model says of a cell, before any network is made."""

    success_rate: Share
    low: Share
    high: Share
    """Both are `success_rate` itself where no die can change the outcome."""
    source: Literal["model"] = "model"
    method: Literal["exact", "simulated"]
    n: NonNegativeInt
    """How many trials were played in the model."""
    time_to_traverse: Number | None
    """The median, in seconds; null where it lies beyond the deadline."""


class Cell(Model):
    """One combination of factors, and all of its trials."""

    id: str
    factors: dict[str, JsonValue]
    trials: NonNegativeInt
    """How many have finished, in whichever way."""
    outcomes: Outcomes
    success_rate: Rate
    """direct / (direct + relayed + failed)."""
    prediction: Prediction | None = None
    """Null where the model cannot play the cell: an external program, a run that was interrupted."""
    agrees: bool | None = None
    """Whether the rate is what is predicted, by intervals that hold for all cells of the run together at 95 %."""
    candidate_discovery_time: Metric
    time_to_traverse: Metric
    connect_time: Metric
    relay_rtt: Metric
    direct_rtt: Metric
    probes_sent: Metric
    attempts: Metric

    def metric(self, name: str) -> Metric:
        """The metric of this name (see `METRICS`)."""
        found = getattr(self, name)
        assert isinstance(found, Metric)
        return found


class ExpectationResult(Model):
    """What the trials say about one gate of the scenario."""

    text: str
    verdict: Verdict
    needed: int | None
    """Where inconclusive: how many trials would tell, at the rate seen; null where no number of them would."""
    success_rate: Rate
    """Of the cells that it selects, pooled; the interval is the one that judges."""


class Lab(Model):
    """What the networks were made with."""

    kernel: Literal["host", "own"]
    links: Literal["netem", "wire"]
    time: Literal["real", "virtual"]


class ScenarioEvent(Model):
    """What the scenario lets happen in every trial; when it was done stands in each trial's record."""

    at: Number
    """Seconds from the start of both ends."""
    what: str


class Document(Model):
    """A whole run."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["testbed.result/1"] = Field(alias="schema")
    run: str
    scenario: str
    seed: NonNegativeInt
    lab: Lab
    environment: dict[str, JsonValue]
    events: tuple[ScenarioEvent, ...] = ()
    cells: tuple[Cell, ...]
    population: Population | None = None
    """Of all cells together, where the scenario says how common each profile is."""
    expectations: tuple[ExpectationResult, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> bytes:
        """The document as text, with its newline."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes | str) -> Document:
        """The inverse. Raises UsageError."""
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UsageError(f"not a result document: {where or 'the whole'}: {first['msg']}") from None

    def exit_status(self) -> ExitStatus:
        """4 where a trial is broken, else 1 where an expectation is missed, else 0."""
        if any(cell.outcomes.broken for cell in self.cells):
            return ExitStatus.BROKEN
        if any(e.verdict is Verdict.MISSED for e in self.expectations):
            return ExitStatus.MISSED
        return ExitStatus.OK


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the document, for programs that read it: they must let keys be added (rule 2)."""
    return open_schema(Document)


def open_schema(model: type[Model]) -> dict[str, Any]:
    """The JSON Schema of a document that may have further keys."""
    schema = _open(model.model_json_schema(by_alias=True))
    assert isinstance(schema, dict)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _open(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _open(v) for k, v in schema.items() if not (k == "additionalProperties" and v is False)}
    return [_open(item) for item in schema] if isinstance(schema, list) else schema


assert set(METRICS) < set(Cell.model_fields), "every metric of a record has its place in a cell"
assert [o.value for o in Outcome] == list(Outcomes.model_fields), "every outcome is counted"
