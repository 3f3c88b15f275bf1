"""netem, the kernel's own link: every word of the grammar as one request, and the comparison with what was set.

Rule 1: the bytes are those that tc(8) sends (tests/lab/test_netem.py compares them). pyroute2 is not used for them: its
        netem puts the rate where the kernel reads a policer, and knows neither tables nor bursts, seeds and 64 bits.
Rule 2: nothing is rounded. Beside tc's 64 ns ticks, which all kernels understand, a time that is no whole number of
        ticks travels in nanoseconds too; what netem cannot hold exactly is refused.
Rule 3: what was set is read back and compared, field by field. Only the table of a distribution cannot be read back.
Rule 4: without a seed of its own a netem's losses could not be repeated, so one that takes none (before Linux 6.6) is
        no netem to us.

Layout: linux/pkt_sched.h, struct tc_netem_qopt and TCA_NETEM_*; the seed is attribute 14, an unsigned 64-bit number.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache

from testbed.errors import BrokenError, MachineError
from testbed.lab import namespaces
from testbed.lab.netlink import LOOPBACK, Batch, Message, Netlink
from testbed.link.distributions import table
from testbed.spec.link import Distribution, GilbertElliott, Impairment
from testbed.units import PPM

_NEW_QDISC, _GET_QDISC = 36, 38
_ERROR = 2
_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x200, 0x400
_ROOT = 0xFFFF_FFFF
_KIND, _OPTIONS = 1, 2
_CORRELATION, _TABLE, _REORDER, _CORRUPT, _LOSS, _RATE = 1, 2, 3, 4, 5, 6
_RATE64, _LATENCY64, _JITTER64, _SEED = 8, 10, 11, 14
_BURSTS = 2  # NETEM_LOSS_GE
_NESTED = 0x8000
_TYPE = 0x3FFF
_TICK = 64  # nanoseconds (PSCHED_SHIFT)
_MOST32 = 0xFFFF_FFFF
_MOST_JITTER = 2**31 - 1
_HEADER = struct.Struct("=IHHII")
_TC = struct.Struct("=BxxxiIII")
_NETEM = struct.Struct("=6I")
"""delay in ticks, limit, loss, gap, duplicate, jitter in ticks."""
_MEND = "--links wire"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a netem holds, in the kernel's units: shares of 2**32 - 1, nanoseconds, bytes per second."""

    delay: int = 0
    jitter: int = 0
    correlation: int = 0
    limit: int = 1000
    loss: int = 0
    bursts: tuple[int, int, int, int] | None = None
    """p, r, 1 - loss in the bad state, loss in the good state (struct tc_netem_gemodel)."""
    duplicate: int = 0
    corrupt: int = 0
    gap: int = 0
    reorder: int = 0
    rate: int = 0
    seed: int | None = None


def settings(impairment: Impairment, seed: int) -> Settings:
    """What a kernel must hold to do this. Raises MachineError where netem cannot."""
    if impairment.jitter > _MOST_JITTER:
        raise MachineError(f"netem cannot do a jitter above {_MOST_JITTER} ns", mend=_MEND)
    rate = impairment.rate or 0
    if rate % 8:
        raise MachineError(f"netem cannot do a rate of {rate} bit/s: it counts in bytes per second", mend=_MEND)
    loss, bursts = 0, None
    match impairment.loss:
        case GilbertElliott(p=p, r=r, good_loss=good, bad_loss=bad):
            bursts = (_share(p), _share(r), _MOST32 - _share(bad), _share(good))
        case probability:
            loss = _share(probability)
    return Settings(
        delay=impairment.delay,
        jitter=impairment.jitter,
        correlation=_share(impairment.correlation),
        limit=impairment.limit,
        loss=loss,
        bursts=bursts,
        duplicate=_share(impairment.duplicate),
        corrupt=_share(impairment.corrupt),
        gap=1 if impairment.reorder else 0,
        reorder=_share(impairment.reorder),
        rate=rate // 8,
        seed=seed,
    )


