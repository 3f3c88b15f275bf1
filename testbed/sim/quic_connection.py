"""A QUIC connection without QUIC's bytes: its packets, its rules, and nothing that keeps them from being read.

Rule 1: a packet (quic_packets.py) is in the open, since nobody else reads it.
Rule 2: the handshake is three flights and a word: hello; the server's answer, which completes it for the client;
        finished, which completes it for the server; done, which confirms it for the client (RFC 9001 §4.1.2). Until
        the server has heard `finished` it sends at most three times what it has received (RFC 9000 §8.1).
Rule 3: handshake, ADD_ADDRESS and PUNCH_ME_NOW are sent again after a probe timeout (RFC 9002 §6.2, as aioquic counts
        it) until they are acknowledged; DATAGRAM, PATH_CHALLENGE and PATH_RESPONSE travel once.
Rule 4: a path that was not used is validated by a challenge and its response, which is sent where the challenge came
        from. The client moves when it is told to; the server follows its newest packet that is more than a probe
        (RFC 9000 §9.3), and challenges a path that is new to it. A round that is higher than the last one cancels the
        probes and the PUNCH_ME_NOW of the older, and one that is not changes nothing.

Not here: congestion control (nothing here fills a path), key updates, limits of connection ids. Nothing closes a
connection: the certificate of the other end is its own, and an end that gives up is silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from testbed.datagram import Endpoint
from testbed.sim import quic_packets
from testbed.sim.quic_packets import Frame
from testbed.traversal.quic_connection import PAIR_LIMIT
from testbed.traversal.quic_happenings import (
    Answered,
    CandidateAdded,
    Challenged,
    Completed,
    Happening,
    Moved,
    Path,
    Punched,
    Received,
)

FIRST_TIMEOUT = 200_000_000
"""Nanoseconds to the first probe timeout where no RTT is known: twice aioquic's guess of it."""
ACK_DELAY = 25_000_000
AMPLIFICATION = 3


@dataclass(slots=True)
class _Promise:
    """A frame that is sent until it is acknowledged."""

    frame: Frame
    sent_at: int | None = None
    is_full: bool = False


