"""Which way on a box sends a packet: its routing tables, looked up as a kernel would.

Rule 1: the longest prefix of the table that the source's rule names, then of the main table.
Rule 2: a table is sorted once; a look-up compares integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from testbed.plan.network import Box, Route

MAIN = 254
"""Linux's number of the main table."""


class Entry(NamedTuple):
    """One route, ready to be compared."""

    network: int
    mask: int
    via: str | None
    interface: str


class Forwarding:
    """The routing tables of one box."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._tables: dict[int, Sequence[Entry]] = {}

    def way(self, source: str, destination: str) -> Entry | None:
        """The best route, of the table that `source` chooses first; None where there is none."""
        return next(self._ways(source, destination), None)

    def _ways(self, source: str, destination: str) -> Iterator[Entry]:
        number = int(IPv4Address(destination))
        tables = [*(rule.table for rule in self._box.rules if str(rule.source) == source), MAIN]
        for table in tables:
            yield from (entry for entry in self._table(table) if number & entry.mask == entry.network)

    def _table(self, number: int) -> Sequence[Entry]:
        """A routing table, the longest prefixes first."""
        if number not in self._tables:
            routes = [route for route in self._box.routes if route.table == number]
            routes.sort(key=lambda route: -route.destination.prefixlen)
            self._tables[number] = tuple(map(_entry, routes))
        return self._tables[number]


def _entry(route: Route) -> Entry:
    prefix, via = route.destination, route.via
    return Entry(int(prefix.network_address), int(prefix.netmask), str(via) if via else None, route.interface)
