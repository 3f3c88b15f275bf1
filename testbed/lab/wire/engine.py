"""The loop that moves frames: one thread for all links of a lab.

Rule 1: what a link does to a frame is decided by `link.model` alone, from the kernel's stamp of the frame's arrival;
        here it is only held until its time and sent. How late it was sent is measured for every frame.
Rule 2: one heap for all directions and one `ppoll` for everything: the loop sleeps when nothing is due and is woken to
        the nanosecond (the thread's timer slack is 1 ns; `poll` and `epoll_wait` only know milliseconds).
Rule 3: the socket that reads also sends, on every device. A socket for each would save 1 µs of 4 a frame, but the
        kernel waits for a grace period, 16 ms, at the closing of each. It names devices by index, so they need not
        exist yet at the start.
Rule 4: nothing is tried twice. What the kernel refuses is counted under the refusal's name.
"""

from __future__ import annotations

import ctypes
import errno
import select
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from testbed.lab.namespaces import libc
from testbed.lab.tap import Tap, address_of
from testbed.lab.wire.report import DirectionReport, Lateness
from testbed.link.model import Arrival, Cause, Direction, seeds_of_directions
from testbed.spec.link import Impairment, Link

_READ, _SEND = 64, 64
"""Frames that are read, or sent, before the other gets its turn."""
_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_IGMP, _HOP_BY_HOP, _ICMPV6 = 2, 0, 58


@dataclass(frozen=True, slots=True)
class WireCable:
    """A link, and the two devices of the wire's namespace between which it lies."""

    name: str
    lower: int
    """Index of the half whose other half is in the lower box."""
    upper: int
    link: Link
    seed: int
    varies: bool = False
    """Whether it may be changed."""


class _Lane:
    """One direction of a cable: from one device to another."""

    __slots__ = ("address", "count", "direction")

    def __init__(self, cable: str, towards: str, impairment: Impairment, seed: int, device: int, varies: bool) -> None:
        self.direction = Direction(impairment, seed, varies=varies)
        self.address = address_of(device)
        self.count = _Count(cable, towards)


@dataclass(slots=True)
class _Count:
    cable: str
    towards: str
    frames: int = 0
    control: int = 0
    lost: int = 0
    duplicated: int = 0
    corrupted: int = 0
    reordered: int = 0
    overflow: int = 0

    def frozen(self) -> DirectionReport:
        return DirectionReport(**{name: getattr(self, name) for name in self.__slots__})


_STEP, _LAST_STEP = 10_000, 2_000


@dataclass(slots=True)
class _LatenessCount:
    """Lateness of what was sent, in steps of 10 µs up to 20 ms."""

    steps: list[int] = field(default_factory=lambda: [0] * (_LAST_STEP + 1))
    largest: int = 0

    def frozen(self) -> Lateness:
        return Lateness.from_histogram(self.steps, _STEP, self.largest)


