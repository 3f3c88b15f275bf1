"""A results folder as the pages keep it: its result, its inputs, and of each trial what is summed up, without events.

`python -m tools.slim FROM TO`, where TO is replaced.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from testbed.results.folder import RESULT, TRIALS, read_records
from testbed.results.inputs import INPUTS
from testbed.results.record import Record


def slim(source: Path, target: Path) -> None:
    """Copy the run in `source` to `target`."""
    records, _ = read_records(source, Record.without_events)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / INPUTS, target / INPUTS)
    shutil.copyfile(source / RESULT, target / RESULT)
    (target / TRIALS).write_bytes(b"".join(record.to_line() for record in records))


if __name__ == "__main__":
    slim(*map(Path, sys.argv[1:]))
