"""Which external endpoints a NAT assigns, as a function of its profile, its seed and how often it was asked.

Rule 1: a NAT has one stream of candidate ports for each transport. Every allocation that does not preserve its port
        takes candidates until one is free; so the n-th candidate depends on the seed and on n alone.
Rule 2: a random stream is the hash of a counter, scaled to the range; a sequential one is the counter itself.
        Both are what rules of the kernel can compute (lab/nftables/dice.py), so that a NAT in a lab assigns the same
        ports in the same order from the same seed; a test compares them.
Rule 3: where ports are in blocks (blocks.py), a block has a sequential counter of its own; random candidates of all
        blocks share the stream's counter.
Rule 4: of several external addresses a host has always the same (paired), or each allocation draws one (arbitrary).
Rule 5: of a dynamic block every port is tried, the one that the stream draws first and then its neighbours (RFC 6056
        §3.3.1), so that no block is given while another one has room; which block is given is drawn like that too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address

from testbed.datagram import Endpoint
from testbed.nat.behaviour import is_native
from testbed.nat.blocks import Block, DynamicBlocks, deterministic
from testbed.nat.packet import Transport
from testbed.plan.network import Translation
from testbed.plan.seeds import derive
from testbed.spec.profile import PORT_MAX, PORT_MIN, Dependence, Otherwise, Pooling

WORD = 0xFFFF_FFFF
COUNTED = 1 << 20
"""Where the counter of a random stream begins again."""
WHOLE = 4096
"""A range of at most so many ports is walked from its first port on; a larger one from a seeded start, through a
window of half its size."""
MANY_ATTEMPTS, FEW_ATTEMPTS, LARGE_STEP = 64, 16, 32
"""Candidates that one allocation looks at; fewer where the step is large (the kernel's rules cannot jump so often)."""
NATIVE_ATTEMPTS = 128
"""What nf_nat_l4proto_unique_tuple tries in its first pass."""


class Ports:
    """The external endpoints of one NAT, and how far its streams have come."""

    def __init__(self, translation: Translation, seed: int) -> None:
        self._profile = profile = translation.profile
        self._inside = translation.inside
        self._words = {name: derive(seed, "nat", name) & WORD for name in ("udp_ports", "tcp_ports", "pool", "blocks")}
        size = profile.ports.block if profile.mapping is not Dependence.NONE and profile.ports.is_dynamic else None
        self._dynamic = DynamicBlocks(profile, size) if size is not None else None
        self.change_address(translation.external)
        self._asked: Counter[object] = Counter()
        native = is_native(profile)
        self._keeps_any = native and profile.ports.range == (PORT_MIN, PORT_MAX)
        is_slow = abs(profile.ports.step) >= LARGE_STEP
        self.attempts = NATIVE_ATTEMPTS if native else FEW_ATTEMPTS if is_slow else MANY_ATTEMPTS
        """Candidates that one allocation looks at before it gives up."""

    def change_address(self, external: Sequence[IPv4Address]) -> None:
        """Map to these from now on, as many as before; the streams go on."""
        self.external = tuple(map(str, external))
        self._blocks = dict(deterministic(self._profile, self.external, self._inside))

    def address(self, transport: Transport, host: str) -> str | None:
        """The external address for a new mapping of an inside host; None for a subscriber without ports."""
        if self._profile.ports.block is not None and self._dynamic is None:
            block = self._blocks.get(host)
            return block.external if block is not None else None
        if self._profile.pooling is Pooling.PAIRED or len(self.external) == 1:
            return self.home(host)
        return self._of_pool(self._count("pool", transport) % COUNTED)

    def home(self, host: str) -> str:
        """The external address that an inside host has where it keeps one."""
        if len(self.external) == 1:
            return self.external[0]
        return self._of_pool(int.from_bytes(IPv4Address(host).packed, "little"))  # the kernel hashes bytes as sent

    def candidates(self, transport: Transport, internal: Endpoint) -> Iterator[int]:
        """Ports to be tried for a new mapping, the internal one first where the profile preserves it."""
        if self._dynamic is not None:
            yield from self._of_blocks(self._dynamic, transport, internal)
            return
        if self._profile.ports.preserve and (self._keeps_any or self._may_have(internal.host, internal.port)):
            yield internal.port
        for _ in range(self.attempts):
            port = self._draw(transport, self._blocks.get(internal.host), internal.host)
            if self._profile.ports.parity:
                port = port & ~1 | internal.port & 1
            if self._may_have(internal.host, port):  # parity may have moved it over the edge
                yield port

    def assigned(self, host: str, external: Endpoint) -> None:
        """A mapping of an inside host begins."""
        if self._dynamic is not None:
            self._dynamic.assigned(host, external)

    def ended(self, external: Endpoint) -> None:
        """A mapping ends."""
        if self._dynamic is not None:
            self._dynamic.ended(external)

    def forget(self) -> None:
        """All mappings have ended; the streams go on."""
        if self._dynamic is not None:
            self._dynamic.clear()

    def _of_blocks(self, blocks: DynamicBlocks, transport: Transport, internal: Endpoint) -> Iterator[int]:
        host, address = internal.host, self.address(transport, internal.host)
        assert address is not None
        if self._profile.ports.preserve and blocks.may_have(host, Endpoint(address, internal.port)):
            yield internal.port
        for block in blocks.of(host):
            yield from self._all_of(block, transport, internal.port)
        place = scale(jhash_word(self._count("blocks") % COUNTED, self._words["blocks"]), blocks.places)
        if (block_more := blocks.free(host, address, place)) is not None:
            yield from self._all_of(block_more, transport, internal.port)

    def _all_of(self, block: Block, transport: Transport, inner: int) -> Iterator[int]:
        """Every port of a block that parity allows (Rule 5)."""
        size, drawn = block.last - block.first + 1, self._draw(transport, block, block)
        way = -1 if self._profile.ports.step < 0 else 1
        for number in range(size):
            port = block.first + (drawn - block.first + way * number) % size
            if not self._profile.ports.parity or port % 2 == inner % 2:
                yield port

    def _may_have(self, host: str, port: int) -> bool:
        first, last = self._range(self._blocks.get(host))
        return first <= port <= last

    def _range(self, block: Block | None) -> tuple[int, int]:
        return (block.first, block.last) if block is not None else self._profile.ports.range

    def _draw(self, transport: Transport, block: Block | None, whose: object) -> int:
        """The next candidate of a stream: of all ports, or of a block, whose counter is that of `whose`."""
        ports = self._profile.ports
        (first, last), word = self._range(block), self._words[f"{transport}_ports"]
        size = last - first + 1
        if ports.otherwise is Otherwise.RANDOM:
            return first + scale(jhash_word(self._count(transport) % COUNTED, word), size)
        walked = size if block is not None else window(size)
        number = self._count(transport, whose if block is not None else None)
        at = ((number + 1) * abs(ports.step) - 1) % walked
        start = first if block is not None else first + word % (size - walked + 1)
        return start + at if ports.step > 0 else start + walked - 1 - at

    def _of_pool(self, key: int) -> str:
        return self.external[scale(jhash_word(key, self._words["pool"]), len(self.external))]

    def _count(self, *stream: object) -> int:
        number = self._asked[stream]
        self._asked[stream] = number + 1
        return number


def scale(value: int, size: int) -> int:
    """A 32-bit value as one below `size` (reciprocal_scale, linux/kernel.h)."""
    return value * size >> 32


def jhash_word(key: int, seed: int) -> int:
    """Bob Jenkins' lookup3 hash of one 32-bit word, as include/linux/jhash.h has it on a little-endian machine."""
    a = b = c = (0xDEAD_BEEF + 4 + seed) & WORD
    a = (a + key) & WORD
    for turn in (14, 11, 25, 16, 4, 14, 24):  # the final mix takes these turns around three registers
        c = ((c ^ b) - (b << turn | b >> (32 - turn))) & WORD
        a, b, c = b, c, a
    return b


def window(size: int) -> int:
    """How many ports of a range of this size a sequential stream walks through before it begins again."""
    return size if size <= WHOLE else (size + 1) // 2


__all__ = ["COUNTED", "WORD", "Ports", "jhash_word", "scale", "window"]
