"""A QUIC connection without QUIC's bytes: its packets, its rules, and nothing that keeps them from being read.

Rule 1: a packet is a token, a number and frames. What is encrypted in QUIC is in the open here, since nobody else
        reads it; the token stands for the connection ids by which an end knows what is its own.
Rule 2: the handshake is three flights and a word: hello; the server's answer, which completes it for the client;
        finished, which completes it for the server; done, which confirms it for the client (RFC 9001 §4.1.2). Until
        the server has heard `finished` it sends at most three times what it has received (RFC 9000 §8.1).
Rule 3: handshake, ADD_ADDRESS and PUNCH_ME_NOW are sent again after a probe timeout (RFC 9002 §6.2, as aioquic counts
        it) until they are acknowledged; DATAGRAM, PATH_CHALLENGE and PATH_RESPONSE travel once.
Rule 4: a path that was not used is validated by a challenge and its response, which is sent where the challenge came
        from. The client moves when it is told to; the server follows its newest packet that is more than a probe
        (RFC 9000 §9.3), and challenges a path that is new to it.
Rule 5: handshake packets and probes have 1200 bytes (RFC 9000 §8.2.1, §14.1). Others have the size that they have here,
        some tens of bytes more than QUIC's.

Not here: congestion control (nothing here fills a path), key updates, connection ids and their limits, closing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from testbed.datagram import Endpoint

FIRST_BYTE = 0x50
"""One of QUIC's short headers (RFC 9443), for whoever tells protocols apart."""
FULL = 1200
FIRST_TIMEOUT = 200_000_000
"""Nanoseconds to the first probe timeout where no RTT is known: twice aioquic's guess of it."""
ACK_DELAY = 25_000_000
AMPLIFICATION = 3

Frame: TypeAlias = "list[Any]"


class Path(NamedTuple):
    """A way to the other end: an own address and one of the other's. At a relay both are addresses of the relay."""

    local: Endpoint
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class Completed:
    """The handshake is complete."""


@dataclass(frozen=True, slots=True)
class Received:
    """A DATAGRAM frame came by this path."""

    path: Path
    data: bytes


