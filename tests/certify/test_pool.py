"""The pool of children: results by number, errors as the child had them, nothing left."""

from __future__ import annotations

import os
import signal

import pytest

from testbed.certify import pool
from testbed.certify.pool import run_all
from testbed.errors import BrokenError, MachineError


def work(item: str) -> bytes:
    """What an item says is done."""
    match item:
        case "machine":
            raise MachineError("there is no netfilter", mend="sudo modprobe nfnetlink")
        case "broken":
            raise BrokenError("the lab fell apart")
        case "os":
            raise OSError(28, "No space left on device")
        case "mistake":
            raise ZeroDivisionError("a mistake of ours")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stuck":
            signal.pause()
    return item.upper().encode()


def run(*items: str, at_once: int = 2) -> dict[int, bytes]:
    return dict(run_all(work, items, at_once, name=lambda item: f"the test {item}"))


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_results_have_their_items_number(at_once: int) -> None:
    assert run("a", "b", "c", "d", "e", at_once=at_once) == {0: b"A", 1: b"B", 2: b"C", 3: b"D", 4: b"E"}


def test_nothing_is_nothing() -> None:
    assert run() == {}


def test_a_large_result_comes_whole() -> None:
    assert run("x" * 300_000) == {0: b"X" * 300_000}


FAILURES = [
    ("machine", MachineError, "there is no netfilter\n  to mend it: sudo modprobe nfnetlink"),
    ("broken", BrokenError, "the test broken died: the lab fell apart"),
    ("os", BrokenError, "the test os died: [Errno 28] No space left on device"),
    ("mistake", BrokenError, "ZeroDivisionError: a mistake of ours"),
    ("killed", BrokenError, "the test killed died: without a word"),
]


@pytest.mark.parametrize(("item", "kind", "words"), FAILURES, ids=[row[0] for row in FAILURES])
def test_a_failure_is_the_callers(item: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as error:
        run("a", item, "stuck")
    assert words in str(error.value)
    with pytest.raises(ChildProcessError):  # the one that was still at work has been ended and waited for
        os.waitpid(-1, os.WNOHANG)


def test_what_is_stuck_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LIMIT", 0.0)
    with pytest.raises(BrokenError, match="the test stuck was stuck and was ended"):
        run("stuck")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
