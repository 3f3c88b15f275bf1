"""Pings through a NAT: which inside host an echo reply is for (RFC 5508 §3).

Rule 1: a mapping is an inside host's query identifier towards one remote, and the identifier that the remote sees:
        the host's own, or the next one that nobody else uses towards that remote.
Rule 2: it lives for a minute after the last request (REQ-2), however the profile's timers stand, and lets in replies
        of that remote alone.
"""

from __future__ import annotations

from testbed.nat.packet import Echo

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
