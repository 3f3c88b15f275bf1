"""The wire against a plain veth, by the same clock: how exact a delay is, and how much a link carries.

Rule 1: the datum is the run (a fresh lab), never the packet. A run gives one percentile; the number shown is the
        median over runs, with the order statistics' interval.
Rule 2: every round measures every subject, the plain veth too, so that what the machine does meanwhile meets all.
Rule 3: a probe's time is from before its sendto to the stamp that the receiver's kernel puts on it: when it was there
        to be read. When a program comes to read it is the program's matter, and the scheduler's.

`python -m benchmarks.wire [ROUNDS]`, on an otherwise idle machine.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from testbed.spec.link import Impairment, Link
from testbed.stats import Percentile, Sample
from tests.lab.cables import UPPER, Pair, joined, wired

MS = 1_000_000
SECOND = 1000 * MS
DELAYS = (1 * MS, 10 * MS, 100 * MS)
PROBES, INTERVAL = 400, 5 * MS
FLOOD, FLOOD_TIME = 50_000, 1
"""Packets per second, seconds."""
MOST_ERROR, MOST_LOSS = 0.7, 0.1
"""Milliseconds at the 99th percentile, and per cent."""
_STAMP, _TIMESPEC = struct.Struct("=q"), struct.Struct("=qq")
_SO_TIMESTAMPNS = 35


@dataclass
class Measured:
    """One value a run."""

    errors: dict[int | None, list[float]] = field(default_factory=dict)
    """Milliseconds beyond the delay at a run's 99th percentile, by delay; None: the plain veth."""
    medians: dict[int | None, list[float]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    """Per cent of a flood that did not arrive, though its link loses nothing."""
    plain_losses: list[float] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)
    """Packets per second that the flood of the link was offered at; less than it should be on a busy machine."""
    lateness: list[float] = field(default_factory=list)
    """Milliseconds by which the flooded link was late, at the 99th percentile."""
    scheduling: str = ""


def measure(rounds: int = 6) -> Measured:
    """Six rounds are the fewest that bound a median."""
    measured = Measured()
    for _ in range(rounds):
        with joined() as pair:
            _note(measured, None, _probe(pair, 0))
            measured.plain_losses.append(_flood(pair)[0])
        for delay in DELAYS:
            with wired(Link(up=Impairment(delay=delay))) as (wire, [pair]):
                _note(measured, delay, _probe(pair, delay))
                measured.scheduling = wire.finish().scheduling
        with wired(Link(up=Impairment(delay=5 * MS, loss=0, limit=100_000))) as (wire, [pair]):
            loss, pace = _flood(pair)
            measured.losses.append(loss)
            measured.paces.append(pace)
            measured.lateness.append((wire.finish().lateness.p99 or 0) / MS)
    return measured


def _note(measured: Measured, subject: int | None, errors: Sequence[float]) -> None:
    sample = Sample(tuple(errors))
    for p, into in ((0.5, measured.medians), (0.99, measured.errors)):
        value = sample.percentile(p).value
        assert value is not None
        into.setdefault(subject, []).append(value)


def _probe(pair: Pair, delay: int) -> list[float]:
    """Milliseconds beyond `delay` of each probe; they start an interval apart, whether or not others are on the way."""
    lower, upper = pair.sockets()
    poll = select.poll()
    poll.register(upper, select.POLLIN)
    upper.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    errors: list[float] = []
    with lower, upper:
        start, sent = time.monotonic_ns(), 0
        while len(errors) < PROBES:
            until = start + sent * INTERVAL - time.monotonic_ns() if sent < PROBES else 10 * SECOND
            if until <= 0:
                lower.sendto(_STAMP.pack(time.time_ns()), (UPPER, 5000))
                sent += 1
            elif poll.poll(until / MS):
                payload, [(_, _, stamp)], _, _ = upper.recvmsg(100, 100)
                seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                errors.append((seconds * SECOND + nanoseconds - _STAMP.unpack(payload)[0] - delay) / MS)
            elif sent == PROBES:
                raise AssertionError(f"{PROBES - len(errors)} probes did not arrive")
    return errors


