"""The UDP agent's end as one machine: come to know the other end, relay first, then rounds of checks to go direct.

Rule 1: each step follows from what has arrived:
            the relay reachable -> greet through it
            greeted and echoed through the relay, or the relay may be skipped -> rounds (the controlling end)
            a pair selected -> greet on it -> greeting heard and echoed: `connected`
Rule 2: a punch travels through signalling, which sends it again until it is there; the relay only carries
        application bytes. So an attempt is the same with and without a relay.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Unpack

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import events as vocabulary
from testbed.traversal.application import Codec, Greetings, Heard
from testbed.traversal.candidates import Description
from testbed.traversal.checks import Pair, RemoteLearnt, Selected
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import Event
from testbed.traversal.introduction import Learnt, RelayedData, RelayReachable, Told
from testbed.traversal.peer import Attempt, Peer, Timer
from testbed.traversal.punching import Tell


class UdpPeer(Peer):
    """One end."""

    def __init__(self, *, rng: Random, **attempt: Unpack[Attempt]) -> None:
        super().__init__(rng=rng, ufrag=rng.randbytes(4).hex(), **attempt)
        self._codec: Codec | None = None
        self._relayed, self._direct = Greetings(), Greetings()
        self._relay_path: RelayReachable | None = None
        self._received_from: Endpoint | None = None
        self._is_connected = False

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

    def _timers(self) -> Sequence[Timer]:
        return (self._relayed, self._direct)

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
