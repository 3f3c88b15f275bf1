"""The same work for many items, each in a process of its own, some of them at once.

Rule 1: a child is a fork that inherits everything and gives back bytes; it dies with its parent, and what it made dies
        with it.
Rule 2: whatever ends the parent's waiting early (an error, an interrupt) ends the children, which are then waited for.
Rule 3: a child that dies, or takes longer than `LIMIT`, is an error that names its item.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from testbed.errors import BrokenError, MachineError, TestbedError
from testbed.lab.processes import die_with_parent

LIMIT = 180.0
"""Seconds after which a child is taken for stuck: sixty times what the longest test takes on an idle machine."""
_RESULT, _MACHINE, _BROKEN = b"R", b"M", b"B"
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Child(Generic[T]):
    index: int
    item: T
    pid: int
    source: int
    deadline: float
    said: bytearray = field(default_factory=bytearray)


def run_all(
    work: Callable[[T], bytes], items: Sequence[T], at_once: int, *, name: Callable[[T], str]
) -> Generator[tuple[int, bytes], None, None]:
    """The number of each item and what `work` makes of it, in the order in which they are done.

    Raises MachineError or BrokenError, as the child did, with the item's name.
    """
    waiting = list(enumerate(items))[::-1]
    children: set[_Child[T]] = set()
    selector = selectors.DefaultSelector()
    try:
        while waiting or children:
            while waiting and len(children) < at_once:
                child = _start(work, *waiting.pop(), children)
                children.add(child)
                selector.register(child.source, selectors.EVENT_READ, child)
            for key, _ in selector.select(1):
                child = key.data
                if data := os.read(child.source, 1 << 16):
                    child.said += data
                    continue
                selector.unregister(child.source)
                children.discard(child)
                yield child.index, _answer(child, name)
            now = time.monotonic()
            for child in children:
                if child.deadline < now:
                    raise BrokenError(f"{name(child.item)} was stuck and was ended after {LIMIT:.0f} s")
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        for child in children:
            os.close(child.source)
            os.waitpid(child.pid, 0)
        selector.close()


def _start(work: Callable[[T], bytes], index: int, item: T, others: set[_Child[T]]) -> _Child[T]:
    source, sink = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(source)
        os.close(sink)
        raise MachineError(f"no process can be started: {error.strerror}", mend="ulimit -u") from error
    if pid == 0:
        _be_child(work, item, source, sink, parent, others)
    os.close(sink)
    return _Child(index, item, pid, source, time.monotonic() + LIMIT)


def _be_child(work: Callable[[T], bytes], item: T, source: int, sink: int, parent: int, others: set[_Child[T]]) -> None:
    try:
        die_with_parent(parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)  # the parent says what they mean
        for fd in (source, *(other.source for other in others)):
            os.close(fd)
        try:
            said = _RESULT + work(item)
        except MachineError as error:
            said = _MACHINE + "\0".join((str(error).partition("\n")[0], error.mend or "")).encode()
        except (TestbedError, OSError) as error:
            said = _BROKEN + str(error).encode()
        with open(sink, "wb") as file:
            file.write(said)
    except BaseException:  # whatever it is, the parent must hear of it, and nothing may unwind further
        with suppress(OSError):
            os.write(sink, _BROKEN + traceback.format_exc().encode())
    finally:
        os._exit(0)


def _answer(child: _Child[T], name: Callable[[T], str]) -> bytes:
    os.close(child.source)
    os.waitpid(child.pid, 0)
    kind, said = bytes(child.said[:1]), bytes(child.said[1:])
    if kind == _RESULT:
        return said
    text = said.decode(errors="replace")
    if kind == _MACHINE:
        message, _, mend = text.partition("\0")
        raise MachineError(message, mend=mend or None)
    raise BrokenError(f"{name(child.item)} died: {text or 'without a word'}")
