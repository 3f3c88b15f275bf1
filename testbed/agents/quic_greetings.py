"""Application bytes of the QUIC agent: the UDP agent's greetings, once through the relay and once directly.

Rule 1: a greeting proves a path only if it went and was echoed there. Those of the direct path have numbers of their
        own, so that an echo of a relayed one that comes late, by the direct path, is not taken for one of the other.
Rule 2: the tag in each greeting is made of both ends' passwords: beside QUIC's server, whom the fingerprint
        proves, it proves the client.
"""

from __future__ import annotations

from enum import Enum, auto

from testbed.agents.quic_happenings import Path
from testbed.agents.quic_session import Session
from testbed.traversal.application import Codec, Greetings, Heard

FIRST_DIRECT = 1 << 31
"""Greetings of the direct path are numbered from here."""


class Hearing(Enum):
    """What a datagram was, if it was news."""

    GREETING = auto()
    ECHO = auto()


class Greeter:
    """Both series of greetings of one end."""

    def __init__(self) -> None:
        self.relayed, self.direct = Greetings(), Greetings()
        self.codec: Codec | None = None
        """Known once the other end is."""
        self.size = 0
        """Of the last text heard, in bytes."""
        self.heard_by: Path | None = None
        """The direct path that the other end's first greeting came by."""
        self._direct_session: Session | None = None

    @property
    def is_both_ways(self) -> bool:
        """Whether a direct greeting was heard and one of ours was echoed."""
        return self.direct.is_heard and self.direct.rtt is not None

    def go_direct(self, session: Session, now: int) -> None:
        """Greet by this connection's path in use, which is direct; the relay's greetings end."""
        self._direct_session = session
        self.direct.start(now)

    def next_timeout(self) -> int | None:
        """When the next greeting is due."""
        times = (self.relayed.next_timeout(), self.direct.next_timeout())
        return min((time for time in times if time is not None), default=None)

    def greet(self, relayed: Session | None, now: int) -> None:
        """Send what is due."""
        if self.codec is None:
            return
        number = self.relayed.due(now)
        if number is not None and relayed is not None and relayed is not self._direct_session:
            relayed.send(self.codec.greeting(number))
        number = self.direct.due(now)
        if number is not None and self._direct_session is not None:
            self._direct_session.send(self.codec.greeting(FIRST_DIRECT + number))

    def hear(self, session: Session, path: Path, data: bytes, now: int, *, is_direct: bool) -> Hearing | None:
        """Echo a greeting; say what the datagram was, where it is the first of its kind on its path."""
        heard = self.codec.read(data) if self.codec is not None else None
        if heard is None or self.codec is None:
            return None
        if not heard.is_echo:
            session.send(self.codec.echo(heard.number))
        if (heard.number > FIRST_DIRECT) is not is_direct:
            return None  # it set out for the other path
        series = self.direct if is_direct else self.relayed
        if not series.hear(Heard(heard.is_echo, heard.number % FIRST_DIRECT, heard.size), now):
            return None
        self.size = heard.size
        if heard.is_echo:
            return Hearing.ECHO
        if is_direct:
            self.heard_by = path
        return Hearing.GREETING