class Engine:
    """Links between the devices of the namespace that the thread is in."""

    def __init__(self, cables: Sequence[WireCable], largest: int, room: int) -> None:
        self._tap = Tap(largest=largest, room=room, outgoing=False)
        self._lanes: dict[int, _Lane] = {}
        for cable in cables:
            up, down = seeds_of_directions(cable.seed)
            self._lanes[cable.lower] = _Lane(cable.name, "up", cable.link.up, up, cable.upper, cable.varies)
            self._lanes[cable.upper] = _Lane(cable.name, "down", cable.link.down, down, cable.lower, cable.varies)
        self._heap: list[tuple[int, int, bytes, bytes]] = []
        """(due, a number that keeps the order of equals, address, frame)."""
        self._pushed = 0
        self._lateness = _LatenessCount()
        self.sent = 0
        self.truncated = 0
        self.refused: Counter[str] = Counter()

    def run(self, control: int, obey: Callable[[], bool]) -> None:
        """Move frames. Whenever the descriptor `control` is readable, `obey` is called; until it returns false."""
        heap, clock, wait = self._heap, time.monotonic_ns, _Poll(self._tap.fileno(), control)
        while True:
            if self._release():
                timeout: int | None = 0
            else:
                timeout = max(0, heap[0][0] - clock()) if heap else None
            has_frames, is_told = wait(timeout)
            if is_told and not obey():
                return
            if has_frames:
                self._take()

    def change(self, cable: str, link: Link) -> None:
        """Let a cable do this to frames that come from now on; those that wait to be read came before."""
        while self._take() == _READ:
            pass
        for lane in self._lanes.values():
            if lane.count.cable == cable:
                lane.direction.change(link.up if lane.count.towards == "up" else link.down)

    def _take(self) -> int:
        """Read what has arrived, decide about it, and say how much it was; at `_READ` there may be more."""
        lanes, heap, pushed = self._lanes, self._heap, self._pushed
        packets = self._tap.read(_READ)
        for packet in packets:
            lane = lanes.get(packet.interface)
            if lane is None:
                continue
            frame, count = packet.data, lane.count
            if len(frame) < packet.length:
                self.truncated += 1
                continue
            control = is_control(frame)
            count.frames += 1
            count.control += control
            fates = lane.direction.offer(packet.length, packet.time, control=control)
            count.duplicated += len(fates) - 1
            for fate in fates:
                if not isinstance(fate, Arrival):
                    if fate.cause is Cause.LOSS:
                        count.lost += 1
                    else:
                        count.overflow += 1
                    continue
                due, flipped, early = fate
                count.reordered += early
                pushed += 1
                if flipped is None:
                    heappush(heap, (due, pushed, lane.address, frame))
                else:
                    count.corrupted += 1
                    heappush(heap, (due, pushed, lane.address, with_flipped_bit(frame, flipped)))
        self._pushed = pushed
        return len(packets)

    def _release(self) -> bool:
        """Send what is due; whether more is."""
        heap, clock, send = self._heap, time.monotonic_ns, self._tap.send
        steps = self._lateness.steps
        now = clock()
        for _ in range(_SEND):
            if not heap or heap[0][0] > now:
                return False
            due, _, address, frame = heappop(heap)
            if number := send(address, frame):
                self.refused[errno.errorcode[number]] += 1
            now = clock()
            late = now - due
            self.sent += 1
            steps[min(late // _STEP, _LAST_STEP)] += 1
            if late > self._lateness.largest:
                self._lateness.largest = late
        return True

    def directions(self) -> tuple[DirectionReport, ...]:
        """What was done in each direction."""
        return tuple(lane.count.frozen() for lane in self._lanes.values())

    def lateness(self) -> Lateness:
        """How late frames were sent."""
        return self._lateness.frozen()

    def drops(self) -> int:
        """Frames that found no room."""
        return self._tap.drops()

    def close(self) -> None:
        """Let go of the namespace; the kernel waits for a grace period."""
        self._tap.close()


def is_control(frame: bytes) -> bool:
    """Whether a frame is the kernel's own: ARP, IGMP, and of ICMPv6 neighbour discovery and group membership."""
    kind = frame[12:14]
    if kind == _IPV4:
        return len(frame) > 23 and frame[23] == _IGMP
    if kind == _IPV6:
        return len(frame) > 54 and (frame[20] == _HOP_BY_HOP or (frame[20] == _ICMPV6 and 130 <= frame[54] <= 143))
    return kind == _ARP


def with_flipped_bit(frame: bytes, bit: int) -> bytes:
    """A copy in which one bit differs."""
    changed = bytearray(frame)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


_ppoll = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p, use_errno=True
)(("ppoll", libc))
_ENTRIES = struct.Struct("=ihhihh")
"""Two of struct pollfd: descriptor, what is asked, what is so."""
_TIME = struct.Struct("@ll")
"""struct timespec."""


class _Poll:
    """ppoll(2) on two descriptors: wait until either is readable, or for some nanoseconds."""

    def __init__(self, first: int, second: int) -> None:
        self._entries = ctypes.create_string_buffer(_ENTRIES.pack(first, select.POLLIN, 0, second, select.POLLIN, 0))
        self._time = ctypes.create_string_buffer(_TIME.size)
        self._addresses = ctypes.addressof(self._entries), ctypes.addressof(self._time)

    def __call__(self, timeout: int | None) -> tuple[int, int]:
        """Wait (None: for ever); whether the first and whether the second is readable, or at its end."""
        entries, until = self._addresses
        if timeout is not None:
            _TIME.pack_into(self._time, 0, *divmod(timeout, 1_000_000_000))
        if _ppoll(entries, 2, until if timeout is not None else None, None) < 0:
            number = ctypes.get_errno()
            if number != errno.EINTR:
                raise OSError(number, "ppoll")
            return 0, 0
        _, _, first, _, _, second = _ENTRIES.unpack_from(self._entries)
        return first, second
