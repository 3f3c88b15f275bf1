"""One direction of a link as a pure model: what becomes of a frame, and when.

Rule 1: time and chance are arguments. A direction is told `now` and given a seed; it looks at no clock and does no I/O.
Rule 2: every frame draws the same number of values, whatever is done with them. So the n-th frame of a direction meets
        the same fate in every run with the same seed, whatever the frames' sizes and times are. One loss is not
        chance's: a full queue depends on when frames come. Where nothing is ever random, nothing is drawn.
Rule 3: frames that are not the programs' own (ARP, neighbour discovery, group membership) come when the kernel likes.
        They draw from a second generator, or they would shift the fates of all others.
Rule 4: a change (`change`) is for frames that come after it; those on the way keep their time, and a line that gets a
        rate sends the next frame behind all of them. A direction that `varies` draws for each frame, also while
        nothing about it is random: so the n-th frame draws the same values before and after, whenever that is.
Rule 5: the words mean what sch_netem means by them, so that a kernel's netem and our own link can be exchanged:

    duplicate   a second copy enters behind the first and meets loss, corruption, delay and rate for itself; of a frame
                that is both duplicated and lost, one copy goes on
    loss        before the queue: what is lost takes no place in it
    bursts      Gilbert-Elliott: the state before this frame decides about its loss, then the state may turn
    limit       counts all that waits, for the line or for its delay; a frame that finds so many is dropped
    reorder     a frame skips the delay, the line and all that wait
    rate        one line that sends a frame after the other, and what the delay was waited for before: the *later* of
                (line free, now + delay) is when its first bit is sent. So with a rate jitter does not reorder, and
                without jitter it is the same as a line in front of the delay
    correlation a frame's value is a mix of a new one and the one before (get_crandom)

    Where it differs, on purpose: netem takes the remainder of the mixed value by the jitter's width, which leaves next
    to no correlation (neighbours differ by far more than that width); here the value is scaled to the width. netem may
    flip a bit of the Ethernet header, here one of the packet is flipped: a program sees it as a loss, by some checksum.
    netem truncates each frame's time on the line to a nanosecond, here the remainder is carried on.
"""

from __future__ import annotations

from enum import StrEnum
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

from testbed.link.distributions import SCALE, SIZE, table
from testbed.plan.seeds import derive
from testbed.spec.link import GilbertElliott, Impairment
from testbed.units import NS_PER_SECOND, PPM

LINK_HEADER = 14
"""Bytes of an Ethernet header."""
_DRAWS_OF_A_COPY = 6
_DRAWS = 1 + 2 * _DRAWS_OF_A_COPY
_BITS_AND_NANOSECONDS = 8 * NS_PER_SECOND


class Cause(StrEnum):
    """Why a frame does not arrive."""

    LOSS = "loss"
    QUEUE_FULL = "queue full"


class Arrival(NamedTuple):
    """One copy of a frame reaches the other end."""

    time: int
    """Nanoseconds, on the clock of `now`."""
    flipped: int | None = None
    """The bit that was flipped on the way: 8 × byte of the frame + bit of the byte."""
    early: bool = False
    """It skipped the delay (`reorder`)."""


class Lost(NamedTuple):
    """One copy of a frame does not arrive."""

    cause: Cause


Fate = Arrival | Lost
_LOST = Lost(Cause.LOSS)
_QUEUE_FULL = Lost(Cause.QUEUE_FULL)


def seeds_of_directions(seed: int) -> tuple[int, int]:
    """The seeds of (up, down) of a link that has this seed."""
    return derive(seed, "up"), derive(seed, "down")


class _Dice:
    """One generator, and what one frame's draw leaves for the next."""

    __slots__ = ("is_bad", "last", "random")

    def __init__(self, seed: int) -> None:
        self.random = Random(seed).random
        self.last = self.random()
        self.is_bad = False


