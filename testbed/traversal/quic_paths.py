"""Which direct path a QUIC connection takes: PATH_CHALLENGE where `traversal.checks` has STUN requests.

Rule 1: any challenge that comes by a path that is not validated triggers one back by that path, at once. A challenge
        from an address that we did not know makes a peer-reflexive candidate.
Rule 2: the client takes the first path that validates and moves to that one only. The server follows.
Rule 3: RFC 9000 §8.2.3 calls a path validated whichever way the answer came. Here a path whose answer came from
        another address than was challenged is kept for later (`settle`), behind the address that the answer came
        from: two NATs that map by address and port but filter by less give each direction a mapping of its own, and
        such a path carries bytes both ways, though QUIC's clients in the field would drop what comes back.
Rule 4: the server probes what it was asked to (PUNCH_ME_NOW) from the candidate that was named, and nothing else.

When challenges are sent is not decided here but by `traversal.rounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from testbed.datagram import Endpoint
from testbed.traversal.candidates import Candidate, Role, distinct
from testbed.traversal.checks import MAX_PEER_REFLEXIVE, TRIGGER_GAP, CheckSent, RemoteLearnt
from testbed.traversal.quic_connection import Prober
from testbed.traversal.quic_happenings import Answered, Challenged, Happening, Moved, Path


@dataclass(frozen=True, slots=True)
class PathSelected:
    """The connection uses this path now."""

    t: int
    path: Path


PathEvent: TypeAlias = "CheckSent | RemoteLearnt | PathSelected"


class Paths:
    """The direct paths of one connection that began at a relay."""

    def __init__(self, role: Role, bases: Sequence[Endpoint], own: Sequence[Candidate], connection: Prober) -> None:
        """`own`: the candidates that the other end is told of, the preferred ones first."""
        self._role, self._bases, self._connection = role, tuple(bases), connection
        self._own = tuple(own)
        self._asked: dict[Endpoint, set[Endpoint]] = {}
        self._learnt: dict[Endpoint, set[Endpoint]] = {}
        self._punched: set[tuple[int, int, Endpoint]] = set()
        self._triggered: dict[Path, int] = {}
        self._kept: dict[Path, int] = {}
        self._events: list[PathEvent] = []
        self.selected: Path | None = None
        """The direct path in use."""

    # ---- what is sent

    def punch(self, number: int) -> None:
        """Client: PUNCH_ME_NOW for each pair that round *number* has none for yet, up to the server's limit.

        Each of our addresses comes first with the server's first candidate, then with its second: so the limit cuts
        off repetitions, and each of our addresses is probed from as many of the server's as can be.
        """
        for paired_with, remote in sorted(self._connection.candidates.items()):
            for address in distinct(candidate.address for candidate in self._own):
                pair = (number, paired_with, address)
                if pair not in self._punched and _is_ipv6(address) == _is_ipv6(remote):
                    if not self._connection.punch(*pair):
                        return
                    self._punched.add(pair)

    def asked(self, candidate: Endpoint, address: Endpoint) -> None:
        """Server: the client wants its *address* probed from our *candidate*."""
        bases = {own.base for own in self._own if own.address == candidate}
        self._asked.setdefault(address, set()).update(bases)

    def check(self, remote: Endpoint, attempt: int, now: int) -> None:
        """Send one challenge to the address, from each own address that it is paired with."""
        for base in self._bases:
            if self._is_paired(base, remote):
                self._send(Path(base, remote), attempt, now)

    def settle(self, now: int) -> None:
        """Take what Rule 3 kept, if there is nothing better; said when a round is over."""
        if self._kept and self.selected is None:
            self._select(min(self._kept, key=lambda path: (self._kept[path], path)), now)

    # ---- what is heard

    def take(self, happening: Happening, now: int) -> None:
        """Something happened to the connection."""
        match happening:
            case Challenged(path=path) if self._is_direct(path):
                self._trigger(path, now)
            case Answered(path=path, source=source, rtt=rtt) if self._is_direct(path) and self.selected is None:
                if path != source and self._is_direct(source):
                    self._kept[path] = rtt
                    self._trigger(source, now)
                elif self._role is Role.CONTROLLING:
                    self._select(path, now)
            case Moved(path=path, is_validated=is_validated):
                self._moved(path, now, is_validated=is_validated)

    def events(self) -> list[PathEvent]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    # ---- inside

    def _is_direct(self, path: Path) -> bool:
        return path.local in self._bases

    def _is_paired(self, base: Endpoint, remote: Endpoint) -> bool:
        if remote in self._bases or _is_ipv6(base) != _is_ipv6(remote):
            return False
        if base in self._learnt.get(remote, ()):
            return True
        if self._role is Role.CONTROLLED:
            return base in self._asked.get(remote, ())
        return remote in self._connection.candidates.values()

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

    def _select(self, path: Path, now: int) -> None:
        if self._role is Role.CONTROLLING:
            self._connection.migrate(path)
            self._connection.cancel_probes()
            self.selected = path
            self._events.append(PathSelected(now, path))

    def _moved(self, path: Path, now: int, *, is_validated: bool) -> None:
        """The server followed the client; its connection challenges a path that is new to it with the next packet."""
        self.selected = path if self._is_direct(path) else None
        if self.selected is not None:
            if not is_validated:
                self._events.append(CheckSent(now, path.local, path.remote, None))
            self._events.append(PathSelected(now, path))


def _is_ipv6(endpoint: Endpoint) -> bool:
    return ":" in endpoint.host
