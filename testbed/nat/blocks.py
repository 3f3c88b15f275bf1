"""Blocks of ports: whose they are, for good or for as long as somebody needs them.

Rule 1: a range of ports is cut into blocks from its first port on; what is left over at its end belongs to nobody.
Rule 2: deterministic (RFC 7422): the n-th inside address has the n-th block, one external address after the other;
        those who come too late have none.
Rule 3: dynamic: a host has a block from its first mapping there until its last mapping there ends, and no more of
        them at once than the profile says. This keeps logs as short as ranges do (RFC 6888 §4) without giving
        ports to hosts that are silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from typing import NamedTuple

from testbed.datagram import Endpoint
from testbed.spec.profile import NatProfile


class Block(NamedTuple):
    """Ports of one external address."""

    external: str
    first: int
    last: int


def deterministic(
    profile: NatProfile, external: Sequence[str], inside: Sequence[IPv4Network]
) -> Iterator[tuple[str, Block]]:
    """Inside address -> its block (Rule 2)."""
    size = profile.ports.block
    if size is None or profile.ports.is_dynamic:
        return
    subscribers = (str(address) for prefix in inside for address in prefix)
    places = (Block(host, start, start + size - 1) for host in external for start in _starts(profile, size))
    yield from zip(subscribers, places, strict=False)


class DynamicBlocks:
    """Who has which blocks now (Rule 3)."""

    def __init__(self, profile: NatProfile, size: int) -> None:
        self._size, self._most = size, profile.ports.blocks_per_host
        self._starts = _starts(profile, size)
        self.places = len(self._starts)
        """Blocks of one external address."""
        self.clear()

    def clear(self) -> None:
        """Have all of them back."""
        self._owners: dict[Block, str] = {}
        self._of_host: dict[str, list[Block]] = {}
        self._mappings: Counter[Block] = Counter()

    def of(self, host: str) -> tuple[Block, ...]:
        """The blocks of an inside host, the oldest first."""
        return tuple(self._of_host.get(host, ()))

    def may_have(self, host: str, external: Endpoint) -> bool:
        """Whether a host has the block in which an endpoint lies, or may be given it."""
        block = self._block_of(external)
        if block is None:
            return False
        owner = self._owners.get(block)
        return owner == host or (owner is None and self._has_room(host))

    def free(self, host: str, external: str, place: int) -> Block | None:
        """A block that the host may be given: the first free one of an external address from a place on."""
        if not self._has_room(host):
            return None
        for number in range(self.places):
            block = self._block(external, (place + number) % self.places)
            if block not in self._owners:
                return block
        return None

    def assigned(self, host: str, external: Endpoint) -> None:
        """A mapping of the host begins; with it, unless it has it, the host gets the block."""
        block = self._block_of(external)
        assert block is not None
        self._mappings[block] += 1
        if self._owners.setdefault(block, host) == host and self._mappings[block] == 1:
            self._of_host.setdefault(host, []).append(block)

    def ended(self, external: Endpoint) -> None:
        """A mapping ends; with the last one of a block, the block goes back."""
        block = self._block_of(external)
        assert block is not None
        self._mappings[block] -= 1
        if self._mappings[block] == 0:
            host = self._owners.pop(block)
            self._of_host[host].remove(block)
            if not self._of_host[host]:
                del self._of_host[host]

    def _has_room(self, host: str) -> bool:
        return len(self._of_host.get(host, ())) < self._most

    def _block_of(self, external: Endpoint) -> Block | None:
        place = (external.port - self._starts.start) // self._size
        return self._block(external.host, place) if 0 <= place < self.places else None

    def _block(self, external: str, place: int) -> Block:
        start = self._starts[place]
        return Block(external, start, start + self._size - 1)


def _starts(profile: NatProfile, size: int) -> range:
    first, last = profile.ports.range
    return range(first, last - size + 2, size)
