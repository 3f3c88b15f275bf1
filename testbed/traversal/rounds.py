"""Rounds of checks: when each end sends what to which address, for the UDP agent and the QUIC agent alike.

Rule 1: only the controlling end begins a round. It tells the other (`SendPunch`) and starts its own checks at once.
Rule 2: the controlled end starts its checks when it hears of the round. A higher round cancels the older one at
        both ends; a round that is not higher is ignored.
Rule 3: in a round, each remote address gets one check at each offset of the schedule: the addresses that the other end
        aimed us at first, in their order, then the candidates.
Rule 4: a round fails one relay RTT after its last checks: the answer to them may still be under way. After the last
        round the attempt is exhausted. Nothing is sent after `succeeded`.
Rule 5: an end whose mapping depends on the remote prepares for a round that is not a plain one (`Prepare`), before it
        tells the other or starts. The controlling end then does not start before it has the other's word that it is
        prepared too, if that prepares; it waits `WORD` for it and no longer.
Rule 6: probes follow the start of the round, if the other end opened ports for them, in bursts `BURST` apart.

Why the controlling end of a plain round does not wait half a relay RTT, as DCUtR does. Let the other's first check
leave at *d*, the one-way delay of the relay. The controlling end's filter must be open when that check arrives: it is,
in both designs. The other's filter opens at *d*: what arrives earlier dies there, which harms no NAT that follows
RFC 4787, and the schedule is dense enough that a check follows soon after. Waiting would only move our first check, not
the first one that can pass. (On a NAT that *accepts* what it did not ask for, an early check makes the port clash: that
defect is to be seen, not to be hidden.)

Why one whose other end prepares does wait: the addresses to check are not known before.

The UDP agent writes a check as a STUN request and a punch as a signalling message; the QUIC agent as PATH_CHALLENGE
and PUNCH_ME_NOW, in plain rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from testbed.datagram import Endpoint
from testbed.traversal.candidates import Role, distinct
from testbed.traversal.strategies import Round

MAX_REMOTES = 16
"""Candidates that one round checks: more would be a flood that the other end could aim (RFC 8445 §19.5.1)."""
WORD = 4_000_000_000
"""Nanoseconds that the other end has to prepare and to say so: it may have to wait for a server that is silent."""
SECOND = 1_000_000_000
IN_ORDER = 3
"""Of two ends that aim at each other's next ports, the one that checks first must not bring the other to send anything
out of order: a check that reaches a former port is answered, and the answer takes the next one. So the candidates join
after so many checks, when the other end has sent its own."""
BURST = 50_000_000
"""Nanoseconds from one burst of probes to the next: RFC 8445 §14.2 paces checks so."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Measure, or open ports; then say `prepared`."""

    round: int


@dataclass(frozen=True, slots=True)
class SendPunch:
    """Tell the other end: the controlling end, that this round begins; either, that it is prepared for it."""

    round: int


@dataclass(frozen=True, slots=True)
class RoundStarted:
    """The checks of this round begin."""

    round: int


@dataclass(frozen=True, slots=True)
class SendCheck:
    """Send one check."""

    remote: Endpoint
    round: int
    attempt: int
    """From 1, within the round."""


@dataclass(frozen=True, slots=True)
class SendAimed:
    """Send one check to each of the addresses that the other end aimed us at, in this order."""

    remotes: tuple[Endpoint, ...]
    round: int
    attempt: int


@dataclass(frozen=True, slots=True)
class SendProbes:
    """Send a burst of so many probes."""

    round: int
    count: int


