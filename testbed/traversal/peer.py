"""What each end of an attempt is, whatever it speaks: it introduces itself, punches, keeps time and says what happens.

Rule 1: `deadline` counts from this end's first check, sent or heard; `setup_deadline` from the start. Whichever is
        missed makes `failed`, after which the machine starts nothing more.
Rule 2: an end that is connected goes on answering: the other may not be yet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Protocol, TypedDict, Unpack

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import events as vocabulary
from testbed.traversal import stun
from testbed.traversal.candidates import Role
from testbed.traversal.deadlines import Deadlines
from testbed.traversal.events import Event
from testbed.traversal.introduction import Introduction
from testbed.traversal.punching import CloseBase, OpenBase, Punching
from testbed.traversal.rendezvous import ServerAddresses
from testbed.traversal.strategies import Strategy
from testbed.traversal.stun_attributes import StunFormatError
from testbed.traversal.timeouts import earliest


class Attempt(TypedDict):
    """What an end is told of it."""

    name: str
    peer: str
    """The other end's name."""
    role: Role
    bases: Sequence[Endpoint]
    """Our own sockets' addresses, the first of which talks to relay and signalling."""
    servers: ServerAddresses
    strategy: Strategy
    deadline: int
    """Nanoseconds, as the next."""
    setup_deadline: int


class Timer(Protocol):
    """A part that waits for something."""

    def next_timeout(self) -> int | None:
        """When it is due."""


class Machine(Timer, Protocol):
    """A part that does by itself what is due."""

    def handle_timeout(self, now: int) -> None:
        """Do it."""


class Peer(ABC):
    """One end. What it speaks is its subclass's matter."""

    def __init__(self, *, rng: Random, ufrag: str, **attempt: Unpack[Attempt]) -> None:
        """`ufrag`: what ICE calls the user name fragment, any text that names this end."""
        role, bases, servers, strategy = attempt["role"], attempt["bases"], attempt["servers"], attempt["strategy"]
        self._name, self._role, self._strategy, self._bases = attempt["name"], role, strategy, tuple(bases)
        self._password = rng.randbytes(12).hex()
        self._deadlines = Deadlines(attempt["deadline"], attempt["setup_deadline"])
        self._introduction = Introduction(
            name=attempt["name"],
            peer=attempt["peer"],
            bases=bases,
            servers=servers,
            patience=attempt["deadline"] // 4,
            setup_deadline=attempt["setup_deadline"],
            rng=rng,
            ufrag=ufrag,
            password=self._password,
        )
        self._punching = Punching(role, bases, strategy, servers.stun, ufrag, self._password, rng)
        self._is_exhausted = False
        self._outbox: list[Datagram] = []
        self._events: list[Event | OpenBase | CloseBase] = []
        self.is_failed = False
        """Whether this end has given up."""

    # ---- what an end's own speech decides

    @abstractmethod
    def receive(self, datagram: Datagram, now: int) -> None:
        """Hand the datagram to whom it is for; what is for none is dropped."""

    @abstractmethod
    def _advance(self, now: int) -> None:
        """Each part's events move the parts behind it."""

    @abstractmethod
    def _timers(self) -> Sequence[Timer]:
        """What is waited for beside the machines: `_advance` does what is due."""

    def _machines(self) -> Sequence[Machine]:
        """The parts that do by themselves what is due."""
        return (self._introduction, self._punching)

    def _fail(self, now: int) -> None:
        """The deadline was missed."""
        self.is_failed = True
        reason = self._deadlines.reason(self._introduction, self._strategy)
        self._events.append(vocabulary.Failed(now, reason))

    # ---- the contract

    def start(self, now: int) -> None:
        """Begin."""
        self._events.append(vocabulary.Start(now, self._name, self._role))
        self._deadlines.start(now)
        self._introduction.start(now)
        self._advance(now)

    def next_timeout(self) -> int | None:
        """The earliest of everything that waits."""
        if self.is_failed:
            return None
        parts: list[Timer] = [self._deadlines, *self._timers(), *self._machines()]
        return earliest([part.next_timeout() for part in parts])

    def handle_timeout(self, now: int) -> None:
        """Do what is due."""
        if self.is_failed:
            return
        for machine in self._machines():
            machine.handle_timeout(now)
        if self._deadlines.is_missed(now):
            self._fail(now)
        self._advance(now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Of all parts."""
        outbox, self._outbox = self._outbox, []
        return outbox + self._introduction.datagrams_to_send(now) + self._punching.datagrams_to_send(now)

    def events(self) -> list[Event | OpenBase | CloseBase]:
        """What happened since the last call, and the sockets that the driver is to open or to close."""
        reported, self._events = self._events, []
        return reported

    def base_opened(self, base: Endpoint, now: int) -> None:
        """`OpenBase` was heard: the socket is bound."""
        self._punching.base_opened(base, now)
        self._advance(now)

    def base_refused(self, base: Endpoint, now: int) -> None:
        """`OpenBase` was heard: the socket cannot be bound."""
        self._punching.base_refused(base, now)
        self._advance(now)

    # ---- for subclasses

    def _receive_stun(self, datagram: Datagram, now: int) -> None:
        try:
            message = stun.decode(datagram.data)
        except StunFormatError:
            return
        if not self._introduction.receive_message(message, datagram, now):
            self._punching.receive_message(message, datagram, now)

    def _conclude(self, now: int, *, is_open: bool = False) -> None:
        """Say that the rounds are exhausted, once nothing that they began can come to anything any more. `is_open`:
        whether something beside them still may.
        """
        is_open = is_open or self._punching.is_open
        if self._punching.rounds.is_over and not is_open and not self._is_exhausted:
            self._is_exhausted = True
            self._events.append(vocabulary.Exhausted(now, self._punching.rounds.number))
