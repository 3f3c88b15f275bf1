"""Connectivity checks by STUN, and the choice of a pair (RFC 8445 §7, §8), for one component.

Rule 1: a check is a Binding request under the short-term credentials of the end that is asked. Whoever does not know
        them is refused and learns nothing.
Rule 2: a check from an address that we did not know makes a peer-reflexive candidate, and any check that comes in on
        a pair that is not valid yet triggers one back on that pair, at once (RFC 8445 §7.3.1.4).
Rule 3: the controlling end nominates the first valid pair; the controlled end uses the pair that was nominated last,
        once that is valid for it too.
Rule 4: RFC 8445 §7.2.5.2.1 calls a check failed whose answer comes from another address than was asked. Here that
        pair is kept for later (`settle`), behind the address that the answer came from: two NATs that map by address
        and port but filter by less give each direction a mapping of its own, and such a path carries bytes both ways.

When checks are sent is not decided here but by `rounds`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import stun
from testbed.traversal.candidates import Candidate, CandidateType, Description, Role, priority
from testbed.traversal.stun import Kind, Message, Method
from testbed.traversal.stun_attributes import Attribute, Value
from testbed.traversal.timeouts import earliest

NOMINATION_WAITS = tuple(wait * 1_000_000 for wait in (50, 100, 200, 400, 400, 400))
"""Nanoseconds from each nominating check to the next; after the last the pair is given up."""
REPEATS = tuple(wait * 1_000_000 for wait in (100, 200, 400))
"""Nanoseconds from a triggered check to its first repetition, and on: at a base that was opened since, where no
schedule comes back to the pair."""
REMEMBERED = 512
"""Checks whose answer is still waited for; older ones are forgotten."""
MAX_PEER_REFLEXIVE, MAX_AT_OTHERS = 8, 2
"""Addresses of the other end that its checks taught us, at each of our first bases, and at one that was opened since.
Two NATs that map by address and port show a new one with every answer, without end. A pair that is nominated is taken
beyond that."""
TRIGGER_GAP = 50_000_000
"""Nanoseconds between two triggered checks on one pair: each answers a check of the other end, and two ends that
answer each other at once would never stop."""


@dataclass(slots=True)
class Pair:
    """A local base and a remote address, and what is known of the way between them."""

    local: Endpoint
    remote: Endpoint
    remote_type: CandidateType
    is_valid: bool = False
    answered_from: Endpoint | None = None
    """Where answers came from, where that is not the remote address."""
    local_type: CandidateType = CandidateType.HOST
    is_nominated: bool = False
    is_given_up: bool = False
    is_learnt: bool = False
    """Whether it was the other end that began on it."""
    rtt: int | None = None
    triggered_at: int | None = None


@dataclass(frozen=True, slots=True)
class CheckSent:
    """A check left; `attempt` is None for one that was triggered or nominates."""

    t: int
    local: Endpoint
    remote: Endpoint
    attempt: int | None
    count: int | None = None
    """Of a burst of checks, of which the addresses are the first one's."""


@dataclass(frozen=True, slots=True)
class RemoteLearnt:
    """The other end checks us from an address that it did not tell us: a peer-reflexive candidate."""

    t: int
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class Selected:
    """Both ends have agreed on this pair, as far as this end knows. A controlled end may say so again of another."""

    t: int
    pair: Pair


CheckEvent: TypeAlias = "CheckSent | RemoteLearnt | Selected"


@dataclass(frozen=True, slots=True)
class _Sent:
    pair: Pair
    at: int
    nominates: bool


