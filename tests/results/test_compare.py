"""Two runs beside each other: what is paired, what is refused, what is named, and the laws of the whole."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.comparison.verdicts import Asked, Rule, Verdict
from testbed.errors import ExitStatus, UsageError
from testbed.results.compare import compare
from testbed.results.comparison import ComparisonDocument, MetricComparison, json_schema
from testbed.results.document import Document, Lab
from testbed.results.environment import environment, key, passing_facts
from testbed.results.folder import RESULT, TRIALS
from testbed.results.inputs import Manifest
from testbed.results.record import METRICS, Record
from testbed.results.side import Side, read_side
from testbed.results.summary import summarise
from tests.results.build import fields, record, run

CELLS = fields(nat_a=["eim-eif", "apdm-apdf"], nat_b=["eim-adf"])
FIRST, SECOND = "nat_a=eim-eif,nat_b=eim-adf", "nat_a=apdm-apdf,nat_b=eim-adf"
ENVIRONMENT = {"cpu_model": "a processor", "kernel_release": "6.12.0", "cpus": 2, "testbed": "0.1.0"}

Make = Callable[[str, int, random.Random], dict[str, Any]]


def direct(factor: float = 1.0) -> Make:
    """Every trial is direct, after some 100 ms."""
    return lambda cell, index, dice: {"took": factor * dice.uniform(0.1, 0.12)}


def failing(share: float, deadline: float = 10.0) -> Make:
    """The first so many trials of every cell stay on the relay."""

    def make(cell: str, index: int, dice: random.Random) -> dict[str, Any]:
        if index >= share * 30:
            return direct()(cell, index, dice)
        return {"outcome": "relayed", "censored": {"time_to_traverse": deadline}}

    return make


def side(
    make: Make = direct(),  # noqa: B008
    name: str = "side",
    seed: int = 1,
    cells: Sequence[Mapping[str, Any]] = CELLS,
    trials: int = 30,
    **more: Any,
) -> Side:
    """A run of these cells; trials of the same run's seed have the same seeds."""
    made = run(cells, trials, seed=seed, **{"environment": ENVIRONMENT, **more})
    dice = random.Random(f"{name}{seed}")
    records = [
        record(cell.id, index, **{"seed": 100 * seed + index, **make(cell.id, index, dice)})
        for cell in made.cells
        for index in range(trials)
    ]
    return of(name, summarise(made, records), records)


def of(name: str, document: Document, records: Sequence[Record]) -> Side:
    trials: dict[str, dict[int, Record]] = {cell.id: {} for cell in document.cells}
    for each in records:
        trials[each.cell][each.index] = each
    return Side(name, document, trials)


def row(document: ComparisonDocument, metric: str, cell: str | None = None) -> MetricComparison:
    """Of a cell, or over all cells."""
    rows = document.headline if cell is None else next(c.metrics for c in document.cells if c.id == cell)
    return next(found for found in rows if found.metric == metric)


def verdicts(document: ComparisonDocument) -> list[Verdict | None]:
    return [found.verdict for cell in document.cells for found in cell.metrics]


# ---------------------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("new", "metric", "verdict", "status"),
    [
        # a quarter slower
        (direct(1.25), "time_to_traverse", Verdict.REGRESSED, 1),
        # a quarter faster
        (direct(0.75), "time_to_traverse", Verdict.IMPROVED, 0),
        # a third no longer connects
        (failing(1 / 3), "success_rate", Verdict.REGRESSED, 1),
        # the same again: 30 trials cannot tell 5 points
        (direct(), "success_rate", Verdict.INCONCLUSIVE, 0),
        # round trips of the relay are the same to the digit
        (direct(), "relay_rtt", Verdict.NO_CHANGE, 0),
        # nobody judges how many probes it takes
        (direct(), "probes_sent", None, 0),
    ],
)
def test_verdicts(new: Make, metric: str, verdict: Verdict | None, status: int) -> None:
    found = compare(side(name="base"), side(new, "new"), Asked())
    assert row(found, metric, FIRST).verdict is verdict
    assert row(found, metric).verdict is verdict
    assert found.exit_status() == ExitStatus(status)


