"""What crossed the interfaces of a lab: evidence for outcomes, and files for people.

Rule 1: one tap a box (tap.py), drained into memory while the lab runs; what found no room is counted and told. Taps
        are closed by a thread each: the kernel waits for a grace period, and so they wait for one together.
Rule 2: only interfaces of the plan are points; the ports of a bridge would show each packet twice.
Rule 3: a NAT rewrites addresses and ports but not a UDP payload, so payloads are compared by digest.

Frames are Ethernet and IPv4 without fragments: every link carries what the agents send in one piece.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Thread

from testbed.datagram import Endpoint
from testbed.errors import MachineError
from testbed.lab import pcapng
from testbed.lab.clocks import monotonic_shift
from testbed.lab.namespaces import Namespace
from testbed.lab.tap import AT_ONCE, OUTGOING, Packet, Tap

MOST_BYTES = 256 << 20
"""Of packets that one lab keeps in memory; beyond it they are counted as drops."""
_ETHERNET = 14
_UDP = 17
_CLOCK_NOTE = "; CLOCK_MONOTONIC = these times "


@dataclass(frozen=True, slots=True)
class UdpPacket:
    """A UDP datagram at one point."""

    time: int
    """Nanoseconds of CLOCK_MONOTONIC."""
    is_outgoing: bool
    source: Endpoint
    destination: Endpoint
    payload: bytes

    @property
    def digest(self) -> int:
        """Of the payload."""
        return digest(self.payload)


def digest(payload: bytes) -> int:
    """64 bits that tell one payload from another."""
    return int.from_bytes(blake2b(payload, digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class Place:
    """A box that is captured."""

    box: str
    namespace: Namespace
    points: Mapping[int, str]
    """Index of each interface -> its name."""
    largest: int = 1514
    """Bytes of the largest frame."""


@dataclass(slots=True)
class _Box:
    name: str
    tap: Tap
    points: Mapping[int, str]
    packets: list[Packet] = field(default_factory=list)


class Capture:
    """The taps of a lab."""

    def __init__(self, places: Sequence[Place]) -> None:
        """They run from now on. Raises MachineError where packets cannot be captured."""
        self._boxes: list[_Box] = []
        self._bytes = 0
        self._over_limit = 0
        try:
            for place in places:
                with place.namespace:
                    tap = Tap(largest=place.largest)
                self._boxes.append(_Box(place.box, tap, dict(place.points)))
        except OSError as error:
            self.close()
            raise MachineError(f"packets cannot be captured: {error}", mend="run it with sudo") from error

    def drain(self) -> None:
        """Take over what waits in the taps; call it often enough that none overflows."""
        for box in self._boxes:
            while found := box.tap.read():
                kept = [packet for packet in found if packet.interface in box.points]
                size = sum(len(packet.data) for packet in kept)
                if self._bytes + size > MOST_BYTES:
                    self._over_limit += len(kept)
                else:
                    self._bytes += size
                    box.packets += kept
                if len(found) < AT_ONCE:
                    break

    def drops(self) -> int:
        """Packets that passed unseen."""
        return self._over_limit + sum(box.tap.drops() for box in self._boxes)

    def udp(self, box: str) -> Iterator[UdpPacket]:
        """Every UDP datagram at the points of a box, in order."""
        for found in self._boxes:
            if found.name == box:
                for packet in found.packets:
                    if (read := read_udp(packet)) is not None:
                        yield read

    def write(
        self, *, secrets: Sequence[str] = (), comment: str = "", describe: Callable[[str, Packet], str] | None = None
    ) -> Iterator[bytes]:
        """The capture as a pcapng file, which says how its clock stands to CLOCK_MONOTONIC.

        `describe`: (box, packet) -> a comment on it, or nothing.
        """
        points = [(box.name, index) for box in self._boxes for index in box.points]
        place = {point: number for number, point in enumerate(points)}
        names = {(box.name, index): name for box in self._boxes for index, name in box.points.items()}
        shift = monotonic_shift(readings=3)
        seen = (
            pcapng.Seen(
                place[box, packet.interface],
                packet.time - shift,
                packet.length,
                packet.data,
                describe(box, packet) if describe is not None else "",
            )
            for box, packet in self._in_order()
        )
        shown = [pcapng.Point(f"{box}/{names[box, index]}") for box, index in points]
        return pcapng.encode(shown, seen, secrets, f"{comment}{_CLOCK_NOTE}{shift:+d} ns")

    def _in_order(self) -> Iterable[tuple[str, Packet]]:
        everything = ((box.name, packet) for box in self._boxes for packet in box.packets)
        return sorted(everything, key=lambda entry: entry[1].time)

    def close(self) -> None:
        """Give the taps back."""
        closers = [Thread(target=box.tap.close) for box in self._boxes]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        self._boxes.clear()


def monotonic_of(comment: str) -> int | None:
    """What to add to the times of a capture with this comment to have CLOCK_MONOTONIC; None where it does not say."""
    shift = comment.rpartition(_CLOCK_NOTE)[2].removesuffix(" ns")
    return int(shift) if _CLOCK_NOTE in comment and shift[1:].isdecimal() else None


def read_udp(packet: Packet) -> UdpPacket | None:
    """The UDP datagram in a frame; None where there is no whole one."""
    data = packet.data
    if len(data) < _ETHERNET + 28 or data[12:14] != b"\x08\x00" or data[_ETHERNET + 9] != _UDP:
        return None
    start = _ETHERNET + (data[_ETHERNET] & 15) * 4
    if int.from_bytes(data[_ETHERNET + 6 : _ETHERNET + 8], "big") & 0x3FFF or len(data) < start + 8:
        return None  # a fragment
    source_port, destination_port, length = struct.unpack_from("!HHH", data, start)
    return UdpPacket(
        packet.time,
        packet.kind == OUTGOING,
        Endpoint(socket.inet_ntoa(data[_ETHERNET + 12 : _ETHERNET + 16]), source_port),
        Endpoint(socket.inet_ntoa(data[_ETHERNET + 16 : _ETHERNET + 20]), destination_port),
        data[start + 8 : start + length],
    )
