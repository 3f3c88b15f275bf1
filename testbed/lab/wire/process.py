"""The process that is the wire of one lab.

Rule 1: it is forked from a parent that has imported everything, and starts while the parent goes on building.
Rule 2: it holds the wire's namespace, its packet socket and its end of a socket pair, and no other descriptor: no box
        of the lab lives longer because of it.
Rule 3: it dies with its parent, by whatever signal. It ends when its end of the pair reads the end of the stream, says
        what it did, and leaves by `os._exit`: nothing of the parent's runs a second time.
Rule 4: its death shows as silence on every link, which looks like a network that is down. So whoever has a wire watches
        its pidfd, and a wire that died is a broken lab.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress

from testbed.errors import BrokenError
from testbed.lab.namespaces import CLONE_NEWNET, Namespace, setns
from testbed.lab.processes import die_with_parent, is_dead, wake_on_time
from testbed.lab.wire.engine import Engine, WireCable
from testbed.lab.wire.report import WireReport
from testbed.link.model import LINK_HEADER

_READY, _REPORT, _ERROR = b"+", b"R", b"E"
_ANSWER_WITHIN = 10.0
_ROOM = 16 << 20
"""Bytes of frames that may wait to be read: 100 ms of large ones at 50 000 a second (see tap.py)."""


class Wire:
    """A running wire: `start` it, `wait` until it carries frames, `stop` it to learn what it did, or `close` it."""

    def __init__(self, pid: int, pidfd: int, control: socket.socket) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._control = control

    @classmethod
    def start(cls, namespace: Namespace, cables: Sequence[WireCable]) -> Wire:
        """Fork the process and come back at once; `wait` before frames are sent.

        The cables' devices may be made later, by these indexes.
        """
        parent = os.getpid()
        ours, its = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _live(parent, namespace.fd, cables, its)
        its.close()
        return cls(pid, os.pidfd_open(pid), ours)

    def wait(self) -> None:
        """Return once it carries frames. Raises BrokenError where it died or cannot."""
        if (answer := self._receive(1)) != _READY:
            raise self._death(answer + self._receive_all())

    def fileno(self) -> int:
        """A pidfd: readable when the process is dead."""
        return self._pidfd

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self._pidfd < 0 or is_dead(self._pidfd)

    def stop(self) -> WireReport:
        """End it, and learn what it did. Raises BrokenError where it had died before.

        The process is gone some 20 ms later: the kernel waits for grace periods when it closes packet sockets.
        `close` waits for that; whoever is about to end anyway need not.
        """
        self._control.shutdown(socket.SHUT_WR)
        answer = self._receive_all()
        if not answer.startswith(_REPORT):
            raise self._death(answer)
        return WireReport.from_json(answer[1:].decode())

    def close(self) -> None:
        """End it, if it has not ended, without a word, and wait until it is gone. Twice does nothing."""
        self.kill()
        if self._pidfd >= 0:
            os.waitpid(self.pid, 0)
            self._close()

    def kill(self) -> None:
        """End it without waiting; `close` does."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _receive(self, most: int) -> bytes:
        self._control.settimeout(_ANSWER_WITHIN)
        try:
            return self._control.recv(most)
        except TimeoutError as error:
            self.close()
            raise BrokenError(f"the wire process did not answer within {_ANSWER_WITHIN:g} s") from error
        except ConnectionResetError:  # it died with something unread
            return b""

    def _receive_all(self) -> bytes:
        parts = []
        while part := self._receive(1 << 16):
            parts.append(part)
        return b"".join(parts)

    def _death(self, words: bytes) -> BrokenError:
        _, status = os.waitpid(self.pid, 0)
        self._close()
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return BrokenError(f"the wire process died (signal {-code})")
        return BrokenError(
            f"the wire process died (exit status {code}): {words.removeprefix(_ERROR).decode()}".rstrip(": ")
        )

    def _close(self) -> None:
        self._control.close()
        os.close(self._pidfd)
        self._pidfd = -1


# ---------------------------------------------------------------------------- the child


def _live(parent: int, namespace: int, cables: Sequence[WireCable], control: socket.socket) -> None:
    """The whole life of the process; never returns."""
    status = 1
    try:
        die_with_parent(parent)
        _keep_only(namespace, control.fileno())
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the parent says when to stop
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.disable()  # nothing in the loop makes cycles
        wake_on_time()
        setns(namespace, CLONE_NEWNET)
        os.close(namespace)
        engine = _make_engine(cables)
        scheduling = _come_first()
        control.sendall(_READY)
        engine.run(until=control.fileno())
        control.sendall(_REPORT + _report(engine, scheduling).to_json().encode())
        status = 0
    except BaseException:  # whatever it is, the parent must hear of it, and must not go on in two processes
        control.sendall(_ERROR + traceback.format_exc().encode())
    finally:
        control.close()  # before the engine's sockets, whose closing takes its time
        os._exit(status)


def _make_engine(cables: Sequence[WireCable]) -> Engine:
    largest = max((cable.link.mtu for cable in cables), default=0) + LINK_HEADER
    return Engine(cables, largest, _ROOM)


def _report(engine: Engine, scheduling: str) -> WireReport:
    return WireReport(
        scheduling=scheduling,
        busy=time.process_time_ns(),
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
