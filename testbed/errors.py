"""Every error that this project raises on purpose, and the exit status each one becomes.

Rule 1: an error says what is wrong, where, and what to do next.
Rule 2: an error answers *whose fault*: the user's file (2), this machine (3), or the testbed (4).
Rule 3: a result is not an error. A failed punch is an outcome, a value; it is never raised.

`cli/` is the only place that turns these into an exit status; nothing else calls `sys.exit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitStatus(IntEnum):
    """What the process returns; the first that applies of 130, 2, 3, 4, 1, 0."""

    OK = 0
    MISSED = 1
    USAGE = 2
    MACHINE = 3
    BROKEN = 4
    INTERRUPTED = 130


class TestbedError(Exception):
    """The root of the tree. Subclasses name whose fault it is."""

    __test__ = False  # the name starts with "Test"; pytest must not collect it
    exit_status: ExitStatus = ExitStatus.BROKEN


class UsageError(TestbedError):
    """The caller asked for something that does not exist or does not fit together."""

    exit_status = ExitStatus.USAGE


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong in a file that a person wrote.

    `line` and `column` count from 1, as editors do; 0 means that the file as a whole is meant. An empty `file` means
    a word of the command line.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = self.file if self.line == 0 else f"{self.file}:{self.line}:{self.column}"
        return ": ".join(part for part in (where, self.path, self.message) if part)


class SpecError(UsageError):
    """A file does not say what can be done. Holds all of its problems, in the file's order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


class MachineError(TestbedError):
    """What was asked is more than this machine can do. `mend` is the command that would change that."""

    exit_status = ExitStatus.MACHINE

    def __init__(self, message: str, *, mend: str | None = None) -> None:
        self.mend = mend
        super().__init__(f"{message}\n  to mend it: {mend}" if mend else message)


class BrokenError(TestbedError):
    """A part of the testbed itself died or does not hold what it promised."""

    exit_status = ExitStatus.BROKEN