@dataclass(frozen=True, slots=True)
class ToldByFrame:
    """ADD_ADDRESS or PUNCH_ME_NOW came."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Challenged:
    """A PATH_CHALLENGE came by this path."""

    path: Path


@dataclass(frozen=True, slots=True)
class Answered:
    """The PATH_RESPONSE for a path, which came by *source*."""

    path: Path
    source: Path
    rtt: int


@dataclass(frozen=True, slots=True)
class Moved:
    """The server followed the client to this path."""

    path: Path
    is_validated: bool


Happening: TypeAlias = "Completed | Received | ToldByFrame | Challenged | Answered | Moved"


@dataclass(slots=True)
class _Promise:
    """A frame that is sent until it is acknowledged."""

    frame: Frame
    sent_at: int | None = None
    is_full: bool = False


class Connection:
    """One end of it."""

    def __init__(self, token: str, path: Path, *, is_client: bool) -> None:
        self._token, self._is_client = token, is_client
        self.active = path
        """The path in use."""
        self.is_complete = self.is_confirmed = self.is_admitting = False
        """`is_admitting`: whether a client takes packets from addresses that it does not know."""
        self._promises: dict[int, _Promise] = {}
        self._promised = self._number = self._highest = self._challenges = 0
        self._heard: set[int] = set()
        self._acks: list[int] = []
        self._data: list[bytes] = []
        self._probes: list[tuple[Path, Frame]] = []
        self._challenged: dict[int, tuple[Path, int]] = {}
        self._validated: set[Path] = set()
        self._rtt: int | None = None
        self._timeouts = 0
        self._due: int | None = None
        self._received = self._sent = 0
        self._happenings: list[Happening] = []
        if is_client:
            self._promise(["hello"], is_full=True)

    # ---- what an end does

    def send(self, data: bytes) -> None:
        """Application bytes in a DATAGRAM frame, by the path in use."""
        self._data.append(data)

    def tell(self, frame: Frame) -> None:
        """ADD_ADDRESS or PUNCH_ME_NOW."""
        self._promise(frame)

    def probe(self, path: Path) -> bool:
        """Challenge a path; whether that can be, and is of use."""
        if not self.is_complete or path == self.active or path in self._validated:
            return False
        self._challenge(path)
        return True

    def migrate(self, path: Path) -> None:
        """Client: use this path from now on, and forget what was to be probed."""
        self.active, self._rtt = path, None
        self._probes.clear()

    # ---- the contract, with paths

    def receive(self, frames: Sequence[Frame], number: int, size: int, path: Path, now: int) -> None:
        """A packet that is this connection's came by *path*."""
        if self._is_client and path != self.active and not (self.is_admitting and self.is_confirmed):
            return
        self._received += size
        is_probe = all(kind in ("challenge", "response") for kind, *_ in frames)
        if not self._is_client and self.is_complete and path != self.active and not is_probe and number > self._highest:
            self._follow(path)
        self._highest = max(self._highest, number)
        for frame in frames:
            self._take(frame, path, now)

    def next_timeout(self) -> int | None:
        """When a promise is to be kept again."""
        return self._due

    def handle_timeout(self, now: int) -> None:
        """Send again what was not acknowledged."""
        if self._due is not None and self._due <= now:
            self._due, self._timeouts = None, self._timeouts + 1
            for promise in self._promises.values():
                promise.sent_at = None

    def transmit(self, now: int) -> list[tuple[bytes, Path]]:
        """Packets and the paths that they go by."""
        sent = [(self._packet([frame], is_full=True), path) for path, frame in self._probes]
        for path, (kind, number) in self._probes:
            if kind == "challenge":
                self._challenged[number] = (path, now)
        self._probes = []
        waiting = [(number, promise) for number, promise in self._promises.items() if promise.sent_at is None]
        frames: list[Frame] = [["ack", self._acks]] if self._acks else []
        frames += [["promise", number, promise.frame] for number, promise in waiting]
        if self.is_complete:
            frames += [["data", data.hex()] for data in self._data]
        if not frames:
            return sent
        packet = self._packet(frames, is_full=any(promise.is_full for _, promise in waiting))
        if not self._is_client and not self.is_complete and self._sent + len(packet) > AMPLIFICATION * self._received:
            return sent
        self._sent += len(packet)
        self._acks, self._data = [], [] if self.is_complete else self._data
        for _, promise in waiting:
            promise.sent_at = now
        if waiting:
            self._due = now + (self._patience() << min(self._timeouts, 6))
        return [*sent, (packet, self.active)]

    def happenings(self) -> list[Happening]:
        """What happened since the last call."""
        happenings, self._happenings = self._happenings, []
        return happenings

    # ---- inside

    def _packet(self, frames: list[Frame], *, is_full: bool) -> bytes:
        self._number += 1
        body = json.dumps([self._token, self._number, frames], separators=(",", ":")).encode()
        data = bytes([FIRST_BYTE]) + body
        return data.ljust(FULL, b" ") if is_full else data

    def _patience(self) -> int:
        return FIRST_TIMEOUT if self._rtt is None else 3 * self._rtt + ACK_DELAY

    def _promise(self, frame: Frame, *, is_full: bool = False) -> None:
        self._promised += 1
        self._promises[self._promised] = _Promise(frame, is_full=is_full)

    def _challenge(self, path: Path) -> None:
        self._challenges += 1
        self._probes.append((path, ["challenge", self._challenges]))

    def _follow(self, path: Path) -> None:
        self.active, self._rtt = path, None
        is_validated = path in self._validated
        if not is_validated:
            self._challenge(path)
        self._happenings.append(Moved(path, is_validated))

    def _take(self, frame: Frame, path: Path, now: int) -> None:
        match frame:
            case ["ack", [*numbers]]:
                for number in numbers:
                    self._acknowledged(number, now)
            case ["promise", int(number), [*inner]]:
                self._acks.append(number)
                if number not in self._heard:
                    self._heard.add(number)
                    self._hear(inner)
            case ["data", str(data)]:
                self._happenings.append(Received(path, bytes.fromhex(data)))
            case ["challenge", int(number)]:
                self._probes.append((path, ["response", number]))
                self._happenings.append(Challenged(path))
            case ["response", int(number)] if number in self._challenged:
                challenged, sent_at = self._challenged.pop(number)
                self._validated.add(challenged)
                self._happenings.append(Answered(challenged, path, now - sent_at))

    def _acknowledged(self, number: int, now: int) -> None:
        promise = self._promises.pop(number, None)
        if promise is not None and promise.sent_at is not None:
            self._rtt, self._timeouts = now - promise.sent_at, 0
        if not self._promises:
            self._due = None

    def _hear(self, frame: Frame) -> None:
        match frame:
            case ["hello"]:
                self._promise(["server"], is_full=True)
            case ["server"]:
                self._complete()
                self._promise(["finished"], is_full=True)
            case ["finished"]:
                self._complete()
                self.is_confirmed = True
                self._promise(["done"])
            case ["done"]:
                self.is_confirmed = True
            case _:
                self._happenings.append(ToldByFrame(frame))

    def _complete(self) -> None:
        self.is_complete = True
        self._happenings.append(Completed())


def read(data: bytes) -> tuple[str, int, list[Frame]]:
    """The token, the number and the frames of a packet."""
    token, number, frames = json.loads(data[1:])
    return token, number, frames


def is_hello(frames: Sequence[Frame]) -> bool:
    """Whether a packet begins a connection."""
    return any(frame[0] == "promise" and frame[2] == ["hello"] for frame in frames)
