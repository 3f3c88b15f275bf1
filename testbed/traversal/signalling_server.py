"""The rendezvous' side of signalling (signalling.py): two names that look for each other are introduced.

Rule 1: a client is its name and its token; another token of the same name is one that was started again.
Rule 2: it is answered where it last spoke from: its NAT may have given it another address.
Rule 3: hostile bytes are dropped, and what is held is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.datagram import Datagram, Endpoint
from testbed.traversal.candidates import JsonObject
from testbed.traversal.signalling import DEFAULT_RTO, MAX_NAME, Mailbox, SignallingError, decode, encode
from testbed.traversal.timeouts import earliest

MAX_CLIENTS = 1024
SERVER_SENDS = 8
"""How often the server sends one message to a client that does not answer."""
CLIENT_LIFETIME = 300_000_000_000
"""Nanoseconds after which the server forgets a client that it has not heard of."""


@dataclass(slots=True)
class _Client:
    name: str
    token: str
    address: Endpoint
    mail: Mailbox
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
        clients = self._clients.values()
        return earliest([*(c.mail.next_timeout() for c in clients), *(c.heard_at + CLIENT_LIFETIME for c in clients)])

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
            client = self._clients[name] = _Client(name, token, source, Mailbox(self._rto, SERVER_SENDS), now)
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