def _flood(pair: Pair) -> tuple[float, float]:
    """Per cent of what was sent that did not arrive, and the pace at which a process of its own sent it."""
    lower, upper = pair.sockets()
    upper.settimeout(0.5)
    count = FLOOD * FLOOD_TIME
    reading, writing = os.pipe()
    sender = os.fork()
    if sender == 0:
        try:
            lower.connect((UPPER, 5000))
            start, payload = time.monotonic_ns(), bytes(200)
            for index in range(count):
                while time.monotonic_ns() < start + index * SECOND // FLOOD:
                    pass
                lower.send(payload)
            os.write(writing, _STAMP.pack(time.monotonic_ns() - start))
        finally:
            os._exit(0)
    arrived = 0
    with lower, upper:
        try:
            while arrived < count:
                upper.recv(300)
                arrived += 1
        except TimeoutError:
            pass
    (took,) = _STAMP.unpack(os.read(reading, _STAMP.size))
    os.waitpid(sender, 0)
    os.close(reading)
    os.close(writing)
    return 100 * (1 - arrived / count), count * SECOND / took


def _is_kept(value: Percentile, most: float) -> bool:
    return value.value is not None and value.value <= most


def _line(name: str, value: Percentile, unit: str, target: float | None = None) -> str:
    interval = f"[{value.low:.3f}, {value.high:.3f}]" if value.low is not None and value.high is not None else "[?]"
    verdict = ""
    if target is not None:
        verdict = f"   {'kept' if _is_kept(value, target) else 'MISSED'}: at most {target:g} {unit}"
    return f"{name:44s} {value.value:8.3f} {interval} {unit}{verdict}"


def _ratio(ours: Sequence[float], plain: Sequence[float]) -> str:
    """Of what the same round gave for both."""
    ratio = Sample(tuple(a / b for a, b in zip(ours, plain, strict=True))).percentile(0.5)
    return f"{ratio.value:.1f} x plain veth [{ratio.low:.1f}, {ratio.high:.1f}]" if ratio.low and ratio.high else "?"


def main(rounds: int = 6) -> int:
    """How many promises were missed."""
    return show(measure(rounds))


def show(measured: Measured) -> int:
    """Lines for a person; how many of them say MISSED."""

    def median(values: Sequence[float]) -> Percentile:
        return Sample(tuple(values)).percentile(0.5)

    n = len(measured.losses)
    print(
        f"medians of {n} runs with their {median(measured.losses).confidence or 0:.0%} intervals; {PROBES} probes a run"
    )
    print(f"the wire was scheduled as: {measured.scheduling}")
    percentiles: Mapping[str, dict[int | None, list[float]]] = {"p50": measured.medians, "p99": measured.errors}
    for label, found in percentiles.items():
        print(_line(f"plain veth, one way, {label}", median(found[None]), "ms"))
        for delay in DELAYS:
            target = MOST_ERROR if label == "p99" else None
            name = f"delay {delay // MS} ms, beyond it, {label}"
            print(_line(name, median(found[delay]), "ms", target), " ", _ratio(found[delay], found[None]))
    print(_line(f"plain veth, {FLOOD} packets/s, lost", median(measured.plain_losses), "%"))
    print(_line(f"a link of 5 ms, {FLOOD} packets/s, lost", median(measured.losses), "%", MOST_LOSS))
    print(_line("  the pace that was offered", median(measured.paces), "/s"))
    print(_line("  late at p99", median(measured.lateness), "ms"))
    promised = [(measured.errors[delay], MOST_ERROR) for delay in DELAYS] + [(measured.losses, MOST_LOSS)]
    return sum(not _is_kept(median(values), most) for values, most in promised)


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:2]))))
