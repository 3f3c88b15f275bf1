"""Which direct path a modelled QUIC connection takes: the rules of agents/quic_paths.py over the model.

Rule 1: any challenge that comes by a path that is not in use triggers one back by that path, at once, unless it did so
        a moment ago. A challenge from an address that was not known makes a peer-reflexive candidate.
Rule 2: the client takes the first path that validates. A path whose answer came from another address than was
        challenged is kept for the end of the round.
Rule 3: the server probes what it was asked to (PUNCH_ME_NOW) from the candidate that was named, and nothing else; at
        most PAIR_LIMIT pairs a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from testbed.datagram import Endpoint
from testbed.sim.quic_connection import Answered, Challenged, Connection, Happening, Moved, Path
from testbed.traversal.candidates import Candidate, Role, distinct
from testbed.traversal.checks import MAX_PEER_REFLEXIVE, TRIGGER_GAP, CheckSent, RemoteLearnt

PAIR_LIMIT = 16
"""Pairs that a server probes in one round (agents/quic_connection.py; a test compares them)."""

PathEvent: TypeAlias = "CheckSent | RemoteLearnt | Path"


class Paths:
    """The direct paths of one connection that began at a relay."""

    def __init__(self, role: Role, bases: Sequence[Endpoint], own: Sequence[Candidate], connection: Connection) -> None:
        """`own`: the candidates that the other end is told of, the preferred ones first."""
        self._role, self._bases, self._own, self._connection = role, tuple(bases), tuple(own), connection
        self.candidates: dict[int, Endpoint] = {}
        """The server's, by their number."""
        self._asked: dict[Endpoint, set[Endpoint]] = {}
        self._learnt: dict[Endpoint, set[Endpoint]] = {}
        self._punched: set[tuple[int, int, Endpoint]] = set()
        self._triggered: dict[Path, int] = {}
        self._kept: dict[Path, int] = {}
        self._events: list[PathEvent] = []
        self.selected: Path | None = None
        """The direct path in use."""

    def punch(self, number: int) -> None:
        """Client: PUNCH_ME_NOW for each pair that round *number* has none for yet, up to the limit."""
        for paired_with in sorted(self.candidates):
            for address in distinct(candidate.address for candidate in self._own):
                pair = (number, paired_with, address)
                if sum(known[0] == number for known in self._punched) >= PAIR_LIMIT:
                    return
                if pair not in self._punched:
                    self._punched.add(pair)
                    self._connection.tell(["punch", number, paired_with, str(address)])

    def asked(self, paired_with: int, address: Endpoint) -> None:
        """Server: the client wants its *address* probed from our candidate of that number."""
        candidate = self.candidates.get(paired_with)
        bases = {own.base for own in self._own if own.address == candidate}
        self._asked.setdefault(address, set()).update(bases)

    def check(self, remote: Endpoint, attempt: int, now: int) -> None:
        """Send one challenge to the address, from each own address that it is paired with."""
        for base in self._bases:
            if self._is_paired(base, remote):
                self._send(Path(base, remote), attempt, now)

    def settle(self, now: int) -> None:
        """Take what was kept, if there is nothing better; said when a round is over."""
        if self._kept and self.selected is None:
            self._select(min(self._kept, key=lambda path: (self._kept[path], path)))

    def take(self, happening: Happening, now: int) -> None:
        """Something happened to the connection."""
        match happening:
            case Challenged(path=path) if self._is_direct(path):
                self._trigger(path, now)
            case Answered(path=path, source=source, rtt=rtt) if self._is_direct(path) and self.selected is None:
                if path != source and self._is_direct(source):
                    self._kept[path] = rtt
                    self._trigger(source, now)
                else:
                    self._select(path)
            case Moved(path=path, is_validated=is_validated):
                self._moved(path, now, is_validated=is_validated)

    def events(self) -> list[PathEvent]:
        """What happened since the last call; a path is one that is in use now."""
        events, self._events = self._events, []
        return events

    def _is_direct(self, path: Path) -> bool:
        return path.local in self._bases

    def _is_paired(self, base: Endpoint, remote: Endpoint) -> bool:
        if remote in self._bases:
            return False
        if base in self._learnt.get(remote, ()):
            return True
        if self._role is Role.CONTROLLED:
            return base in self._asked.get(remote, ())
        return remote in self.candidates.values()

    def _trigger(self, path: Path, now: int) -> None:
        if self.selected is not None:
            return
        if not self._is_paired(*path):
            if sum(map(len, self._learnt.values())) >= MAX_PEER_REFLEXIVE * len(self._bases):
                return
            self._learnt.setdefault(path.remote, set()).add(path.local)
            self._events.append(RemoteLearnt(now, path.remote))
        last = self._triggered.get(path)
        if last is None or now - last >= TRIGGER_GAP:
            self._triggered[path] = now
            self._send(path, None, now)

    def _send(self, path: Path, attempt: int | None, now: int) -> None:
        if self._connection.probe(path):
            self._events.append(CheckSent(now, path.local, path.remote, attempt))

    def _select(self, path: Path) -> None:
        if self._role is Role.CONTROLLING:
            self._connection.migrate(path)
            self.selected = path
            self._events.append(path)

    def _moved(self, path: Path, now: int, *, is_validated: bool) -> None:
        self.selected = path if self._is_direct(path) else None
        if self.selected is not None:
            if not is_validated:
                self._events.append(CheckSent(now, path.local, path.remote, None))
            self._events.append(path)