class Direction:
    """One direction of a link. `seed` is its own, of no other direction; `varies`: whether it may be changed."""

    def __init__(self, impairment: Impairment, seed: int, *, varies: bool = False) -> None:
        self._varies = varies
        self._programs = _Dice(derive(seed, "programs"))
        self._control = _Dice(derive(seed, "control"))
        self._now = 0
        self._line_free = 0
        self._waiting: list[int] = []
        """Times of arrival of all that wait, as a heap."""
        self._set(impairment)

    def change(self, impairment: Impairment) -> None:
        """Do this to all frames from now on; those on the way stay as they are, and the generators go on.

        Only of a direction that `varies`.
        """
        assert self._varies, "a direction whose dice may be still cannot be changed (Rule 4)"
        if impairment.rate and self._waiting:
            self._line_free = max(self._line_free, *self._waiting)
        self._set(impairment)

    def _set(self, impairment: Impairment) -> None:
        self.impairment = impairment
        self._draws = impairment.is_random or self._varies
        self._delay = impairment.delay
        self._jitter = impairment.jitter
        self._correlation = impairment.correlation / PPM
        self._table = table(impairment.distribution)
        match impairment.loss:
            case GilbertElliott(p=p, r=r, good_loss=good, bad_loss=bad):
                self._turns = (p / PPM, r / PPM)
                self._losses = (good / PPM, bad / PPM)
            case share:
                self._turns = (0.0, 0.0)
                self._losses = (share / PPM, share / PPM)
        self._duplicate = impairment.duplicate / PPM
        self._corrupt = impairment.corrupt / PPM
        self._reorder = impairment.reorder / PPM
        self._rate = impairment.rate or 0
        self._limit = impairment.limit
        self._remainder = 0

    def offer(self, size: int, now: int, *, control: bool = False) -> tuple[Fate, ...]:
        """What becomes of a frame that enters `now`: a fate for each copy of it.

        `size` is in bytes, with the Ethernet header and without the checksum at the end, as the kernel counts.
        Time does not go back: an earlier `now` than the last one counts as the last one.
        """
        if now < self._now:
            now = self._now
        self._now = now
        waiting = self._waiting
        while waiting and waiting[0] <= now:
            heappop(waiting)
        if not self._draws:
            return (self._queue(size, now, self._delay, None),)
        dice = self._control if control else self._programs
        random = dice.random
        duplicate, *draws = [random() for _ in range(_DRAWS)]
        lost = self._is_lost(dice, draws[0], draws[1])
        if duplicate >= self._duplicate:
            return (_LOST if lost else self._pass(dice, draws, size, now),)
        first = self._pass(dice, draws, size, now)
        if lost:
            return (first, _LOST)
        draws = draws[_DRAWS_OF_A_COPY:]
        lost = self._is_lost(dice, draws[0], draws[1])
        return (first, _LOST if lost else self._pass(dice, draws, size, now))

    def _is_lost(self, dice: _Dice, turn: float, loss: float) -> bool:
        was_bad = dice.is_bad
        if turn < self._turns[was_bad]:
            dice.is_bad = not was_bad
        return loss < self._losses[was_bad]

    def _pass(self, dice: _Dice, draws: list[float], size: int, now: int) -> Fate:
        _, _, corrupt, bit, reorder, jitter = draws[:_DRAWS_OF_A_COPY]
        flipped = None
        if corrupt < self._corrupt and size > LINK_HEADER:
            flipped = 8 * LINK_HEADER + int(bit * 8 * (size - LINK_HEADER))
        delay = self._delay
        if self._jitter:
            if self._correlation:
                jitter = dice.last = jitter + (dice.last - jitter) * self._correlation
            delay = max(0, delay + self._deviation(jitter))
        if reorder < self._reorder:
            return _QUEUE_FULL if len(self._waiting) >= self._limit else Arrival(now, flipped, True)
        return self._queue(size, now, delay, flipped)

    def _deviation(self, drawn: float) -> int:
        """Nanoseconds from the delay, of a value between 0 and 1."""
        if self._table is None:
            return int(drawn * 2 * self._jitter) - self._jitter
        return (self._table[int(drawn * SIZE)] * self._jitter + SCALE // 2) // SCALE

    def _queue(self, size: int, now: int, delay: int, flipped: int | None) -> Fate:
        waiting = self._waiting
        if len(waiting) >= self._limit:
            return _QUEUE_FULL
        due = now + delay
        if self._rate:
            if due > self._line_free:
                self._line_free, self._remainder = due, 0
            spent, self._remainder = divmod(self._remainder + size * _BITS_AND_NANOSECONDS, self._rate)
            due = self._line_free = self._line_free + spent
        if due > now:
            heappush(waiting, due)
        return Arrival(due, flipped)
