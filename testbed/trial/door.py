"""A worker's side of its conversation with the engine (engine.py), and its life.

Rule 1: a `Door` asks for the token of a core, gives it back, and sends the one result of each task.
Rule 2: a message is one byte of kind and four of length, with a payload behind; from the parent, one byte of kind and
        a number.
Rule 3: what goes wrong is the parent's to hear, in words; then the process ends. Nothing of the parent's is unwound
        in it.
"""

from __future__ import annotations

import gc
import os
import socket
import struct
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from testbed.lab.processes import die_with_parent
from testbed.trial.interrupt import leave_to_parent

T = TypeVar("T")
HEADER = struct.Struct("!cI")


class Tell:
    """Kinds of the parent's messages: run the task of this number; have the token."""

    RUN, GO = b"T", b"G"


class Say:
    """Kinds of a worker's messages."""

    ASK, BUILT, SPENT, RESULT, FREE, CRASH = b"A", b"B", b"S", b"R", b"F", b"C"


class Door:
    """A worker's connection to the parent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._spent_before = 0

    @contextmanager
    def building(self) -> Iterator[None]:
        """Hold the token of a core while a lab is built."""
        self._send(Say.ASK)
        if self._receive() is None:
            os._exit(1)  # the parent is gone
        try:
            yield
        finally:
            self._send(Say.BUILT)

    def result(self, payload: bytes, *, children: int = 0) -> None:
        """The one result of this task. `children`: nanoseconds of a core that its own processes have needed."""
        spent = time.process_time_ns() - self._spent_before
        self._send(Say.SPENT, struct.pack("!Q", spent + children))
        self._send(Say.RESULT, payload)

    def tasks(self) -> Iterator[int]:
        """The number of each task that is to be run here; asking for the next says that this process is free."""
        while (number := self._receive()) is not None:
            self._spent_before = time.process_time_ns()
            yield number
            self._send(Say.FREE)

    def crash(self, text: str) -> None:
        """The worker's own last words."""
        self._send(Say.CRASH, text.encode())

    def _send(self, kind: bytes, payload: bytes = b"") -> None:
        self._sock.sendall(HEADER.pack(kind, len(payload)) + payload)

    def _receive(self) -> int | None:
        """The number of the parent's next message; None once it has closed the door."""
        message = self._sock.recv(HEADER.size, socket.MSG_WAITALL)
        return int(HEADER.unpack(message)[1]) if message else None


Work = Callable[[T, Door], None]
"""Runs one task: sends its result through the door, and takes apart what it has made."""


def live(sock: socket.socket, parent: int, workshop: Callable[[], Work[T]], tasks: Sequence[T]) -> None:
    """The whole life of a worker, from the fork on; never returns."""
    door = Door(sock)
    try:
        die_with_parent(parent)
        gc.disable()  # between tasks is when there is time for it
        leave_to_parent()
        work = workshop()
        for number in door.tasks():
            work(tasks[number], door)
            gc.collect()
    except BaseException as error:  # whatever it is, the parent must hear of it
        door.crash(_last_words(error))
    finally:
        os._exit(0)


def _last_words(error: BaseException) -> str:
    """A line that says what went wrong and where, then all of it."""
    inner = error
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    frames = traceback.extract_tb(inner.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    what = " ".join(f"{type(inner).__name__}: {inner}".split())
    return f"{what}{place}\n{''.join(traceback.format_exception(error))}"
