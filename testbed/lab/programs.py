"""Programs in a box, each in a PID namespace of its own.

Rule 1: the first process of the PID namespace is ours. It dies with the process that asked for the program, and with
        it, by the kernel's rule, everything that the program has started, daemons too.
Rule 2: asking a program to end reaches the program; killing it kills the whole PID namespace.
Rule 3: how the program ended is told through a pipe, because the first process of a PID namespace cannot die by a
        signal of its own.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from testbed.lab import namespaces, processes
from testbed.lab.namespaces import Namespace

_STATUS = struct.Struct("=i")


class Program:
    """A running program."""

    def __init__(self, pid: int, first: int | None, stdout: IO[bytes], stderr: IO[bytes], status: int) -> None:
        """`first`: a pidfd of the first process of its PID namespace; None where that has ended already."""
        self.pid = pid
        """Of the process that ends when the program and all that it started has: wait for this one."""
        self._first = first
        self.stdout: IO[bytes] | None = stdout
        self.stderr: IO[bytes] | None = stderr
        self._status_fd = status
        self._ended: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs; below zero it is a signal's number."""
        if self._ended is None:
            pid, _ = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                return None
            self._ended = self._read_status()
            if self._first is not None:
                os.close(self._first)
                self._first = None
        return self._ended

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it started."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._first is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, number)

    def _read_status(self) -> int:
        data = os.read(self._status_fd, _STATUS.size)
        os.close(self._status_fd)
        if len(data) < _STATUS.size:
            return -signal.SIGKILL
        (status,) = _STATUS.unpack(data)
        return int(status)


def spawn(namespace: Namespace, command: Sequence[str], environment: Mapping[str, str]) -> Program:
    """Start a program inside `namespace`, its output through pipes. Raises OSError where it cannot be started."""
    out_read, out_write = os.pipe()
    error_read, error_write = os.pipe()
    status_read, status_write = os.pipe()
    started_read, started_write = os.pipe()
    parent = os.pidfd_open(os.getpid())
    keeper, first = processes.fork_into_new_pids()
    if first == 0:
        _be_first(namespace, command, environment, (out_write, error_write), status_write, started_write, parent)
    for fd in (out_write, error_write, status_write, started_write, parent):
        os.close(fd)
    with os.fdopen(started_read, "rb") as file:
        refused = file.read()
    if refused:
        os.waitpid(keeper, 0)
        for fd in (out_read, error_read, status_read):
            os.close(fd)
        (number,) = _STATUS.unpack(refused)
        raise OSError(number, os.strerror(number), command[0])
    try:
        pidfd = os.pidfd_open(first)
    except ProcessLookupError:
        pidfd = None
    return Program(keeper, pidfd, os.fdopen(out_read, "rb", 0), os.fdopen(error_read, "rb", 0), status_read)


def _be_first(
    namespace: Namespace,
    command: Sequence[str],
    environment: Mapping[str, str],
    output: tuple[int, int],
    status: int,
    started: int,
    parent: int,
) -> None:
    """The first process: it starts the program, passes SIGTERM on, reaps what is orphaned, and never returns."""
    try:
        processes.die_with_process(parent)
        namespaces.part_mounts()
        with namespace:
            namespaces.mount_own_proc()
            namespaces.mount_own_sysfs()
            program = os.fork()
            if program == 0:
                _be_program(command, environment, output, started)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: _pass_on(program))
        for fd in (*output, started):  # the last one closed says that SIGTERM is passed on from now on
            os.close(fd)
        os.write(status, _STATUS.pack(os.waitstatus_to_exitcode(_reap_until(program))))
    except OSError as error:
        with suppress(OSError):
            os.write(started, _STATUS.pack(error.errno or 0))
    finally:
        os._exit(0)


def _pass_on(program: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(program, signal.SIGTERM)


def _reap_until(program: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == program:
            return status


def _be_program(command: Sequence[str], environment: Mapping[str, str], output: tuple[int, int], started: int) -> None:
    """The program itself, from fork to exec."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd, target in zip((null, *output), (0, 1, 2), strict=True):
            os.dup2(fd, target)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(command[0], list(command), dict(environment))
    except OSError as error:
        os.write(started, _STATUS.pack(error.errno or 0))
    finally:
        os._exit(127)
