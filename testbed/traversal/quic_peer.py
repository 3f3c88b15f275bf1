"""A QUIC end as one machine: come to know the other end, connect through the relay, then go direct.

Rule 1: each step follows from what has arrived:
            the relay reachable -> the client dials through it: one connection, of which the relay is a path
            greeted and echoed through the relay -> rounds: PUNCH_ME_NOW through the relay, PATH_CHALLENGE directly
            a path validated -> the client migrates, the server follows -> greeting heard and echoed: `connected`
Rule 2: where the relay cannot be had, or had its time, the ends dial through signalling alone: the rounds of the UDP
        agent, STUN checks and all, open both NATs and choose a pair; then a connection begins on that pair. Dialled
        without, the side whose first packet is dropped waits out a probe timeout of 200 ms and more.
        The same from the first round on that is not a plain one: STUN checks look for the path, and what they find is
        dialled, beside the connection through the relay.
Rule 3: application bytes are greetings in DATAGRAM frames, since such a frame travels once, by one path: what came by
        a path is evidence for that path. Stream bytes that are lost on one path are sent again on another.
Rule 4: whose connections they are, aioquic's or the model's, is the connector's matter: an agent and its prediction
        are this one machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Unpack

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import events as vocabulary
from testbed.traversal import rounds
from testbed.traversal.application import Codec
from testbed.traversal.candidates import CandidateType, Description, Role
from testbed.traversal.checks import CheckSent, RemoteLearnt, Selected
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import Event
from testbed.traversal.introduction import Learnt, RelayedData, RelayReachable, Told
from testbed.traversal.peer import Attempt, Machine, Peer, Timer
from testbed.traversal.punching import Tell
from testbed.traversal.quic_connection import Connection, Connector
from testbed.traversal.quic_greetings import Greeter
from testbed.traversal.quic_happenings import (
    CandidateAdded,
    Challenged,
    Completed,
    Happening,
    Path,
    Punched,
    Received,
    Terminated,
)
from testbed.traversal.quic_paths import Paths, PathSelected
from testbed.traversal.quic_switch import Switch


class QuicPeer(Peer):
    """One end. The controlling end is the QUIC client."""

    def __init__(self, *, connector: Connector, rng: Random, **attempt: Unpack[Attempt]) -> None:
        # The certificate's fingerprint names this end.
        super().__init__(rng=rng, ufrag=connector.fingerprint, **attempt)
        self._rounds = self._punching.rounds
        self._switch = Switch(self._role, self._bases, connector)
        self._greeter = Greeter(self._switch, self._introduction)
        self._paths: Paths | None = None
        self._is_dialling = False

    def receive(self, datagram: Datagram, now: int) -> None:
        """Hand the datagram to whom it is for; what is for none is dropped."""
        match classify(datagram.data):
            case Protocol.STUN:
                self._receive_stun(datagram, now)
            case Protocol.SIGNALLING:
                self._introduction.receive(datagram, now)
            case Protocol.CHANNEL | Protocol.QUIC:
                # Header protection spreads QUIC's short headers over the first bytes of TURN's channels too.
                if not self._introduction.receive(datagram, now):
                    self._switch.receive(datagram.data, Path(datagram.destination, datagram.source), now)
        self._advance(now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Of all parts."""
        for data, path in self._switch.datagrams_to_send(now):
            if self._switch.is_direct(path):
                self._outbox.append(Datagram(path.local, path.remote, data))
            else:
                self._introduction.send_relayed(data, now)
        return super().datagrams_to_send(now)

    def base_opened(self, base: Endpoint, now: int) -> None:
        """`OpenBase` was heard: the socket is bound."""
        self._switch.add_base(base)
        super().base_opened(base, now)

    def _timers(self) -> Sequence[Timer]:
        return (self._greeter,)

    def _machines(self) -> Sequence[Machine]:
        return (*super()._machines(), *self._switch.connections)

    def _fail(self, now: int) -> None:
        self._switch.close()
        super()._fail(now)

    # ---- what follows from what

    def _advance(self, now: int) -> None:
        """Each part's events move the parts behind it: introduction, connections, rounds, paths, greetings."""
        for happening in self._introduction.events():
            match happening:
                case Event():
                    self._events.append(happening)
                case Learnt(description=description):
                    self._learn(description, now)
                case RelayReachable(local=local, remote=remote):
                    self._switch.dial(Path(local, remote), now)
                case RelayedData(data=data) if data and (path := self._relay_path()) is not None:
                    self._switch.receive(data, path, now)
                case Told(body=body):
                    self._hear_punch(body, now)
        for connection in self._switch.connections:
            self._take_all(connection, connection.happenings(), now)
        if not self.is_failed:
            self._start_rounds(now)
            self._punching.advance(now, lambda action: self._takes(action, now))
        self._advance_punching(now)
        self._advance_paths(now)
        is_selected = self._paths is not None and self._paths.selected is not None
        self._conclude(now, is_open=is_selected or self._switch.dialled is not None or self._greeter.is_connected)
        if not self.is_failed:
            self._greeter.greet(now)

    def _relay_path(self) -> Path | None:
        """The other end's data may come before the relay's word that ours may go."""
        kind, other = CandidateType.RELAYED, self._introduction.other
        own = [candidate.address for candidate in self._introduction.candidates if candidate.type is kind]
        theirs = other.of_type(kind) if other is not None else ()
        return Path(own[0], theirs[0]) if own and theirs else None

    def _learn(self, description: Description, now: int) -> None:
        self._greeter.introduce(Codec(self._role, self._password, description.password))
        self._switch.introduce(self._password, description.password)
        introduction = self._introduction
        self._punching.learn(description, introduction.candidates, depends=introduction.depends, now=now)
        if self._is_dialling:
            self._punching.aim_at_candidates()

    def _hear_punch(self, body: object, now: int) -> None:
        if isinstance(body, dict) and "punch" in body:
            self._begin_dialling()
        if self._punching.hear(body, now):
            self._deadlines.checking(now)

    def _begin_dialling(self) -> None:
        if not self._is_dialling:
            self._is_dialling = True
            self._punching.aim_at_candidates()

    def _start_rounds(self, now: int) -> None:
        connection, plan = self._switch.relayed, self._strategy.rounds
        if self._rounds.number or (self._role is Role.CONTROLLED and plan):
            return
        is_first_plain = bool(plan) and self._is_plain(1)
        is_ready = connection is not None and self._greeter.is_relayed
        if connection is not None and is_ready and is_first_plain:
            is_ready = connection.is_confirmed and bool(connection.candidates)
            connection.is_admitting = is_ready
        if is_ready or self._introduction.may_skip_relay:
            if not (is_ready and is_first_plain):
                self._begin_dialling()
            self._rounds.start(now)

    def _is_plain(self, number: int) -> bool:
        return self._strategy.rounds[number - 1].is_plain

    def _takes(self, action: rounds.Action, now: int) -> bool:
        """Whether this action is one of the connection through the relay, and was done."""
        if self._paths is not None and self._paths.selected is not None:
            return True  # the round that failed left a path to settle for
        if not isinstance(action, rounds.Exhausted) and not self._is_plain(action.round):
            self._begin_dialling()
        paths = self._paths if not self._is_dialling else None
        if paths is None:
            return False
        match action:
            case rounds.SendPunch(round=number):
                paths.punch(number)
            case rounds.SendCheck(remote=remote, attempt=attempt):
                paths.check(remote, attempt, now)
            case rounds.RoundFailed():
                paths.settle(now)
            case _:
                return False
        return True

    def _advance_paths(self, now: int) -> None:
        connection, paths = self._switch.relayed, self._paths
        if connection is None or paths is None:
            return
        for event in paths.events():
            match event:
                case PathSelected():
                    self._rounds.succeeded(now)
                    self._greeter.go_direct(connection, now)
                case CheckSent() | RemoteLearnt():
                    self._report(event, now)

    def _advance_punching(self, now: int) -> None:
        for event in self._punching.events():
            match event:
                case Tell(body=body):
                    self._introduction.tell(body, now)
                case RemoteLearnt():
                    self._deadlines.checking(now)
                case Selected(pair=pair):
                    source = Path(pair.local, pair.answered_from) if pair.answered_from is not None else None
                    self._switch.dial(Path(pair.local, pair.remote), now, source=source)
                case _:
                    if isinstance(event, vocabulary.Check):
                        self._deadlines.checking(now)
                    self._events.append(event)

    def _report(self, event: CheckSent | RemoteLearnt, now: int) -> None:
        self._deadlines.checking(now)
        match event:
            case CheckSent(t=t, local=local, remote=remote, attempt=attempt):
                self._events.append(vocabulary.Check(t, remote, local, self._rounds.number or None, attempt))
            case RemoteLearnt(remote=remote):
                self._rounds.remote_candidates([remote])

    # ---- connections

    def _take_all(self, connection: Connection, happenings: Sequence[Happening], now: int) -> None:
        """Frames of one datagram belong together: a round begins with all the addresses that it names."""
        punched: dict[int, list[Endpoint]] = {}
        for happening in happenings:
            if isinstance(happening, Punched) and self._paths is not None:
                self._paths.asked(happening.candidate, happening.address)
                punched.setdefault(happening.round, []).append(happening.address)
            else:
                self._take(connection, happening, now)
        for number, addresses in punched.items():
            self._deadlines.checking(now)
            self._rounds.remote_candidates(addresses)
            self._rounds.punch_received(number, (), now)

    def _take(self, connection: Connection, happening: Happening, now: int) -> None:
        match happening:
            case Completed():
                self._completed(connection, now)
            case Received(path=path, data=data):
                self._receive_application(connection, path, data, now)
            case Terminated():
                self._terminated(connection)
            case CandidateAdded(address=address) if self._paths is not None and not self._is_dialling:
                self._rounds.remote_candidates([address])
                if self._rounds.number and not self._rounds.is_over:
                    self._paths.punch(self._rounds.number)
            case _ if connection is self._switch.relayed and self._paths is not None:
                if isinstance(happening, Challenged) and self._switch.is_direct(happening.path):
                    self._deadlines.checking(now)
                self._paths.take(happening, now)

    def _completed(self, connection: Connection, now: int) -> None:
        other = self._introduction.other
        if self._role is Role.CONTROLLING and (other is None or connection.peer_fingerprint != other.ufrag):
            connection.refuse("the certificate is not the one that was announced")
            return
        if connection is self._switch.dialled:
            self._greeter.go_direct(connection, now)
            return
        own = sorted(self._introduction.candidates, key=lambda candidate: -candidate.priority)
        own = [candidate for candidate in own if candidate.type in self._strategy.checks]
        self._paths = Paths(self._role, self._bases, own, connection)
        if self._role is Role.CONTROLLED:
            for candidate in own:
                connection.add_candidate(candidate.address)
        self._greeter.start(now)

    def _terminated(self, connection: Connection) -> None:
        """What is left of the rounds goes on through signalling."""
        if connection is self._switch.relayed:
            self._paths = None
            if self._rounds.number:
                self._begin_dialling()
        self._switch.drop(connection)

    def _receive_application(self, connection: Connection, path: Path, data: bytes, now: int) -> None:
        for event in self._greeter.receive(connection, path, data, now):
            self._events.append(event)
            match event:
                case vocabulary.Relay(rtt=int(rtt)):
                    self._rounds.relay_rtt(rtt)
                case vocabulary.Connected():
                    self._deadlines.connected()
