"""A process of ours that serves one lab after another, and is never alive without its parent.

Rule 1: it is forked from a parent that has imported everything, once for all labs that the parent makes: after a fork
        both sides pay for every page that either of them touches.
Rule 2: while it serves, it holds what the lab gave it; else its end of a socket pair and a namespace of its own, and no
        other descriptor: no box of a lab lives longer because of it.
Rule 3: it dies with its parent, by whatever signal, and ends when its end of the pair reads the end of the stream, by
        `os._exit`: nothing of the parent's runs a second time.
Rule 4: its death shows as silence in the lab, which looks like a network that is down. So whoever has a lab watches
        the pidfd of each child, and a child that died is a broken lab.

A message, either way, is one byte of kind, four of length, and the payload. Orders are pickles: both ends are one
program. Behind an order come the descriptors of its namespaces, as many in a message as the kernel takes.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeAlias

from testbed.errors import BrokenError
from testbed.lab.namespaces import CLONE_NEWNET, Namespace, own_namespace, setns
from testbed.lab.processes import die_with_parent, is_dead, wake_on_time

BEGIN, ASK, FINISH = b"B", b"Q", b"F"
READY, ANSWER, REPORT, _ERROR = b"+", b"A", b"R", b"E"
_HEADER = struct.Struct("!cI")
_ANSWER_WITHIN = 10.0
_MOST_DESCRIPTORS = 253
"""In one message: SCM_MAX_FD of the kernel."""

Serve: TypeAlias = Callable[[Any, Sequence[int], socket.socket, str], None]
"""Serve one lab: an order, the descriptors of its namespaces, the child's end of the pair, how it is scheduled.

