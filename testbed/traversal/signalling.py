"""Signalling: the small protocol through which two ends find each other, both of its machines.

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
MAX_CLIENTS = 1024
REMEMBERED = 256
"""Numbers of one sender that are remembered; one that is further behind was acknowledged long ago."""
DEFAULT_RTO = 200_000_000
LONGEST_WAIT = 1_600_000_000
"""Nanoseconds between two sends of one message: the gap doubles up to here."""
SERVER_SENDS = 8
"""How often the server sends one message to a client that does not answer."""
CLIENT_LIFETIME = 300_000_000_000
"""Nanoseconds after which the server forgets a client that it has not heard of."""


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
class _Mailbox:
    """One direction's numbered messages and the numbers seen in the other: the same at both ends."""

    rto: int
    most_sends: int | None = None
    waiting: dict[int, _Unacknowledged] = field(default_factory=dict)
    seen: dict[int, None] = field(default_factory=dict)
    last: int = 0

    def number(self) -> int:
        self.last += 1
        return self.last

    def post(self, number: int, data: bytes, now: int) -> None:
        self.waiting[number] = _Unacknowledged(data, now, self.rto)

    def is_new(self, number: int) -> bool:
        if number in self.seen or (self.seen and number < max(self.seen) - REMEMBERED):
            return False
        self.seen[number] = None
        if len(self.seen) > REMEMBERED:
            del self.seen[next(iter(self.seen))]
        return True

    def next_timeout(self) -> int | None:
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
        self._mail = _Mailbox(rto)
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


@dataclass(slots=True)
class _Client:
    name: str
    token: str
    address: Endpoint
    mail: _Mailbox
    heard_at: int
    peer: str = ""
    description: object = None
    told: set[str] = field(default_factory=set)
    """Tokens of the ends whose description it was sent."""


class SignallingServer:
    """The rendezvous' side: it introduces two names that look for each other and passes messages between them."""

    def __init__(self, local: Endpoint, *, rto: int = DEFAULT_RTO) -> None:
        self._local, self._rto = local, rto
        self._clients: dict[str, _Client] = {}
        self._outbox: list[Datagram] = []

    def receive(self, datagram: Datagram, now: int) -> bool:
        """Whether the datagram was for this server."""
        if datagram.destination != self._local:
            return False
        try:
            message = decode(datagram.data)
        except SignallingError:
            return False
        name = message.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            return False
        handler = {"register": self._register, "message": self._pass_on, "ack": self._acknowledged}.get(
            str(message["kind"])
        )
        if handler is not None:
            handler(message, name, datagram.source, now)
        return True

    def next_timeout(self) -> int | None:
        """When something is to be sent again, or a silent client is forgotten."""
        times = [time for c in self._clients.values() if (time := c.mail.next_timeout()) is not None]
        times += [client.heard_at + CLIENT_LIFETIME for client in self._clients.values()]
        return min(times, default=None)

    def handle_timeout(self, now: int) -> None:
        """Forget clients that have been silent for long."""
        for name, client in list(self._clients.items()):
            if client.heard_at + CLIENT_LIFETIME <= now:
                del self._clients[name]

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Acknowledgements, then what is due."""
        datagrams, self._outbox = self._outbox, []
        for client in self._clients.values():
            datagrams += [Datagram(self._local, client.address, data) for data in client.mail.due(now)]
        return datagrams

    def _register(self, message: JsonObject, name: str, source: Endpoint, now: int) -> None:
        token, peer = str(message["token"]), message.get("peer")
        if not isinstance(peer, str) or len(peer) > MAX_NAME:
            return
        client = self._clients.get(name)
        if client is None or client.token != token:  # a new one, or one that was started again
            if client is None and len(self._clients) >= MAX_CLIENTS:
                return
            client = self._clients[name] = _Client(name, token, source, _Mailbox(self._rto, SERVER_SENDS), now)
        self._heard(client, message, source, now)
        if client.mail.is_new(int(str(message["id"]))):
            client.peer, client.description = peer, message.get("description")
            for other in self._clients.values():
                other.told.discard(token)
            self._introduce(client, now)

    def _introduce(self, client: _Client, now: int) -> None:
        """Tell it of the one that it looks for, and those that look for it of it."""
        for other in list(self._clients.values()):
            if other.peer == client.name and other is not client:
                self._describe(client, other, now)
            if client.peer == other.name and other is not client:
                self._describe(other, client, now)

    def _describe(self, about: _Client, to: _Client, now: int) -> None:
        if about.token not in to.told:
            to.told.add(about.token)
            self._post(to, {"kind": "peer", "name": about.name, "description": about.description}, now)

    def _pass_on(self, message: JsonObject, name: str, source: Endpoint, now: int) -> None:
        client, to = self._clients.get(name), self._clients.get(str(message.get("to")))
        if client is None or to is None or client.token != message["token"]:
            return
        self._heard(client, message, source, now)
        if client.mail.is_new(int(str(message["id"]))):
            self._post(to, {"kind": "message", "from": name, "body": message.get("body")}, now)

    def _acknowledged(self, message: JsonObject, name: str, source: Endpoint, now: int) -> None:
        client = self._clients.get(name)
        if client is not None and client.token == message["token"]:
            client.heard_at = now
            client.mail.waiting.pop(int(str(message["id"])), None)

    def _heard(self, client: _Client, message: JsonObject, source: Endpoint, now: int) -> None:
        """Acknowledge, and answer from now on to where it speaks from: its NAT may have given it another address."""
        client.address, client.heard_at = source, now
        ack = encode({"kind": "ack", "id": message["id"], "token": client.token})
        self._outbox.append(Datagram(self._local, source, ack))

    def _post(self, to: _Client, message: JsonObject, now: int) -> None:
        number = to.mail.number()
        try:
            data = encode({**message, "id": number, "token": to.token})
        except SignallingError:
            return  # it fitted when it came and does not with our words around it: its sender hears nothing of it
        to.mail.post(number, data, now)
