"""Rounds of checks: when each end sends what to which address, for the UDP agent and the QUIC agent alike.

Rule 1: only the controlling end begins a round. It tells the other (`SendPunch`) and starts its own checks at once.
Rule 2: the controlled end starts its checks when it hears of the round. A higher round cancels the older one at
        both ends; a round that is not higher is ignored.
Rule 3: in a round, each remote address gets one check at each offset of the schedule.
Rule 4: a round fails one relay RTT after its last checks: the answer to them may still be under way. After the last
        round the attempt is exhausted. Nothing is sent after `succeeded`.

Why the controlling end does not wait half a relay RTT, as DCUtR does. Let the other's first check leave at *d*, the
one-way delay of the relay. The controlling end's filter must be open when that check arrives: it is, in both designs.
The other's filter opens at *d*: what arrives earlier dies there, which harms no NAT that follows RFC 4787, and the
schedule is dense enough that a check follows soon after. Waiting would only move our first check, not the first one
that can pass. (On a NAT that *accepts* what it did not ask for, an early check makes the port clash: that defect
is to be seen, not to be hidden.)

The UDP agent writes a check as a STUN request and a punch as a signalling message; the QUIC agent as PATH_CHALLENGE
and PUNCH_ME_NOW.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from testbed.datagram import Endpoint
from testbed.traversal.candidates import Role, distinct
from testbed.traversal.strategies import Schedule

MAX_REMOTES = 16
"""Addresses that one round checks: more would be a flood that the other end could aim (RFC 8445 §19.5.1)."""


@dataclass(frozen=True, slots=True)
class SendPunch:
    """Tell the other end that this round begins, and which addresses of ours it is to check."""

    round: int
    addresses: tuple[Endpoint, ...]


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
class RoundFailed:
    """The round is over and nothing came through."""

    round: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The last round is over."""

    rounds: int


Action: TypeAlias = "SendPunch | RoundStarted | SendCheck | RoundFailed | Exhausted"


class Rounds:
    """One end's side of an attempt to go direct."""

    def __init__(self, role: Role, schedule: Schedule, rounds: int, addresses: Sequence[Endpoint] = ()) -> None:
        """`addresses`: our own, which a punch carries to the other end."""
        self._role, self._schedule, self._rounds = role, schedule, rounds
        self._addresses = tuple(addresses)
        self._remotes: tuple[Endpoint, ...] = ()
        self._patience = schedule.patience
        self._actions: list[Action] = []
        self._round = 0
        self._started_at: int | None = None
        self._attempt = 0
        self._done: Endpoint | None = None
        self._over = False

    @property
    def number(self) -> int:
        """The round under way, or the last one; 0 before the first."""
        return self._round

    @property
    def is_over(self) -> bool:
        """Whether no more checks will be sent: it succeeded or is exhausted."""
        return self._over

    def remote_candidates(self, remotes: Iterable[Endpoint]) -> None:
        """Learn addresses of the other end. They add up; those learnt during a round join its next checks."""
        self._remotes = distinct((*self._remotes, *remotes))[:MAX_REMOTES]

    def relay_rtt(self, rtt: int) -> None:
        """Learn how long a message to the other end and back takes through the relay, in nanoseconds."""
        self._patience = rtt

    def start(self, now: int) -> None:
        """Begin the first round; a controlled end has nothing to start. Asked twice, it began already."""
        if self._role is Role.CONTROLLING and self._round == 0:
            self._begin(1, now)

    def punch_received(self, number: int, addresses: Iterable[Endpoint], now: int) -> None:
        """The other end began this round. Only a controlled end listens; a round it knows already changes nothing."""
        if self._role is Role.CONTROLLED and self._round < number <= self._rounds and self._done is None:
            self.remote_candidates(addresses)
            self._begin(number, now)

    def succeeded(self, remote: Endpoint, now: int) -> None:
        """A path to this address was chosen: nothing more is to be sent, and what was due is cancelled."""
        self._done, self._over, self._started_at = remote, True, None
        self._actions = [action for action in self._actions if not isinstance(action, (SendCheck, SendPunch))]

    def next_timeout(self) -> int | None:
        """When `handle_timeout` is due, in nanoseconds; None while nothing is."""
        if self._started_at is None:
            return None
        offsets = self._schedule.offsets
        if self._attempt < len(offsets):
            return self._started_at + offsets[self._attempt]
        return self._started_at + offsets[-1] + self._patience

    def handle_timeout(self, now: int) -> None:
        """Send what is due. A loop that is late sends one set of checks for all the offsets that it missed."""
        due = self.next_timeout()
        if due is None or now < due or self._started_at is None:
            return
        elapsed, offsets = now - self._started_at, self._schedule.offsets
        if self._attempt < len(offsets):
            self._attempt = sum(offset <= elapsed for offset in offsets)
            self._actions += [SendCheck(remote, self._round, self._attempt) for remote in self._remotes]
            return
        self._started_at = None
        self._actions.append(RoundFailed(self._round))
        if self._round == self._rounds:
            self._over = True
            self._actions.append(Exhausted(self._rounds))
        elif self._role is Role.CONTROLLING:
            self._begin(self._round + 1, now)

    def actions(self) -> list[Action]:
        """What is to be done, in order; each action is given once."""
        actions, self._actions = self._actions, []
        return actions

    def _begin(self, number: int, now: int) -> None:
        self._actions = [action for action in self._actions if not isinstance(action, SendCheck)]
        self._round, self._started_at, self._attempt = number, now, 0
        if self._role is Role.CONTROLLING:
            self._actions.append(SendPunch(number, self._addresses))
        self._actions.append(RoundStarted(number))
        self.handle_timeout(now)
