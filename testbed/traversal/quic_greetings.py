"""Application bytes of a QUIC end: the UDP agent's greetings, once through the relay and once directly.

Rule 1: a greeting proves a path only if it went and was echoed there. Those of the direct path have numbers of their
        own, so that an echo of a relayed one that comes late, by the direct path, is not taken for one of the other.
Rule 2: the tag in each greeting is made of both ends' passwords: beside QUIC's server, whom the fingerprint
        proves, it proves the client.
Rule 3: what is reported are addresses, as the sockets and the other end see them; a candidate type is looked up by
        them and is unknown, that is peer-reflexive, where neither end had told the other of it.
"""

from __future__ import annotations

from testbed.traversal.application import Codec, Greetings, Heard
from testbed.traversal.candidates import CandidateType
from testbed.traversal.events import Connected, Data, Event, Relay
from testbed.traversal.introduction import Introduction
from testbed.traversal.quic_connection import Connection
from testbed.traversal.quic_happenings import Path
from testbed.traversal.quic_switch import Switch
from testbed.traversal.timeouts import earliest

FIRST_DIRECT = 1 << 31
"""Greetings of the direct path are numbered from here."""


class Greeter:
    """Both series of greetings of one end."""

    def __init__(self, switch: Switch, introduction: Introduction) -> None:
        self._switch, self._introduction = switch, introduction
        self._relayed, self._direct = Greetings(), Greetings()
        self._codec: Codec | None = None
        self._direct_connection: Connection | None = None
        self._heard_by: Path | None = None
        self.is_connected = False
        """Whether bytes went both ways directly."""

    @property
    def is_relayed(self) -> bool:
        """Whether bytes went both ways through the relay."""
        return self._relayed.is_heard and self._relayed.rtt is not None

    def introduce(self, codec: Codec) -> None:
        """The other end is known."""
        self._codec = codec

    def start(self, now: int) -> None:
        """Greet through the relay."""
        self._relayed.start(now)

    def go_direct(self, connection: Connection, now: int) -> None:
        """Greet by this connection's path in use, which is direct. If it was the relay's, greetings there end."""
        self._direct_connection = connection
        self._direct.start(now)

    def next_timeout(self) -> int | None:
        """When the next greeting is due."""
        times = (self._relayed.next_timeout(), self._direct.next_timeout())
        return earliest(times)

    def greet(self, now: int) -> None:
        """Send what is due."""
        if self._codec is None:
            return
        number, connection = self._relayed.due(now), self._switch.relayed
        if number is not None and connection is not None and connection is not self._direct_connection:
            connection.send(self._codec.greeting(number))
        number, connection = self._direct.due(now), self._direct_connection
        if number is not None and connection is not None:
            connection.send(self._codec.greeting(FIRST_DIRECT + number))

    def receive(self, connection: Connection, path: Path, data: bytes, now: int) -> list[Event]:
        """Echo what came, and say what follows from it."""
        heard = self._codec.read(data) if self._codec is not None else None
        if heard is None or self._codec is None:
            return []
        if not heard.is_echo:
            connection.send(self._codec.echo(heard.number))
        is_direct = self._switch.is_direct(path)
        if (heard.number > FIRST_DIRECT) is not is_direct:
            return []  # it set out for the other path
        series = self._direct if is_direct else self._relayed
        heard = Heard(heard.is_echo, heard.number % FIRST_DIRECT, heard.size)
        events: list[Event] = []
        if series.hear(heard, now):
            if not heard.is_echo:
                self._heard_by = path if is_direct else self._heard_by
                events.append(Data(now, path.local, path.remote, heard.size))
            elif not is_direct:
                events.append(Relay(now, series.rtt, path.local, path.remote))
        active = connection.active
        is_both_ways = self._direct.is_heard and self._direct.rtt is not None
        if active is not None and self._switch.is_direct(active) and is_both_ways and not self.is_connected:
            self.is_connected = True
            events.append(self._connected(connection, active, now))
        return events

    def _connected(self, connection: Connection, path: Path, now: int) -> Connected:
        came_by = self._heard_by or path
        seen = connection.observed(path) or connection.observed(came_by)
        own = (mine.type for mine in self._introduction.candidates if mine.address == seen and mine.base == path.local)
        known = self._introduction.other.candidates if self._introduction.other is not None else ()
        other = (theirs.type for theirs in known if theirs.address == path.remote)
        types = (next(own, CandidateType.PEER_REFLEXIVE), next(other, CandidateType.PEER_REFLEXIVE))
        source = came_by.remote if came_by.remote != path.remote else None
        return Connected(now, path.local, path.remote, source, types, self._direct.rtt)
