"""Scripts of packets: what is sent by whom to whom, without a word of what becomes of it.

Rule 1: a step names what it is about by number (an inside host, the k-th endpoint that was seen, the k-th packet that
        passed), so that a script from which steps are taken away is still one.
Rule 2: a script is drawn from a seed. Hypothesis would shrink it better, but draws no lists of hundreds of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from testbed.datagram import Endpoint
from testbed.nat.packet import Flag
from testbed.spec.profile import SECOND

HOSTS = tuple(f"192.168.1.{10 + number}" for number in range(3))
REMOTES = tuple(f"12.0.0.{number}" for number in range(1, 9))
ROUTER = "13.0.0.1"
"""On the way outside; who tells of packets that died there."""
SHORT, LONG, FOREVER = 100 * SECOND, 5000 * SECOND, 8000 * SECOND
"""Pauses; after the last one nothing is left. No sum of them comes within ten seconds of a timer (180, 240 and 7440 s;
30 s for errors): the kernel's own clock goes on while a script runs."""
SYN, SYN_ACK, ACK, FIN, RST = Flag.SYN, Flag.SYN | Flag.ACK, Flag.ACK, Flag.FIN | Flag.ACK, Flag.RST | Flag.ACK
_FLAGS = (SYN, SYN, SYN, SYN_ACK, SYN_ACK, ACK, ACK, ACK, FIN, RST)


@dataclass(frozen=True)
class Send:
    """A datagram, or a segment where there are flags."""

    source: Endpoint
    target: Endpoint | int
    """An endpoint, or the k-th external endpoint that was seen, as far as there are any."""
    flags: Flag | None

    @property
    def is_outbound(self) -> bool:
        return self.source.host in HOSTS


@dataclass(frozen=True)
class Error:
    """An ICMP error about the k-th of the packets that last went out, or came in, or about one that nobody sent."""

    is_outbound: bool
    about: int | Endpoint
    kind: tuple[int, int]


@dataclass(frozen=True)
class Pause:
    """Nothing happens."""

    duration: int


Step: TypeAlias = "Send | Error | Pause"


def draw(seed: str, count: int, *, pauses: tuple[int, int] = (SHORT, LONG), errors: bool = True) -> list[Step]:
    """A script of so many steps. `pauses`: a frequent one and a rare one. `errors`: whether any come in."""
    random, steps = Random(seed), list[Step]()
    while len(steps) < count:
        flags = None if random.random() < 0.55 else random.choice(_FLAGS)
        inside = Endpoint(random.choice(HOSTS), random.choice((5000, 5001)))
        outside = Endpoint(random.choice(REMOTES), random.choice((7000, 7001)))
        stray = Endpoint("11.0.0.1", random.randrange(1024, 65536))
        seen: Endpoint | int = random.randrange(64) if random.random() < 0.95 else stray
        chance = random.random()
        if chance < 0.42:
            steps.append(Send(inside, outside, flags))
        elif chance < 0.80:
            steps.append(Send(outside, seen, flags))
        elif chance < 0.86:
            steps.append(Send(inside, seen, flags))
        elif chance < 0.93 and errors:
            about = random.randrange(4) if random.random() < 0.85 else stray
            steps.append(Error(False, about, random.choice(((11, 0), (3, 1), (3, 3)))))
        elif chance < 0.97:
            steps.append(Error(True, random.randrange(4), (3, 3)))
        elif chance < 0.993:
            steps.append(Pause(pauses[0]))
        else:
            steps.append(Pause(pauses[1]))
    return steps


def shrunk(script: Sequence[Step], fails: Callable[[Sequence[Step]], bool]) -> list[Step]:
    """A script that still fails and from which no single step can be taken (ddmin, Zeller 2002)."""
    steps, size = list(script), max(1, len(script) // 2)
    while size:
        at, is_shorter = 0, False
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if fails(fewer):
                steps, is_shorter = fewer, True
            else:
                at += size
        if size == 1 and not is_shorter:
            break
        size = max(1, size // 2) if size > 1 or is_shorter else 0
    return steps
