"""A process for each trial, forked from a warm parent.

Rule 1: the parent has one thread and no event loop; it forks, waits on descriptors, and nothing else.
Rule 2: how many workers live at once is the pace's business (pace.py); at most `builders` of them build a lab at
        once, since building is all CPU: the parent hands out one token a core.
Rule 3: a worker that dies, by any signal, gives back its token and becomes a `Finished` with a reason.
        It is never started again silently.
Rule 4: a worker dies with its parent, and everything that a worker made dies with it.
Rule 5: a task is finished when its result is here. Its process may take 30 ms more to end, waiting for the kernel to
        take a lab apart; the next worker does not wait for that.

The worker's end of the conversation is a `Door`: it asks for the token, gives it back, and at the end
sends its result. Each message is one byte of kind, four of length, and the payload.
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
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from testbed.errors import MachineError
from testbed.lab.processes import die_with_parent
from testbed.trial.interrupt import Interrupt, leave_to_parent
from testbed.trial.pace import Pace

T = TypeVar("T")

_HEADER = struct.Struct("!cI")
_ASK, _GO, _BUILT, _SPENT, _RESULT, _CRASH = b"A", b"G", b"B", b"S", b"R", b"C"


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """What became of a task: its payload, or why there is none."""

    task: T
    payload: bytes | None
    died: str | None


class Door:
    """A worker's connection to the parent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @contextmanager
    def building(self) -> Iterator[None]:
        """Hold the token of a core while a lab is built."""
        self._send(_ASK)
        if self._sock.recv(1) != _GO:
            os._exit(1)  # the parent is gone
        try:
            yield
        finally:
            self._send(_BUILT)

    def result(self, payload: bytes, *, children: int = 0) -> None:
        """The one result of this worker. `children`: nanoseconds of a core that its own processes have needed."""
        self._send(_SPENT, struct.pack("!Q", time.process_time_ns() + children))
        self._send(_RESULT, payload)

    def crash(self, text: str) -> None:
        """The worker's own last words."""
        self._send(_CRASH, text.encode())

    def _send(self, kind: bytes, payload: bytes = b"") -> None:
        self._sock.sendall(_HEADER.pack(kind, len(payload)) + payload)


@dataclass(slots=True, eq=False)
class _Worker(Generic[T]):
    task: T
    pid: int
    sock: socket.socket
    deadline: float
    buffer: bytearray = field(default_factory=bytearray)
    building: bool = False
    granted_at: int | None = None
    """When its lab began to be built, in monotonic nanoseconds."""
    payload: bytes | None = None
    crash: str | None = None
    killed: str | None = None


