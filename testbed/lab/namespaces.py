"""Namespaces: the one door to unshare, setns and mount.

Rule 1: a namespace is an open descriptor and has no name. The kernel removes it, and all that is in it,
        when the last descriptor closes, also after SIGKILL.
Rule 2: `with namespace:` puts *the calling thread* inside and brings it back. What is opened inside (a socket,
        a netlink connection) stays inside for ever; the thread does not have to.
Rule 3: a *world* is left for good by nobody: `enter_world` parts this process from the host's network, so that no
        later mistake can touch it. Mounts are parted only by those who mount: copying and dropping them makes every
        lab wait for the grace periods of those that are ending, 30 to 60 ms.

Python has os.unshare and os.setns from 3.12 on; before that, and for mount, the C library is called.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.errors import BrokenError, MachineError

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x4_0000
_RIGHTS = 1 << 12 | 1 << 13 | 1 << 21
"""CAP_NET_ADMIN (devices, rules), CAP_NET_RAW (captures), CAP_SYS_ADMIN (namespaces): capabilities(7)."""
_NOBODY = 65534
_OWN_NETWORK = "/proc/thread-self/ns/net"

libc = ctypes.CDLL(None, use_errno=True)
"""The C library; only the doors of lab/ call it."""


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if sys.version_info >= (3, 12):

    def unshare(flags: int) -> None:
        """Leave the namespaces of these kinds for new ones. Raises OSError."""
        os.unshare(flags)

    def setns(descriptor: int, kind: int) -> None:
        """Enter the namespace behind a descriptor. Raises OSError."""
        os.setns(descriptor, kind)

else:

    def unshare(flags: int) -> None:
        """Leave the namespaces of these kinds for new ones. Raises OSError."""
        _checked(libc.unshare(flags), "unshare")

    def setns(descriptor: int, kind: int) -> None:
        """Enter the namespace behind a descriptor. Raises OSError."""
        _checked(libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int = 0) -> None:
    """Put a file system in its place. Raises OSError."""
    encoded = kind.encode() if kind is not None else None
    _checked(libc.mount(source.encode(), target.encode(), encoded, flags, None), f"mount {target}")


# ---------------------------------------------------------------------------- network namespaces


class _Home(threading.local):
    """Where a thread comes back to: one descriptor for each namespace that it has entered and not left."""

    def __init__(self) -> None:
        self.stack: list[int] = []


_home = _Home()


class Namespace:
    """A network namespace, held by an open descriptor."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> Self:
        here = _open_own_network()
        try:
            setns(self.fd, CLONE_NEWNET)
        except OSError:
            os.close(here)
            raise
        _home.stack.append(here)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        here = _home.stack.pop()
        try:
            setns(here, CLONE_NEWNET)
        finally:
            os.close(here)

    @property
    def path(self) -> str:
        """What `nsenter --net=` and `ip -n` of another process can open, while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def move_to(self, fd: int) -> None:
        """Hold it by the descriptor number `fd`, which must be free. Raises BrokenError where it is not."""
        try:
            os.fstat(fd)
        except OSError:
            os.dup2(self.fd, fd, inheritable=False)
            os.close(self.fd)
            self.fd = fd
        else:
            raise BrokenError(f"descriptor {fd}, meant for a namespace, is taken")

    def close(self) -> None:
        """Let go of it; twice does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def new_namespace() -> Namespace:
    """A network namespace with nothing in it but `lo`, down. Raises MachineError."""
    with coming_back():
        return enter_new_namespace()


def enter_new_namespace() -> Namespace:
    """Make a namespace and leave the thread inside: for those who make many and come back once."""
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        raise refusal(error) from error
    return Namespace(_open_own_network())


@contextmanager
def coming_back() -> Iterator[None]:
    """Whatever namespaces the thread enters inside, afterwards it is where it was."""
    here = _open_own_network()
    try:
        yield
    finally:
        setns(here, CLONE_NEWNET)
        os.close(here)


def own_namespace() -> Namespace:
    """The namespace that this thread is in now."""
    return Namespace(_open_own_network())


def _open_own_network() -> int:
    return os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)


# ---------------------------------------------------------------------------- the world


def enter_world() -> None:
    """Part this process from the host: its own network, and its own users where it lacks rights.

    Afterwards namespaces may be made in it. Needs one thread where a user namespace is due. Raises MachineError.
    """
    if not can_make_namespaces():  # a container's root, too: its user namespaces may still be allowed
        _enter_users()
        return
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        raise refusal(error) from error


def can_make_namespaces() -> bool:
    """Whether this process has the rights now, without users of its own: to make namespaces, and to fill them."""
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return int(effective.split()[1], 16) & _RIGHTS == _RIGHTS


def ensure_rights() -> None:
    """Make sure that this process may make namespaces, in a world of its own where it may not without. MachineError."""
    if not can_make_namespaces():
        enter_world()


def mount_own_sysfs() -> None:
    """A /sys that shows the devices of the namespace we are in; left as it is where the kernel forbids it."""
    with suppress(OSError):  # a container that hides parts of /sys may not mount another one
        mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def mount_own_proc() -> None:
    """A /proc that shows the processes of the PID namespace we are in; left as it is where that is forbidden."""
    with suppress(OSError):
        mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def part_mounts() -> None:
    """Own mounts for this process, so that a mount made now is seen by nobody else. Raises OSError."""
    unshare(CLONE_NEWNS)
    mount("none", "/", None, _MS_REC | _MS_PRIVATE)


def join(pid: int, network: str) -> None:
    """Enter the network namespace at `network` for good, and with it the users of the process that holds it.

    /sys shows that namespace afterwards. Raises OSError.
    """
    descriptor = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    users = f"/proc/{pid}/ns/user"
    if os.readlink(users) != os.readlink("/proc/self/ns/user"):
        setns(os.open(users, os.O_RDONLY | os.O_CLOEXEC), CLONE_NEWUSER)
    setns(descriptor, CLONE_NEWNET)
    part_mounts()
    mount_own_sysfs()


def _enter_users() -> None:
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as error:
        if error.errno == errno.EINVAL and len(os.listdir("/proc/self/task")) > 1:  # a library's threads count, too
            raise BrokenError("a process with several threads cannot enter a user namespace") from error
        raise refusal(error) from error


def refusal(error: OSError, proc: Path = Path("/proc")) -> MachineError:
    """Why this machine forbids namespaces, and the command that would allow them."""

    def setting(name: str) -> str | None:
        try:
            return (proc / "sys" / name).read_text().strip()
        except OSError:
            return None

    if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS):
        return MachineError(f"the kernel cannot make a network namespace: {error.strerror}")
    for name, forbidding, allowing in (
        ("user/max_user_namespaces", "0", "15000"),
        ("user/max_net_namespaces", "0", "15000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        if setting(name) == forbidding:
            key = name.replace("/", ".")
            return MachineError(
                f"namespaces need root here: {key} is {forbidding}",
                mend=f"run it with sudo, or: sudo sysctl -w {key}={allowing}",
            )
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        return MachineError("no more namespaces are allowed here", mend="sudo sysctl -w user.max_net_namespaces=15000")
    return MachineError(
        f"making a namespace is forbidden here ({error.strerror}), as in most containers",
        mend="run it with sudo; in a container: --privileged, or --cap-add SYS_ADMIN --security-opt seccomp=unconfined",
    )
