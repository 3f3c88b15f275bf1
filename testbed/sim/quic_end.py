"""The QUIC agent's end in a prediction: agents/quic_peer.py over a modelled connection instead of aioquic's.

Rule 1: what follows from what is as it is there; whoever changes one changes the other, and a test plays both.
            the relay reachable -> the client dials through it: one connection, of which the relay is a path
            greeted and echoed through the relay -> rounds: PUNCH_ME_NOW through the relay, PATH_CHALLENGE directly
            a path validated -> the client migrates, the server follows -> greeting heard and echoed: `connected`
Rule 2: without the relay, and from the first round on that is not a plain one, rounds go by signalling and STUN checks,
        and a connection begins on the pair that they find.
Rule 3: the same machines of `traversal` do the rest: introduction, rounds, checks, greetings.

What is approximated: see quic_connection.py. In short, packets have no QUIC bytes and no congestion control, what is to
be acknowledged is so at once, and connections neither end by themselves nor refuse a certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from testbed.datagram import Datagram, Endpoint
from testbed.sim.quic_connection import (
    Challenged,
    Completed,
    Connection,
    Happening,
    Path,
    Received,
    ToldByFrame,
)
from testbed.sim.quic_greetings import Greeter
from testbed.sim.quic_paths import Paths
from testbed.sim.quic_switch import Switch
from testbed.traversal import events as vocabulary
from testbed.traversal import rounds, stun
from testbed.traversal.application import Codec
from testbed.traversal.candidates import CandidateType, Description, Role
from testbed.traversal.checks import CheckSent, RemoteLearnt, Selected
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import Event
from testbed.traversal.introduction import Introduction, Learnt, RelayedData, RelayReachable, Told
from testbed.traversal.punching import CloseBase, OpenBase, Punching, Tell
from testbed.traversal.rendezvous import ServerAddresses
from testbed.traversal.strategies import Strategy


class QuicEnd:
    """One end. The controlling end is the QUIC client."""

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
        self._name, self._role, self._strategy, self._bases = name, role, strategy, tuple(bases)
        self._deadline, self._setup_deadline = deadline, setup_deadline
        fingerprint, self._password = rng.randbytes(16).hex(), rng.randbytes(12).hex()
        self._introduction = Introduction(
            name=name,
            peer=peer,
            bases=bases,
            servers=servers,
            patience=deadline // 4,
            setup_deadline=setup_deadline,
            rng=rng,
            ufrag=fingerprint,
            password=self._password,
        )
        self._punching = Punching(role, bases, strategy, servers.stun, fingerprint, self._password, rng)
        self._rounds = self._punching.rounds
        self._switch = Switch(role, bases)
        self._greeter = Greeter(self._switch, self._introduction)
        self._paths: Paths | None = None
        self._give_up_at: int | None = None
        self._is_checking = self._is_dialling = self._is_exhausted = False
        self._events: list[Event | OpenBase | CloseBase] = []
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
                message = stun.decode(datagram.data)
                if not self._introduction.receive_message(message, datagram, now):
                    self._punching.receive_message(message, datagram, now)
            case Protocol.QUIC:
                self._switch.receive(datagram.data, Path(datagram.destination, datagram.source), now)
            case _:
                self._introduction.receive(datagram, now)
        self._advance(now)

    def next_timeout(self) -> int | None:
        """The earliest of everything that waits."""
        if self.is_failed:
            return None
        times = [machine.next_timeout() for machine in (*self._machines(), self._greeter)]
        times.append(self._give_up_at)
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self, now: int) -> None:
        """Do what is due."""
        if self.is_failed:
            return
        for machine in self._machines():
            machine.handle_timeout(now)
        if self._give_up_at is not None and self._give_up_at <= now:
            self._give_up_at, self.is_failed = None, True
            self._switch.close()
            reason = (
                "no direct path by the deadline" if self._is_checking else "no round within the time for setting up"
            )
            self._events.append(vocabulary.Failed(now, reason))
        self._advance(now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Of all parts."""
        sent: list[Datagram] = []
        for data, path in self._switch.transmit(now):
            if self._switch.is_direct(path):
                sent.append(Datagram(path.local, path.remote, data))
            else:
                self._introduction.send_relayed(data, now)
        return sent + self._introduction.datagrams_to_send(now) + self._punching.datagrams_to_send(now)

    def events(self) -> list[Event | OpenBase | CloseBase]:
        """What happened since the last call, and the sockets that are to be opened or closed."""
        reported, self._events = self._events, []
        return reported

    def base_opened(self, base: Endpoint, now: int) -> None:
        """A socket that was asked for is bound."""
        self._switch.add_base(base)
        self._punching.base_opened(base, now)
        self._advance(now)

    def base_refused(self, base: Endpoint, now: int) -> None:
        """A socket that was asked for cannot be bound."""
        self._punching.base_refused(base, now)
        self._advance(now)

    def _machines(self) -> tuple[Introduction | Punching | Connection, ...]:
        return (self._introduction, self._punching, *self._switch)

    # ---- what follows from what

    def _advance(self, now: int) -> None:
        for happening in self._introduction.events():
            match happening:
                case Event():
                    self._events.append(happening)
                case Learnt(description=description):
                    self._learn(description, now)
                case RelayReachable(local=local, remote=remote):
                    self._switch.dial(Path(local, remote))
                case RelayedData(data=data) if data and (path := self._relay_path()) is not None:
                    self._switch.receive(data, path, now)
                case Told(body=body):
                    self._hear_punch(body, now)
        for connection in self._switch:
            self._take_all(connection, now)
        if not self.is_failed:
            self._start_rounds(now)
            self._punching.advance(now, lambda action: self._takes(action, now))
        self._advance_punching(now)
        self._advance_paths(now)
        self._conclude(now)
        if not self.is_failed:
            self._greeter.greet(now)

    def _learn(self, description: Description, now: int) -> None:
        introduction = self._introduction
        self._greeter.introduce(Codec(self._role, self._password, description.password))
        self._switch.introduce(self._password, description.password)
        self._punching.learn(description, introduction.candidates, depends=introduction.depends, now=now)
        if self._is_dialling:
            self._punching.aim_at_candidates()

    def _relay_path(self) -> Path | None:
        kind, other = CandidateType.RELAYED, self._introduction.other
        own = [candidate.address for candidate in self._introduction.candidates if candidate.type is kind]
        theirs = other.of_type(kind) if other is not None else ()
        return Path(own[0], theirs[0]) if own and theirs else None

    def _hear_punch(self, body: object, now: int) -> None:
        if isinstance(body, dict) and "punch" in body:
            self._begin_dialling()
        if self._punching.hear(body, now):
            self._begin_checking(now)

    def _begin_dialling(self) -> None:
        if not self._is_dialling:
            self._is_dialling = True
            self._punching.aim_at_candidates()

    def _begin_checking(self, now: int) -> None:
        if not self._is_checking and not self.is_failed:
            self._is_checking, self._give_up_at = True, now + self._deadline

    def _start_rounds(self, now: int) -> None:
        connection, plan = self._switch.relayed, self._strategy.rounds
        if self._rounds.number or (self._role is Role.CONTROLLED and plan):
            return
        is_first_plain = bool(plan) and plan[0].is_plain
        is_ready = connection is not None and self._greeter.is_relayed
        if connection is not None and is_ready and is_first_plain:
            is_ready = connection.is_confirmed and self._paths is not None and bool(self._paths.candidates)
            connection.is_admitting = is_ready
        if is_ready or self._introduction.may_skip_relay:
            if not (is_ready and is_first_plain):
                self._begin_dialling()
            self._rounds.start(now)

    def _takes(self, action: rounds.Action, now: int) -> bool:
        """Whether this action is one of the connection through the relay, and was done."""
        if self._paths is not None and self._paths.selected is not None:
            return True  # the round that failed left a path to settle for
        if not isinstance(action, rounds.Exhausted) and not self._strategy.rounds[action.round - 1].is_plain:
            self._begin_dialling()
        if self._paths is None or self._is_dialling:
            return False
        match action:
            case rounds.SendPunch(round=number):
                self._paths.punch(number)
            case rounds.SendCheck(remote=remote, attempt=attempt):
                self._paths.check(remote, attempt, now)
            case rounds.RoundFailed():
                self._paths.settle(now)
            case _:
                return False
        return True

    def _advance_paths(self, now: int) -> None:
        for event in self._paths.events() if self._paths is not None else ():
            match event:
                case CheckSent(t=t, local=local, remote=remote, attempt=attempt):
                    self._begin_checking(now)
                    self._events.append(vocabulary.Check(t, remote, local, self._rounds.number or None, attempt))
                case RemoteLearnt(remote=remote):
                    self._begin_checking(now)
                    self._rounds.remote_candidates([remote])
                case Path() if self._switch.relayed is not None:
                    self._rounds.succeeded(now)
                    self._greeter.go_direct(self._switch.relayed, now)

    def _advance_punching(self, now: int) -> None:
        for event in self._punching.events():
            match event:
                case Tell(body=body):
                    self._introduction.tell(body, now)
                case RemoteLearnt():
                    self._begin_checking(now)
                case Selected(pair=pair):
                    self._switch.dial(Path(pair.local, pair.remote), pair.answered_from)
                case _:
                    if isinstance(event, vocabulary.Check):
                        self._begin_checking(now)
                    self._events.append(event)

    def _conclude(self, now: int) -> None:
        is_open = self._punching.is_open or self._switch.dialled is not None or self._greeter.is_connected
        is_open = is_open or (self._paths is not None and self._paths.selected is not None)
        if self._rounds.is_over and not is_open and not self._is_exhausted:
            self._is_exhausted = True
            self._events.append(vocabulary.Exhausted(now, self._rounds.number))

    # ---- connections

    def _take_all(self, connection: Connection, now: int) -> None:
        punched: dict[int, list[Endpoint]] = {}
        for happening in connection.happenings():
            match happening:
                case ToldByFrame(["punch", int(number), int(paired_with), str(address)]) if self._paths is not None:
                    self._paths.asked(paired_with, Endpoint.parse(address))
                    punched.setdefault(number, []).append(Endpoint.parse(address))
                case _:
                    self._take(connection, happening, now)
        for number, addresses in punched.items():
            self._begin_checking(now)
            self._rounds.remote_candidates(addresses)
            self._rounds.punch_received(number, (), now)

    def _take(self, connection: Connection, happening: Happening, now: int) -> None:
        match happening:
            case Completed() if connection is self._switch.dialled:
                self._greeter.go_direct(connection, now)
            case Completed():
                self._begin_paths(connection)
                self._greeter.start(now)
            case Received(path=path, data=data):
                self._receive_application(connection, path, data, now)
            case ToldByFrame(["add", int(number), str(address)]) if self._paths is not None:
                self._paths.candidates[number] = Endpoint.parse(address)
                if not self._is_dialling:
                    self._rounds.remote_candidates([Endpoint.parse(address)])
                    if self._rounds.number and not self._rounds.is_over:
                        self._paths.punch(self._rounds.number)
            case _ if connection is self._switch.relayed and self._paths is not None:
                if isinstance(happening, Challenged) and self._switch.is_direct(happening.path):
                    self._begin_checking(now)
                self._paths.take(happening, now)

    def _begin_paths(self, connection: Connection) -> None:
        own = sorted(self._introduction.candidates, key=lambda candidate: -candidate.priority)
        own = [candidate for candidate in own if candidate.type in self._strategy.checks]
        self._paths = Paths(self._role, self._bases, own, connection)
        if self._role is Role.CONTROLLED:
            for number, address in enumerate(dict.fromkeys(candidate.address for candidate in own)):
                self._paths.candidates[number] = address
                connection.tell(["add", number, str(address)])

    def _receive_application(self, connection: Connection, path: Path, data: bytes, now: int) -> None:
        for event in self._greeter.receive(connection, path, data, now):
            self._events.append(event)
            match event:
                case vocabulary.Relay(rtt=int(rtt)):
                    self._rounds.relay_rtt(rtt)
                case vocabulary.Connected():
                    self._give_up_at = None