def test_every_metric_of_every_cell_is_there_with_its_schema() -> None:
    found = compare(side(), side(failing(0.6)), Asked())
    assert [cell.id for cell in found.cells] == [FIRST, SECOND]
    for rows in (found.headline, *(cell.metrics for cell in found.cells)):
        assert [one.metric for one in rows] == ["success_rate", *METRICS]
    value = json.loads(found.to_json())
    jsonschema.validate(value, json_schema())
    assert ComparisonDocument.model_validate_json(found.to_json(), strict=True) == found


def test_a_median_among_the_censored_leaves_it_to_the_rate() -> None:
    found = compare(side(), side(failing(0.6)), Asked())
    lost = row(found, "time_to_traverse", FIRST)
    assert (lost.verdict, lost.new.value, lost.new.exceeds, lost.new.censored) == (None, None, 10.0, 18)
    assert "it is the success rate that tells" in lost.warnings[0]
    assert row(found, "success_rate", FIRST).verdict is Verdict.REGRESSED


def test_what_is_known_of_fewer_trials_is_marked() -> None:
    """Round trips of direct paths are those of trials that were direct."""
    found = compare(side(), side(failing(1 / 3)), Asked())
    assert row(found, "direct_rtt", FIRST).warnings == ("known of 30 of 30 and 20 of 30 trials: they may not be alike",)


def test_the_rule_point_has_its_price() -> None:
    found = compare(side(name="base"), side(direct(1.15), "new"), Asked(rule=Rule.POINT))
    assert row(found, "time_to_traverse", FIRST).verdict is Verdict.REGRESSED
    prices = [one.false_alarms for cell in found.cells for one in cell.metrics if one.false_alarms is not None]
    assert found.expected_false_alarms == pytest.approx(sum(prices))
    assert compare(side(), side(), Asked()).expected_false_alarms is None


# ---------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    ("base", "new", "test"),
    [
        # one seed: the same trials
        (side(), side(), "mcnemar"),
        # two seeds: trials of their own
        (side(seed=1), side(seed=2), "fisher"),
        # one side ran longer
        (side(), side(trials=40), "fisher"),
    ],
)
def test_what_is_paired(base: Side, new: Side, test: str) -> None:
    found = row(compare(base, new, Asked()), "success_rate", FIRST)
    assert (found.test, found.paired) == (test, test == "mcnemar")


def test_a_pair_that_is_broken_is_no_pair() -> None:
    def one_broken(cell: str, index: int, dice: random.Random) -> dict[str, Any]:
        return {"outcome": "broken"} if index == 3 else direct()(cell, index, dice)

    found = compare(side(), side(one_broken, "new"), Asked())
    assert row(found, "success_rate", FIRST).new.n == 29
    assert row(found, "success_rate", FIRST).paired
    assert "new: 2 trials are broken and count in no number here" in found.warnings


def test_pairs_tell_more() -> None:
    """9 of 60 lost: with the same seeds it is certain, with others it is not."""

    def losing(share: float) -> Make:
        return lambda cell, index, dice: {"outcome": "relayed"} if index < share * 60 else direct()(cell, index, dice)

    cells = CELLS[:1]
    base = side(losing(0.1), "base", trials=60, cells=cells)
    same = compare(base, side(losing(0.25), "new", trials=60, cells=cells), Asked())
    other = compare(base, side(losing(0.25), "new", trials=60, cells=cells, seed=2), Asked())
    assert row(same, "success_rate", FIRST).verdict is Verdict.REGRESSED
    assert row(other, "success_rate", FIRST).verdict is Verdict.INCONCLUSIVE


# ---------------------------------------------------------------------------- what is unlike