class Checks:
    """The pairs of one end."""

    def __init__(
        self, role: Role, bases: Sequence[Endpoint], ufrag: str, password: str, rng: Random, tiebreaker: int
    ) -> None:
        self._role, self._first_bases, self._rng = role, tuple(bases), rng
        self._bases = {base: index for index, base in enumerate(bases)}
        self._ufrag, self._key, self._tiebreaker = ufrag, password.encode(), tiebreaker
        self._locals: tuple[Candidate, ...] = ()
        self._other: Description | None = None
        self._pairs: dict[tuple[Endpoint, Endpoint], Pair] = {}
        self._sent: dict[bytes, _Sent] = {}
        self._nominating: Pair | None = None
        self._nominations = 0
        self._nominate_at: int | None = None
        self._repeats: dict[tuple[Endpoint, Endpoint], tuple[int, int]] = {}
        self._outbox: list[Datagram] = []
        self._events: list[CheckEvent] = []
        self.selected: Pair | None = None

    @property
    def is_nominating(self) -> bool:
        """Whether a nomination waits for its answer."""
        return self._nominating is not None

    @property
    def is_waiting(self) -> bool:
        """Whether the other end has found one of the addresses that were opened since, and no more is known yet."""
        return bool(self._repeats)

    def own_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Learn our candidates: they say which type the local end of a pair is."""
        self._locals = tuple(candidates)

    def other_end(self, description: Description, now: int) -> None:
        """Learn the other end's candidates and credentials; check back whoever checked us before."""
        is_first, self._other = self._other is None, description
        for pair in self._pairs.values():
            pair.remote_type = self._type_of(pair.remote)
            if is_first:
                self._send(pair, None, now)

    def add_base(self, base: Endpoint) -> None:
        """One more address of our own; its rank is behind the others'."""
        self._bases[base] = len(self._bases)

    def check(self, remote: Endpoint, attempt: int, now: int, bases: Sequence[Endpoint] = ()) -> None:
        """Send one check to the address, from each of our first addresses or of those given."""
        for base in bases or self._first_bases:
            if remote not in self._bases:
                self._send(self._pair_of(base, remote), attempt, now)

    def burst(self, ways: Sequence[tuple[Endpoint, Endpoint]], attempt: int | None, now: int) -> None:
        """Send one check on each of these ways, (own address, remote): one event for all of them."""
        said = len(self._events)
        for base, remote in ways:
            self._send(self._pair_of(base, remote), attempt, now)
        sent = len(self._events) - said
        if sent > 1:
            (base, remote), self._events[said:] = ways[0], []
            self._events.append(CheckSent(now, base, remote, attempt, sent))

    def is_used(self, base: Endpoint) -> bool:
        """Whether something came back to this address."""
        return any(
            pair.local == base and (pair.is_valid or pair.answered_from is not None) for pair in self._pairs.values()
        )

    def settle(self, now: int) -> None:
        """Nominate what Rule 4 kept, if there is nothing better; said when a round is over."""
        kept = [pair for pair in self._pairs.values() if pair.answered_from is not None and not pair.is_given_up]
        if kept:
            # An address that a check taught us may be one that the other end has stopped to learn from.
            learnt = CandidateType.PEER_REFLEXIVE
            self._nominate(min(kept, key=lambda pair: (pair.remote_type is learnt, pair.rtt or 0)), now)

    # ---- the contract

    def receive_message(self, message: Message, datagram: Datagram, now: int) -> bool:
        """Whether a decoded message was a check or the answer to one of ours."""
        if message.method != Method.BINDING:
            return False
        if message.kind is Kind.REQUEST:
            self._asked(message, datagram, now)
            return True
        sent = self._sent.get(message.transaction_id)
        if sent is None or self._other is None or not message.verify(self._other.password.encode()):
            return False
        del self._sent[message.transaction_id]
        if message.kind is Kind.SUCCESS and datagram.destination == sent.pair.local:
            self._answered(sent, message, datagram.source, now)
        return True

    def next_timeout(self) -> int | None:
        """When the nomination, or a triggered check, is sent again."""
        times = [due for due, _ in self._repeats.values()] if self.selected is None else []
        return earliest((self._nominate_at, *times))

    def handle_timeout(self, now: int) -> None:
        """Nominate again, or give the pair up; repeat triggered checks."""
        for way, (due, number) in list(self._repeats.items()):
            if due <= now:
                self._repeat(way, number, now)
        pair = self._nominating
        if pair is None or self._nominate_at is None or now < self._nominate_at:
            return
        if self._nominations == len(NOMINATION_WAITS):
            pair.is_given_up, self._nominating, self._nominate_at = True, None, None
            other = next((p for p in self._pairs.values() if p.is_valid and not p.is_given_up), None)
            if other is not None:
                self._nominate(other, now)
            return
        self._nominate_at = now + NOMINATION_WAITS[self._nominations]
        self._nominations += 1
        self._send(pair, None, now)

    def _repeat(self, way: tuple[Endpoint, Endpoint], number: int, now: int) -> None:
        pair = self._pairs[way]
        del self._repeats[way]
        if self.selected is None and not pair.is_valid and pair.answered_from is None:
            if number + 1 < len(REPEATS):
                self._repeats[way] = (now + REPEATS[number + 1], number + 1)
            self._send(pair, None, now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Checks and answers to checks."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def events(self) -> list[CheckEvent]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    # ---- being asked

    def _asked(self, message: Message, datagram: Datagram, now: int) -> None:
        base, source = datagram.destination, datagram.source
        username = message.text(Attribute.USERNAME) or ""
        if username.partition(":")[0] != self._ufrag or not message.verify(self._key):
            self._reply(datagram, stun.refusal(message, 401, "Unauthenticated"), None)
            return
        if unknown := message.unknown_required:
            self._reply(
                datagram, stun.refusal(message, 420, "Unknown", (Attribute.UNKNOWN_ATTRIBUTES, unknown)), self._key
            )
            return
        if message.has(_ROLE_ATTRIBUTE[self._role]):
            # Roles are given to the ends, not negotiated: nobody switches (RFC 8445 §7.3.1.1).
            self._reply(datagram, stun.refusal(message, 487, "Role Conflict"), self._key)
            return
        self._reply(datagram, stun.answer(message, (Attribute.XOR_MAPPED_ADDRESS, source)), self._key)
        is_new = all(pair.remote != source for pair in self._pairs.values())
        nominates = message.has(Attribute.USE_CANDIDATE) and self._role is Role.CONTROLLED
        pair = self._pair_of(base, source) if nominates else self._learn(base, source)
        if pair is None:
            return
        if is_new and pair.remote_type is CandidateType.PEER_REFLEXIVE:
            self._events.append(RemoteLearnt(now, source))
        if nominates:
            pair.is_nominated = True
            self._select_if_agreed(pair, now)
        self._trigger(pair, now)

    def _reply(self, datagram: Datagram, message: Message, key: bytes | None) -> None:
        data = stun.encode(message, key=key)
        self._outbox.append(Datagram(datagram.destination, datagram.source, data))

    # ---- being answered

    def _answered(self, sent: _Sent, message: Message, source: Endpoint, now: int) -> None:
        pair, mapped = sent.pair, message.endpoint(Attribute.XOR_MAPPED_ADDRESS)
        pair.rtt = now - sent.at
        pair.local_type = next(
            (own.type for own in self._locals if own.address == mapped and own.base == pair.local),
            CandidateType.PEER_REFLEXIVE,
        )
        if source == pair.remote:
            pair.is_valid = True
        elif not pair.is_valid:
            pair.answered_from = source
            better = self._learn(pair.local, source)
            if better is not None:
                self._trigger(better, now)
        if self._role is Role.CONTROLLING:
            if sent.nominates and pair is self._nominating:
                pair.is_nominated = True
                self._nominating = self._nominate_at = None
            elif pair.is_valid and not pair.is_given_up:
                self._nominate(pair, now)
        self._select_if_agreed(pair, now)

    def _nominate(self, pair: Pair, now: int) -> None:
        if self._role is Role.CONTROLLING and self._nominating is None and self.selected is None:
            self._nominating, self._nominations, self._nominate_at = pair, 0, now
            self.handle_timeout(now)

    def _select_if_agreed(self, pair: Pair, now: int) -> None:
        works = pair.is_valid or pair.answered_from is not None
        if self.selected is not pair and pair.is_nominated and works:
            self.selected = pair
            self._events.append(Selected(now, pair))

    # ---- pairs

    def _pair_of(self, base: Endpoint, remote: Endpoint) -> Pair:
        """The pair, made where there is none."""
        key = (base, remote)
        if key not in self._pairs:
            self._pairs[key] = Pair(base, remote, self._type_of(remote))
        return self._pairs[key]

    def _learn(self, base: Endpoint, remote: Endpoint) -> Pair | None:
        """The pair that the other end brought up; None where there are too many."""
        if (base, remote) in self._pairs:
            return self._pairs[base, remote]
        is_known = self._type_of(remote) is not CandidateType.PEER_REFLEXIVE
        learnt = [p.local for p in self._pairs.values() if p.is_learnt]
        limit = MAX_PEER_REFLEXIVE if base in self._first_bases else MAX_AT_OTHERS
        if not is_known and learnt.count(base) >= limit:
            return None
        pair = self._pair_of(base, remote)
        pair.is_learnt = True
        return pair

    def _type_of(self, remote: Endpoint) -> CandidateType:
        known = self._other.candidates if self._other is not None else ()
        return next((entry.type for entry in known if entry.address == remote), CandidateType.PEER_REFLEXIVE)

    def _trigger(self, pair: Pair, now: int) -> None:
        if pair.is_valid or (pair.triggered_at is not None and now - pair.triggered_at < TRIGGER_GAP):
            return
        pair.triggered_at = now
        if pair.local not in self._first_bases:
            self._repeats[pair.local, pair.remote] = (now + REPEATS[0], 0)
        self._send(pair, None, now)

    def _send(self, pair: Pair, attempt: int | None, now: int) -> None:
        if self._other is None:
            return
        transaction_id = self._rng.randbytes(stun.TRANSACTION_ID_SIZE)
        nominates = pair is self._nominating
        role: tuple[Attribute, Value] = (_ROLE_ATTRIBUTE[self._role], self._tiebreaker)
        attributes: list[tuple[Attribute, Value]] = [
            (Attribute.USERNAME, f"{self._other.ufrag}:{self._ufrag}"),
            (Attribute.PRIORITY, priority(CandidateType.PEER_REFLEXIVE, 65535 - self._bases[pair.local])),
            role,
        ]
        if nominates:
            attributes.append((Attribute.USE_CANDIDATE, None))
        message = stun.request(Method.BINDING, transaction_id, *attributes)
        self._sent[transaction_id] = _Sent(pair, now, nominates)
        if len(self._sent) > REMEMBERED:
            del self._sent[next(iter(self._sent))]
        data = stun.encode(message, key=self._other.password.encode())
        self._outbox.append(Datagram(pair.local, pair.remote, data))
        self._events.append(CheckSent(now, pair.local, pair.remote, attempt))


_ROLE_ATTRIBUTE = {Role.CONTROLLING: Attribute.ICE_CONTROLLING, Role.CONTROLLED: Attribute.ICE_CONTROLLED}
