"""A population in the result document, and as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from testbed.plan.population import Condition
from testbed.report.page import page
from testbed.report.words import ASCII
from testbed.results.document import Document, Prediction
from testbed.results.population import Form, PlannedPopulation
from testbed.results.summary import summarise
from testbed.spec.population import Published
from tests.results.build import record, run

EASY, HARD = "nat_a=eim-eif", "nat_a=apdm-apdf"
FIGURES = (
    Published(name="Somebody", success_rate=700_000, plus_or_minus=71_000, about="pairs elsewhere", source="a paper"),
    Published(name="Another", at_least=800_000, source="a talk"),
)


def certain(rate: float) -> Prediction:
    return Prediction(success_rate=rate, low=rate, high=rate, method="exact", n=1, time_to_traverse=None)


AS_IT_IS = {EASY: certain(1.0), HARD: certain(0.0)}


def made(
    easy: tuple[int, int],
    hard: tuple[int, int],
    form: Form = "weighted",
    predictions: Mapping[str, Prediction] = AS_IT_IS,
    factors: Mapping[str, Any] | None = None,
) -> Document:
    """A run of two cells, three quarters and one quarter of all homes: (direct, trials) of each."""
    population = PlannedPopulation(
        form=form,
        weights={"nat_a": {"eim-eif": 0.75, "apdm-apdf": 0.25}},
        conditions=[Condition(factors or {}, {EASY: 0.75, HARD: 0.25})],
        published=FIGURES,
        leaves_out="all\nother NATs",
    )
    cells = [{"nat_a": "eim-eif"}, {"nat_a": "apdm-apdf"}]
    records = [
        record(cell, number, "direct" if number < direct else "relayed")
        for cell, (direct, trials) in ((EASY, easy), (HARD, hard))
        for number in range(trials)
    ]
    return summarise(run(cells, 20, population=population, predictions=predictions), records)


ROWS = [
    ("weighted, not counted", made((4, 4), (0, 20)), (0.75, 24, "stratified"), True),
    ("sampled, counted", made((15, 15), (0, 5), "sampled"), (0.75, 20, "wilson"), True),
    ("nothing has run", made((0, 0), (0, 0)), (None, 0, "stratified"), None),
    ("a cell has not run: unknown, but for its bounds", made((20, 20), (0, 0)), (None, 20, "stratified"), True),
    ("not as predicted", made((2, 20), (0, 20)), (0.075, 40, "stratified"), False),
    ("not all can be predicted", made((4, 4), (0, 4), predictions={EASY: certain(1.0)}), (0.75, 8, "stratified"), None),
]


@pytest.mark.parametrize(("sentence", "document", "rate", "agrees"), ROWS, ids=[row[0] for row in ROWS])
def test_one_rate_of_all_cells(
    sentence: str, document: Document, rate: tuple[object, ...], agrees: bool | None
) -> None:
    assert document.population is not None
    (condition,) = document.population.conditions
    found = condition.success_rate
    assert (found.value, found.n, found.method) == rate, sentence
    assert found.low <= (0 if found.value is None else found.value) <= found.high or found.value is None
    assert condition.agrees is agrees
    assert (condition.prediction is None) is (sentence == "not all can be predicted")


def test_the_fields_figures_are_there_as_the_file_says_them() -> None:
    found = made((1, 1), (0, 1)).population
    assert found is not None
    assert [(f.name, f.success_rate, f.at_least, f.plus_or_minus) for f in found.published] == [
        ("Somebody", 0.7, None, 0.071),
        ("Another", None, 0.8, None),
    ]
    assert found.weights == {"nat_a": {"eim-eif": 0.75, "apdm-apdf": 0.25}}


def shown(document: Document, **more: Any) -> list[str]:
    said = [line.plain for line in page(document, 100, **more)]
    start = next(index for index, line in enumerate(said) if line.startswith("population"))
    return [*said, ""][start : [*said, ""].index("", start)]


def test_as_a_person_reads_it() -> None:
    assert shown(made((20, 20), (0, 20))) == [
        "population 75.0 % [62.3–87.7] of 2 cells, weighted · predicted 75.0 % [75.0–75.0]",
        "  beside it Somebody 70 % ± 7.1 % (a paper): pairs elsewhere",
        "  beside it Another at least 80 % (a talk)",
        "  left out all other NATs",
    ]
    drawn = shown(made((15, 15), (0, 5), "sampled", {}, {"strategy": "birthday"}), g=ASCII)
    assert drawn[0] == "population strategy birthday: 75.0 % [53.1-88.8] of 20 trials drawn"
    assert drawn[1] == "  beside it Somebody 70 % +/- 7.1 % (a paper): pairs elsewhere"
    assert "does not agree" in shown(made((2, 20), (0, 20)))[0]
