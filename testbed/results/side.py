"""One side of a comparison: the trials of a run, read from its folder, as far as a comparison needs them.

Rule 1: the document says what the run was, the records what came of it. Where the two are not of the same trials,
        neither is believed.
Rule 2: of a trial with several attempts the last one counts, and of those that count in no rate only their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from testbed.errors import UsageError
from testbed.plan.outcomes import Outcome
from testbed.results.document import Document
from testbed.results.folder import RESULT, TRIALS, read_records
from testbed.results.inputs import INPUTS, Manifest, read_inputs
from testbed.results.record import Record


@dataclass(frozen=True)
class Side:
    """A run and its trials."""

    name: str
    """As the caller wrote it."""
    document: Document
    trials: Mapping[str, Mapping[int, Record]]
    """By cell and index, those that have finished, in whichever way."""
    manifest: Manifest | None = None
    """What the run was made of; None where its inputs were not kept."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def counting(self, cell: str) -> dict[int, Record]:
        """The trials of a cell that enter its rate."""
        return {index: record for index, record in self.trials[cell].items() if record.outcome.counts}


def read_side(path: Path, name: str) -> Side:
    """The run in a results folder, or in the folder of its `result.json` or `trials.jsonl`. Raises UsageError."""
    folder = path.parent if path.name in (RESULT, TRIALS) and not path.is_dir() else path
    document = _document(folder)
    records, notes = read_records(folder, Record.without_events)
    trials: dict[str, dict[int, Record]] = {cell.id: {} for cell in document.cells}
    for record in records:
        before = trials.get(record.cell, {}).get(record.index)
        if record.cell in trials and (before is None or before.attempt <= record.attempt):
            trials[record.cell][record.index] = record
    _check(folder, document, trials)
    manifest, inputs = read_inputs(folder) if (folder / INPUTS).is_dir() else (None, {})
    return Side(name, document, trials, manifest, inputs, tuple(f"{name}: {note}" for note in notes))


def _document(folder: Path) -> Document:
    path = folder / RESULT
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name the folder of a run, or a baseline (`testbed baseline list`)")
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if (folder / TRIALS).exists():
            resume = f"`testbed run SCENARIO --out {folder} --resume` finishes it"
            raise UsageError(f"{folder} has no {RESULT}: its run was cut off; {resume}") from None
        raise UsageError(
            f"{folder} is not a results folder: there is no {RESULT}; name a folder that `testbed run` has made, "
            "or a baseline (`testbed baseline list`)"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        return Document.from_json(text)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _check(folder: Path, document: Document, trials: Mapping[str, Mapping[int, Record]]) -> None:
    """Raises UsageError where the records are not those that the document sums up."""
    for cell in document.cells:
        found = trials[cell.id].values()
        direct = sum(record.outcome is Outcome.DIRECT for record in found)
        if (len(found), direct) != (cell.trials, cell.outcomes.direct):
            raise UsageError(
                f"{folder}: {RESULT} and {TRIALS} are not of the same trials: cell {cell.id} has "
                f"{cell.outcomes.direct} of {cell.trials} direct in the one, {direct} of {len(found)} in the other; "
                "`testbed run SCENARIO --out DIR --resume` writes the result again"
            )
