"""A TURN relay (RFC 8656, over UDP).

Rule 1: an allocation belongs to a 5-tuple: the client's address and ours. A request that is repeated, because its
        answer was lost, is answered the same way again (RFC 8656 §7.2).
Rule 2: a relayed address is opened outside: the machine says `OpenRelay` and answers the client once it hears
        `relay_opened` or, after some other ports, `relay_refused`.
Rule 3: nothing is relayed to or from a peer without a permission for its address. What may not pass is dropped
        without a word, as the RFC has it.
Rule 4: two allocations of one relay reach each other in here; no packet leaves for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random
from typing import TypeAlias

from testbed.datagram import Datagram, Endpoint
from testbed.plan.seeds import derive
from testbed.traversal import stun
from testbed.traversal.stun import Kind, Message, Method
from testbed.traversal.stun_attributes import Attribute, StunFormatError, Value
from testbed.traversal.turn import UDP, decode_channel_data, encode_channel_data
from testbed.traversal.turn_authentication import Authenticated, Authenticator

SECOND = 1_000_000_000
DEFAULT_LIFETIME, LONGEST_LIFETIME = 600, 3600
"""Seconds of an allocation (RFC 8656 §7.2)."""
PERMISSION_LIFETIME = 300 * SECOND
CHANNEL_LIFETIME = 600 * SECOND
RESERVATION_LIFETIME = 30 * SECOND
SERVED_CHANNELS = range(0x4000, 0x8000)
"""RFC 5766 §11. RFC 8656 stops at 0x4FFF, to be told from DTLS and QUIC, which never come to a relay; Debian's
turnutils_uclient draws from the older range."""
RELAY_PORTS = range(49152, 65536)
"""RFC 8656 §7.2."""
PORT_TRIES = 8
IPV4 = 1
EVEN_AND_NEXT = 0x80
"""EVEN-PORT with its R bit: keep the next higher port too."""


@dataclass(frozen=True, slots=True)
class OpenRelay:
    """Open a socket on this address, then say `relay_opened` or `relay_refused`."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class CloseRelay:
    """The socket on this address is no longer needed."""

    endpoint: Endpoint


RelayEvent: TypeAlias = "OpenRelay | CloseRelay"


@dataclass(slots=True)
class _Allocation:
    client: Endpoint
    username: str
    relay: Endpoint
    transaction_id: bytes
    expires: int
    permissions: dict[str, int] = field(default_factory=dict)
    channels: dict[int, tuple[Endpoint, int]] = field(default_factory=dict)
    answer: bytes = b""

    def channel_of(self, peer: Endpoint) -> int | None:
        return next((number for number, (bound, _) in self.channels.items() if bound == peer), None)

    def next_timeout(self) -> int:
        return min(self.expires, *self.permissions.values(), *(end for _, end in self.channels.values()), self.expires)


@dataclass(slots=True)
class _Opening:
    """An Allocate request whose relayed address is being opened."""

    request: Message
    client: Endpoint
    who: Authenticated
    wanted: list[Endpoint]
    opened: list[Endpoint] = field(default_factory=list)
    tries: int = 0


class _RefusedError(Exception):
    """Becomes the error response; never leaves the machine."""

    def __init__(self, code: int, phrase: str, *attributes: tuple[Attribute, Value]) -> None:
        super().__init__(phrase)
        self.code, self.phrase, self.attributes = code, phrase, attributes


