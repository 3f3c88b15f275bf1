"""Processes that die with us, in namespaces of their own.

Rule 1: a child dies with its parent, by whatever signal the parent dies.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
from contextlib import suppress

from testbed.lab.namespaces import CLONE_NEWPID, libc, unshare

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_TIMERSLACK = 1, 4, 29
_NOBODY = 65534
_FIRST = struct.Struct("=ii")
"""What a keeper says once: an error's number, or 0 and the number of the first process."""


def die_with_parent(parent: int) -> None:
    """In a child: die by SIGKILL as soon as the thread that forked us ends. `parent` is its process id.

    The parent may have died before we asked (prctl(2)); then we end at once.
    """
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def die_with_process(pidfd: int) -> None:
    """The same for the first process of a PID namespace, where no parent has a number."""
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if is_dead(pidfd):
        os._exit(1)


def is_dead(pidfd: int) -> bool:
    """Whether the process behind a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def fork_into_new_pids() -> tuple[int, int]:
    """Fork into a PID namespace: (keeper, first) in the caller, (0, 0) in the first process of the namespace.

    When the first process dies, everything in the namespace dies. Between us and it stands the *keeper*, for whom the
    caller waits: it ends when the first process has. unshare(2) says for good where a process's children are born, and
    setns(2) back takes rights that a lab in a user namespace does not have; so it is not we who call it. (clone3(2)
    would need no keeper, but a fork of which the C library does not hear leaves OpenBLAS's threads in its books; the
    child's next fork then waits for them for ever.) Raises OSError.
    """
    parent = os.pidfd_open(os.getpid())
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        _keep_first(parent, writing)  # returns in the first process only
        return 0, 0
    os.close(writing)
    os.close(parent)
    with os.fdopen(reading, "rb") as file:
        said = file.read()
    number, first = _FIRST.unpack(said) if said else (errno.ECHILD, 0)
    if number != 0:
        os.waitpid(keeper, 0)
        raise OSError(number, f"a PID namespace: {os.strerror(number)}")
    return keeper, first


def _keep_first(parent: int, writing: int) -> None:
    first = -1
    try:
        die_with_process(parent)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        unshare(CLONE_NEWPID)
        keeper = os.pidfd_open(os.getpid())
        first = os.fork()
        if first == 0:
            die_with_process(keeper)
            for fd in (parent, writing, keeper):
                os.close(fd)
        else:
            os.write(writing, _FIRST.pack(0, first))
            os.closerange(
                0, os.sysconf("SC_OPEN_MAX")
            )  # whoever waits for the end of a pipe waits for this process too
            os.waitpid(first, 0)
    except OSError as error:
        with suppress(OSError):
            os.write(writing, _FIRST.pack(error.errno or errno.ECHILD, 0))
    finally:
        if first != 0:
            os._exit(0)


def become_nobody() -> None:
    """Give up root for good, and still own our files in /proc, which a user namespace needs. Raises OSError."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def wake_on_time() -> None:
    """Let this thread's timers end within a nanosecond of their time, not within 50 µs (prctl(2))."""
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
