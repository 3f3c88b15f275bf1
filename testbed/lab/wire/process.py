"""The process that is the wire of one lab after another: a child (lab/child.py) with a packet socket in the wire's
namespace.

Rule 1: the cables' devices may be made after it has begun; it names them by index.
Rule 2: what it lost though no link says so is in its report, and spoils the trial.
"""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Sequence
from contextlib import closing

from testbed.lab.child import ASK, READY, REPORT, Child, answer, enter, read, send
from testbed.lab.namespaces import Namespace
from testbed.lab.wire.engine import Engine, WireCable
from testbed.lab.wire.report import WireReport
from testbed.link.model import LINK_HEADER
from testbed.spec.link import Link

_ROOM = 16 << 20
"""Bytes of frames that may wait to be read: 100 ms of large ones at 50 000 a second (see tap.py)."""


class Wire(Child):
    """A process that carries frames for one lab after another: `carry`, `wait` until it does, `finish`; or `close`."""

    what = "the wire process"

    def __init__(self) -> None:
        """Fork it; for now it carries nothing."""
        super().__init__(_carry)

    def carry(self, namespace: Namespace, cables: Sequence[WireCable]) -> None:
        """Begin, and come back at once; `wait` before frames are sent. Raises BrokenError where it is dead."""
        self.begin(list(cables), [namespace])

    def change(self, cable: str, link: Link) -> None:
        """Let a cable do this from now on; one that `varies`. Done when this returns. Raises BrokenError."""
        self.ask(cable, link)

    def finish(self) -> WireReport:
        """Carry no more, and learn what it did; see `Child.last_words`. Raises BrokenError where it had died before."""
        return WireReport.from_json(self.last_words().decode())


def _carry(cables: Sequence[WireCable], namespaces: Sequence[int], control: socket.socket, scheduling: str) -> None:
    """Carry frames until a message says to finish, or the parent is gone; others say what a link does from then on."""
    before = time.process_time_ns()
    (namespace,) = namespaces
    enter(namespace)
    with closing(_make_engine(cables)) as engine:
        send(control, READY)
        engine.run(control.fileno(), lambda: _obey(engine, control))
        report = _report(engine, scheduling, time.process_time_ns() - before)
        send(control, REPORT, report.to_json().encode())


def _obey(engine: Engine, control: socket.socket) -> bool:
    """Read a message and do what it says; whether to go on."""
    message = read(control)
    if message is None or message[0] != ASK:
        return False
    engine.change(*pickle.loads(message[1]))
    answer(control, None)
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
