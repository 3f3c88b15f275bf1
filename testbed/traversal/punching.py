"""An attempt to go direct by STUN checks: rounds, checks, and what a round that is not a plain one needs beside them.

Rule 1: what a round does follows from its data (strategies.py) and from two facts: whether our mapping depends on the
        remote, and whether the other end's does. No strategy is known by name here.
Rule 2: a window round: an end whose mapping depends measures from one new socket, tells the addresses that this socket
        will probably have next, and sends this round's checks from this socket only, first to where the other end will
        probably be: so the first mapping that it makes after measuring is the one that matters, and two such ends make
        theirs in the same order. Where its ports cannot be predicted it says why, and the round is a plain one.
Rule 3: a birthday round: an end whose mapping depends opens sockets and sends one check from each towards the other
        end's reflexive address; that end sends probes from its first socket, the one behind that address, to ports of
        the opener's address, each port once.
Rule 4: the sockets of a round are closed when the next one begins, except those that something came back to.
Rule 5: both ends speak through signalling:  {"punch": round, "window": {"first", "step", "size"}}, the window only
        where there is one. What is wrong with the other's window makes it none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TypeAlias

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import events as vocabulary
from testbed.traversal import rounds
from testbed.traversal.allocation import Measurement, Window
from testbed.traversal.bases import BaseRequest, Bases
from testbed.traversal.bases import CloseBase as CloseBase
from testbed.traversal.bases import OpenBase as OpenBase
from testbed.traversal.candidates import Candidate, CandidateType, Description, DescriptionError, JsonObject, Role
from testbed.traversal.checks import Checks, CheckSent, RemoteLearnt, Selected
from testbed.traversal.events import Event
from testbed.traversal.rounds import Rounds
from testbed.traversal.strategies import Strategy
from testbed.traversal.stun import Message
from testbed.traversal.timeouts import earliest

PROBED_PORTS = range(1, 65536)
"""All there are: which of them a NAT assigns is not known from outside."""


@dataclass(frozen=True, slots=True)
class Tell:
    """The other end is to hear this, through signalling."""

    body: JsonObject


Happening: TypeAlias = "Event | BaseRequest | Tell | RemoteLearnt | Selected"


def _nobody(action: rounds.Action) -> bool:
    return False


class Punching:
    """One end's side of it."""

    def __init__(
        self,
        role: Role,
        bases: Sequence[Endpoint],
        strategy: Strategy,
        servers: Sequence[Endpoint],
        ufrag: str,
        password: str,
        rng: Random,
    ) -> None:
        """`bases`: our own sockets' addresses. `servers`: STUN servers to measure with. `ufrag`, `password`: ours."""
        self._bases, self._strategy, self._servers, self._rng = tuple(bases), strategy, tuple(servers), rng
        self._checks = Checks(role, bases, ufrag, password, rng, rng.getrandbits(64))
        self.rounds = Rounds(role, strategy.rounds)
        """When what is sent; its actions are taken by `advance`."""
        self._other: Description | None = None
        self._round = 0
        self._new_bases = Bases(bases[0].host, {base.port for base in bases}, rng)
        self._measurement: Measurement | None = None
        self._window: Window | None = None
        self._checks_from: tuple[Endpoint, ...] = ()
        self._targets: Iterator[Endpoint] = iter(())
        self._happenings: list[Happening] = []

    @property
    def is_selected(self) -> bool:
        """Whether there is a path, as far as this end knows."""
        return self._checks.selected is not None

    @property
    def is_open(self) -> bool:
        """Whether something that was begun may still come to a path, or has."""
        return self.is_selected or self._checks.is_nominating or self._checks.is_waiting

    @property
    def checks(self) -> Checks:
        """The pairs."""
        return self._checks

    def learn(self, description: Description, own: Sequence[Candidate], *, depends: bool, now: int) -> None:
        """The other end is known, and so are our candidates and whether our mapping depends on the remote."""
        self._other = description
        self._checks.own_candidates(own)
        self._checks.other_end(description, now)
        self.rounds.learn_mappings(own_depends=depends, other_depends=description.depends)

    def aim_at_candidates(self) -> None:
        """Check the candidates of the other end from now on."""
        if self._other is not None:
            self.rounds.remote_candidates(self._other.of_type(*self._strategy.checks))

    def hear(self, body: object, now: int) -> bool:
        """Whether what the other end said is about a round."""
        number = body.get("punch") if isinstance(body, dict) else None
        if type(number) is not int or not isinstance(body, dict):
            return False
        plan = self._strategy.rounds[number - 1 : number] if number > 0 else ()
        aimed: tuple[Endpoint, ...] = ()
        if plan and plan[0].window:
            try:
                aimed = Window.from_json(body["window"]).addresses()[: plan[0].window] if "window" in body else ()
            except DescriptionError:
                aimed = ()
        self.rounds.punch_received(number, aimed, now)
        return True

    def base_opened(self, base: Endpoint, now: int) -> None:
        """A socket that was asked for is bound."""
        if self._new_bases.base_opened(base):
            self._checks.add_base(base)
            self._go_on_preparing(now)

    def base_refused(self, base: Endpoint, now: int) -> None:
        """A socket that was asked for cannot be bound: another one is asked for, up to a limit."""
        if self._new_bases.base_refused(base):
            self._go_on_preparing(now)

    # ---- the contract

    def receive_message(self, message: Message, datagram: Datagram, now: int) -> bool:
        """Whether a decoded STUN message was for this machine."""
        if self._measurement is not None and self._measurement.receive_message(message, datagram, now):
            self._conclude_measuring(now)
            return True
        return self._checks.receive_message(message, datagram, now)

    def next_timeout(self) -> int | None:
        """The earliest of its parts."""
        times = [self._checks.next_timeout(), self.rounds.next_timeout(), self._new_bases.next_timeout()]
        times += [self._measurement.next_timeout()] if self._measurement is not None else []
        return earliest(times)

    def handle_timeout(self, now: int) -> None:
        """Do what is due."""
        self._checks.handle_timeout(now)
        self.rounds.handle_timeout(now)
        self._new_bases.handle_timeout(now)
        if self._measurement is not None:
            self._measurement.handle_timeout(now)
            self._conclude_measuring(now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Of all parts."""
        questions = self._measurement.datagrams_to_send() if self._measurement is not None else []
        return questions + self._checks.datagrams_to_send(now)

    def advance(self, now: int, is_taken: Callable[[rounds.Action], bool] = _nobody) -> None:
        """Do what the rounds say. `is_taken`: whether an action is somebody else's, who has done it."""
        while actions := self.rounds.actions():
            for action in actions:
                if not is_taken(action):
                    self._take(action, now)

    def events(self) -> list[Happening]:
        """What happened since the last call, in order."""
        for event in self._checks.events():
            match event:
                case CheckSent(t=t, local=local, remote=remote, attempt=attempt, count=count):
                    number = self.rounds.number or None
                    self._happenings.append(vocabulary.Check(t, remote, local, number, attempt, count))
                case RemoteLearnt(remote=remote):
                    self.rounds.remote_candidates([remote])
                    self._happenings.append(event)
                case Selected(t=t):
                    self.rounds.succeeded(t)
                    self._measurement = None
                    self._new_bases.stop()
                    self._happenings.append(event)
        happenings, self._happenings = self._happenings + self._new_bases.requests(), []
        return happenings

    # ---- what the rounds want

    def _take(self, action: rounds.Action, now: int) -> None:
        match action:
            case rounds.Prepare(round=number):
                self._enter(number)
                self._new_bases.open(1 if self.rounds.current.window else self.rounds.current.ports)
            case rounds.SendPunch(round=number):
                self._enter(number)
                window = {"window": self._window.to_json()} if self._window is not None else {}
                self._happenings.append(Tell({"punch": number, **window}))
            case rounds.RoundStarted(round=number):
                self._enter(number)
                self._happenings.append(vocabulary.RoundOfChecks(now, number))
            case rounds.SendCheck(remote=remote, attempt=attempt):
                self._checks.check(remote, attempt, now, self._checks_from)
            case rounds.SendAimed(remotes=remotes, attempt=attempt):
                bases = self._checks_from or self._bases
                self._checks.burst([(base, remote) for remote in remotes for base in bases], attempt, now)
            case rounds.SendProbes(count=count):
                self._checks.burst([(self._bases[0], to) for to in islice(self._targets, count)], None, now)
            case rounds.RoundFailed():
                self._checks.settle(now)

    def _enter(self, number: int) -> None:
        """A new round: what the last one opened is closed."""
        if number == self._round:
            return
        self._round, self._window, self._measurement, self._checks_from = number, None, None, ()
        self._new_bases.end_round(self._checks.is_used)
        self._targets = self._draw_targets(self.rounds.current.probes)

    # ---- preparing

    def _go_on_preparing(self, now: int) -> None:
        """Once every socket of a burst was opened or refused: measure with it, or open the NAT with them."""
        plan, bases = self.rounds.current, self._new_bases
        if not bases.is_answered:
            return
        if plan.window and bases.opened:
            self._measurement = Measurement(bases.opened[0], self._servers, plan.window, self._rng)
            self._measurement.start(now)
        elif plan.window:
            self._predicted("no socket could be opened to measure from", now)
        else:
            towards = self._reflexive()[:1]
            self._checks.burst([(base, to) for base in bases.take_new(now) for to in towards], None, now)
            if bases.is_complete:
                self.rounds.prepared(self._round, now)

    def _conclude_measuring(self, now: int) -> None:
        measurement = self._measurement
        if measurement is not None and measurement.result is not None:
            self._predicted(measurement.result, now)

    def _predicted(self, result: Window | str, now: int) -> None:
        observed = self._measurement.observed if self._measurement is not None else ()
        self._measurement = None
        match result:
            case Window():
                self._window, self._checks_from = result, self._new_bases.opened[:1]
                self._happenings.append(vocabulary.Prediction(now, observed, result.addresses()))
            case str():
                self._happenings.append(vocabulary.Prediction(now, observed, (), result))
        self.rounds.prepared(self._round, now, self._reflexive()[:1])

    def _reflexive(self) -> tuple[Endpoint, ...]:
        return self._other.of_type(CandidateType.SERVER_REFLEXIVE) if self._other is not None else ()

    def _draw_targets(self, count: int) -> Iterator[Endpoint]:
        """Ports of the other end's address, in the order in which they are probed; drawn when they are wanted."""
        for remote in self._reflexive()[:1]:
            for port in self._rng.sample(PROBED_PORTS, count):
                yield Endpoint(remote.host, port)
