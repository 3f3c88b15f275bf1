"""What this machine can do: each capability that a lab rests on, tried and not guessed.

Rule 1: a capability is tried in a child process that then ends, so that asking changes nothing.
Rule 2: an answer says what the capability is for, why it is missing, and the command that mends it.
Rule 3: only what a lab cannot do without is `required`; the rest says what is done instead.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import MachineError, TestbedError
from testbed.lab import namespaces, processes


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a machine can do, or cannot."""

    name: str
    purpose: str
    is_required: bool
    missing: str | None = None
    """Why it is missing; None where it is there."""
    mend: str | None = None
    """The command that would mend it."""
    detail: str = ""
    """Which version or kind it is."""


def capabilities() -> tuple[Capability, ...]:
    """Every capability, in the order in which a lab needs them."""
    return tuple(capability() for capability in _PROBES)


def missing_for_a_lab() -> tuple[str, ...]:
    """What keeps a lab from being built here and what mends that, as sentences; nothing where one can be built."""
    found = [probe() for probe in (_namespaces, _settings, _libnftables, _nat_statements, _capture)]
    reasons = dict.fromkeys((c.missing, c.mend) for c in found if c.missing is not None)
    return tuple(missing + (f" (to mend it: {mend})" if mend is not None else "") for missing, mend in reasons)


def ensure_basics() -> None:
    """Try in a child what every box of a lab does first; a few milliseconds. Raises MachineError."""

    def attempt() -> str:
        _enter()
        _try_settings()
        _try_capture()
        return ""

    _, missing, mend = _in_child(attempt)
    if missing is not None:
        raise MachineError(missing, mend=mend)


def _tried(name: str, purpose: str, attempt: Callable[[], str], *, required: bool = True) -> Capability:
    """Try something in a child; what it returns is the detail."""
    detail, error, mend = _in_child(attempt)
    return Capability(name, purpose, required, error, mend, detail)


def _in_child(attempt: Callable[[], str]) -> tuple[str, str | None, str | None]:
    """(detail, why it failed, what mends that) of an attempt made in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = "\0".join(("ok", attempt(), ""))
        except MachineError as error:
            answer = "\0".join(("no", str(error).partition("\n")[0], error.mend or ""))
        except TestbedError as error:
            answer = "\0".join(("no", str(error), ""))
        except OSError as error:
            answer = "\0".join(("no", error.strerror or str(error), ""))
        except BaseException:  # this is the top of a process: whatever it is, the parent must hear of it
            answer = "\0".join(("no", traceback.format_exc(limit=-1).strip().splitlines()[-1], ""))
        os.write(writing, answer.encode()[:4096])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said, text, mend = [*file.read().decode(errors="replace").split("\0"), "", "", ""][:3]
    os.waitpid(pid, 0)
    if said == "ok":
        return text, None, None
    return "", text or "the attempt died without a word", mend or None


def _enter() -> None:
    if not namespaces.can_make_namespaces():
        namespaces.enter_world()
    namespaces.enter_new_namespace()


def _namespaces() -> Capability:
    def attempt() -> str:
        rights = "as root" if namespaces.can_make_namespaces() else "in a user namespace"
        _enter()
        return rights

    return _tried("network namespaces", "every box of a network is one", attempt)


def _user_namespaces() -> Capability:
    def attempt() -> str:
        if namespaces.can_make_namespaces():
            processes.become_nobody()
            namespaces.enter_world()
            return "tried as nobody"
        namespaces.enter_world()
        return ""

    return _tried("user namespaces", "labs without root", attempt, required=False)


def _settings() -> Capability:
    def attempt() -> str:
        _enter()
        _try_settings()
        return ""

    return _tried("settings", "each box has its own below /proc/sys/net: whether it forwards, what it answers", attempt)


def _try_settings() -> None:
    from testbed.lab import sysctl

    sysctl.configure(forwards=True)


def _libnftables() -> Capability:
    def attempt() -> str:
        from testbed.lab.nftables.library import Nftables

        return Nftables.version()

    return _tried("libnftables", "loads the rules of NATs", attempt)


def _nat_statements() -> Capability:
    def attempt() -> str:
        from testbed.lab.nftables.probe import try_statements

        _enter()
        try_statements()
        return f"Linux {os.uname().release}"

    return _tried("NAT statements", "the kernel's half of a NAT: maps with timeouts, zones, snat and dnat", attempt)


def _netem() -> Capability:
    def attempt() -> str:
        from testbed.lab.netlink_netem import try_netem

        _enter()
        try_netem()
        return "sch_netem"

    purpose = "the kernel's own link impairments; without it `wire` links do the same"
    return _tried("netem", purpose, attempt, required=False)


def _tun() -> Capability:
    def attempt() -> str:
        device = Path("/dev/net/tun")
        if not device.exists():
            raise MachineError("/dev/net/tun is missing", mend="sudo modprobe tun")
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
        return ""

    return _tried("TUN/TAP", "VPN programs under test; testbed itself needs none", attempt, required=False)


def _capture() -> Capability:
    def attempt() -> str:
        _enter()
        _try_capture()
        return "AF_PACKET"

    return _tried("capture", "evidence in packets, and `wire` links", attempt)


def _try_capture() -> None:
    from testbed.lab.tap import Tap

    try:
        Tap().close()
    except OSError as error:
        raise MachineError(
            f"packets cannot be captured: {error.strerror}",
            mend="run it with sudo; in a container: --cap-add NET_RAW; and: sudo modprobe af_packet",
        ) from error


def _real_time() -> Capability:
    def attempt() -> str:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError as error:
            raise MachineError(f"SCHED_FIFO: {error.strerror}", mend="run it with sudo") from error
        return "SCHED_FIFO"

    return _tried("real-time priority", "links keep their delays on a busy machine", attempt, required=False)


_PROBES = (
    _namespaces,
    _user_namespaces,
    _settings,
    _libnftables,
    _nat_statements,
    _capture,
    _netem,
    _tun,
    _real_time,
)