class Engine(Generic[T]):
    """Runs `work(task, door)` for many tasks, each in a process of its own."""

    def __init__(
        self,
        work: Callable[[T, Door], None],
        *,
        pace: Pace,
        kind: Callable[[T], str],
        builders: int,
        limit: Callable[[T], float],
        on_tick: Callable[[], None] = lambda: None,
        tick: float = 0.125,
        interrupt: Interrupt | None = None,
    ) -> None:
        """`kind`: which tasks are alike, for the pace. `limit`: the wall-clock seconds after which a worker is taken
        for stuck, from the token on.

        An `interrupt` makes `run` raise KeyboardInterrupt, between two tasks' ends and nowhere else.
        """
        self._work, self._limit, self._on_tick = work, limit, on_tick
        self._pace, self._kind, self._builders, self._tick = pace, kind, builders, tick
        self._selector = selectors.DefaultSelector()
        self._interrupt = interrupt
        self._workers: set[_Worker[T]] = set()
        self._ending: set[_Worker[T]] = set()
        """Those whose result is here and whose process is not gone yet."""
        self._asking: deque[_Worker[T]] = deque()

    def run(self, tasks: Sequence[T]) -> Generator[Finished[T], None, None]:
        """Each task's end, in the order in which they end. Leaving the iterator early ends the workers."""
        waiting = deque(tasks)
        if self._interrupt is not None:
            self._selector.register(self._interrupt, selectors.EVENT_READ)
        gc.collect()
        gc.freeze()  # so that a collection in a child does not copy every page of ours
        try:
            while waiting or self._workers or self._ending:
                while waiting and self._may_start(waiting[0]):
                    self._start(waiting.popleft())
                yield from self._wait()
        finally:
            self._end_all()
            gc.unfreeze()

    # ---- the parent's side

    def _may_start(self, task: T) -> bool:
        running = [self._kind(worker.task) for worker in self._workers]
        return self._pace.allows(running, self._kind(task)) and len(self._ending) <= 2 * len(running) + 2

    def _start(self, task: T) -> None:
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
            self._be_worker(task, theirs, parent)
        theirs.close()
        ours.setblocking(False)
        worker = _Worker(task, pid, ours, time.monotonic() + self._limit(task))
        self._workers.add(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _wait(self) -> Iterator[Finished[T]]:
        ready = [key for key, _ in self._selector.select(self._tick)]
        if any(key.fileobj is self._interrupt for key in ready):
            raise KeyboardInterrupt
        for key in ready:
            worker: _Worker[T] = key.data
            is_over = self._read(worker)
            if worker.payload is not None and worker in self._workers:
                self._workers.discard(worker)
                self._ending.add(worker)
                yield Finished(worker.task, worker.payload, None)
            if is_over and (finished := self._bury(worker)) is not None:
                yield finished
        now = time.monotonic()
        for worker in self._workers | self._ending:
            if worker.deadline < now and worker.killed is None and worker not in self._asking:
                worker.killed = f"the trial's process was stuck and was ended after {self._limit(worker.task):.0f} s"
                os.kill(worker.pid, signal.SIGKILL)
        self._grant()
        self._on_tick()

    def _read(self, worker: _Worker[T]) -> bool:
        """Take in what a worker says; whether that was all."""
        try:
            data = worker.sock.recv(1 << 16)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        worker.buffer += data
        while len(worker.buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(worker.buffer)
            if len(worker.buffer) < _HEADER.size + length:
                break
            payload = bytes(worker.buffer[_HEADER.size : _HEADER.size + length])
            del worker.buffer[: _HEADER.size + length]
            self._take(worker, kind, payload)
        return not data

    def _take(self, worker: _Worker[T], kind: bytes, payload: bytes) -> None:
        if kind == _ASK:
            self._asking.append(worker)
        elif kind == _BUILT:
            worker.building = False
        elif kind == _SPENT and worker.granted_at is not None:
            (busy,) = struct.unpack("!Q", payload)
            self._pace.learn(self._kind(worker.task), busy, time.monotonic_ns() - worker.granted_at)
        elif kind == _RESULT:
            worker.payload = payload
        elif kind == _CRASH:
            worker.crash = payload.decode()

    def _grant(self) -> None:
        while self._asking and sum(worker.building for worker in self._workers) < self._builders:
            worker = self._asking.popleft()
            if worker in self._workers:
                worker.building, worker.granted_at = True, time.monotonic_ns()
                worker.deadline = time.monotonic() + self._limit(worker.task)
                with suppress(OSError):
                    worker.sock.send(_GO)

    def _bury(self, worker: _Worker[T]) -> Finished[T] | None:
        """Wait for a process that has closed its door; what is to be said of its task, if that is not said yet."""
        self._selector.unregister(worker.sock)
        worker.sock.close()
        _, status = os.waitpid(worker.pid, 0)
        if worker in self._ending:
            self._ending.discard(worker)
            return None
        self._workers.discard(worker)
        self._grant()
        return Finished(worker.task, None, worker.killed or worker.crash or _describe(status))

    def _end_all(self) -> None:
        left = self._workers | self._ending
        for worker in left:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        for worker in left:
            self._selector.unregister(worker.sock)
            worker.sock.close()
            os.waitpid(worker.pid, 0)
        self._workers.clear()
        self._ending.clear()
        self._selector.close()

    # ---- the worker's side

    def _be_worker(self, task: T, sock: socket.socket, parent: int) -> None:
        door = Door(sock)
        try:
            die_with_parent(parent)
            gc.disable()  # a worker lives for seconds; its cycles die with it
            leave_to_parent()
            for other in self._workers | self._ending:
                other.sock.close()
            self._work(task, door)
        except BaseException as error:  # whatever it is, the parent must hear of it, and nothing may unwind further
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


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"the trial's process died (signal {os.WTERMSIG(status)})"
    return f"the trial's process ended without a result (status {os.waitstatus_to_exitcode(status)})"