def _share(ppm: int) -> int:
    return round(ppm * _MOST32 / PPM)


# ---------------------------------------------------------------------------- encoding


def qdisc(label: str, index: int, impairment: Impairment, seed: int) -> Message:
    """The request that makes netem the root qdisc of a device. Raises MachineError where netem cannot do it."""
    options = encode(settings(impairment, seed), impairment.distribution)
    body = (
        _TC.pack(socket.AF_UNSPEC, index, 0, _ROOT, 0) + _attribute(_KIND, b"netem\0") + _attribute(_OPTIONS, options)
    )
    header = _HEADER.pack(_HEADER.size + len(body), _NEW_QDISC, _REQUEST | _CREATE | _EXCLUSIVE, 0, 0)
    return Message(f"netem {label}", header + body)


def change_qdisc(label: str, index: int, impairment: Impairment, seed: int) -> Message:
    """The request that changes the netem of a device; frames that it holds keep their time (netem_change).

    Raises MachineError where netem cannot do it. A table of a distribution cannot be taken away again
    (`check_changes`).
    """
    options = encode(settings(impairment, seed), impairment.distribution, all_of_it=True)
    body = (
        _TC.pack(socket.AF_UNSPEC, index, 0, _ROOT, 0) + _attribute(_KIND, b"netem\0") + _attribute(_OPTIONS, options)
    )
    return Message(
        f"change of netem {label}", _HEADER.pack(_HEADER.size + len(body), _NEW_QDISC, _REQUEST, 0, 0) + body
    )


def check_changes(label: str, states: Sequence[Impairment]) -> None:
    """Refuse, as a MachineError, what netem cannot be one after the other."""
    has_table = False
    for state in states:
        settings(state, 0)
        if has_table and state.jitter and state.distribution is Distribution.UNIFORM:
            raise MachineError(f"{label}: netem cannot go back to the uniform distribution of jitter", mend=_MEND)
        has_table |= table(state.distribution) is not None


def encode(wanted: Settings, distribution: Distribution = Distribution.UNIFORM, *, all_of_it: bool = False) -> bytes:
    """TCA_OPTIONS, its attributes in tc's order. `all_of_it`: also what is nothing, as a change leaves alone what it is
    not told.
    """
    parts = [
        _NETEM.pack(
            _ticks(wanted.delay), wanted.limit, wanted.loss, wanted.gap, wanted.duplicate, _ticks(wanted.jitter)
        )
    ]

    def add(kind: int, layout: str, *values: int) -> None:
        parts.append(_attribute(kind, struct.pack(layout, *values)))

    if wanted.correlation or all_of_it:
        add(_CORRELATION, "=III", wanted.correlation, 0, 0)
    if wanted.reorder or all_of_it:
        add(_REORDER, "=II", wanted.reorder, 0)
    if wanted.corrupt or all_of_it:
        add(_CORRUPT, "=II", wanted.corrupt, 0)
    if not _is_whole_ticks(wanted.delay):
        add(_LATENCY64, "=q", wanted.delay)
    if not _is_whole_ticks(wanted.jitter):
        add(_JITTER64, "=q", wanted.jitter)
    if wanted.bursts is not None:
        parts.append(_attribute(_LOSS | _NESTED, _attribute(_BURSTS, struct.pack("=4I", *wanted.bursts))))
    if wanted.rate > _MOST32:
        add(_RATE64, "=Q", wanted.rate)
    if wanted.rate or all_of_it:
        add(_RATE, "=IiIi", min(wanted.rate, _MOST32), 0, 0, 0)
    if (shape := table(distribution)) is not None:
        add(_TABLE, f"={len(shape)}h", *shape)
    if wanted.seed is not None:
        add(_SEED, "=Q", wanted.seed)
    return b"".join(parts)


