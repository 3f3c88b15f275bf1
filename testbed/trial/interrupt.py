"""An interrupt as something to wait for.

Rule 1: SIGINT, SIGTERM and SIGHUP mean the same: stop, and keep what is done. Those that our caller has told us to
        ignore stay ignored (`nohup`, and `command &` in a script, mean it).
Rule 2: outside of `Interrupt` they raise KeyboardInterrupt, once `raise_for_all` was called. Inside they are only
        noted, and whoever waits looks: so none can come between a trial's end and its line in the file.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heeded() -> tuple[signal.Signals, ...]:
    """Those of `SIGNALS` that our caller has not told us to ignore."""
    return tuple(number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)


def raise_for_all() -> None:
    """Let each of them raise KeyboardInterrupt from now on."""
    for number in heeded():
        signal.signal(number, signal.default_int_handler)


def leave_to_parent() -> None:
    """In a forked worker: a terminal and a service manager send them to all, but the parent says what they mean.

    Ctrl-Z stops the parent alone: a trial that stood still for a while would look like a punch that failed.
    """
    signal.set_wakeup_fd(-1)
    for number in (*SIGNALS, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)


class Interrupt:
    """A context in which an interrupt makes `fileno` readable and does nothing else."""

    def __init__(self) -> None:
        self._ours, self._kernels = socket.socketpair()
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def fileno(self) -> int:
        """Readable once there was an interrupt; for good."""
        return self._ours.fileno()

    def __enter__(self) -> Self:
        self._kernels.setblocking(False)
        signal.set_wakeup_fd(self._kernels.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _note) for number in heeded()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._ours.close()
        self._kernels.close()


def _note(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has it already."""