It says READY when it serves, answers what is asked, and says REPORT when it is told to finish.
"""


class Child:
    """A process that serves one lab after another: `begin`, `wait` until it does, `finish`; or `close`."""

    what: ClassVar[str]
    """What a person calls it."""

    def __init__(self, serve: Serve) -> None:
        """Fork it; for now it serves nobody."""
        parent = os.getpid()
        self._control, its = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            _live(parent, its, serve)
        its.close()
        self._pidfd = os.pidfd_open(self.pid)
        self.is_serving = False
        """Whether it has begun, and not finished in order."""

    def begin(self, order: object, namespaces: Sequence[Namespace]) -> None:
        """Begin to serve, and come back at once; `wait` before it is needed. Raises BrokenError where it is dead."""
        self.is_serving = True
        descriptors = [one.fd for one in namespaces]
        try:
            send(self._control, BEGIN, pickle.dumps((order, len(descriptors))))
            for first in range(0, len(descriptors), _MOST_DESCRIPTORS):
                socket.send_fds(self._control, [b"+"], descriptors[first : first + _MOST_DESCRIPTORS])
        except (BrokenPipeError, ConnectionResetError):
            raise self._death() from None

    def wait(self) -> None:
        """Return once it serves. Raises BrokenError where it died or cannot."""
        self._receive(READY)

    def ask(self, *question: object) -> Any:
        """What it answers. Raises ValueError where it refuses the question, BrokenError where it has died."""
        self._say(ASK, pickle.dumps(question))
        refusal, value = pickle.loads(self._receive(ANSWER))
        if refusal is not None:
            raise ValueError(refusal)
        return value

    def fileno(self) -> int:
        """A pidfd: readable when the process is dead."""
        return self._pidfd

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self._pidfd < 0 or is_dead(self._pidfd)

    def last_words(self) -> bytes:
        """Let it serve no more, and hear what it did. Raises BrokenError where it had died before.

        The process lets go of what the lab gave it some 20 ms later: the kernel waits for grace periods when it closes
        packet sockets. Whoever is about to `begin` again need not wait for that.
        """
        self._say(FINISH)
        report = self._receive(REPORT)
        self.is_serving = False
        return report

    def abandon(self) -> None:
        """End the process without waiting, if it is serving: nobody will ask how it went."""
        if self.is_serving:
            self._kill()

    def close(self) -> None:
        """End the process, if it has not ended, without a word, and wait until it is gone. Twice does nothing."""
        self._kill()
        if self._pidfd >= 0:
            os.waitpid(self.pid, 0)
            self._close()

    def _kill(self) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _say(self, kind: bytes, payload: bytes = b"") -> None:
        with suppress(OSError):  # what it died of is in what it has said
            send(self._control, kind, payload)

    def _receive(self, expected: bytes) -> bytes:
        """The payload of the next message. Raises BrokenError where it is another one, or none."""
        self._control.settimeout(_ANSWER_WITHIN)
        try:
            message = read(self._control)
        except TimeoutError as error:
            self.close()
            raise BrokenError(f"{self.what} did not answer within {_ANSWER_WITHIN:g} s") from error
        if message is not None and message[0] == expected:
            return message[1]
        raise self._death(message[1] if message is not None else b"")

    def _death(self, words: bytes = b"") -> BrokenError:
        _, status = os.waitpid(self.pid, 0)
        self._close()
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return BrokenError(f"{self.what} died (signal {-code})")
        return BrokenError(f"{self.what} died (exit status {code}): {words.decode()}".rstrip(": "))

    def _close(self) -> None:
        self._control.close()
        os.close(self._pidfd)
        self._pidfd = -1


def send(control: socket.socket, kind: bytes, payload: bytes = b"") -> None:
    """One message."""
    control.sendall(_HEADER.pack(kind, len(payload)) + payload)


def answer(control: socket.socket, value: object, refusal: str | None = None) -> None:
    """What was asked for, or why it is refused."""
    send(control, ANSWER, pickle.dumps((refusal, value)))


def read(control: socket.socket) -> tuple[bytes, bytes] | None:
    """The next message whole; None where the other end is gone."""
    header = _read_exactly(control, _HEADER.size)
    if header is None:
        return None
    kind, length = _HEADER.unpack(header)
    payload = _read_exactly(control, length)
    return None if payload is None else (kind, payload)


def _read_exactly(control: socket.socket, length: int) -> bytes | None:
    data = b""
    while len(data) < length:
        try:
            part = control.recv(length - len(data))
        except ConnectionResetError:  # it died with something unread
            return None
        if not part:
            return None
        data += part
    return data


# ---------------------------------------------------------------------------- the child


def _live(parent: int, control: socket.socket, serve: Serve) -> None:
    """The whole life of the process; never returns."""
    status = 1
    try:
        die_with_parent(parent)
        _keep_only(control.fileno())
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the parent says when to stop
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.disable()  # nothing in the loops of children makes cycles
        wake_on_time()
        scheduling = _come_first()
        home = own_namespace()
        while (order := _read_order(control)) is not None:
            serve(*order, control, scheduling)
            setns(home.fd, CLONE_NEWNET)
        status = 0
    except BaseException:  # whatever it is, the parent must hear of it, and must not go on in two processes
        with suppress(OSError):
            send(control, _ERROR, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _read_order(control: socket.socket) -> tuple[Any, Sequence[int]] | None:
    """The next order, and the descriptors of its namespaces; None at the end."""
    message = read(control)
    if message is None:
        return None
    order, count = pickle.loads(message[1])
    descriptors: list[int] = []
    while len(descriptors) < count:
        data, received, _, _ = socket.recv_fds(control, 1, _MOST_DESCRIPTORS)
        if not data:
            return None
        descriptors += received
    return order, descriptors


def enter(descriptor: int) -> None:
    """Enter the namespace of an order, and let go of its descriptor."""
    setns(descriptor, CLONE_NEWNET)
    os.close(descriptor)


def _come_first() -> str:
    """Run before the programs under test: what is late here would look like a slow network. What the kernel allowed:
    `fifo` (before all normal processes), `nice`, or `other`.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:  # no CAP_SYS_NICE on the host, or a cgroup without a budget for real time
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        except OSError:
            return "other"
        return "nice"
    return "fifo"


def _keep_only(*descriptors: int) -> None:
    """Close all others beyond the standard three."""
    low = 3
    for descriptor in sorted(descriptors):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
