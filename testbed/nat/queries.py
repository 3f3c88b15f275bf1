"""Pings through a NAT: which inside host an echo reply is for (RFC 5508 §3).

Rule 1: a mapping is an inside host's query identifier towards one remote, and the identifier that the remote sees:
        the host's own, or the next one that nobody else uses towards that remote.
Rule 2: it lives for a minute after the last request (REQ-2), however the profile's timers stand, and lets in replies
        of that remote alone.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace

from testbed.nat.behaviour import Behaviour
from testbed.nat.packet import Decision, Delivered, Dropped, Echo, Forwarded, IcmpError, Reason
from testbed.nat.ports import Ports

QUERY_LIFE = 60_000_000_000
"""Nanoseconds (RFC 5508 REQ-2)."""
_IDENTIFIERS = 1 << 16
_FEW = 256


class Queries:
    """The query mappings of one NAT."""

    def __init__(self) -> None:
        self._out: dict[tuple[str, int, str], tuple[str, int]] = {}
        self._back: dict[tuple[str, int, str], tuple[str, int, int]] = {}
        """(external address, identifier, remote) -> inside host, its identifier, when the mapping ends."""
        self._sweep_at = _FEW
        """At so many mappings the dead ones are looked for."""

    def leave(self, echo: Echo, external: str, now: int) -> Echo | None:
        """A request as the outside sees it, sent from *external*; None where no identifier is free."""
        inner = (echo.source, echo.identifier, echo.destination)
        known = self._out.get(inner)
        place = known if known is not None and known[0] == external else self._free(echo, external, now)
        if place is None:
            return None
        if len(self._back) >= self._sweep_at:
            self._sweep(now)
        self._out[inner] = place
        self._back[*place, echo.destination] = (echo.source, echo.identifier, now + QUERY_LIFE)
        return echo.seen_as(source=place[0], identifier=place[1])

    def come(self, external: str, identifier: int, remote: str, now: int) -> tuple[str, int] | None:
        """The inside host, and its identifier, that asked *remote*."""
        found = self._back.get((external, identifier, remote))
        return found[:2] if found is not None and now < found[2] else None

    def _free(self, echo: Echo, external: str, now: int) -> tuple[str, int] | None:
        asker = (echo.source, echo.identifier)
        for number in range(_IDENTIFIERS):
            identifier = (echo.identifier + number) % _IDENTIFIERS
            if self.come(external, identifier, echo.destination, now) in (None, asker):
                return external, identifier
        return None

    def _sweep(self, now: int) -> None:
        self._back = {key: value for key, value in self._back.items() if now < value[2]}
        self._out = {key: place for key, place in self._out.items() if (*place, key[2]) in self._back}
        self._sweep_at = 2 * len(self._back) + _FEW


class Pings:
    """What a NAT, or a firewall, does with pings."""

    def __init__(self, behaviour: Behaviour, ports: Ports, is_inside: Callable[[str], bool]) -> None:
        self._behaviour, self._ports, self._is_inside = behaviour, ports, is_inside
        self._nothing = Reason.NO_MAPPING if behaviour.translates else Reason.NO_PERMISSION
        self._queries = Queries()

    def outbound(self, echo: Echo, external: AbstractSet[str], now: int) -> Decision:
        """A ping, or an answer to one, from inside; `external` are the addresses that are mapped to."""
        if self._is_inside(echo.destination):
            return Forwarded(echo)
        translates = self._behaviour.translates
        if translates and (not self._is_inside(echo.source) or not echo.is_request):
            return Dropped(Reason.NOT_TRANSLATED)
        if translates and echo.destination in external:
            return Delivered(echo.answered())
        if not echo.is_request:
            return Forwarded(echo)
        leaving = self._queries.leave(echo, self._ports.home(echo.source) if translates else echo.source, now)
        return Forwarded(leaving) if leaving is not None else Dropped(Reason.PORT_EXHAUSTED)

    def inbound(self, echo: Echo, external: AbstractSet[str], now: int) -> Decision:
        """The same from outside."""
        translates = self._behaviour.translates
        if translates and echo.destination not in external:
            return Dropped(Reason.NO_MAPPING)
        if self._behaviour.admits_all:
            return Forwarded(echo)
        if echo.is_request:
            return Delivered(echo.answered()) if translates else Dropped(Reason.NO_PERMISSION)
        asker = self._queries.come(echo.destination, echo.identifier, echo.source, now)
        if asker is None:
            return Dropped(self._nothing)
        return Forwarded(echo.seen_as(destination=asker[0], identifier=asker[1]))

    def error(self, error: IcmpError, inner: Echo, now: int) -> Decision:
        """An error from outside about a ping."""
        if self._behaviour.admits_all:
            return Forwarded(error)
        asker = self._queries.come(inner.source, inner.identifier, inner.destination, now)
        if asker is None or error.destination != inner.source:
            return Dropped(self._nothing)
        about = inner.seen_as(source=asker[0], identifier=asker[1])
        return Forwarded(replace(error, destination=asker[0], inner=about))