def test_another_machine_is_refused_by_name_and_taken_when_asked() -> None:
    there = side(name="there", environment={**ENVIRONMENT, "cpu_model": "another", "cpus": 8})
    netem = side(name="netem", lab=Lab(kernel="host", links="netem", time="real"))
    with pytest.raises(UsageError) as refused:
        compare(side(name="here"), there, Asked())
    assert str(refused.value) == (
        "here and there were not measured alike, so a change may be the machine's:\n"
        "  processor: a processor in the base, another in the new\n"
        "  cores: 2 in the base, 8 in the new\n"
        "measure both on one machine, or compare them all the same with --allow-different-machine"
    )
    with pytest.raises(UsageError, match="links: wire in the base, netem in the new"):
        compare(side(), netem, Asked())
    found = compare(side(name="here"), there, Asked(), allow_different_machine=True)
    assert "not measured alike: cores: 2 in the base, 8 in the new" in found.warnings


def test_what_passes_is_no_part_of_the_key() -> None:
    busy = side(environment={**ENVIRONMENT, "load": [9.0, 9.0, 9.0]})
    assert key(busy.document) == key(side().document)


def test_cells_of_one_side_are_named() -> None:
    found = compare(side(cells=CELLS), side(cells=[*CELLS[1:], {"nat_a": "new"}]), Asked())
    assert ([c.id for c in found.cells], found.only_base, found.only_new) == ([SECOND], (FIRST,), ("nat_a=new",))


def test_runs_without_a_common_cell_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no cell in common.*compare runs of one scenario"):
        compare(side(cells=CELLS[:1]), side(cells=CELLS[1:]), Asked())


def test_mixed_units_are_refused() -> None:
    base = side(name="base")
    cell = base.document.cells[0]
    other = cell.model_copy(update={"relay_rtt": cell.relay_rtt.model_copy(update={"unit": "1"})})
    mixed = base.document.model_copy(update={"cells": (other, *base.document.cells[1:])})
    with pytest.raises(
        UsageError, match=r"new: relay_rtt of cell .* is in '1', and here it is in 's': units are not mixed"
    ):
        compare(base, Side("new", mixed, base.trials), Asked())


def test_two_deadlines_are_compared_at_the_earlier_one() -> None:
    """What took 2 s cannot count as slower than what was given up after 1 s."""

    def make(deadline: float) -> Make:
        def one(cell: str, index: int, dice: random.Random) -> dict[str, Any]:
            took = 0.1 if index < 20 else 2.0
            if took > deadline:
                return {"outcome": "relayed", "censored": {"time_to_traverse": deadline}}
            return {"took": took}

        return one

    found = compare(side(failing(0.1, 10.0)), side(make(1.0), "new"), Asked())
    assert found.warnings[0].startswith("deadlines differ, 1 s and 10 s: ")
    late = row(compare(side(make(1.0)), side(make(10.0), "new"), Asked()), "time_to_traverse", FIRST)
    assert (late.base.censored, late.new.censored, late.p) == (10, 10, 1.0)


def test_other_inputs_are_named_down_to_the_line() -> None:
    manifest = Manifest(run="r", testbed="0.1.0", seed=1)
    base, new = (
        Side(one.name, one.document, one.trials, manifest, {"t.yaml": f"nodes: {{}}\ndelay: {delay}\n"})
        for one, delay in ((side(), "1ms"), (side(), "2ms"))
    )
    found = compare(base, new, Asked())
    assert found.warnings == ("made of other files: t.yaml: line 2: 'delay: 1ms' then, 'delay: 2ms' now",)
    a, b = (Side("s", base.document, base.trials, manifest, {f"{i}.yaml": text for i in range(9)}) for text in "ab")
    assert compare(a, b, Asked()).warnings[-1] == "made of other files: 4 more differ"


def test_two_scenarios_are_named() -> None:
    found = compare(side(), side(scenario="other"), Asked())
    assert found.warnings == (
        "they are runs of two scenarios, 'made_up' and 'other'; cells of one name are taken for the same",
    )


def test_facts_of_this_machine() -> None:
    assert set(environment()) == {"testbed", "kernel_release", "machine", "cpu_model", "cpus", "python", "aioquic"}
    assert set(passing_facts()) == {"os", "memory_bytes", "governor", "load"}


