"""The same pure work for many items, on all cores.

Rule 1: what comes out is what one core alone would give, in the order of the items.
Rule 2: a child is a fork that inherits everything and gives back pickled results; it runs nothing of ours at its end.
Rule 3: where there is one core, few items, or no fork, it is done here.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from testbed.errors import BrokenError

FEW = 8
"""So many items are not worth a child."""
T = TypeVar("T")
R = TypeVar("R")


def spread(work: Callable[[T], R], items: Sequence[T], cores: int | None = None) -> list[R]:
    """`[work(item) for item in items]`. Raises what `work` raises; BrokenError where a child died."""
    shares = min(cores or _cores(), len(items) // FEW)
    if shares < 2 or not hasattr(os, "fork"):
        return [work(item) for item in items]
    sys.stdout.flush()
    sys.stderr.flush()
    children = [_fork(work, items[share::shares]) for share in range(1, shares)]
    results: list[R | None] = [None] * len(items)
    try:
        results[0::shares] = [work(item) for item in items[0::shares]]
    finally:
        answers: list[list[R] | BaseException] = [_collect(*child) for child in children]
    for share, answer in enumerate(answers, start=1):
        if isinstance(answer, BaseException):
            raise answer
        results[share::shares] = answer
    return results  # type: ignore[return-value]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fork(work: Callable[[T], R], items: Sequence[T]) -> tuple[int, int]:
    """The child's process id, and where its answer will come from."""
    source, sink = os.pipe()
    child = os.fork()
    if child:
        os.close(sink)
        return child, source
    try:
        with open(sink, "wb") as pipe:
            try:
                answer: object = [work(item) for item in items]
            except Exception as error:  # whatever it is, it is the parent's to raise
                error.add_note("".join(traceback.format_exception(error)))
                answer = error
            pickle.dump(answer, pipe)
    finally:
        os._exit(0)


def _collect(child: int, source: int) -> Any:
    """The child's results, or the error that is to be raised for it."""
    with open(source, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        return BrokenError("a process that predicted a share of the cells died")
    return pickle.loads(data)
