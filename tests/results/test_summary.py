"""The document of a run: what is counted, what is judged, what is warned of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import jsonschema  # type: ignore[import-untyped]  # comes with check-jsonschema
import pytest

from testbed.errors import ExitStatus, UsageError
from testbed.results.document import Document, Prediction, json_schema
from testbed.results.record import METRICS, Record
from testbed.results.summary import Run, brief, describe, selects, summarise
from testbed.spec.scenario import Bound, Command, Expectation
from testbed.stats import Verdict, wilson
from tests.results.build import fields, played, record, run

ONE = [{"nat_a": "eim-eif"}]
CELL = "nat_a=eim-eif"


def outcomes(*names: str) -> list[Record]:
    """One trial of each of these outcomes, in the one cell."""
    return [record(CELL, index, name, reason="why" if name == "broken" else None) for index, name in enumerate(names)]


def gate(at_least: int | None = None, at_most: int | None = None, **where: Any) -> Expectation:
    """A gate, its bounds in percent."""
    low, high = (None if percent is None else percent * 10_000 for percent in (at_least, at_most))
    return Expectation(where=where, success_rate=Bound(at_least=low, at_most=high))


def test_the_document_has_the_keys_of_the_design() -> None:
    made = run(fields(nat_a=["apdm-apdf"], nat_b=["eim-eif"]), expect=[gate(80, nat_b="eim-eif")])
    document = json.loads(summarise(made, played(made)).to_json())
    assert list(document) == [
        "schema", "run", "scenario", "seed", "lab", "environment", "events", "cells", "population", "expectations",
        "warnings",
    ]  # fmt: skip
    assert document["schema"] == "testbed.result/1"
    assert document["lab"] == {"kernel": "host", "links": "wire", "time": "real"}
    (cell,) = document["cells"]
    assert list(cell) == ["id", "factors", "trials", "outcomes", "success_rate", "prediction", "agrees", *METRICS]
    assert (cell["prediction"], cell["agrees"]) == (None, None)
    assert cell["outcomes"] == {"direct": 30, "relayed": 0, "failed": 0, "unsupported": 0, "broken": 0}
    assert cell["success_rate"] == {
        "value": 1.0, "low": 0.886487, "high": 1.0, "confidence": 0.95, "method": "wilson", "n": 30,
    }  # fmt: skip
    assert cell["candidate_discovery_time"] == {
        "unit": "s", "n": 30, "censored": 0,
        "p50": {"value": 0.0561, "low": 0.0561, "high": 0.0561},
        "p95": {"value": 0.0561, "low": 0.0561, "high": None},
    }  # fmt: skip
    (expectation,) = document["expectations"]
    assert expectation["text"] == "nat_b=eim-eif: success rate at least 80%"
    assert (expectation["verdict"], expectation["needed"]) == ("met", None)
    assert document["warnings"] == ["p95 has no bounded interval in every cell: it takes 76 trials, not 30"]


def test_a_document_survives_its_text_and_its_schema_knows_it() -> None:
    made = run(fields(nat_a=["eim-eif", "apdm-apdf"], nat_b=["apdm-apdf"]), expect=[gate(50)])
    document = summarise(made, played(made))
    assert Document.from_json(document.to_json()) == document
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    value = json.loads(document.to_json())
    validator.validate(value)
    validator.validate({**value, "prediction": "a key of a later day"})
    for wrong in (
        {**value, "schema": "testbed.result/2"},
        {**value, "seed": -1},
        {k: value[k] for k in ("run", "seed")},
    ):
        assert not validator.is_valid(wrong)
        with pytest.raises(UsageError, match="not a result document"):
            Document.from_json(json.dumps(wrong))


COUNTED: list[tuple[str, Sequence[str], float | None, int]] = [
    ("all direct", ["direct"] * 4, 1.0, 4),
    ("relayed and failed count against it", ["direct", "relayed", "failed", "failed"], 0.25, 4),
    ("unsupported and broken stand apart", ["direct", "unsupported", "broken", "relayed"], 0.5, 2),
    ("when nothing counts there is no rate", ["unsupported", "broken"], None, 0),
    ("nor when nothing ran", [], None, 0),
]


@pytest.mark.parametrize(("names", "value", "n"), [r[1:] for r in COUNTED], ids=[r[0] for r in COUNTED])
def test_what_a_rate_counts(names: Sequence[str], value: float | None, n: int) -> None:
    (cell,) = summarise(run(ONE, len(names)), outcomes(*names)).cells
    assert (cell.success_rate.value, cell.success_rate.n, cell.trials) == (value, n, len(names))


def test_times_that_were_not_reached_are_censored_and_a_broken_trial_has_none() -> None:
    (cell,) = summarise(run(ONE, 4), outcomes("direct", "relayed", "relayed", "broken")).cells
    metric = cell.time_to_traverse
    assert (metric.n, metric.censored) == (3, 2)
    assert metric.p50.value is None
    assert metric.p50.exceeds == 10.0
    assert cell.direct_rtt.n == 1
    assert (cell.connect_time.n, cell.connect_time.p50.value) == (0, None)


def test_of_several_attempts_the_last_counts_and_the_broken_one_is_told() -> None:
    made = run(ONE, 1)
    first, second = record(CELL, 0, "broken", reason="the wire died"), record(CELL, 0, "direct", attempt=2)
    for order in ([first, second], [second, first]):
        document = summarise(made, order)
        assert document.cells[0].outcomes.direct == 1
        assert document.cells[0].trials == 1
        assert document.warnings[0] == f"cell {CELL}, trial 0: broken: the wire died; tried again"
        assert document.exit_status() is ExitStatus.OK


def test_what_is_not_of_the_plan_does_not_count_and_is_told() -> None:
    document = summarise(run(ONE, 1), [record(CELL, 0), record(CELL, 1), record("elsewhere", 0)])
    assert document.cells[0].trials == 1
    assert "2 records are of trials that this plan does not hold; they do not count" in document.warnings


WARNED: list[tuple[str, int, list[Record], str]] = [
    ("a broken trial, with its reason", 1, [record(CELL, 0, "broken", reason="wire process died (signal 9)")],
     f"cell {CELL}, trial 0: broken: wire process died (signal 9)"),
    ("many broken trials are listed up to a point", 13, outcomes(*["broken"] * 13),
     "and 3 more broken trials; trials.jsonl has them all"),
    ("what could not be tried", 2, [record(CELL, i, "unsupported", reason="no IPv4") for i in range(2)],
     f"2 trials are unsupported, the first: cell {CELL}, trial 0: unsupported: no IPv4"),
    ("a late event loop", 2, [record(CELL, 0), record(CELL, 1, warnings=("late_event_loop: 12 ms",))],
     f"late_event_loop in 1 of 2 trials, the first: cell {CELL}, trial 1: 12 ms"),
    ("drops of captures, once for a trial", 1, [record(CELL, 0, warnings=("capture_drops: 1", "capture_drops: 2"))],
     f"capture_drops in 1 of 1 trials, the first: cell {CELL}, trial 0: 2"),
    ("a note without detail", 1, [record(CELL, 0, warnings=("ends_disagree",))],
     f"ends_disagree in 1 of 1 trials, the first: cell {CELL}, trial 0"),
    ("trials that have not run", 3, [record(CELL, 0)], "2 of 3 trials have not run"),
    ("a median without bounds", 5, outcomes(*["direct"] * 5),
     "p50 has no bounded interval in every cell: it takes 6 trials, not 5"),
]  # fmt: skip


@pytest.mark.parametrize(("trials", "records", "warning"), [r[1:] for r in WARNED], ids=[r[0] for r in WARNED])
def test_warnings(trials: int, records: list[Record], warning: str) -> None:
    assert warning in summarise(run(ONE, trials), records).warnings


def test_enough_trials_carry_no_warning() -> None:
    made = run(ONE, 76)
    document = summarise(made, played(made))
    assert document.warnings == ()
    assert document.cells[0].time_to_traverse.p95.high is not None


def test_notes_of_the_run_come_first() -> None:
    assert summarise(run(ONE, 1, notes=["torn"]), outcomes("broken")).warnings[0] == "torn"


JUDGED: list[tuple[str, int, int, Expectation, Verdict, int | None]] = [
    ("30 of 30 proves 88 %", 30, 30, gate(88), Verdict.MET, None),
    ("30 of 30 does not prove 95 %: 72 would", 30, 30, gate(95), Verdict.INCONCLUSIVE, 72),
    ("10 of 30 is not 80 %", 10, 30, gate(80), Verdict.MISSED, None),
    ("at most", 0, 30, gate(None, 20), Verdict.MET, None),
    ("between", 15, 30, gate(20, 80), Verdict.MET, None),
    ("100 % is never proved", 30, 30, gate(100), Verdict.INCONCLUSIVE, None),
    ("another cell is not this one's business", 30, 30, gate(80, nat_a="other"), Verdict.INCONCLUSIVE, None),
]


@pytest.mark.parametrize(
    ("direct", "trials", "expectation", "verdict", "needed"), [r[1:] for r in JUDGED], ids=[r[0] for r in JUDGED]
)
def test_expectations(direct: int, trials: int, expectation: Expectation, verdict: Verdict, needed: int | None) -> None:
    records = outcomes(*["direct"] * direct, *["relayed"] * (trials - direct))
    document = summarise(run(ONE, trials, expect=[expectation]), records)
    (result,) = document.expectations
    assert (result.verdict, result.needed) == (verdict, needed)
    assert result.success_rate.method == "clopper-pearson"


@pytest.mark.parametrize(
    ("expectation", "warning"),
    [
        pytest.param(
            gate(100), "'all cells: success rate at least 100%' cannot be told by any number", id="on its bound"
        ),
        pytest.param(gate(80, nat_b="x"), "'nat_b=x: success rate at least 80%' is about no cell", id="about nothing"),
    ],
)
def test_expectations_that_cannot_be_told_are_warned_of(expectation: Expectation, warning: str) -> None:
    document = summarise(run(ONE, 6, expect=[expectation]), outcomes(*["direct"] * 6))
    assert any(warning in text for text in document.warnings)


def test_an_expectation_pools_the_cells_it_selects() -> None:
    made = run(
        fields(nat_a=["eim-eif", "apdm-apdf"], nat_b=["eim-eif", "apdm-apdf"]), 10, expect=[gate(50, nat_b="apdm-apdf")]
    )
    (result,) = summarise(made, played(made)).expectations
    assert (result.success_rate.n, result.success_rate.value) == (20, 0.5)


PROGRAM = Command(command=("./mine", "--fast"))


@pytest.mark.parametrize(
    ("where", "factors", "selected"),
    [
        pytest.param({}, {"nat_a": "x"}, True, id="nothing asked, all meant"),
        pytest.param({"nat_a": "x"}, {"nat_a": "x", "nat_b": "y"}, True, id="one of two"),
        pytest.param({"nat_a": "y"}, {"nat_a": "x"}, False, id="another value"),
        pytest.param({"nat_b": "y"}, {"nat_a": "x"}, False, id="a factor that the cell does not have"),
        pytest.param({"agent": PROGRAM}, {"agent": {"command": ["./mine", "--fast"]}}, True, id="a program"),
    ],
)
def test_which_cells_are_meant(where: dict[str, Any], factors: dict[str, Any], selected: bool) -> None:
    assert selects(where, factors) is selected


@pytest.mark.parametrize(
    ("expectation", "text"),
    [
        pytest.param(gate(80), "all cells: success rate at least 80%", id="all"),
        pytest.param(
            gate(20, 80, a="x", b="y"), "a=x, b=y: success rate at least 20% and at most 80%", id="both sides"
        ),
        pytest.param(gate(1, agent=PROGRAM), "agent=./mine --fast: success rate at least 1%", id="a program"),
    ],
)
def test_expectations_in_words(expectation: Expectation, text: str) -> None:
    assert describe(expectation) == text


def test_a_trial_in_one_line() -> None:
    assert brief(record("a=b", 7, "direct")) == "cell a=b, trial 7: direct"
    second = record("a=b", 7, "broken", reason="an agent died", attempt=2)
    assert brief(second) == "cell a=b, trial 7 (attempt 2): broken: an agent died"


STATUS: list[tuple[str, list[str], list[Expectation], ExitStatus]] = [
    ("all is well", ["direct"] * 6, [gate(10)], ExitStatus.OK),
    ("failed punches are results", ["failed"] * 6, [], ExitStatus.OK),
    ("inconclusive is not missed", ["direct"] * 6, [gate(99)], ExitStatus.OK),
    ("a missed gate", ["failed"] * 6, [gate(90)], ExitStatus.MISSED),
    ("broken is worse than missed", ["failed"] * 6 + ["broken"], [gate(90)], ExitStatus.BROKEN),
    ("one broken trial is enough", ["direct"] * 6 + ["broken"], [], ExitStatus.BROKEN),
]


@pytest.mark.parametrize(("names", "expect", "status"), [r[1:] for r in STATUS], ids=[r[0] for r in STATUS])
def test_exit_status(names: list[str], expect: list[Expectation], status: ExitStatus) -> None:
    made: Run = run(ONE, len(names), expect=expect)
    assert summarise(made, outcomes(*names)).exit_status() is status


def predicted(direct: int, n: int, *, exact: bool = False) -> Prediction:
    """A prediction of so many direct trials of `n`."""
    rate = direct / n
    low, high = (rate, rate) if exact else (wilson(direct, n).low, wilson(direct, n).high)
    method: Literal["exact", "simulated"] = "exact" if exact else "simulated"
    return Prediction(success_rate=rate, low=low, high=high, method=method, n=n, time_to_traverse=0.1)


PREDICTIONS: list[tuple[str, int, int, Prediction, int, bool | None]] = [
    ("all direct, as must be", 30, 30, predicted(1, 1, exact=True), 1, True),
    ("a single failure refutes what cannot fail", 29, 30, predicted(1, 1, exact=True), 1, False),
    ("none at all refutes what must be", 0, 30, predicted(1, 1, exact=True), 1, False),
    ("what chance decides has two intervals, which meet", 24, 30, predicted(180, 200), 1, True),
    ("or do not", 12, 30, predicted(180, 200), 1, False),
    ("a cell alone may not stray so far", 19, 30, predicted(180, 200), 1, False),
    ("as one among eighty-one may", 19, 30, predicted(180, 200), 81, True),
    ("without trials there is nothing to compare", 0, 0, predicted(1, 1, exact=True), 1, None),
]


@pytest.mark.parametrize(
    ("sentence", "direct", "n", "prediction", "cells", "agrees"), PREDICTIONS, ids=[row[0] for row in PREDICTIONS]
)
def test_agreement_with_a_prediction(
    sentence: str, direct: int, n: int, prediction: Prediction, cells: int, agrees: bool | None
) -> None:
    made = run(fields(nat_a=[f"kind-{number}" for number in range(cells)]), trials=n)
    predictions = {cell.id: prediction for cell in made.cells}
    first = made.cells[0].id
    records = [record(first, index, "direct" if index < direct else "relayed") for index in range(n)]
    document = summarise(replace(made, predictions=predictions), records)
    assert document.cells[0].agrees is agrees, sentence
    told = [text for text in document.warnings if "not as predicted" in text]
    assert bool(told) is (agrees is False), sentence
