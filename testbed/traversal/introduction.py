"""How two ends come to know each other: gather, allocate at the relay, register, learn. The same for every agent.

Rule 1: every step follows from what has arrived, in any order; nothing waits longer than it must:
            gathered, and the relay has answered or had its time -> register
            the other end learnt -> a channel to its relayed address
Rule 2: the relay has had its time a quarter of the deadline after the start, and again after the other end was learnt
        (`patience`). An allocation that comes later is registered anew, and the relay is reached late.
Rule 3: both ends allocate, and meet at each other's relayed address: a permission for an address of the relay holds
        whatever the NATs in between do to addresses of the ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import signalling, stun, turn
from testbed.traversal.candidates import (
    Candidate,
    CandidateType,
    Description,
    DescriptionError,
    JsonObject,
    candidate,
)
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import CandidateFound, Event, Registered
from testbed.traversal.gathering import Gathering
from testbed.traversal.rendezvous import ServerAddresses
from testbed.traversal.signalling import SignallingClient
from testbed.traversal.stun import Message
from testbed.traversal.stun_attributes import StunFormatError
from testbed.traversal.timeouts import earliest
from testbed.traversal.turn import TurnClient


@dataclass(frozen=True, slots=True)
class Learnt:
    """The other end's description is known; said again when it registers anew."""

    t: int
    description: Description


@dataclass(frozen=True, slots=True)
class RelayReachable:
    """The relay passes datagrams to the other end's relayed address, and back once the other end has come as far."""

    t: int
    local: Endpoint
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class RelayedData:
    """A datagram of the other end came through the relay."""

    t: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """The other end said this through signalling."""

    t: int
    body: object


Happening: TypeAlias = "Event | Learnt | RelayReachable | RelayedData | Told"


