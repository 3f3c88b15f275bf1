"""The process that is the wire of one lab after another.

Rule 1: it is forked from a parent that has imported everything, once for all labs that the parent makes: after a fork
        both sides pay for every page that either of them touches.
Rule 2: while it carries, it holds the wire's namespace and its packet socket; else its end of a socket pair and a
        namespace of its own, and no other descriptor: no box of a lab lives longer because of it.
Rule 3: it dies with its parent, by whatever signal, and ends when its end of the pair reads the end of the stream, by
        `os._exit`: nothing of the parent's runs a second time.
Rule 4: its death shows as silence on every link, which looks like a network that is down. So whoever has a wire watches
        its pidfd, and a wire that died is a broken lab.

A message, either way, is one byte of kind, four of length, and the payload.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import struct
import time
import traceback
from collections.abc import Sequence
from contextlib import closing, suppress

from testbed.errors import BrokenError
from testbed.lab.namespaces import CLONE_NEWNET, Namespace, own_namespace, setns
from testbed.lab.processes import die_with_parent, is_dead, wake_on_time
from testbed.lab.wire.engine import Engine, WireCable
from testbed.lab.wire.report import WireReport
from testbed.link.model import LINK_HEADER
from testbed.spec.link import Link

_HEADER = struct.Struct("!cI")
_CARRY, _CHANGE, _FINISH = b"C", b"L", b"F"
_READY, _DONE, _REPORT, _ERROR = b"+", b".", b"R", b"E"
_ANSWER_WITHIN = 10.0
_ROOM = 16 << 20
"""Bytes of frames that may wait to be read: 100 ms of large ones at 50 000 a second (see tap.py)."""


class Wire:
    """A process that carries frames for one lab after another: `carry`, `wait` until it does, `finish`; or `close`."""

    def __init__(self) -> None:
        """Fork it; for now it carries nothing."""
        parent = os.getpid()
        self._control, its = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            _live(parent, its)
        its.close()
        self._pidfd = os.pidfd_open(self.pid)
        self.is_carrying = False
        """Whether it has begun, and not finished in order."""

    def carry(self, namespace: Namespace, cables: Sequence[WireCable]) -> None:
        """Begin, and come back at once; `wait` before frames are sent. Raises BrokenError where it is dead.

        The cables' devices may be made later, by these indexes.
        """
        self.is_carrying = True
        payload = pickle.dumps(list(cables))
        try:
            socket.send_fds(self._control, [_HEADER.pack(_CARRY, len(payload))], [namespace.fd])
            self._control.sendall(payload)
        except OSError:
            raise self._death() from None

    def wait(self) -> None:
        """Return once it carries frames. Raises BrokenError where it died or cannot."""
        self._receive(_READY)

    def fileno(self) -> int:
        """A pidfd: readable when the process is dead."""
        return self._pidfd

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self._pidfd < 0 or is_dead(self._pidfd)

    def change(self, cable: str, link: Link) -> None:
        """Let a cable do this from now on; one that `varies`. Done when this returns. Raises BrokenError."""
        with suppress(OSError):  # what it died of is in what it has said
            _send(self._control, _CHANGE, pickle.dumps((cable, link)))
        self._receive(_DONE)

    def finish(self) -> WireReport:
        """Carry no more, and learn what it did. Raises BrokenError where it had died before.

        The process lets go of the namespace some 20 ms later: the kernel waits for grace periods when it closes packet
        sockets. Whoever is about to `carry` again need not wait for that.
        """
        with suppress(OSError):  # what it died of is in what it has said
            self._control.sendall(_HEADER.pack(_FINISH, 0))
        report = WireReport.from_json(self._receive(_REPORT).decode())
        self.is_carrying = False
        return report

    def abandon(self) -> None:
        """End the process without waiting, if it is carrying: nobody will ask how it went."""
        if self.is_carrying:
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

    def _receive(self, expected: bytes) -> bytes:
        """The payload of the next message. Raises BrokenError where it is another one, or none."""
        self._control.settimeout(_ANSWER_WITHIN)
        try:
            message = _read(self._control)
        except TimeoutError as error:
            self.close()
            raise BrokenError(f"the wire process did not answer within {_ANSWER_WITHIN:g} s") from error
        if message is not None and message[0] == expected:
            return message[1]
        raise self._death(message[1] if message is not None else b"")

    def _death(self, words: bytes = b"") -> BrokenError:
        _, status = os.waitpid(self.pid, 0)
        self._close()
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return BrokenError(f"the wire process died (signal {-code})")
        return BrokenError(f"the wire process died (exit status {code}): {words.decode()}".rstrip(": "))

    def _close(self) -> None:
        self._control.close()
        os.close(self._pidfd)
        self._pidfd = -1


def _send(control: socket.socket, kind: bytes, payload: bytes) -> None:
    control.sendall(_HEADER.pack(kind, len(payload)) + payload)


def _read(control: socket.socket) -> tuple[bytes, bytes] | None:
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


def _live(parent: int, control: socket.socket) -> None:
    """The whole life of the process; never returns."""
    status = 1
    try:
        die_with_parent(parent)
        _keep_only(control.fileno())
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the parent says when to stop
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.disable()  # nothing in the loop makes cycles
        wake_on_time()
        scheduling = _come_first()
        home = own_namespace()
        while (order := _read_order(control)) is not None:
            _carry(*order, control, scheduling)
            setns(home.fd, CLONE_NEWNET)
        status = 0
    except BaseException:  # whatever it is, the parent must hear of it, and must not go on in two processes
        _send(control, _ERROR, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _read_order(control: socket.socket) -> tuple[int, list[WireCable]] | None:
    """The next namespace, as a descriptor, and its cables; None at the end."""
    header, descriptors, _, _ = socket.recv_fds(control, _HEADER.size, 1)
    if not header:
        return None
    _, length = _HEADER.unpack(header)
    return descriptors[0], pickle.loads(control.recv(length, socket.MSG_WAITALL))


def _carry(namespace: int, cables: Sequence[WireCable], control: socket.socket, scheduling: str) -> None:
    """Carry frames until a message says to finish, or the parent is gone; others say what a link does from then on."""
    before = time.process_time_ns()
    setns(namespace, CLONE_NEWNET)
    os.close(namespace)
    with closing(_make_engine(cables)) as engine:
        _send(control, _READY, b"")
        engine.run(control.fileno(), lambda: _obey(engine, control))
        _send(control, _REPORT, _report(engine, scheduling, time.process_time_ns() - before).to_json().encode())


def _obey(engine: Engine, control: socket.socket) -> bool:
    """Read a message and do what it says; whether to go on."""
    message = _read(control)
    if message is None or message[0] != _CHANGE:
        return False
    engine.change(*pickle.loads(message[1]))
    _send(control, _DONE, b"")
    return True


def _make_engine(cables: Sequence[WireCable]) -> Engine:
    largest = max((cable.link.mtu for cable in cables), default=0) + LINK_HEADER
    return Engine(cables, largest, _ROOM)


def _report(engine: Engine, scheduling: str, busy: int) -> WireReport:
    return WireReport(
        scheduling=scheduling,
        busy=busy,
        sent=engine.sent,
        unread=engine.drops(),
        truncated=engine.truncated,
        refused=dict(engine.refused),
        lateness=engine.lateness(),
        directions=engine.directions(),
    )


def _come_first() -> str:
    """Run before the programs under test: a late link would look like a slow network. What the kernel allowed."""
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
