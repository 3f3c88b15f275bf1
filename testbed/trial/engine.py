"""Processes that run tasks, one task at a time each, forked from a warm parent.

Rule 1: the parent has one thread and no event loop; it forks, waits on descriptors, and nothing else.
Rule 2: how many tasks run at once is the pace's business (pace.py); at most `builders` of them build a lab at
        once, since building is all CPU: the parent hands out one token a core.
Rule 3: a worker that dies, by any signal, gives back its token, and its task becomes a `Finished` with a reason.
        The task is never started again silently; the next one gets a new process.
Rule 4: a worker dies with its parent, and everything that a worker made dies with it.
Rule 5: a task is finished when its result is here. Its process may take 30 ms more until it is free again, waiting for
        the kernel to take a lab apart; the next task does not wait for that.
Rule 6: a worker that is free runs another task. What it keeps from one to the next is the workshop's business; a fork
        a task would be simpler, and costs a third of a trial's CPU: the pages that both sides touch are copied.

The worker's side is in door.py.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from testbed.errors import MachineError
from testbed.trial.door import HEADER, Say, Tell, Work, live
from testbed.trial.interrupt import Interrupt
from testbed.trial.pace import Pace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """What became of a task: its payload, or why there is none."""

    task: T
    payload: bytes | None
    died: str | None


@dataclass(slots=True, eq=False)
class _Worker(Generic[T]):
    pid: int
    sock: socket.socket
    task: T | None = None
    """What it runs, or cleans up after."""
    deadline: float = 0.0
    buffer: bytearray = field(default_factory=bytearray)
    building: bool = False
    granted_at: int | None = None
    """When its lab began to be built, in monotonic nanoseconds."""
    payload: bytes | None = None
    crash: str | None = None
    killed: str | None = None

    def begin(self, task: T, number: int, deadline: float) -> bool:
        """Give it a task; False where it is dead."""
        self.task, self.deadline, self.granted_at, self.payload = task, deadline, None, None
        return self._tell(Tell.RUN, number)

    def grant(self, deadline: float) -> None:
        """Give it the token."""
        self.building, self.granted_at, self.deadline = True, time.monotonic_ns(), deadline
        self._tell(Tell.GO, 0)

    def _tell(self, kind: bytes, number: int) -> bool:
        try:
            self.sock.send(HEADER.pack(kind, number))
        except OSError:
            return False
        return True


class Engine(Generic[T]):
    """Runs many tasks, some at once."""

    def __init__(
        self,
        workshop: Callable[[], Work[T]],
        *,
        pace: Pace,
        kind: Callable[[T], str],
        builders: int,
        limit: Callable[[T], float],
        on_tick: Callable[[], None] = lambda: None,
        tick: float = 0.125,
        interrupt: Interrupt | None = None,
    ) -> None:
        """`workshop`: called once in each process; what it gives runs the tasks there. `kind`: which tasks are alike,
        for the pace. `limit`: the wall-clock seconds after which a worker is taken for stuck, from the token on.

        An `interrupt` makes `run` raise KeyboardInterrupt, between two tasks' ends and nowhere else.
        """
        self._workshop, self._limit, self._on_tick = workshop, limit, on_tick
        self._pace, self._kind, self._builders, self._tick = pace, kind, builders, tick
        self._selector = selectors.DefaultSelector()
        self._interrupt = interrupt
        self._running: set[_Worker[T]] = set()
        self._ending: set[_Worker[T]] = set()
        """Those whose result is here and who are not free yet."""
        self._free: list[_Worker[T]] = []
        self._asking: deque[_Worker[T]] = deque()

    def run(self, tasks: Sequence[T]) -> Generator[Finished[T], None, None]:
        """Each task's end, in the order in which they end. Leaving the iterator early ends the workers."""
        waiting = deque(range(len(tasks)))
        kinds = len(set(map(self._kind, tasks)))
        if self._interrupt is not None:
            self._selector.register(self._interrupt, selectors.EVENT_READ)
        gc.collect()
        gc.freeze()  # so that a collection in a child does not copy every page of ours
        try:
            while waiting or self._running or self._ending:
                while waiting:
                    at = self._pace.first([self._kind(tasks[number]) for number in islice(waiting, kinds)])
                    if not self._may_start(tasks[waiting[at]]):
                        break
                    self._start(tasks, waiting[at])
                    del waiting[at]
                yield from self._wait()
        finally:
            self._end_all()
            gc.unfreeze()

    # ---- the parent's side

    def _may_start(self, task: T) -> bool:
        running = [self._kind(worker.task) for worker in self._running if worker.task is not None]
        return self._pace.allows(running, self._kind(task)) and len(self._ending) <= 2 * len(running) + 2

    def _start(self, tasks: Sequence[T], number: int) -> None:
        task = tasks[number]
        worker = self._free.pop() if self._free else self._fork(tasks)
        while not worker.begin(task, number, time.monotonic() + self._limit(task)):
            self._forget(worker)  # somebody has killed it while it had nothing to do
            worker = self._fork(tasks)
        self._running.add(worker)

    def _fork(self, tasks: Sequence[T]) -> _Worker[T]:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            raise MachineError(
                f"no process can be started for a trial: {error.strerror}", mend="fewer at once: --jobs 1; or ulimit -u"
            ) from error
        if pid == 0:
            ours.close()
            for other in [*self._running, *self._ending, *self._free]:
                other.sock.close()
            live(theirs, parent, self._workshop, tasks)
        theirs.close()
        ours.setblocking(False)
        worker: _Worker[T] = _Worker(pid, ours)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _wait(self) -> Iterator[Finished[T]]:
        ready = [key for key, _ in self._selector.select(self._tick)]
        if any(key.fileobj is self._interrupt for key in ready):
            raise KeyboardInterrupt
        for key in ready:
            worker: _Worker[T] = key.data
            for message in self._messages(worker):
                yield from self._take(worker, *message)
        now = time.monotonic()
        for worker in self._running | self._ending:
            if (
                worker.deadline < now
                and worker.killed is None
                and worker not in self._asking
                and worker.task is not None
            ):
                worker.killed = f"the trial's process was stuck and was ended after {self._limit(worker.task):.0f} s"
                os.kill(worker.pid, signal.SIGKILL)
        self._grant()
        self._on_tick()

    def _messages(self, worker: _Worker[T]) -> Iterator[tuple[bytes, bytes]]:
        """What a worker says; the last, from one that has closed its door, is empty."""
        try:
            data = worker.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        worker.buffer += data
        while len(worker.buffer) >= HEADER.size:
            kind, length = HEADER.unpack_from(worker.buffer)
            if len(worker.buffer) < HEADER.size + length:
                break
            payload = bytes(worker.buffer[HEADER.size : HEADER.size + length])
            del worker.buffer[: HEADER.size + length]
            yield kind, payload
        if not data:
            yield b"", b""

    def _take(self, worker: _Worker[T], kind: bytes, payload: bytes) -> Iterator[Finished[T]]:
        if kind == Say.ASK:
            self._asking.append(worker)
        elif kind == Say.BUILT:
            worker.building = False
        elif kind == Say.SPENT and worker.granted_at is not None and worker.task is not None:
            (busy,) = struct.unpack("!Q", payload)
            self._pace.learn(self._kind(worker.task), busy, time.monotonic_ns() - worker.granted_at)
        elif kind == Say.RESULT and worker.task is not None:
            worker.payload = payload
            self._running.discard(worker)
            self._ending.add(worker)
            yield Finished(worker.task, payload, None)
        elif kind == Say.FREE:
            self._ending.discard(worker)
            worker.task = None
            self._free.append(worker)
        elif kind == Say.CRASH:
            worker.crash = payload.decode()
        elif not kind:
            yield from self._bury(worker)

    def _grant(self) -> None:
        while self._asking and sum(worker.building for worker in self._running) < self._builders:
            worker = self._asking.popleft()
            if worker in self._running and worker.task is not None:
                worker.grant(time.monotonic() + self._limit(worker.task))

    def _bury(self, worker: _Worker[T]) -> Iterator[Finished[T]]:
        """Wait for a process that has closed its door; what is to be said of its task, if that is not said yet."""
        status = self._forget(worker)
        if worker in self._running and worker.task is not None:
            self._running.discard(worker)
            self._grant()
            yield Finished(worker.task, None, worker.killed or worker.crash or _describe(status))
        self._ending.discard(worker)
        if worker in self._free:
            self._free.remove(worker)

    def _forget(self, worker: _Worker[T]) -> int:
        """Let go of one that is ending; how it ended."""
        self._selector.unregister(worker.sock)
        worker.sock.close()
        return os.waitpid(worker.pid, 0)[1]

    def _end_all(self) -> None:
        for worker in self._running | self._ending:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        for worker in [*self._free, *self._running, *self._ending]:
            self._forget(worker)  # one that is free ends when its door is closed
        for workers in (self._running, self._ending, self._free):
            workers.clear()
        self._selector.close()


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"the trial's process died (signal {os.WTERMSIG(status)})"
    return f"the trial's process ended without a result (status {os.waitstatus_to_exitcode(status)})"