def test_facts_as_the_kernel_tells_them(tmp_path: Path) -> None:
    for name, text in {
        "os-release": 'ID=x\nPRETTY_NAME="An OS 12"\n',
        "meminfo": "MemTotal:       1000 kB\nMemFree: 1 kB\n",
        "loadavg": "0.10 0.20 0.30 1/100 42\n",
        "devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert passing_facts(tmp_path, tmp_path, tmp_path) == {
        "os": "An OS 12", "memory_bytes": 1_024_000, "governor": "performance", "load": [0.1, 0.2, 0.3],
    }  # fmt: skip
    nowhere = tmp_path / "nowhere"
    assert set(passing_facts(nowhere, nowhere, nowhere).values()) == {None}


# ---------------------------------------------------------------------------- laws

MAKERS = st.sampled_from([direct(), direct(1.1), direct(1.5), failing(0.2), failing(0.5), failing(1.0)])
OPPOSITE = {Verdict.REGRESSED: Verdict.IMPROVED, Verdict.IMPROVED: Verdict.REGRESSED}


@given(MAKERS, MAKERS, st.integers(1, 2), st.sampled_from(Rule))
def test_sides_swapped_have_the_opposite_verdicts(base: Make, new: Make, seed: int, rule: Rule) -> None:
    a, b = side(base, "a", trials=12), side(new, "b", seed, trials=12)
    there, back = compare(a, b, Asked(rule=rule)), compare(b, a, Asked(rule=rule))
    assert verdicts(back) == [OPPOSITE.get(v, v) if v is not None else None for v in verdicts(there)]


@given(MAKERS, st.sampled_from(Rule))
def test_nothing_regresses_against_itself(make: Make, rule: Rule) -> None:
    one = side(make, trials=12)
    assert compare(one, one, Asked(rule=rule)).exit_status() is ExitStatus.OK


# ---------------------------------------------------------------------------- folders


def written(folder: Path, one: Side) -> Path:
    folder.mkdir()
    (folder / RESULT).write_bytes(one.document.to_json())
    lines = [found.to_line() for cell in one.trials.values() for found in cell.values()]
    (folder / TRIALS).write_bytes(b"".join(lines))
    return folder


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    one = side(failing(0.2))
    folder = written(tmp_path / "run", one)
    for path in (folder, folder / RESULT, folder / TRIALS):
        found = read_side(path, "side")
        assert (found.document, found.trials) == (one.document, one.trials)


def test_of_several_attempts_the_last_counts(tmp_path: Path) -> None:
    one = side(cells=CELLS[:1], trials=1)
    folder = written(tmp_path / "run", one)
    broken = record(FIRST, 0, "broken", seed=100)
    good = one.trials[FIRST][0].model_copy(update={"attempt": 2})
    (folder / TRIALS).write_bytes(good.to_line() + broken.to_line())
    assert read_side(folder, "side").trials[FIRST][0].attempt == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        # no such folder
        (
            lambda p: [f.unlink() for f in p.iterdir()],
            "is not a results folder: there is no result.json; name a folder",
        ),
        # a run that was killed
        (lambda p: (p / RESULT).unlink(), "has no result.json: its run was cut off; `testbed run SCENARIO --out"),
        # a result of another time
        (
            lambda p: (p / TRIALS).write_bytes(b""),
            "are not of the same trials: cell nat_a=eim-eif,nat_b=eim-adf has 30 of",
        ),
        (lambda p: (p / TRIALS).unlink(), "is not a results folder: cannot read trials.jsonl"),
        (lambda p: (p / TRIALS).write_bytes(b"{}\n"), "trials.jsonl:1: trial records of version None cannot be read"),
        (lambda p: (p / RESULT).write_bytes(b"{}"), "result.json: not a result document: "),
        (lambda p: (p / RESULT).write_bytes(b"\xff"), "result.json: not a result document: "),
    ],
)
def test_a_folder_that_cannot_be_believed(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    folder = written(tmp_path / "run", side())
    spoil(folder)
    with pytest.raises(UsageError) as refused:
        read_side(folder, "run")
    assert message in str(refused.value)
    assert str(folder) in str(refused.value)
