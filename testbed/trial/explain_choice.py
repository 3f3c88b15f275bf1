"""Which trial of a results folder is meant.

Rule 1: a word means one trial or is refused, with what there is. CELL:INDEX, FACTOR=VALUE,…:INDEX with as many factors
        as are needed, INDEX alone in a run of one cell; without an index the first trial of the cell that is not
        direct, and without any word the first of the run.
Rule 2: of several attempts at a trial the last one counts, as in the run's own result.
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed.errors import UsageError
from testbed.plan.outcomes import Outcome
from testbed.results.record import Record
from testbed.results.summary import label
from testbed.spec.problems import suggestion

MOST_CANDIDATES = 12


def choose(records: Sequence[Record], word: str | None) -> Record:
    """The trial that `word` means. Raises UsageError."""
    last = {(record.cell, record.index): record for record in sorted(records, key=lambda record: record.attempt)}
    ordered = [last[key] for key in dict.fromkeys((record.cell, record.index) for record in records)]
    if not ordered:
        raise UsageError("there is no trial in this run yet")
    if word is None:
        return _first(ordered)
    cells = list(dict.fromkeys(record.cell for record in ordered))
    named, index = _split(word, cells)
    cell = _cell(ordered, cells, named, word)
    of_cell = [record for record in ordered if record.cell == cell]
    if index is None:
        return _first(of_cell)
    for record in of_cell:
        if record.index == index:
            return record
    numbers = sorted(record.index for record in of_cell)
    span = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    raise UsageError(f"{word}: there is no trial {index} of {cell} (there are {span})")


def _first(records: Sequence[Record]) -> Record:
    return next((record for record in records if record.outcome is not Outcome.DIRECT), records[0])


def _split(word: str, cells: Sequence[str]) -> tuple[str, int | None]:
    """What names the cell, and the index."""
    if word in cells:
        return word, None
    if word.isdecimal():
        return "", int(word)
    named, colon, index = word.rpartition(":")
    if colon and index.isdecimal():
        return named, int(index)
    return word, None


def _cell(records: Sequence[Record], cells: Sequence[str], named: str, word: str) -> str:
    if named in cells:
        return named
    factors = {record.cell: {name: label(value) for name, value in record.factors.items()} for record in records}
    left = list(cells)
    for part in named.split(",") if named else []:
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{word}: {part!r} is not FACTOR=VALUE{_candidates(cells)}")
        known = {own: None for cell in cells for own in factors[cell]}
        if name not in known:
            raise UsageError(f"{word}: no factor is called {name!r}{suggestion(name, known)}")
        values = {own: None for cell in cells if (own := factors[cell].get(name)) is not None}
        if value not in values:
            raise UsageError(f"{word}: {name} is never {value!r}{suggestion(value, values)}")
        left = [cell for cell in left if factors[cell].get(name) == value]
    if len(left) == 1:
        return left[0]
    if not left:
        raise UsageError(f"{word}: no cell is all of that{_candidates(cells)}")
    raise UsageError(f"{word}: this may be {len(left)} cells; add FACTOR=VALUE until one is left{_candidates(left)}")


def _candidates(cells: Sequence[str]) -> str:
    more = f"\n  and {len(cells) - MOST_CANDIDATES} more" if len(cells) > MOST_CANDIDATES else ""
    return "; there are\n" + "\n".join(f"  {cell}" for cell in cells[:MOST_CANDIDATES]) + more