class Introduction:
    """One end's way to the other's description, and to the relayed path."""

    def __init__(
        self,
        *,
        name: str,
        peer: str,
        bases: Sequence[Endpoint],
        servers: ServerAddresses,
        patience: int,
        setup_deadline: int,
        rng: Random,
        ufrag: str = "",
        password: str = "",
    ) -> None:
        """`bases`: our sockets' addresses, the first of which talks to relay and signalling. `patience`: how long to
        wait for the relay, in nanoseconds. `ufrag`, `password`: see Description.
        """
        self._peer, self._patience, self._setup_deadline = peer, patience, setup_deadline
        self._ufrag, self._password = ufrag, password
        self._gathering = Gathering(bases, servers.stun, rng)
        self._turn = TurnClient(bases[0], servers.turn, servers.credentials, rng) if servers.turn else None
        self._signalling = SignallingClient(name, bases[0], servers.signalling, rng)
        self._wait_until: int | None = None
        self._is_refused = self._turn is None
        self._reachable: Endpoint | None = None
        self._happenings: list[Happening] = []
        self.is_registered = False
        """Whether this end has told signalling of itself; not yet that signalling heard it."""
        self.other: Description | None = None
        """The other end, once it is learnt."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Our own, the relayed one last."""
        found = self._gathering.candidates
        if self._turn is not None and self._turn.relayed is not None:
            relayed = self._turn.relayed
            found += (candidate(CandidateType.RELAYED, relayed, relayed, server=self._turn.server),)
        return found

    @property
    def depends(self) -> bool:
        """Whether our mapping depends on the remote, as far as the servers saw."""
        return self._gathering.depends

    @property
    def may_skip_relay(self) -> bool:
        """Whether the other end is learnt and the relay cannot be had, or has had its time."""
        if self.other is None:
            return False
        has_relay = self._turn is not None and self._turn.relayed is not None and self._other_relay() is not None
        return not has_relay or self._wait_until is None

    def start(self, now: int) -> None:
        """Begin."""
        self._wait_until = now + self._patience
        self._gathering.start(now, limit=now + self._setup_deadline // 2)
        if self._turn is not None:
            self._turn.allocate(now, limit=now + self._setup_deadline)
        self._advance(now)

    def tell(self, body: JsonObject, now: int) -> None:
        """Say something to the other end through signalling; it is sent until signalling has it."""
        self._signalling.send(self._peer, body, now)

    def send_relayed(self, data: bytes, now: int) -> None:
        """Send a datagram through the relay; it is lost before `RelayReachable`."""
        relay = self._other_relay()
        if self._turn is not None and relay is not None:
            self._turn.send(relay, data, now)

    # ---- the contract

    def receive(self, datagram: Datagram, now: int) -> bool:
        """Whether the datagram was from a server, for this machine."""
        match classify(datagram.data):
            case Protocol.STUN:
                try:
                    return self.receive_message(stun.decode(datagram.data), datagram, now)
                except StunFormatError:
                    return False
            case Protocol.SIGNALLING:
                taken = self._signalling.receive(datagram, now)
            case Protocol.CHANNEL:
                taken = self._turn is not None and self._turn.receive(datagram, now)
            case _:
                return False
        self._advance(now)
        return taken

    def receive_message(self, message: Message, datagram: Datagram, now: int) -> bool:
        """The same, for a STUN message that is decoded already."""
        is_relay = self._turn is not None and datagram.source == self._turn.server
        taken = is_relay and self._turn is not None and self._turn.receive_message(message, now)
        taken = taken or self._gathering.receive_message(message, datagram, now)
        if taken:
            self._advance(now)
        return taken

    def next_timeout(self) -> int | None:
        """The earliest of its parts."""
        times = [machine.next_timeout() for machine in self._machines()]
        times.append(self._wait_until)
        return earliest(times)

    def handle_timeout(self, now: int) -> None:
        """Do what is due."""
        for machine in self._machines():
            machine.handle_timeout(now)
        if self._wait_until is not None and self._wait_until <= now:
            self._wait_until = None
        self._advance(now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Of all parts."""
        return [datagram for machine in self._machines() for datagram in machine.datagrams_to_send(now)]

    def events(self) -> list[Happening]:
        """What happened since the last call, in order."""
        happenings, self._happenings = self._happenings, []
        return happenings

    # ---- what follows from what

    def _machines(self) -> tuple[Gathering | SignallingClient | TurnClient, ...]:
        return (self._gathering, self._signalling, *((self._turn,) if self._turn is not None else ()))

    def _advance(self, now: int) -> None:
        self._happenings += self._gathering.events()
        for event in self._turn.events() if self._turn is not None else ():
            self._take_from_relay(event, now)
        if not self.is_registered and self._gathering.is_done and not self._waits_for_relay:
            self._register(now)
        for told in self._signalling.events():
            self._take_from_signalling(told, now)

    def _take_from_relay(self, event: turn.TurnEvent, now: int) -> None:
        match event:
            case turn.Allocated(relayed=relayed):
                server = self._turn.server if self._turn is not None else None
                self._happenings.append(CandidateFound(now, CandidateType.RELAYED, relayed, None, server))
                if self.is_registered:
                    self._register(now)
                self._reach(now)
            case turn.AllocationFailed():
                self._is_refused = True
            case turn.Permitted(peer=remote) if self._turn is not None and self._turn.relayed is not None:
                self._happenings.append(RelayReachable(now, self._turn.relayed, remote))
            case turn.DataReceived(peer=peer, data=data) if peer == self._other_relay():
                self._happenings.append(RelayedData(now, data))

    def _take_from_signalling(self, event: object, now: int) -> None:
        match event:
            case signalling.Registered():
                self._happenings.append(Registered(now))
            case signalling.PeerLearnt(name=name, description=value) if name == self._peer:
                self._learn(value, now)
            case signalling.MessageReceived(name=name, body=body) if name == self._peer:
                self._happenings.append(Told(now, body))

    @property
    def _waits_for_relay(self) -> bool:
        is_open = self._turn is not None and self._turn.relayed is None and not self._is_refused
        return is_open and self._wait_until is not None

    def _register(self, now: int) -> None:
        self.is_registered = True
        description = Description(self.candidates, self._ufrag, self._password, self.depends)
        self._signalling.register(self._peer, description.to_json(), now)

    def _learn(self, value: object, now: int) -> None:
        try:
            description = Description.from_json(value)
        except DescriptionError:
            return
        if self.other is None:
            self._wait_until = now + self._patience
        self.other = description
        self._happenings.append(Learnt(now, description))
        self._reach(now)

    def _reach(self, now: int) -> None:
        relay = self._other_relay()
        if self._turn is not None and self._turn.relayed is not None and relay not in (None, self._reachable):
            assert relay is not None
            self._reachable = relay
            self._turn.bind(relay, now)

    def _other_relay(self) -> Endpoint | None:
        return next(iter(self.other.of_type(CandidateType.RELAYED)), None) if self.other is not None else None
