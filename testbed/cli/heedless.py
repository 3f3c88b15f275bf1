"""Standard streams whose reader may go away.

Rule 1: a run that took an hour does not end because the terminal or the pipe that shows its progress did: it goes on
        unwatched, and its exit status is its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TextIO, TypeVar, cast

T = TypeVar("T")


def heedless(file: TextIO) -> TextIO:
    """`file`, for what may be lost: once it cannot be written, it leads nowhere."""
    return cast("TextIO", _Heedless(file))


def silence(file: TextIO) -> None:
    """Let the descriptor of `file` lead nowhere, so that what is still buffered may leave."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


class _Heedless:
    """All of the file, but for how writing fails."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        return self._try(lambda: self._file.write(text)) or len(text)

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except OSError:  # the pipe is closed (EPIPE), the terminal hung up (EIO), the disk behind it is full
            silence(self._file)
            return None