class ModelledConnection:
    """One end of it: a `traversal.quic_connection.Connection`."""

    def __init__(self, identity: str, path: Path, *, is_client: bool, fingerprint: str = "") -> None:
        """`identity`: stands for the connection ids. `fingerprint`: of a server's certificate."""
        self._identity, self._is_client, self._fingerprint = identity, is_client, fingerprint
        self.active: Path = path
        self.is_complete = self.is_confirmed = self.is_admitting = False
        self.candidates: dict[int, Endpoint] = {}
        self.peer_fingerprint: str | None = None
        self.counts_as: dict[Path, Path] = {}
        """Paths that count as others; where data came from is told as it is."""
        self._observed: dict[Path, Endpoint] = {}
        self._promises: dict[int, _Promise] = {}
        self._promised = self._number = self._highest = self._challenges = 0
        self._round = self._punches = 0
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

    def observed(self, path: Path) -> Endpoint | None:
        """Our own address as the other end sees it on this path."""
        return self._observed.get(path)

    def owns(self, data: bytes) -> bool:
        """Whether a packet is for this connection."""
        return data.startswith(quic_packets.opening(self._identity))

    def send(self, data: bytes) -> None:
        """Application bytes in a DATAGRAM frame, by the path in use."""
        self._data.append(data)

    def refuse(self, reason: str) -> None:
        """Nothing here has the wrong certificate."""
        raise NotImplementedError(f"a modelled connection is not closed: {reason}")

    def add_candidate(self, address: Endpoint) -> None:
        """Server: ADD_ADDRESS."""
        if address not in self.candidates.values():
            number = len(self.candidates)
            self.candidates[number] = address
            self._promise(["add", number, str(address)])

    def punch(self, number: int, paired_with: int, address: Endpoint) -> bool:
        """Client: PUNCH_ME_NOW; False once the round has as many pairs as the server takes."""
        self._begin_round(number)
        if self._punches >= PAIR_LIMIT:
            return False
        self._punches += 1
        self._promise(["punch", number, paired_with, str(address)])
        return True

    def probe(self, path: Path) -> bool:
        """Challenge a path; whether that can be, and is of use."""
        if not self.is_complete or path == self.active or path in self._validated:
            return False
        self._challenge(path)
        return True

    def migrate(self, path: Path) -> None:
        """Client: use this path from now on."""
        self.active, self._rtt = path, None

    def cancel_probes(self) -> None:
        """Forget the probes that were not sent yet."""
        self._probes = [(path, frame) for path, frame in self._probes if frame[0] == "response"]

    # ---- the contract, with paths

    def receive(self, data: bytes, path: Path, now: int) -> None:
        """A packet that is this connection's came by *path*."""
        _, number, observed, frames = quic_packets.decode(data)
        came_by, path = path, self.counts_as.get(path, path)
        if self._is_client and path != self.active and not (self.is_admitting and self.is_confirmed):
            return
        self._received += len(data)
        self._observed[path] = Endpoint.parse(observed)
        is_probe = all(kind in ("challenge", "response") for kind, *_ in frames)
        if not self._is_client and self.is_complete and path != self.active and not is_probe and number > self._highest:
            self._follow(path)
        self._highest = max(self._highest, number)
        for frame in frames:
            match frame:
                case ["data", str(sent)]:
                    self._happenings.append(Received(came_by, bytes.fromhex(sent)))
                case _:
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

    def datagrams_to_send(self, now: int) -> list[tuple[bytes, Path]]:
        """Packets and the paths that they go by."""
        sent = [(self._packet([frame], path, is_full=True), path) for path, frame in self._probes]
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
        packet = self._packet(frames, self.active, is_full=any(promise.is_full for _, promise in waiting))
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

    def _packet(self, frames: list[Frame], path: Path, *, is_full: bool) -> bytes:
        self._number += 1
        return quic_packets.encode(self._identity, self._number, path.remote, frames, is_full=is_full)

    def _patience(self) -> int:
        return FIRST_TIMEOUT if self._rtt is None else 3 * self._rtt + ACK_DELAY

    def _promise(self, frame: Frame, *, is_full: bool = False) -> None:
        self._promised += 1
        self._promises[self._promised] = _Promise(frame, is_full=is_full)

    def _begin_round(self, number: int) -> None:
        if number > self._round:
            self._round, self._punches = number, 0
            self._promises = {key: kept for key, kept in self._promises.items() if kept.frame[0] != "punch"}
            self.cancel_probes()

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
                self._promise(["server", self._fingerprint], is_full=True)
            case ["server", str(fingerprint)]:
                self.peer_fingerprint = fingerprint
                self._complete()
                self._promise(["finished"], is_full=True)
            case ["finished"]:
                self._complete()
                self.is_confirmed = True
                self._promise(["done"])
            case ["done"]:
                self.is_confirmed = True
            case ["add", int(number), str(address)]:
                self.candidates[number] = Endpoint.parse(address)
                self._happenings.append(CandidateAdded(self.candidates[number]))
            case ["punch", int(number), int(paired_with), str(address)] if number >= self._round:
                self._begin_round(number)
                self._happenings.append(Punched(number, self.candidates[paired_with], Endpoint.parse(address)))

    def _complete(self) -> None:
        self.is_complete = True
        self._happenings.append(Completed())


class ModelledConnector:
    """How an end's connections begin."""

    def __init__(self, rng: Random) -> None:
        self._fingerprint = rng.randbytes(16).hex()
        self._dialled = 0

    @property
    def fingerprint(self) -> str:
        """Any text that names this end."""
        return self._fingerprint

    def dial(self, path: Path, token: bytes, now: int, *, source: Path | None = None) -> ModelledConnection:
        """Client: begin by this path."""
        del now  # a handshake here has no clock of its own
        self._dialled += 1
        connection = ModelledConnection(f"{token.hex()}/{self._dialled}", path, is_client=True)
        if source is not None:
            connection.counts_as[source] = path
        return connection

    def accept(self, data: bytes, path: Path, token: bytes, now: int) -> ModelledConnection | None:
        """Server: begin with this packet; None where it is no hello of the other end's."""
        if not data.startswith(quic_packets.FIRST_BYTE):
            return None
        identity, _, _, frames = quic_packets.decode(data)
        is_hello = any(frame[0] == "promise" and frame[2] == ["hello"] for frame in frames)
        if not is_hello or identity.split("/")[0] != token.hex():
            return None
        connection = ModelledConnection(identity, path, is_client=False, fingerprint=self._fingerprint)
        connection.receive(data, path, now)
        return connection