@dataclass(frozen=True, slots=True)
class RoundFailed:
    """The round is over and nothing came through."""

    round: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The last round is over."""

    rounds: int


Action: TypeAlias = "Prepare | SendPunch | RoundStarted | SendCheck | SendAimed | SendProbes | RoundFailed | Exhausted"
_CANCELLED = (Prepare, SendPunch, SendCheck, SendAimed, SendProbes)


class _Phase(Enum):
    IDLE = auto()
    PREPARING = auto()
    WAITING = auto()
    CHECKING = auto()


class Rounds:
    """One end's side of an attempt to go direct."""

    def __init__(self, role: Role, plan: Sequence[Round]) -> None:
        self._role, self._plan = role, tuple(plan)
        self._remotes: tuple[Endpoint, ...] = ()
        self._aimed: tuple[Endpoint, ...] = ()
        self._depends = self._other_depends = False
        self._rtt: int | None = None
        self._actions: list[Action] = []
        self._round = 0
        self._phase = _Phase.IDLE
        self._since = self._probe_at = 0
        self._attempt = self._probed = self._to_probe = 0
        self._over = False

    @property
    def number(self) -> int:
        """The round under way, or the last one; 0 before the first."""
        return self._round

    @property
    def current(self) -> Round:
        """What the round under way, or the last one, does; a plain one before the first."""
        return self._plan[self._round - 1] if self._round else Round()

    @property
    def is_over(self) -> bool:
        """Whether no more checks will be sent: it succeeded or is exhausted."""
        return self._over

    def learn_mappings(self, *, own_depends: bool, other_depends: bool) -> None:
        """Learn of both ends whether their mapping depends on the remote: who has to prepare."""
        self._depends, self._other_depends = own_depends, other_depends

    def remote_candidates(self, remotes: Iterable[Endpoint]) -> None:
        """Learn addresses of the other end. They add up; those learnt during a round join its next checks."""
        self._remotes = distinct((*self._remotes, *remotes))[:MAX_REMOTES]

    def relay_rtt(self, rtt: int) -> None:
        """Learn how long a message to the other end and back takes through the relay, in nanoseconds."""
        self._rtt = rtt

    def start(self, now: int) -> None:
        """Begin the first round; a controlled end has nothing to start. Asked twice, it began already."""
        if not self._plan and not self._over:
            self._over = True
            self._actions.append(Exhausted(0))
        elif self._role is Role.CONTROLLING and self._round == 0 and not self._over:
            self._begin(1, now)

    def punch_received(self, number: int, aimed: Iterable[Endpoint], now: int) -> None:
        """The other end began this round, or is prepared for it, and wants these addresses checked before others. A
        round that an end knows already changes nothing.
        """
        if self._role is Role.CONTROLLING:
            if number == self._round and self._phase is _Phase.WAITING:
                self._aimed = tuple(aimed)
                self._run(now)
        elif self._round < number <= len(self._plan) and not self._over:
            self._begin(number, now, aimed)

    def prepared(self, number: int, now: int, aimed: Iterable[Endpoint] = ()) -> None:
        """What `Prepare` asked for is done. `aimed`: what to check first, unless the other end says that."""
        if number == self._round and self._phase is _Phase.PREPARING:
            self._aimed = self._aimed or tuple(aimed)
            self._actions.append(SendPunch(number))
            self._wait(now)

    def succeeded(self, now: int) -> None:
        """A path was chosen: nothing more is to be sent, and what was due is cancelled."""
        self._over, self._phase = True, _Phase.IDLE
        self._cancel()

    def next_timeout(self) -> int | None:
        """When `handle_timeout` is due, in nanoseconds; None while nothing is."""
        match self._phase:
            case _Phase.IDLE:
                return None
            case _Phase.PREPARING | _Phase.WAITING:
                return self._since + WORD
            case _Phase.CHECKING:
                offsets = self.current.schedule.offsets
                due = [self._since + offset for offset in offsets[self._attempt : self._attempt + 1]]
                if self._probed < self._to_probe:
                    due.append(self._probe_at)
                return min(due, default=self._since + self._length)

    def handle_timeout(self, now: int) -> None:
        """Send what is due. A loop that is late sends one set of checks for all the offsets that it missed. It sends
        all probes, the bursts half as far apart as they should be until it has caught up: the other end's time for
        them runs too.
        """
        due = self.next_timeout()
        if due is None or now < due:
            return
        if self._phase is _Phase.PREPARING:
            self.prepared(self._round, now)
        elif self._phase is _Phase.WAITING:
            self._run(now)
        else:
            self._check(now)

    def actions(self) -> list[Action]:
        """What is to be done, in order; each action is given once."""
        actions, self._actions = self._actions, []
        return actions

    # ---- a round, from phase to phase

    def _begin(self, number: int, now: int, aimed: Iterable[Endpoint] = ()) -> None:
        self._cancel()
        self._round, self._since, self._aimed = number, now, tuple(aimed)
        if self._depends and not self.current.is_plain:
            self._phase = _Phase.PREPARING
            self._actions.append(Prepare(number))
            return
        if self._role is Role.CONTROLLING:
            self._actions.append(SendPunch(number))
        self._wait(now)

    def _wait(self, now: int) -> None:
        waits = self._role is Role.CONTROLLING and self._other_depends and not self.current.is_plain
        if waits:
            self._phase, self._since = _Phase.WAITING, now
        else:
            self._run(now)

    def _run(self, now: int) -> None:
        self._phase, self._since, self._probe_at = _Phase.CHECKING, now, now
        self._attempt = self._probed = 0
        self._to_probe = self.current.probes if self._other_depends else 0
        self._actions.append(RoundStarted(self._round))
        self.handle_timeout(now)

    def _check(self, now: int) -> None:
        elapsed, offsets = now - self._since, self.current.schedule.offsets
        is_idle = self._attempt == len(offsets) and self._probed == self._to_probe
        attempt = sum(offset <= elapsed for offset in offsets)
        if attempt > self._attempt:
            self._attempt = attempt
            if self._aimed:
                self._actions.append(SendAimed(self._aimed, self._round, attempt))
            is_early = bool(self._aimed) and self._depends and self._other_depends and attempt <= IN_ORDER
            others = (remote for remote in self._remotes if remote not in self._aimed and not is_early)
            self._actions += [SendCheck(remote, self._round, attempt) for remote in others]
        if self._probed < self._to_probe and self._probe_at <= now:
            rate = self.current.rate
            count = min(max(1, rate * BURST // SECOND), self._to_probe - self._probed)
            self._probed += count
            due = self._since + self._probed * SECOND // rate
            self._probe_at = max(due, now + count * SECOND // rate // 2)
            self._actions.append(SendProbes(self._round, count))
        if is_idle:
            self._fail(now)

    def _fail(self, now: int) -> None:
        self._phase = _Phase.IDLE
        self._actions.append(RoundFailed(self._round))
        if self._round == len(self._plan):
            self._over = True
            self._actions.append(Exhausted(self._round))
        elif self._role is Role.CONTROLLING:
            self._begin(self._round + 1, now)

    @property
    def _length(self) -> int:
        """Nanoseconds from the first check to the end of the round. Its probes take as long at the end that sends none:
        what they open must stay open. The last of them may bring about a check and its answer. An end that prepared
        may have begun one way earlier than the other; if it is the controlled one, it hears one way later still what
        the other settles for.
        """
        plan = self.current
        probing = plan.probing if self._depends or self._other_depends else 0
        patience = plan.schedule.patience if self._rtt is None else self._rtt
        if not plan.is_plain:
            patience *= 2 + self._depends + (self._depends and self._role is Role.CONTROLLED)
        return max(plan.schedule.offsets[-1], probing) + patience

    def _cancel(self) -> None:
        self._actions = [action for action in self._actions if not isinstance(action, _CANCELLED)]
