"""TURN, the client's side: one allocation at a relay and what keeps it alive (RFC 8656, over UDP).

Rule 1: a request is first sent as it is; what the server asks for in its 401 or 438 is added, and the request sent
        again. A second 401 is a refusal: the credentials are wrong.
Rule 2: once there is a key, an answer without the right MESSAGE-INTEGRITY is not an answer, except a 401 or a 438,
        which a server sends before it can know the key (RFC 8489 §9.2.5).
Rule 3: what was asked for is kept: the allocation is refreshed a minute before it ends, permissions and channels
        every four minutes (they last five and ten: RFC 8656 §9, §12).
Rule 4: `send` uses the channel where one is bound and a Send indication otherwise; the caller need not know.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import stun
from testbed.traversal.stun import Kind, Message, Method
from testbed.traversal.stun_attributes import Attribute, StunFormatError, Value
from testbed.traversal.timeouts import earliest
from testbed.traversal.transactions import DEFAULT_RTO, Transactions

SECOND = 1_000_000_000
UDP = 17
"""REQUESTED-TRANSPORT: the protocol number of UDP."""
CHANNELS = range(0x4000, 0x5000)
"""RFC 8656 §12."""
REFRESH_BEFORE = 60 * SECOND
RENEW_EVERY = 240 * SECOND
_CHANNEL_HEADER = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Long-term credentials at a relay; the realm is the server's to say."""

    username: str
    password: str


@dataclass(frozen=True, slots=True)
class Allocated:
    """The relay has an address for us. `mapped` is ours as the relay sees it."""

    t: int
    relayed: Endpoint
    mapped: Endpoint
    lifetime: int
    """Nanoseconds."""


@dataclass(frozen=True, slots=True)
class AllocationFailed:
    """There is no allocation, or no longer; nothing that is sent will get through."""

    t: int
    reason: str


@dataclass(frozen=True, slots=True)
class Permitted:
    """The peer may send to us through the relay; `bound` where it has a channel."""

    t: int
    peer: Endpoint
    bound: bool


@dataclass(frozen=True, slots=True)
class NotPermitted:
    """The relay refuses, or does not answer for, this peer."""

    t: int
    peer: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A peer's datagram came through the relay."""

    t: int
    peer: Endpoint
    data: bytes


TurnEvent: TypeAlias = "Allocated | AllocationFailed | Permitted | NotPermitted | DataReceived"


def encode_channel_data(channel: int, data: bytes) -> bytes:
    """ChannelData (RFC 8656 §12.4); over UDP it is not padded."""
    return _CHANNEL_HEADER.pack(channel, len(data)) + data


def decode_channel_data(data: bytes, channels: range = CHANNELS) -> tuple[int, bytes] | None:
    """(channel, data), or None where it is no ChannelData. What follows its length is padding and cut off."""
    if len(data) < 4:
        return None
    channel, length = _CHANNEL_HEADER.unpack_from(data)
    if channel not in channels or length > len(data) - 4:
        return None
    return channel, data[4 : 4 + length]


@dataclass(slots=True)
class _Asked:
    """What a request was, so that it can be sent again with what the server wants in it."""

    method: Method
    attributes: tuple[tuple[Attribute, Value], ...]
    peer: Endpoint | None = None
    had_key: bool = False
    refusals: int = 0
    limit: int | None = None


@dataclass(slots=True)
class _Peer:
    channel: int | None
    permitted: bool = False
    bound: bool = False
    renew_at: int | None = None


