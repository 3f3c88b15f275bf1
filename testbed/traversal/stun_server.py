"""A STUN server with two addresses and two ports, for Binding and for behaviour discovery (RFC 8489, RFC 5780).

Rule 1: it has no state: each answer follows from the request alone.
Rule 2: a server that has one address only does not know CHANGE-REQUEST (420) and names no OTHER-ADDRESS (RFC 5780
        §6.2): half an answer would make a NAT look stricter than it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import stun
from testbed.traversal.stun import Kind, Message, Method
from testbed.traversal.stun_attributes import Attribute, Change, StunFormatError, Value

PADDING_SIZE = 1500
"""What an answer to PADDING carries: a whole MTU, so that it must be fragmented (RFC 5780 §7.6)."""


class StunServer:
    """Answers Binding requests on every address × port of its own."""

    def __init__(self, hosts: Sequence[str], ports: tuple[int, int]) -> None:
        """`hosts`: one address, or two for behaviour discovery."""
        self._hosts, self._ports = tuple(hosts), ports
        self._outbox: list[Datagram] = []

    @property
    def locals(self) -> tuple[Endpoint, ...]:
        """Where it listens."""
        return tuple(Endpoint(host, port) for host in self._hosts for port in self._ports)

    def receive(self, datagram: Datagram, now: int) -> bool:
        """Whether the datagram was a Binding request to this server."""
        try:
            message = stun.decode(datagram.data)
        except StunFormatError:
            return False
        return self.receive_message(message, datagram, now)

    def receive_message(self, message: Message, datagram: Datagram, now: int) -> bool:
        """The same, for a message that is decoded already."""
        if message.method != Method.BINDING or message.kind is not Kind.REQUEST:
            return False
        if datagram.destination not in self.locals:
            return False
        self._answer(message, datagram)
        return True

    def next_timeout(self) -> int | None:
        """None: nothing ever waits."""
        return None

    def handle_timeout(self, now: int) -> None:
        """Nothing ever waits."""

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Answers."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def events(self) -> list[object]:
        """None: it only answers."""
        return []

    def _answer(self, message: Message, datagram: Datagram) -> None:
        origin, client = datagram.destination, datagram.source
        unknown = message.unknown_required
        if len(self._hosts) == 1 and message.has(Attribute.CHANGE_REQUEST):
            unknown += (Attribute.CHANGE_REQUEST,)
        if unknown:
            self._send(origin, client, stun.refusal(message, 420, "Unknown", (Attribute.UNKNOWN_ATTRIBUTES, unknown)))
            return
        port = message.number(Attribute.RESPONSE_PORT)
        if port is not None and message.has(Attribute.PADDING):
            self._send(origin, client, stun.refusal(message, 400, "RESPONSE-PORT with PADDING"))
            return
        source = self._changed(origin, Change(message.number(Attribute.CHANGE_REQUEST) or 0))
        attributes: list[tuple[Attribute, Value]] = [
            (Attribute.XOR_MAPPED_ADDRESS, client),
            (Attribute.MAPPED_ADDRESS, client),
            (Attribute.RESPONSE_ORIGIN, source),
        ]
        if len(self._hosts) == 2:
            attributes.append((Attribute.OTHER_ADDRESS, self._changed(origin, Change.ADDRESS | Change.PORT)))
        if message.has(Attribute.PADDING):
            attributes.append((Attribute.PADDING, bytes(PADDING_SIZE)))
        destination = client if port is None else Endpoint(client.host, port)
        self._send(source, destination, stun.answer(message, *attributes))

    def _changed(self, origin: Endpoint, change: Change) -> Endpoint:
        host, port = self._hosts.index(origin.host), self._ports.index(origin.port)
        if Change.ADDRESS in change:
            host = 1 - host
        if Change.PORT in change:
            port = 1 - port
        return Endpoint(self._hosts[host], self._ports[port])

    def _send(self, source: Endpoint, destination: Endpoint, message: Message) -> None:
        self._outbox.append(Datagram(source, destination, stun.encode(message)))
