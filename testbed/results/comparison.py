"""The comparison of two runs, `testbed.comparison/1`: what `testbed compare --json` prints.

Rule 1: this file is the format. The models are the grammar, and the JSON Schema is generated from them.
Rule 2: keys may be added within a version; none changes its meaning or goes away.
Rule 3: a number stands beside its n, its interval and its method; what is not known is null.

`results/compare.py` makes documents, `report/comparison.py` shows them, `testbed/comparison/` holds the statistics.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, ConfigDict, Field, JsonValue, NonNegativeInt

from testbed.comparison.effects import Kind
from testbed.comparison.verdicts import Better, Rule, Verdict
from testbed.errors import ExitStatus
from testbed.results.document import Lab, open_schema
from testbed.spec.model import Model

SCHEMA: Literal["testbed.comparison/1"] = "testbed.comparison/1"
SUCCESS_RATE = "success_rate"

Number = Annotated[float, AllowInfNan(False)]
Share = Annotated[float, AllowInfNan(False), Field(ge=0, le=1)]


class Value(Model):
    """What one side shows: the share of its trials, or their median."""

    value: Number | None
    """Null where it falls among censored values, or where there are no values."""
    low: Number | None
    high: Number | None
    """The interval; an end is null where the trials leave it open."""
    exceeds: Number | None = None
    """What a median among censored values is known to exceed."""
    n: NonNegativeInt
    """Trials that have a value, the censored ones too."""
    censored: NonNegativeInt = 0
    """How many of them are known only to exceed a limit."""


class Change(Model):
    """How far the new side is from the base."""

    kind: Kind
    """`ratio`: new / base, of medians. `difference`: new - base, of shares."""
    value: Number | None
    low: Number | None
    high: Number | None
    confidence: Share
    method: str


class MetricComparison(Model):
    """One metric on both sides."""

    metric: str
    unit: Literal["s", "1"]
    better: Better
    """Which direction is the better one; `neither` is shown, not judged."""
    base: Value
    new: Value
    change: Change
    test: str
    paired: bool
    """Whether trials of the same seed were compared pair by pair."""
    p: Share | None
    """Of the test; null where there is nothing to test."""
    p_adjusted: Share | None
    """After Benjamini and Hochberg, in the family of all that is judged: of cells, or over all cells."""
    verdict: Verdict | None
    """Null where it is not judged."""
    needed: NonNegativeInt | None
    """Where inconclusive: an estimate of the trials a side that would tell; null where that cannot be said."""
    false_alarms: Share | None = None
    """Under the rule `point`: how often it would call a change in so many trials, had nothing changed."""
    warnings: tuple[str, ...] = ()


class ComparedCell(Model):
    """A cell that both sides have."""

    id: str
    factors: dict[str, JsonValue]
    metrics: tuple[MetricComparison, ...]


class ComparedRun(Model):
    """A side."""

    name: str
    """As it was called on the command line: a baseline's name or a path."""
    run: str
    scenario: str
    seed: NonNegativeInt
    lab: Lab
    environment: dict[str, JsonValue]


class ComparisonDocument(Model):
    """Two runs beside each other."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["testbed.comparison/1"] = Field(alias="schema")
    base: ComparedRun
    new: ComparedRun
    rule: Rule
    threshold: Share
    """The smallest change that matters: of a ratio, or of a difference of shares."""
    false_discovery_rate: Share
    verdict: Verdict
    """The worst that is known: `regressed` where anything is, else `improved` where anything is."""
    headline: tuple[MetricComparison, ...]
    """Each metric over all cells that both sides have, compared within each of them."""
    cells: tuple[ComparedCell, ...]
    only_base: tuple[str, ...]
    """Cells that the new side has not."""
    only_new: tuple[str, ...]
    expected_false_alarms: Number | None = None
    """Under the rule `point`: how many of the cells' verdicts would be changes, had nothing changed."""
    warnings: tuple[str, ...]

    def to_json(self) -> bytes:
        """The document as text, with its newline."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    def exit_status(self) -> ExitStatus:
        """1 where anything has regressed, else 0."""
        return ExitStatus.MISSED if self.verdict is Verdict.REGRESSED else ExitStatus.OK


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the document, for programs that read it: they must let keys be added (rule 2)."""
    return open_schema(ComparisonDocument)
