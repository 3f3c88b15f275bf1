"""Signalling: the small protocol through which two ends find each other, and an end's machine of it.

Rule 1: a datagram is the byte 0x0E and one JSON object, 1200 bytes at most, so that it fits any path unfragmented.
Rule 2: `register`, `peer` and `message` carry a number and are sent again until `ack` names it; a number that was
        seen is acknowledged again and otherwise ignored. Nothing else is promised: messages may change places.
Rule 3: a client makes up a token and sends it with everything; the server answers with it. A datagram with another
        token, or from another address than the server's, is not for this client.
Rule 4: hostile bytes are dropped, and `SignallingError` never leaves a machine.

    client -> server   {"kind": "register", "id", "token", "name", "peer", "description"}
    client -> server   {"kind": "message",  "id", "token", "name", "to", "body"}
    server -> client   {"kind": "peer",     "id", "token", "name", "description"}     once both have registered
    server -> client   {"kind": "message",  "id", "token", "from", "body"}
    either way         {"kind": "ack", "id", "token"}

A message for a name that is not registered is not acknowledged: its sender tries again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random

from testbed.datagram import Datagram, Endpoint
from testbed.traversal.candidates import JsonObject
from testbed.traversal.demultiplex import SIGNALLING_MAGIC

MAX_SIZE = 1200
MAX_NAME = 64
REMEMBERED = 256
"""Numbers of one sender that are remembered; one that is further behind was acknowledged long ago."""
DEFAULT_RTO = 200_000_000
LONGEST_WAIT = 1_600_000_000
"""Nanoseconds between two sends of one message: the gap doubles up to here."""


class SignallingError(ValueError):
    """These bytes are not a signalling message, or a message is too big to be one."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The server knows us."""

    t: int


@dataclass(frozen=True, slots=True)
class PeerLearnt:
    """What the other end says of itself. Comes again when it registers anew."""

    t: int
    name: str
    description: object


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """The other end sent us this."""

    t: int
    name: str
    body: object


def encode(message: JsonObject) -> bytes:
    """One datagram. Raises SignallingError where it would be too big."""
    try:
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    except RecursionError as error:
        raise SignallingError("a message nested too deeply") from error
    # An escaped lone surrogate is JSON, and json.loads lets it in again in this form.
    data = bytes([SIGNALLING_MAGIC]) + text.encode(errors="surrogatepass")
    if len(data) > MAX_SIZE:
        raise SignallingError(f"a message of {len(data)} bytes; at most {MAX_SIZE} fit")
    return data


def decode(data: bytes) -> JsonObject:
    """The message in a datagram: an object with `kind`, `id` and `token`. Raises SignallingError."""
    if not data or data[0] != SIGNALLING_MAGIC or len(data) > MAX_SIZE:
        raise SignallingError("no signalling message")
    try:
        message = json.loads(data[1:])
    except (ValueError, RecursionError) as error:
        raise SignallingError(f"no JSON: {error}") from error
    if not isinstance(message, dict) or type(message.get("id")) is not int or not 0 <= message["id"] < 2**53:
        raise SignallingError("no numbered object")
    if not all(isinstance(message.get(key), str) and len(message[key]) <= MAX_NAME for key in ("kind", "token")):
        raise SignallingError("no kind or no token")
    return message


@dataclass(slots=True)
class _Unacknowledged:
    data: bytes
    due: int
    wait: int
    sends: int = 0


