"""What a reader should know of a comparison beside its numbers: what is unlike on the two sides, and what is left out.

Rule 1: a difference is named with both of its sides, down to the line of a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.comparison.verdicts import THRESHOLD
from testbed.errors import UsageError
from testbed.plan.outcomes import Outcome
from testbed.results.inputs import differences
from testbed.results.record import METRICS
from testbed.results.side import Side
from testbed.stats import Sample

LISTED = 5
"""So many differences of inputs are named one by one."""


def check_units(base: Side, new: Side) -> None:
    """Raises UsageError where a metric of one side is not in the unit that it has here."""
    for side in (base, new):
        for cell in side.document.cells:
            for metric, unit in METRICS.items():
                if (found := cell.metric(metric).unit) != unit:
                    raise UsageError(
                        f"{side.name}: {metric} of cell {cell.id} is in {found!r}, and here it is in {unit!r}: "
                        "units are not mixed; measure it again with this version, `testbed run`"
                    )


def about_missing(sides: tuple[Sample, Sample], trials: tuple[int, int]) -> Iterator[str]:
    """Where other shares of the trials have a value, the trials that have one may differ, not the value."""
    known = [side.n / n if n else 0.0 for side, n in zip(sides, trials, strict=True)]
    if all(known) and abs(known[0] - known[1]) > THRESHOLD:
        yield f"known of {sides[0].n} of {trials[0]} and {sides[1].n} of {trials[1]} trials: they may not be alike"


def warnings(base: Side, new: Side, cells: Sequence[str], unlike: Sequence[str], paired: int) -> Iterator[str]:
    """What a reader should know of the comparison as a whole. `paired`: how many of the cells have pairs."""
    yield from (*base.notes, *new.notes)
    yield from (f"not measured alike: {line}" for line in unlike)
    yield from _about_inputs(base, new)
    limits = {r.censored.get("time_to_traverse") for s in (base, new) for c in cells for r in s.counting(c).values()}
    told = sorted(limit for limit in limits if limit is not None)
    if len(told) > 1:
        yield (
            f"deadlines differ, {told[0]:g} s and {told[-1]:g} s: times beyond the earlier one count as censored, and "
            "success rates are of the deadlines as they were"
        )
    for side in (base, new):
        apart = {
            o: sum(r.outcome is o for c in cells for r in side.trials[c].values()) for o in Outcome if not o.counts
        }
        for outcome, count in apart.items():
            if count:
                yield f"{side.name}: {count} trials are {outcome} and count in no number here"
    if 0 < paired < len(cells):
        yield f"{paired} of {len(cells)} cells have the same trials on both sides; in the others success is not paired"


def _about_inputs(base: Side, new: Side) -> Iterator[str]:
    if base.document.scenario != new.document.scenario:
        scenarios = f"{base.document.scenario!r} and {new.document.scenario!r}"
        yield f"they are runs of two scenarios, {scenarios}; cells of one name are taken for the same"
    if base.manifest is None or new.manifest is None:
        return
    made = [
        side.manifest.model_copy(update={"testbed": "", "seed": 0, "settings": {}})
        for side in (base, new)
        if side.manifest is not None
    ]
    found = list(differences(made[0], made[1], base.inputs, new.inputs))
    yield from (f"made of other files: {line}" for line in found[:LISTED])
    if len(found) > LISTED:
        yield f"made of other files: {len(found) - LISTED} more differ"
