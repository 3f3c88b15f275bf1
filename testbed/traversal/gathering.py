"""Gathering: which addresses an end may be reached at (RFC 8445 §5.1.1).

Rule 1: a host candidate for each own address; a server-reflexive one from each server for each own address.
Rule 2: it is done when every server that was asked has answered or was given up, for every own address.
Rule 3: an answer counts only from the server that was asked, to the address that asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import stun
from testbed.traversal.candidates import Candidate, CandidateType, candidate, distinct, without_redundant
from testbed.traversal.events import CandidateFound, Gathered
from testbed.traversal.stun import Kind, Message, Method
from testbed.traversal.stun_attributes import Attribute, StunFormatError
from testbed.traversal.transactions import DEFAULT_RTO, Transactions

GatheringEvent: TypeAlias = "CandidateFound | Gathered"


@dataclass(frozen=True, slots=True)
class _Question:
    base: Endpoint
    index: int
    server: Endpoint


class Gathering:
    """Asks every server from every own address."""

    def __init__(
        self, bases: Sequence[Endpoint], servers: Sequence[Endpoint], rng: Random, *, rto: int = DEFAULT_RTO
    ) -> None:
        self._bases, self._servers, self._rng = tuple(bases), tuple(servers), rng
        self._transactions = Transactions[_Question](rto)
        self._found: list[Candidate] = []
        self._given_up: list[Endpoint] = []
        self._events: list[GatheringEvent] = []
        self.is_done = False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What was found so far, without what is redundant."""
        return without_redundant(self._found)

    @property
    def depends(self) -> bool:
        """Whether servers saw one of our sockets at different addresses: its mapping depends on the remote."""
        seen = [
            (found.base, found.address) for found in self.candidates if found.type is CandidateType.SERVER_REFLEXIVE
        ]
        return len(seen) > len({base for base, _ in seen})

    def start(self, now: int, *, limit: int | None = None) -> None:
        """Ask. `limit`: when a silent server is given up at the latest, as a time."""
        for index, base in enumerate(self._bases):
            self._add(candidate(CandidateType.HOST, base, base, index=index), now)
            for server in self._servers:
                transaction_id = self._rng.randbytes(stun.TRANSACTION_ID_SIZE)
                data = stun.encode(stun.request(Method.BINDING, transaction_id))
                question = _Question(base, index, server)
                self._transactions.start(transaction_id, Datagram(base, server, data), question, now, limit=limit)
        self._finish(now)

    def receive(self, datagram: Datagram, now: int) -> bool:
        """Whether the datagram answered one of the questions."""
        try:
            message = stun.decode(datagram.data)
        except StunFormatError:
            return False
        return self.receive_message(message, datagram, now)

    def receive_message(self, message: Message, datagram: Datagram, now: int) -> bool:
        """The same, for a message that is decoded already."""
        question = self._transactions.context(message.transaction_id)
        if question is None or message.kind not in (Kind.SUCCESS, Kind.ERROR):
            return False
        if (datagram.source, datagram.destination) != (question.server, question.base):
            return False
        self._transactions.answered(message.transaction_id)
        mapped = message.endpoint(Attribute.XOR_MAPPED_ADDRESS) or message.endpoint(Attribute.MAPPED_ADDRESS)
        if message.kind is Kind.ERROR or mapped is None:
            self._given_up.append(question.server)
        else:
            kind = CandidateType.SERVER_REFLEXIVE
            self._add(candidate(kind, mapped, question.base, index=question.index, server=question.server), now)
        self._finish(now)
        return True

    def next_timeout(self) -> int | None:
        """When a question is asked again or given up."""
        return self._transactions.next_timeout()

    def handle_timeout(self, now: int) -> None:
        """Ask again, give up."""
        self._given_up += [question.server for question in self._transactions.handle_timeout(now)]
        self._finish(now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Questions."""
        return self._transactions.datagrams_to_send()

    def events(self) -> list[GatheringEvent]:
        """Each candidate as it is found, then `Gathered`."""
        events, self._events = self._events, []
        return events

    def _add(self, found: Candidate, now: int) -> None:
        before = self.candidates
        self._found.append(found)
        if len(self.candidates) > len(before):
            self._events.append(CandidateFound(now, found.type, found.address, found.base, found.server))

    def _finish(self, now: int) -> None:
        if not self.is_done and not self._transactions:
            self.is_done = True
            self._events.append(Gathered(now, distinct(self._given_up)))