class TurnServer:
    """One relay on one address."""

    def __init__(
        self,
        local: Endpoint,
        realm: str,
        passwords: Mapping[str, str],
        rng: Random,
        *,
        capacity: int = 256,
        loopback_peers: bool = False,
    ) -> None:
        """`loopback_peers`: whether peers at 127.0.0.0/8 are relayed to; for tests, they are refused otherwise."""
        self._local, self._rng, self._capacity = local, rng, capacity
        self._loopback_peers = loopback_peers
        self._seed = rng.getrandbits(63)
        self._authenticator = Authenticator(realm, passwords, rng)
        self._allocations: dict[Endpoint, _Allocation] = {}
        self._by_relay: dict[Endpoint, _Allocation] = {}
        self._opening: dict[Endpoint, _Opening] = {}
        self._reserved: dict[bytes, tuple[Endpoint, int]] = {}
        self._outbox: list[Datagram] = []
        self._events: list[RelayEvent] = []

    # ---- the contract

    def receive(self, datagram: Datagram, now: int) -> bool:
        """Whether the datagram was for this relay."""
        if datagram.destination in self._by_relay:
            self._from_peer(self._by_relay[datagram.destination], datagram.source, datagram.data, now)
            return True
        if datagram.destination != self._local:
            return False
        if (channel_data := decode_channel_data(datagram.data, SERVED_CHANNELS)) is not None:
            self._from_channel(datagram.source, *channel_data, now)
            return True
        try:
            message = stun.decode(datagram.data)
        except StunFormatError:
            return False
        return self.receive_message(message, datagram, now)

    def receive_message(self, message: Message, datagram: Datagram, now: int) -> bool:
        """Whether a decoded message was for this relay; STUN's Binding is not."""
        if datagram.destination != self._local:
            return False
        if message.kind is Kind.INDICATION and message.method == Method.SEND:
            self._send_indication(message, datagram.source, now)
            return True
        if message.kind is Kind.REQUEST and message.method in _HANDLERS:
            self._request(message, datagram.source, now)
            return True
        return False

    def next_timeout(self) -> int | None:
        """When the next allocation, permission, channel or reservation ends."""
        times = [allocation.next_timeout() for allocation in self._allocations.values()]
        times += [end for _, end in self._reserved.values()]
        return min(times, default=None)

    def handle_timeout(self, now: int) -> None:
        """Forget what has ended."""
        for allocation in list(self._allocations.values()):
            if allocation.expires <= now:
                self._remove(allocation)
                continue
            allocation.permissions = {host: end for host, end in allocation.permissions.items() if end > now}
            allocation.channels = {n: entry for n, entry in allocation.channels.items() if entry[1] > now}
        for token, (endpoint, end) in list(self._reserved.items()):
            if end <= now:
                del self._reserved[token]
                self._events.append(CloseRelay(endpoint))

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Answers, and what is relayed."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def events(self) -> list[RelayEvent]:
        """Which relayed addresses are to be opened and closed."""
        events, self._events = self._events, []
        return events

    def relay_opened(self, endpoint: Endpoint, now: int) -> None:
        """The socket that `OpenRelay` asked for is there."""
        opening = self._opening.pop(endpoint, None)
        if opening is None:
            self._events.append(CloseRelay(endpoint))
            return
        opening.opened.append(endpoint)
        if len(opening.opened) == len(opening.wanted):
            self._allocated(opening, now)

    def relay_refused(self, endpoint: Endpoint, now: int) -> None:
        """The socket that `OpenRelay` asked for cannot be had; another port is tried, then 508."""
        opening = self._opening.pop(endpoint, None)
        if opening is None:
            return
        for other in opening.wanted:
            if self._opening.pop(other, None) is not None or other in opening.opened:
                self._events.append(CloseRelay(other))
        opening.opened.clear()
        self._open(opening)

    # ---- requests

    def _request(self, message: Message, client: Endpoint, now: int) -> None:
        who = self._authenticator.check(message, now)
        if isinstance(who, Message):
            self._outbox.append(Datagram(self._local, client, stun.encode(who)))
            return
        try:
            if unknown := message.unknown_required:
                raise _RefusedError(420, "Unknown Attribute", (Attribute.UNKNOWN_ATTRIBUTES, unknown))
            response = _HANDLERS[Method(message.method)](self, message, client, who, now)
        except _RefusedError as error:
            response = stun.refusal(message, error.code, error.phrase, *error.attributes)
        if response is not None:
            self._outbox.append(Datagram(self._local, client, stun.encode(response, key=who.key)))

    def _allocate(self, message: Message, client: Endpoint, who: Authenticated, now: int) -> Message | None:
        existing = self._allocations.get(client)
        if existing is not None:
            if existing.transaction_id != message.transaction_id:
                raise _RefusedError(437, "Allocation Mismatch")
            self._outbox.append(Datagram(self._local, client, existing.answer))
            return None
        if any(opening.request.transaction_id == message.transaction_id for opening in self._opening.values()):
            return None
        transport = message.number(Attribute.REQUESTED_TRANSPORT)
        if transport is None:
            raise _RefusedError(400, "Bad Request")
        if transport != UDP:
            raise _RefusedError(442, "Unsupported Transport Protocol")
        if message.number(Attribute.REQUESTED_ADDRESS_FAMILY) not in (None, IPV4):
            raise _RefusedError(440, "Address Family not Supported")
        if message.has(Attribute.DONT_FRAGMENT):
            raise _RefusedError(420, "Unknown", (Attribute.UNKNOWN_ATTRIBUTES, (Attribute.DONT_FRAGMENT,)))
        if len(self._allocations) + len(self._opening) >= self._capacity:
            raise _RefusedError(486, "Allocation Quota Reached")
        token = message.data(Attribute.RESERVATION_TOKEN)
        if token is not None:
            if message.has(Attribute.EVEN_PORT):
                raise _RefusedError(400, "Bad Request")
            if token not in self._reserved:
                raise _RefusedError(508, "Insufficient Capacity")
            relay, _ = self._reserved.pop(token)
            self._allocated(_Opening(message, client, who, [relay], [relay]), now)
            return None
        self._open(_Opening(message, client, who, []))
        return None

    def _open(self, opening: _Opening) -> None:
        if opening.tries == PORT_TRIES:
            response = stun.refusal(opening.request, 508, "Insufficient Capacity")
            self._outbox.append(
                Datagram(self._local, opening.client, stun.encode(response, key=opening.who.key)),
            )
            return
        opening.tries += 1
        even = opening.request.number(Attribute.EVEN_PORT)
        # A client's port is its own draw: which of two asks first must not decide who gets which.
        die = Random(derive(self._seed, str(opening.client), opening.tries))
        port = die.randrange(RELAY_PORTS.start, RELAY_PORTS.stop, 1 if even is None else 2)
        count = 2 if even is not None and even & EVEN_AND_NEXT else 1
        opening.wanted = [Endpoint(self._local.host, port + index) for index in range(count)]
        for endpoint in opening.wanted:
            self._opening[endpoint] = opening
        self._events += [OpenRelay(endpoint) for endpoint in opening.wanted]

    def _allocated(self, opening: _Opening, now: int) -> None:
        lifetime = _lifetime(opening.request)
        relay = opening.wanted[0]
        attributes: list[tuple[Attribute, Value]] = [
            (Attribute.XOR_RELAYED_ADDRESS, relay),
            (Attribute.LIFETIME, lifetime),
            (Attribute.XOR_MAPPED_ADDRESS, opening.client),
        ]
        if len(opening.wanted) == 2:
            token = self._rng.randbytes(8)
            self._reserved[token] = (opening.wanted[1], now + RESERVATION_LIFETIME)
            attributes.append((Attribute.RESERVATION_TOKEN, token))
        expires = now + lifetime * SECOND
        allocation = _Allocation(opening.client, opening.who.username, relay, opening.request.transaction_id, expires)
        allocation.answer = stun.encode(stun.answer(opening.request, *attributes), key=opening.who.key)
        self._allocations[opening.client] = self._by_relay[relay] = allocation
        self._outbox.append(Datagram(self._local, opening.client, allocation.answer))

    def _refresh(self, message: Message, client: Endpoint, who: Authenticated, now: int) -> Message:
        wanted = message.number(Attribute.LIFETIME)
        if wanted == 0 and client not in self._allocations:
            return stun.answer(message, (Attribute.LIFETIME, 0))  # a repeated farewell
        allocation = self._of(client, who)
        if message.number(Attribute.REQUESTED_ADDRESS_FAMILY) not in (None, IPV4):
            raise _RefusedError(443, "Peer Address Family Mismatch")
        if wanted == 0:
            self._remove(allocation)
            return stun.answer(message, (Attribute.LIFETIME, 0))
        lifetime = _lifetime(message)
        allocation.expires = now + lifetime * SECOND
        return stun.answer(message, (Attribute.LIFETIME, lifetime))

    def _create_permission(self, message: Message, client: Endpoint, who: Authenticated, now: int) -> Message:
        allocation = self._of(client, who)
        peers = [value for number, value in message.attributes if number == Attribute.XOR_PEER_ADDRESS]
        if not peers:
            raise _RefusedError(400, "Bad Request")
        for peer in peers:
            assert isinstance(peer, Endpoint)
            self._check_peer(peer)
        for peer in peers:
            assert isinstance(peer, Endpoint)
            allocation.permissions[peer.host] = now + PERMISSION_LIFETIME
        return stun.answer(message)

    def _channel_bind(self, message: Message, client: Endpoint, who: Authenticated, now: int) -> Message:
        allocation = self._of(client, who)
        number, peer = message.number(Attribute.CHANNEL_NUMBER), message.endpoint(Attribute.XOR_PEER_ADDRESS)
        if number is None or peer is None or number not in SERVED_CHANNELS:
            raise _RefusedError(400, "Bad Request")
        bound = allocation.channels.get(number)
        if (bound is not None and bound[0] != peer) or allocation.channel_of(peer) not in (None, number):
            raise _RefusedError(400, "Channel or peer is bound otherwise")
        self._check_peer(peer)
        allocation.channels[number] = (peer, now + CHANNEL_LIFETIME)
        allocation.permissions[peer.host] = now + PERMISSION_LIFETIME
        return stun.answer(message)

    def _of(self, client: Endpoint, who: Authenticated) -> _Allocation:
        allocation = self._allocations.get(client)
        if allocation is None:
            raise _RefusedError(437, "Allocation Mismatch")
        if allocation.username != who.username:
            raise _RefusedError(441, "Wrong Credentials")
        return allocation

    def _check_peer(self, peer: Endpoint) -> None:
        address = ip_address(peer.host)
        if address.version != ip_address(self._local.host).version:
            raise _RefusedError(443, "Peer Address Family Mismatch")
        if address.is_multicast or address.is_unspecified or (address.is_loopback and not self._loopback_peers):
            raise _RefusedError(403, "Forbidden")

    def _remove(self, allocation: _Allocation) -> None:
        del self._allocations[allocation.client], self._by_relay[allocation.relay]
        self._events.append(CloseRelay(allocation.relay))

    # ---- data

    def _send_indication(self, message: Message, client: Endpoint, now: int) -> None:
        allocation = self._allocations.get(client)
        peer, data = message.endpoint(Attribute.XOR_PEER_ADDRESS), message.data(Attribute.DATA)
        if allocation is None or peer is None or data is None or message.unknown_required:
            return
        if message.has(Attribute.DONT_FRAGMENT):
            return  # it cannot be honoured (RFC 8656 §14.9)
        self._to_peer(allocation, peer, data, now)

    def _from_channel(self, client: Endpoint, number: int, data: bytes, now: int) -> None:
        allocation = self._allocations.get(client)
        if allocation is None or number not in allocation.channels:
            return
        peer, end = allocation.channels[number]
        if end > now:
            self._to_peer(allocation, peer, data, now)

    def _to_peer(self, allocation: _Allocation, peer: Endpoint, data: bytes, now: int) -> None:
        if allocation.permissions.get(peer.host, 0) <= now:
            return
        if peer in self._by_relay:
            self._from_peer(self._by_relay[peer], allocation.relay, data, now)
        elif peer.port:
            self._outbox.append(Datagram(allocation.relay, peer, data))

    def _from_peer(self, allocation: _Allocation, peer: Endpoint, data: bytes, now: int) -> None:
        if allocation.permissions.get(peer.host, 0) <= now or allocation.expires <= now:
            return
        number = allocation.channel_of(peer)
        if number is not None and allocation.channels[number][1] > now:
            payload = encode_channel_data(number, data)
        else:
            attributes = ((Attribute.XOR_PEER_ADDRESS, peer), (Attribute.DATA, data))
            transaction_id = self._rng.randbytes(stun.TRANSACTION_ID_SIZE)
            payload = stun.encode(Message(Kind.INDICATION, Method.DATA, transaction_id, attributes), fingerprint=False)
        self._outbox.append(Datagram(self._local, allocation.client, payload))


def _lifetime(message: Message) -> int:
    wanted = message.number(Attribute.LIFETIME) or DEFAULT_LIFETIME
    return min(max(wanted, DEFAULT_LIFETIME), LONGEST_LIFETIME)


_HANDLERS = {
    Method.ALLOCATE: TurnServer._allocate,
    Method.REFRESH: TurnServer._refresh,
    Method.CREATE_PERMISSION: TurnServer._create_permission,
    Method.CHANNEL_BIND: TurnServer._channel_bind,
}