@dataclass(slots=True)
class Mailbox:
    """One direction's numbered messages and the numbers seen in the other: the same at both ends."""

    rto: int
    most_sends: int | None = None
    waiting: dict[int, _Unacknowledged] = field(default_factory=dict)
    seen: dict[int, None] = field(default_factory=dict)
    last: int = 0

    def number(self) -> int:
        """The next one of ours."""
        self.last += 1
        return self.last

    def post(self, number: int, data: bytes, now: int) -> None:
        """Send it, again and again until it is acknowledged."""
        self.waiting[number] = _Unacknowledged(data, now, self.rto)

    def is_new(self, number: int) -> bool:
        """Whether this number of theirs was not seen before."""
        if number in self.seen or (self.seen and number < max(self.seen) - REMEMBERED):
            return False
        self.seen[number] = None
        if len(self.seen) > REMEMBERED:
            del self.seen[next(iter(self.seen))]
        return True

    def next_timeout(self) -> int | None:
        """When something is to be sent again."""
        return min([entry.due for entry in self.waiting.values()]) if self.waiting else None

    def due(self, now: int) -> list[bytes]:
        """What is to be sent now; what was sent often enough is forgotten."""
        data: list[bytes] = []
        for number, entry in list(self.waiting.items()):
            if now < entry.due:
                continue
            if entry.sends == self.most_sends:
                del self.waiting[number]
                continue
            data.append(entry.data)
            entry.sends += 1
            entry.due, entry.wait = now + entry.wait, min(entry.wait * 2, LONGEST_WAIT)
        return data


class SignallingClient:
    """One end's side. It tries for ever: how long to wait is the caller's business."""

    def __init__(self, name: str, local: Endpoint, server: Endpoint, rng: Random, *, rto: int = DEFAULT_RTO) -> None:
        self._name, self._local, self._server = name, local, server
        self._token = rng.randbytes(8).hex()
        self._mail = Mailbox(rto)
        self._registering: int | None = None
        self._acks: list[bytes] = []
        self._events: list[Registered | PeerLearnt | MessageReceived] = []

    def register(self, peer: str, description: JsonObject, now: int) -> None:
        """Say who we are, whom we look for, how we may be reached. Raises SignallingError where that is too much."""
        number = self._mail.number()
        message: JsonObject = {"name": self._name, "peer": peer, "description": description}
        self._post(number, "register", message, now)
        self._registering = number

    def send(self, to: str, body: JsonObject, now: int) -> None:
        """A message to the other end, sent until the server has it. Raises SignallingError where it is too big."""
        self._post(self._mail.number(), "message", {"name": self._name, "to": to, "body": body}, now)

    def receive(self, datagram: Datagram, now: int) -> bool:
        """Whether the datagram was for this client."""
        if datagram.source != self._server or datagram.destination != self._local:
            return False
        try:
            message = decode(datagram.data)
        except SignallingError:
            return False
        if message["token"] != self._token:
            return False
        self._take(message, now)
        return True

    def next_timeout(self) -> int | None:
        """When something is to be sent again."""
        return self._mail.next_timeout()

    def handle_timeout(self, now: int) -> None:
        """What is due leaves with `datagrams_to_send`."""

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Acknowledgements, then what is due."""
        data, self._acks = [*self._acks, *self._mail.due(now)], []
        return [Datagram(self._local, self._server, entry) for entry in data]

    def events(self) -> list[Registered | PeerLearnt | MessageReceived]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def _post(self, number: int, kind: str, message: JsonObject, now: int) -> None:
        self._mail.post(number, encode({"kind": kind, "id": number, "token": self._token, **message}), now)

    def _take(self, message: JsonObject, now: int) -> None:
        number, kind = message["id"], message["kind"]
        assert isinstance(number, int)
        if kind == "ack":
            if self._mail.waiting.pop(number, None) is not None and number == self._registering:
                self._events.append(Registered(now))
            return
        name = message.get("name" if kind == "peer" else "from")
        if kind not in ("peer", "message") or not isinstance(name, str):
            return
        self._acks.append(encode({"kind": "ack", "id": number, "token": self._token, "name": self._name}))
        if not self._mail.is_new(number):
            return
        if kind == "peer":
            self._events.append(PeerLearnt(now, name, message.get("description")))
        else:
            self._events.append(MessageReceived(now, name, message.get("body")))