def _ticks(nanoseconds: int) -> int:
    return min(nanoseconds // _TICK, _MOST32)


def _is_whole_ticks(nanoseconds: int) -> bool:
    return nanoseconds % _TICK == 0 and nanoseconds // _TICK <= _MOST32


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


# ---------------------------------------------------------------------------- reading back


def compare_qdisc(index: int, impairment: Impairment, seed: int) -> None:
    """Read a device's root qdisc, in the thread's namespace. Raises BrokenError naming what is not as it was asked."""
    wanted, found = settings(impairment, seed), read_qdisc(index)
    if found is None:
        raise BrokenError(f"netem on device {index}: it is not there")
    for field in fields(Settings):
        ours, theirs = getattr(wanted, field.name), getattr(found, field.name)
        if ours != theirs:
            raise BrokenError(f"netem on device {index}: {field.name} is {theirs}, where {ours} was set")


def read_qdisc(index: int) -> Settings | None:
    """What the root qdisc of a device holds; None where it is no netem. Raises BrokenError where there is no device."""
    body = _TC.pack(socket.AF_UNSPEC, index, 0, _ROOT, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asking:
        asking.bind((0, 0))
        asking.send(_HEADER.pack(_HEADER.size + len(body), _GET_QDISC, _REQUEST | _ACK, 1, 0) + body)
        # A qdisc of the kernel's own (noqueue) is not told; the acknowledgement always comes, and comes last.
        answer = b""
        while _HEADER.unpack_from(told := asking.recv(1 << 16))[1] != _ERROR:
            answer = told
    if number := -struct.unpack_from("=i", told, _HEADER.size)[0]:
        raise BrokenError(f"qdisc of device {index}: {os.strerror(number)}")
    if not answer:
        return None
    found = dict(_attributes(answer[_HEADER.size + _TC.size :]))
    return decode(found[_OPTIONS]) if found[_KIND].rstrip(b"\0") == b"netem" else None


def decode(options: bytes) -> Settings:
    """TCA_OPTIONS as the kernel dumps them, or as tc sends them."""
    ticks, limit, loss, gap, duplicate, jitter_ticks = _NETEM.unpack_from(options)
    found = dict(_attributes(options[_NETEM.size :]))

    def number(kind: int, layout: str, otherwise: int) -> int:
        return int(struct.unpack_from(layout, found[kind])[0]) if kind in found else otherwise

    bursts = dict(_attributes(found[_LOSS])).get(_BURSTS) if _LOSS in found else None
    return Settings(
        delay=number(_LATENCY64, "=q", ticks * _TICK),
        jitter=number(_JITTER64, "=q", jitter_ticks * _TICK),
        correlation=number(_CORRELATION, "=I", 0),
        limit=limit,
        loss=loss,
        bursts=struct.unpack("=4I", bursts) if bursts is not None else None,
        duplicate=duplicate,
        corrupt=number(_CORRUPT, "=I", 0),
        gap=gap,
        reorder=number(_REORDER, "=I", 0),
        rate=number(_RATE64, "=Q", number(_RATE, "=I", 0)),
        seed=number(_SEED, "=Q", 0) if _SEED in found else None,
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & _TYPE, data[at + 4 : at + length]
        at += length + -length % 4


# ---------------------------------------------------------------------------- whether there is one


def try_netem() -> None:
    """Set one on the loopback device of the namespace that the thread is in. Raises MachineError, saying why not."""
    probe = Impairment(delay=1_000_000, loss=10_000)
    try:
        with Netlink() as link:
            link.send(Batch([qdisc("on lo", LOOPBACK, probe, 1)]))
        compare_qdisc(LOOPBACK, probe, 1)
    except (BrokenError, MachineError) as error:
        raise MachineError(f"netem will not do: {error}", mend="sudo modprobe sch_netem") from error


@cache
def netem_refusal() -> str | None:
    """Why links cannot be made by netem here; None where they can. Tried once, in a child that then ends."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        words = "the attempt died"
        try:
            if not namespaces.can_make_namespaces():
                namespaces.enter_world()
            namespaces.enter_new_namespace()
            try_netem()
            words = ""
        except (MachineError, OSError) as error:
            words = str(error).partition("\n")[0]
        finally:
            os.write(writing, words.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        words = file.read().decode()
    os.waitpid(pid, 0)
    return words or None