class TurnClient:
    """One allocation for one local socket."""

    def __init__(
        self, local: Endpoint, server: Endpoint, credentials: Credentials, rng: Random, *, rto: int = DEFAULT_RTO
    ) -> None:
        self._local, self._server, self._credentials, self._rng = local, server, credentials, rng
        self._transactions = Transactions[_Asked](rto)
        self._key: bytes | None = None
        self._authentication: tuple[tuple[Attribute, Value], ...] = ()
        self._peers: dict[Endpoint, _Peer] = {}
        self._by_channel: dict[int, Endpoint] = {}
        self._refresh_at: int | None = None
        self._outbox: list[Datagram] = []
        self._events: list[TurnEvent] = []
        self.relayed: Endpoint | None = None
        """The address at the relay, while there is an allocation."""

    @property
    def server(self) -> Endpoint:
        """Where the relay is."""
        return self._server

    def allocate(self, now: int, *, limit: int | None = None) -> None:
        """Ask for an address. `limit`: when to give up at the latest, as a time."""
        asked = _Asked(Method.ALLOCATE, ((Attribute.REQUESTED_TRANSPORT, UDP),), limit=limit)
        self._ask(asked, now)

    def permit(self, peer: Endpoint, now: int) -> None:
        """Let this peer's address send to us (every port of it, RFC 8656 §9)."""
        if peer not in self._peers:
            self._peers[peer] = _Peer(None)
            self._renew(peer, now)

    def bind(self, peer: Endpoint, now: int) -> None:
        """Give this peer a channel, which permits it too: four bytes a datagram instead of 36 or more."""
        entry = self._peers.get(peer)
        if entry is None or entry.channel is None:
            channel = CHANNELS[len(self._by_channel)]
            self._peers[peer], self._by_channel[channel] = _Peer(channel), peer
            self._renew(peer, now)

    def send(self, peer: Endpoint, data: bytes, now: int) -> None:
        """Send to the peer through the relay. Nothing says whether it arrives; without permission it does not."""
        entry = self._peers.get(peer)
        if entry is not None and entry.bound and entry.channel is not None:
            payload = encode_channel_data(entry.channel, data)
        else:
            indication = Message(
                Kind.INDICATION,
                Method.SEND,
                self._rng.randbytes(stun.TRANSACTION_ID_SIZE),
                ((Attribute.XOR_PEER_ADDRESS, peer), (Attribute.DATA, data)),
            )
            payload = stun.encode(indication, fingerprint=False)
        self._outbox.append(Datagram(self._local, self._server, payload))

    def close(self, now: int) -> None:
        """Give the allocation back; whether the relay hears of it no longer matters."""
        if self.relayed is not None:
            self._transactions.cancel()
            self._ask(_Asked(Method.REFRESH, ((Attribute.LIFETIME, 0),), limit=now), now)
            self.relayed = self._refresh_at = None
            self._peers.clear()

    # ---- the contract

    def receive(self, datagram: Datagram, now: int) -> bool:
        """Whether the datagram was for this allocation."""
        if datagram.source != self._server or datagram.destination != self._local:
            return False
        if (channel_data := decode_channel_data(datagram.data)) is not None:
            channel, data = channel_data
            if channel in self._by_channel:
                self._events.append(DataReceived(now, self._by_channel[channel], data))
            return True
        try:
            message = stun.decode(datagram.data)
        except StunFormatError:
            return False
        return self.receive_message(message, now)

    def receive_message(self, message: Message, now: int) -> bool:
        """Whether a decoded message from the relay was for this allocation."""
        if message.kind is Kind.INDICATION and message.method == Method.DATA:
            peer, data = message.endpoint(Attribute.XOR_PEER_ADDRESS), message.data(Attribute.DATA)
            if peer is not None and data is not None:
                self._events.append(DataReceived(now, peer, data))
            return True
        if message.kind not in (Kind.SUCCESS, Kind.ERROR) or message.transaction_id not in self._transactions:
            return False
        challenge = message.kind is Kind.ERROR and message.error is not None and message.error.code in (401, 438)
        if self._key is not None and not challenge and not message.verify(self._key):
            return True  # ours by its transaction, but not by its key
        answered = self._transactions.answered(message.transaction_id)
        assert answered is not None
        if message.kind is Kind.SUCCESS:
            self._granted(answered[0], message, now)
        else:
            self._refused(answered[0], message, now)
        return True

    def next_timeout(self) -> int | None:
        """When something is to be sent again or renewed."""
        times = [self._transactions.next_timeout(), self._refresh_at]
        times += [entry.renew_at for entry in self._peers.values()]
        return earliest(times)

    def handle_timeout(self, now: int) -> None:
        """Send again, renew, give up."""
        for asked in self._transactions.handle_timeout(now):
            self._fail(asked, "no answer", now)
        if self._refresh_at is not None and self._refresh_at <= now:
            self._refresh_at = None
            self._ask(_Asked(Method.REFRESH, ()), now)
        for peer, entry in list(self._peers.items()):
            if entry.renew_at is not None and entry.renew_at <= now:
                self._renew(peer, now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """What is to be sent now."""
        datagrams, self._outbox = self._transactions.datagrams_to_send() + self._outbox, []
        return datagrams

    def events(self) -> list[TurnEvent]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    # ---- requests and their answers

    def _ask(self, asked: _Asked, now: int) -> None:
        transaction_id = self._rng.randbytes(stun.TRANSACTION_ID_SIZE)
        message = stun.request(asked.method, transaction_id, *asked.attributes, *self._authentication)
        asked.had_key = self._key is not None
        request = Datagram(self._local, self._server, stun.encode(message, key=self._key))
        self._transactions.start(transaction_id, request, asked, now, limit=asked.limit)

    def _renew(self, peer: Endpoint, now: int) -> None:
        entry = self._peers[peer]
        entry.renew_at = None
        if entry.channel is None:
            self._ask(_Asked(Method.CREATE_PERMISSION, ((Attribute.XOR_PEER_ADDRESS, peer),), peer), now)
        else:
            attributes = ((Attribute.CHANNEL_NUMBER, entry.channel), (Attribute.XOR_PEER_ADDRESS, peer))
            self._ask(_Asked(Method.CHANNEL_BIND, attributes, peer), now)

    def _granted(self, asked: _Asked, message: Message, now: int) -> None:
        if asked.method in (Method.ALLOCATE, Method.REFRESH):
            lifetime = (message.number(Attribute.LIFETIME) or 0) * SECOND
            if asked.method is Method.ALLOCATE:
                relayed = message.endpoint(Attribute.XOR_RELAYED_ADDRESS)
                mapped = message.endpoint(Attribute.XOR_MAPPED_ADDRESS)
                if relayed is None or mapped is None or not lifetime:
                    self._fail(asked, "the answer lacks an address or a lifetime", now)
                    return
                self.relayed = relayed
                self._events.append(Allocated(now, relayed, mapped, lifetime))
            if self.relayed is not None:
                self._refresh_at = now + max(lifetime - REFRESH_BEFORE, lifetime // 2)
        elif asked.peer is not None and asked.peer in self._peers:
            entry = self._peers[asked.peer]
            is_news = not entry.permitted
            entry.permitted, entry.bound = True, entry.channel is not None
            entry.renew_at = now + RENEW_EVERY
            if is_news:
                self._events.append(Permitted(now, asked.peer, entry.bound))

    def _refused(self, asked: _Asked, message: Message, now: int) -> None:
        error = message.error
        realm, nonce = message.text(Attribute.REALM), message.text(Attribute.NONCE)
        code = error.code if error is not None else 0
        may_retry = (code == 401 and not asked.had_key) or (code == 438 and asked.refusals < 2)
        if may_retry and realm is not None and nonce is not None:
            username = self._credentials.username
            self._key = stun.long_term_key(username, realm, self._credentials.password)
            self._authentication = (
                (Attribute.USERNAME, username),
                (Attribute.REALM, realm),
                (Attribute.NONCE, nonce),
            )
            asked.refusals += 1
            self._ask(asked, now)
            return
        self._fail(asked, f"{code} {error.phrase}".strip() if error is not None else "refused without a reason", now)

    def _fail(self, asked: _Asked, reason: str, now: int) -> None:
        if asked.peer is not None:
            if self._peers.pop(asked.peer, None) is not None:
                self._events.append(NotPermitted(now, asked.peer, reason))
        elif asked.method is Method.ALLOCATE or self.relayed is not None:
            self.relayed = self._refresh_at = None
            self._peers.clear()
            self._events.append(AllocationFailed(now, f"{_NAMES[asked.method]}: {reason}"))


_NAMES: Mapping[Method, str] = {
    Method.ALLOCATE: "allocation",
    Method.REFRESH: "refresh of the allocation",
}
