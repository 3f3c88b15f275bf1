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
from testbed.traversal import rounds, stun
from testbed.traversal.application import Codec, Greetings, Heard
from testbed.traversal.candidates import Description, Role
from testbed.traversal.checks import Checks, CheckSent, Pair, RemoteLearnt, Selected
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import Event
from testbed.traversal.introduction import Introduction, Learnt, RelayedData, RelayReachable, Told
from testbed.traversal.rendezvous import ServerAddresses
from testbed.traversal.rounds import Rounds
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
        self._deadline, self._setup_deadline = deadline, setup_deadline
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
        self._checks = Checks(role, bases, ufrag, self._password, rng, rng.getrandbits(64))
        self._rounds = Rounds(role, strategy.schedule, strategy.rounds)
        self._codec: Codec | None = None
        self._relayed, self._direct = Greetings(), Greetings()
        self._relay_path: RelayReachable | None = None
        self._received_from: Endpoint | None = None
        self._give_up_at: int | None = None
        self._is_checking = self._is_exhausted = self._is_connected = False
        self._outbox: list[Datagram] = []
        self._events: list[Event] = []
        self.is_failed = False
        """Whether this end has given up."""

    def start(self, now: int) -> None:
        """Begin."""
        self._events.append(vocabulary.Start(now, self._name, self._role))
        self._give_up_at = now + self._setup_deadline
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
        machines = (self._introduction, self._checks, self._rounds, self._relayed, self._direct)
        times = [self._give_up_at, *(machine.next_timeout() for machine in machines)]
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self, now: int) -> None:
        """Do what is due."""
        if self.is_failed:
            return
        self._introduction.handle_timeout(now)
        self._checks.handle_timeout(now)
        self._rounds.handle_timeout(now)
        if self._give_up_at is not None and self._give_up_at <= now:
            self._fail(now)
        self._advance(now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Of all parts."""
        outbox, self._outbox = self._outbox, []
        return outbox + self._introduction.datagrams_to_send(now) + self._checks.datagrams_to_send(now)

    def events(self) -> list[Event]:
        """What happened since the last call."""
        reported, self._events = self._events, []
        return reported

    def _receive_stun(self, datagram: Datagram, now: int) -> None:
        try:
            message = stun.decode(datagram.data)
        except StunFormatError:
            return
        if not self._introduction.receive_message(message, datagram, now):
            self._checks.receive_message(message, datagram, now)

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
                    self._hear_punch(body, now)
        if not self.is_failed:
            self._advance_rounds(now)
        self._advance_checks(now)
        self._conclude(now)
        if not self.is_failed:
            self._greet(now)

    def _advance_rounds(self, now: int) -> None:
        if self._relayed.rtt is not None or self._introduction.may_skip_relay:
            self._rounds.start(now)
        for action in self._rounds.actions():
            match action:
                case rounds.SendPunch(round=number):
                    self._introduction.tell({"punch": number}, now)
                case rounds.RoundStarted(round=number):
                    self._events.append(vocabulary.RoundOfChecks(now, number))
                case rounds.SendCheck(remote=remote, attempt=attempt):
                    self._checks.check(remote, attempt, now)
                case rounds.RoundFailed():
                    self._checks.settle(now)

    def _advance_checks(self, now: int) -> None:
        for event in self._checks.events():
            match event:
                case CheckSent(t=t, local=local, remote=remote, attempt=attempt):
                    self._begin_checking(now)
                    self._events.append(vocabulary.Check(t, remote, local, self._rounds.number or None, attempt))
                case RemoteLearnt(remote=remote):
                    self._begin_checking(now)
                    self._rounds.remote_candidates([remote])
                case Selected(pair=pair):
                    self._rounds.succeeded(pair.remote, now)
                    self._direct.start(now)

    def _conclude(self, now: int) -> None:
        """Say that the rounds are exhausted, once nothing that they began can come to anything any more."""
        is_open = self._checks.selected is not None or self._checks.is_nominating
        if self._rounds.is_over and not is_open and not self._is_exhausted:
            self._is_exhausted = True
            self._events.append(vocabulary.Exhausted(now, self._rounds.number))

    def _learn(self, description: Description, now: int) -> None:
        self._codec = Codec(self._role, self._password, description.password)
        self._checks.own_candidates(self._introduction.candidates)
        self._checks.other_end(description, now)
        self._rounds.remote_candidates(description.of_type(*self._strategy.checks))

    def _hear_punch(self, body: object, now: int) -> None:
        number = body.get("punch") if isinstance(body, dict) else None
        if type(number) is int:
            self._begin_checking(now)
            self._rounds.punch_received(number, (), now)

    def _begin_checking(self, now: int) -> None:
        if not self._is_checking and not self.is_failed:
            self._is_checking, self._give_up_at = True, now + self._deadline

    def _fail(self, now: int) -> None:
        self._give_up_at = None
        if self._is_connected:
            return
        self.is_failed = True
        if self._is_checking:
            reason = "no direct path by the deadline"
        elif self._introduction.other is not None:
            reason = "the other end began no round within the time for setting up"
        elif self._introduction.is_registered:
            reason = "the other end was not learnt within the time for setting up"
        else:
            reason = "gathering did not end within the time for setting up"
        self._events.append(vocabulary.Failed(now, reason))

    # ---- application bytes

    def _greet(self, now: int) -> None:
        if self._codec is None:
            return
        number = self._relayed.due(now)
        if number is not None:
            self._introduction.send_relayed(self._codec.greeting(number), now)
        pair = self._checks.selected
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
            self._rounds.relay_rtt(self._relayed.rtt)
            self._events.append(vocabulary.Relay(now, self._relayed.rtt, path.local, path.remote))
        else:
            self._events.append(vocabulary.Data(now, path.local, path.remote, heard.size))

    def _receive_direct(self, datagram: Datagram, now: int) -> None:
        heard = self._codec.read(datagram.data) if self._codec is not None else None
        if heard is None or self._codec is None:
            return
        pair = self._checks.selected
        if not heard.is_echo:
            local, remote = (pair.local, pair.remote) if pair else (datagram.destination, datagram.source)
            self._outbox.append(Datagram(local, remote, self._codec.echo(heard.number)))
        self._hear_direct(heard, datagram, now)
        is_both_ways = self._direct.is_heard and self._direct.rtt is not None
        if pair is not None and is_both_ways and not self._is_connected:
            self._is_connected, self._give_up_at = True, None
            self._events.append(self._connected(pair, now))

    def _hear_direct(self, heard: Heard, datagram: Datagram, now: int) -> None:
        if self._direct.hear(heard, now) and not heard.is_echo:
            self._received_from = datagram.source
            self._events.append(vocabulary.Data(now, datagram.destination, datagram.source, heard.size))

    def _connected(self, pair: Pair, now: int) -> vocabulary.Connected:
        source = self._received_from if self._received_from != pair.remote else None
        types = (pair.local_type, pair.remote_type)
        return vocabulary.Connected(now, pair.local, pair.remote, source, types, self._direct.rtt)
