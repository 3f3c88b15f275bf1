"""A process that serves one lab after another: what it is given, and what becomes of it when something is amiss."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from testbed.errors import BrokenError
from testbed.lab.child import FINISH, READY, REPORT, Child, answer, read, send
from testbed.lab.namespaces import Namespace, new_namespace

pytestmark = pytest.mark.lab


def count(order: object, descriptors: Sequence[int], control: socket.socket, _: str) -> None:
    """Say how many namespaces an order came with, and which they are."""
    found = [os.fstat(descriptor).st_ino for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    send(control, READY)
    while (message := read(control)) is not None and message[0] != FINISH:
        answer(control, (order, found))
    send(control, REPORT)


class Counter(Child):
    what = "the counter"

    def __init__(self) -> None:
        super().__init__(count)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with closing(new_namespace()) as made:
        yield made


@pytest.mark.parametrize("number", [0, 1, 253, 254, 700])
def test_an_order_comes_with_all_its_namespaces(number: int, namespace: Namespace) -> None:
    """The kernel takes 253 descriptors in one message (SCM_MAX_FD)."""
    with closing(Counter()) as child:
        for order in ("one lab", "another"):
            child.begin(order, [namespace] * number)
            child.wait()
            said, inodes = child.ask()
            assert (said, inodes) == (order, [os.fstat(namespace.fd).st_ino] * number)
            child.last_words()


def test_an_order_that_cannot_be_given_is_an_error_and_not_a_wait(namespace: Namespace) -> None:
    gone = Namespace(namespace.fd)
    with closing(Counter()) as child:
        gone.fd = 1_000_000
        with pytest.raises(OSError, match="Bad file descriptor"):
            child.begin("a lab", [gone])


def test_who_is_dead_when_it_is_to_begin_is_named(namespace: Namespace) -> None:
    with closing(Counter()) as child:
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PIDFD, child.fileno(), os.WEXITED | os.WNOWAIT)
        with pytest.raises(BrokenError, match=r"^the counter died \(signal 9\)$"):
            child.begin("a lab", [namespace])
