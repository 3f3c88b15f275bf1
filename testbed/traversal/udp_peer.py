"""The UDP agent's end as one machine: come to know the other end, relay first, then rounds of checks to go direct.

Rule 1: each step follows from what has arrived:
            the relay reachable -> greet through it
            greeted and echoed through the relay, or the relay may be skipped -> rounds (the controlling end)
            a pair selected -> greet on it -> greeting heard and echoed: `connected`
Rule 2: `deadline` counts from this end's first check, sent or heard; `setup_deadline` from the start. Whichever is
        missed makes `failed`, after which the machine starts nothing more.
Rule 3: an end that is connected goes on answering: the other may not be yet.
Rule 4: a punch travels through signalling, which sends it again until it is there; the relay only carries
        application bytes. So an attempt is the same with and without a relay.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import events as vocabulary
from testbed.traversal import stun
from testbed.traversal.application import Codec, Greetings, Heard
from testbed.traversal.candidates import Description, Role
from testbed.traversal.checks import Pair, RemoteLearnt, Selected
from testbed.traversal.deadlines import Deadlines
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import Event
from testbed.traversal.introduction import Introduction, Learnt, RelayedData, RelayReachable, Told
from testbed.traversal.punching import CloseBase, OpenBase, Punching, Tell
from testbed.traversal.rendezvous import ServerAddresses
from testbed.traversal.strategies import Strategy
from testbed.traversal.stun import StunFormatError


class UdpPeer:
    """One end."""

    def __init__(
        self,
        *,
        name: str,
        peer: str,
        role: Role,
        bases: Sequence[Endpoint],
        servers: ServerAddresses,
        strategy: Strategy,
        deadline: int,
        setup_deadline: int,
        rng: Random,
    ) -> None:
        """`bases`: our own sockets' addresses, the first of which talks to relay and signalling."""
        self._name, self._role, self._strategy = name, role, strategy
        self._deadlines = Deadlines(deadline, setup_deadline)
        ufrag, self._password = rng.randbytes(4).hex(), rng.randbytes(12).hex()
        self._introduction = Introduction(
            name=name,
            peer=peer,
            bases=bases,
            servers=servers,
            patience=deadline // 4,
            setup_deadline=setup_deadline,
            rng=rng,
            ufrag=ufrag,
            password=self._password,
        )
        self._punching = Punching(role, bases, strategy, servers.stun, ufrag, self._password, rng)
        self._codec: Codec | None = None
        self._relayed, self._direct = Greetings(), Greetings()
        self._relay_path: RelayReachable | None = None
        self._received_from: Endpoint | None = None
        self._is_exhausted = self._is_connected = False
        self._outbox: list[Datagram] = []
        self._events: list[Event | OpenBase | CloseBase] = []
        self.is_failed = False
        """Whether this end has given up."""

    def start(self, now: int) -> None:
        """Begin."""
        self._events.append(vocabulary.Start(now, self._name, self._role))
        self._deadlines.start(now)
        self._introduction.start(now)
        self._advance(now)

    # ---- the contract

    def receive(self, datagram: Datagram, now: int) -> None:
        """Hand the datagram to whom it is for; what is for none is dropped."""
        match classify(datagram.data):
            case Protocol.STUN:
                self._receive_stun(datagram, now)
            case Protocol.APPLICATION:
                self._receive_direct(datagram, now)
            case _:
                self._introduction.receive(datagram, now)
        self._advance(now)

    def next_timeout(self) -> int | None:
        """The earliest of everything that waits."""
        if self.is_failed:
            return None
        machines = (self._introduction, self._punching, self._relayed, self._direct, self._deadlines)
        times = [machine.next_timeout() for machine in machines]
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self, now: int) -> None:
        """Do what is due."""
        if self.is_failed:
            return
        self._introduction.handle_timeout(now)
        self._punching.handle_timeout(now)
        if self._deadlines.is_missed(now):
            self.is_failed = True
            reason = self._deadlines.reason(self._introduction, self._strategy)
            self._events.append(vocabulary.Failed(now, reason))
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

    def _receive_stun(self, datagram: Datagram, now: int) -> None:
        try:
            message = stun.decode(datagram.data)
        except StunFormatError:
            return
        if not self._introduction.receive_message(message, datagram, now):
            self._punching.receive_message(message, datagram, now)

    # ---- what follows from what

    def _advance(self, now: int) -> None:
        """Each part's events move the parts behind it: introduction, rounds, checks, greetings."""
        for happening in self._introduction.events():
            match happening:
                case Event():
                    self._events.append(happening)
                case Learnt(description=description):
                    self._learn(description, now)
                case RelayReachable():
                    self._relay_path = happening
                    self._relayed.start(now)
                case RelayedData(data=data):
                    self._receive_relayed(data, now)
                case Told(body=body):
                    if self._punching.hear(body, now):
                        self._deadlines.checking(now)
        if not self.is_failed:
            if self._relayed.rtt is not None or self._introduction.may_skip_relay:
                self._punching.rounds.start(now)
            self._punching.advance(now)
        self._advance_punching(now)
        self._conclude(now)
        if not self.is_failed:
            self._greet(now)

    def _advance_punching(self, now: int) -> None:
        for event in self._punching.events():
            match event:
                case Tell(body=body):
                    self._introduction.tell(body, now)
                case RemoteLearnt():
                    self._deadlines.checking(now)
                case Selected():
                    self._direct.start(now)
                case _:
                    if isinstance(event, vocabulary.Check):
                        self._deadlines.checking(now)
                    self._events.append(event)

    def _conclude(self, now: int) -> None:
        """Say that the rounds are exhausted, once nothing that they began can come to anything any more."""
        if self._punching.rounds.is_over and not self._punching.is_open and not self._is_exhausted:
            self._is_exhausted = True
            self._events.append(vocabulary.Exhausted(now, self._punching.rounds.number))

    def _learn(self, description: Description, now: int) -> None:
        self._codec = Codec(self._role, self._password, description.password)
        introduction = self._introduction
        self._punching.learn(description, introduction.candidates, depends=introduction.depends, now=now)
        self._punching.aim_at_candidates()

    # ---- application bytes

    def _greet(self, now: int) -> None:
        if self._codec is None:
            return
        number = self._relayed.due(now)
        if number is not None:
            self._introduction.send_relayed(self._codec.greeting(number), now)
        pair = self._punching.checks.selected
        number = self._direct.due(now) if pair is not None else None
        if number is not None and pair is not None:
            self._outbox.append(Datagram(pair.local, pair.remote, self._codec.greeting(number)))

    def _receive_relayed(self, data: bytes, now: int) -> None:
        heard = self._codec.read(data) if self._codec is not None else None
        if heard is None or self._codec is None:
            return
        if not heard.is_echo:
            self._introduction.send_relayed(self._codec.echo(heard.number), now)
        path = self._relay_path
        if path is None or not self._relayed.hear(heard, now):
            return
        if self._relayed.rtt is not None and heard.is_echo:
            self._punching.rounds.relay_rtt(self._relayed.rtt)
            self._events.append(vocabulary.Relay(now, self._relayed.rtt, path.local, path.remote))
        else:
            self._events.append(vocabulary.Data(now, path.local, path.remote, heard.size))

    def _receive_direct(self, datagram: Datagram, now: int) -> None:
        heard = self._codec.read(datagram.data) if self._codec is not None else None
        if heard is None or self._codec is None:
            return
        pair = self._punching.checks.selected
        if not heard.is_echo:
            local, remote = (pair.local, pair.remote) if pair else (datagram.destination, datagram.source)
            self._outbox.append(Datagram(local, remote, self._codec.echo(heard.number)))
        self._hear_direct(heard, datagram, now)
        is_both_ways = self._direct.is_heard and self._direct.rtt is not None
        if pair is not None and is_both_ways and not self._is_connected:
            self._is_connected = True
            self._deadlines.connected()
            self._events.append(self._connected(pair, now))

    def _hear_direct(self, heard: Heard, datagram: Datagram, now: int) -> None:
        if self._direct.hear(heard, now) and not heard.is_echo:
            self._received_from = datagram.source
            self._events.append(vocabulary.Data(now, datagram.destination, datagram.source, heard.size))

    def _connected(self, pair: Pair, now: int) -> vocabulary.Connected:
        source = self._received_from if self._received_from != pair.remote else None
        types = (pair.local_type, pair.remote_type)
        return vocabulary.Connected(now, pair.local, pair.remote, source, types, self._direct.rtt)
