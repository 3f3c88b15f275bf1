"""Application bytes of a modelled QUIC end: greetings, once through the relay and once directly.

Rule 1: a greeting proves a path only if it went and was echoed there. Those of the direct path have odd numbers, those
        of the relay even ones, so that none that comes late, by the other path, is taken for one of that path.
"""

from __future__ import annotations

from testbed.sim.quic_connection import Connection, Path
from testbed.sim.quic_switch import Switch
from testbed.traversal.application import Codec, Greetings, Heard
from testbed.traversal.candidates import CandidateType
from testbed.traversal.events import Connected, Data, Event, Relay
from testbed.traversal.introduction import Introduction


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
        return min((time for time in times if time is not None), default=None)

    def greet(self, now: int) -> None:
        """Send what is due."""
        if self._codec is None:
            return
        number, relayed = self._relayed.due(now), self._switch.relayed
        if number is not None and relayed is not None and relayed is not self._direct_connection:
            relayed.send(self._codec.greeting(2 * number))
        number = self._direct.due(now)
        if number is not None and self._direct_connection is not None:
            self._direct_connection.send(self._codec.greeting(2 * number + 1))

    def receive(self, connection: Connection, path: Path, data: bytes, now: int) -> list[Event]:
        """Echo what came, and say what follows from it."""
        heard = self._codec.read(data) if self._codec is not None else None
        if heard is None or self._codec is None:
            return []
        if not heard.is_echo:
            connection.send(self._codec.echo(heard.number))
        is_direct, (number, odd) = self._switch.is_direct(path), divmod(heard.number, 2)
        if bool(odd) is not is_direct:
            return []  # it set out for the other path
        series, events = self._direct if is_direct else self._relayed, list[Event]()
        if series.hear(Heard(heard.is_echo, number, heard.size), now):
            if not heard.is_echo:
                self._heard_by = path if is_direct else self._heard_by
                events.append(Data(now, path.local, path.remote, heard.size))
            elif not is_direct:
                events.append(Relay(now, series.rtt, path.local, path.remote))
        is_both_ways = self._direct.is_heard and self._direct.rtt is not None
        if self._switch.is_direct(connection.active) and is_both_ways and not self.is_connected:
            self.is_connected = True
            events.append(self._connected(connection.active, now))
        return events

    def _connected(self, path: Path, now: int) -> Connected:
        own = (mine.type for mine in self._introduction.candidates if mine.base == path.local)
        known = self._introduction.other.candidates if self._introduction.other is not None else ()
        other = (theirs.type for theirs in known if theirs.address == path.remote)
        types = (next(own, CandidateType.PEER_REFLEXIVE), next(other, CandidateType.PEER_REFLEXIVE))
        came_by = self._switch.source or self._heard_by or path
        source = came_by.remote if came_by.remote != path.remote else None
        return Connected(now, path.local, path.remote, source, types, self._direct.rtt)
