"""A mapping is looked up or made: the postrouting hook just before the kernel's source translation.

Rule 1: only a flow's first packet is looked at, for a chain of type nat sees no other: the rest is decided.
Rule 2: the packet's own source fields are the scratch registers. A candidate external endpoint is written there, so
        that one expression asks whether it is free and another enters it; the translation that follows writes the
        fields again, from the map (nf_nat_manip_pkt knows the tuple, not the packet).
Rule 3: candidates come from one stream for each protocol (dice.py). A chain draws the next one; as its counter
        belongs to the rule, every attempt of every packet continues the same stream.
Rule 4: a packet for which a mapping was made is marked, so that what comes after need not look (renewal.py).
Rule 5: an attempt that finds a free endpoint but no room in the map says table-full; when every attempt has found
        its endpoint taken, port-exhausted.

`udp sport set (EXPRESSION) << 16` is how nft 1.0 writes a 32-bit number into a port: it converts all four bytes to
network order and then takes the first two. recording.py refuses an nft that compiles it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from testbed.lab.nftables.dice import PROTOCOLS, window
from testbed.lab.nftables.engine import MADE, Engine, dispatch, write
from testbed.lab.nftables.keys import Fields, remote
from testbed.lab.nftables.table import Table, drop
from testbed.nat.ports import COUNTED
from testbed.spec.profile import Otherwise, Pooling, Refresh

_FAN = 4
"""Attempts are nested this wide, so that few rules make many."""
_LARGE_STEP = 32
"""From this step on there are fewer attempts: the kernel bounds how many jumps a table may unfold to (65536)."""

NOTE_WITHOUT_CHECKSUM = "udp checksum 0 meta priority set 0:1"
RESTORE_WITHOUT_CHECKSUM = "meta l4proto udp meta priority 0:1 udp checksum set 0"
"""A datagram may have no checksum (RFC 768). Writing a port into it makes one up that is wrong (nft_payload_csum_inet
takes 0 for a sum like any other), so it is taken out again when the packet is translated (renewal.py)."""


@dataclass(frozen=True, slots=True)
class Block:
    """The ports of one subscriber (RFC 7422)."""

    subscriber: IPv4Address
    external: IPv4Address
    first: int
    last: int


def blocks(engine: Engine) -> Iterator[Block]:
    """The blocks of all subscribers that get one: the n-th inside address has the n-th block."""
    first, last = engine.profile.ports.range
    size = engine.profile.ports.block
    if size is None:
        return
    subscribers = (address for prefix in engine.translation.inside for address in prefix)
    for external in engine.translation.external:
        for start in range(first, last - size + 2, size):
            if (subscriber := next(subscribers, None)) is None:
                return
            yield Block(subscriber, external, start, start + size - 1)


def add_allocation(table: Table, engine: Engine) -> None:
    """The chains of this hook."""
    made = list(blocks(engine))
    if made and (engine.profile.ports.preserve or engine.profile.ports.parity):  # else a candidate is within its block
        parts = ", ".join(f"{block.subscriber} . {block.first}-{block.last}" for block in made)
        table.declare(f"set blocks {{ type ipv4_addr . inet_service; flags interval; elements = {{ {parts} }}; }}")
    rules = [f"{engine.leaves('wan')} ip saddr {engine.inside} {dispatch('assign')}"]
    if engine.hairpins_translated:
        hairpinned = f"{engine.leaves('lan')} ct status dnat ip saddr {engine.inside}"
        rules.append(f"{hairpinned} {dispatch('assign')}")
    table.chain("assign", rules, hook="nat hook postrouting priority 90; policy accept")
    for protocol in PROTOCOLS:
        _assign(table, engine, Fields(protocol), made)
        _attempts(table, engine, Fields(protocol), bool(made))
        _draw(table, engine, protocol, made)


def _assign(table: Table, engine: Engine, fields: Fields, made: list[Block]) -> None:
    protocol, ports = fields.protocol, engine.profile.ports
    out, key = f"out_{protocol}", fields.first(engine.mapping)
    if engine.profile.refresh is Refresh.INBOUND:
        known = [f"{fields.known}{key} @{out} accept"]
    else:
        known = [
            f"{fields.known}{timer.when}{key} @{out} {write('update', out, key, fields.source, timer.lifetime)} accept"
            for timer in engine.timers(protocol)
        ]
    preserved = [] if not ports.preserve else _take(engine, fields, _within(engine, bool(made)))
    drawn = [f"jump attempts_{protocol}"] * _FAN
    table.chain(
        f"assign_{protocol}",
        [
            *known,
            *([NOTE_WITHOUT_CHECKSUM] if protocol == "udp" else []),
            *_choose_address(engine, made),
            *preserved,
            *drawn,
            drop("port-exhausted"),
        ],
    )


def _within(engine: Engine, has_blocks: bool) -> str:
    """Match a candidate that this host may have."""
    if has_blocks:
        return "ct original ip saddr . th sport @blocks "
    first, last = engine.profile.ports.range
    return f"th sport {first}-{last} "


def _take(engine: Engine, fields: Fields, within: str) -> list[str]:
    """Make a mapping to the endpoint that the packet shows now, if it is free."""
    protocol, host = fields.protocol, "ct original ip saddr . ct original proto-src"
    owned = fields.source + remote(engine.owner, "ct original ip daddr", "ct original proto-dst")
    make = write("add", f"out_{protocol}", fields.first(engine.mapping), fields.source)
    enter = write("add", f"back_{protocol}", owned, host)
    if engine.shares_endpoints:
        # the newest owner gets what comes in (RFC 4787 §4.2.1): its entries replace the older ones
        free = fields.known + within
        old = (
            write("delete", f"back_{protocol}", owned, host),
            write("delete", f"{engine.zone_in}_{protocol}", owned, "ct zone"),
        )
        enter = " ".join((*old, enter))
    else:
        free = f"{fields.known}{within}{owned} != @back_{protocol} "
    translated = f"meta mark set {MADE[protocol]:#x} snat ip to ip saddr : th sport"
    return [f"{free}{make} {enter} {translated}", f"{free}{drop('table-full')}"]


def _attempts(table: Table, engine: Engine, fields: Fields, has_blocks: bool) -> None:
    protocol, ports = fields.protocol, engine.profile.ports
    # a drawn candidate lies within the range, unless parity has moved it over the edge
    within = _within(engine, has_blocks) if ports.parity else ""
    table.chain(f"attempt_{protocol}", [f"jump draw_{protocol}", *_take(engine, fields, within)])
    inner = f"attempt_{protocol}"
    if abs(ports.step) < _LARGE_STEP:
        table.chain(f"some_attempts_{protocol}", [f"jump {inner}"] * _FAN)
        inner = f"some_attempts_{protocol}"
    table.chain(f"attempts_{protocol}", [f"jump {inner}"] * _FAN)


def _draw(table: Table, engine: Engine, protocol: str, made: list[Block]) -> None:
    """The chain that writes the next candidate into the packet's source port."""
    ports, word = engine.profile.ports, engine.words[f"{protocol}_ports"]
    step = abs(ports.step)
    is_sequential = ports.otherwise is Otherwise.SEQUENTIAL

    def number(first: int, size: int, seeded: bool) -> list[str]:
        if not is_sequential:
            return [_port(protocol, f"jhash meta mark mod {size} seed {word:#x} offset {first}")]
        if ports.step > 0:
            return [_port(protocol, f"numgen inc mod {size} offset {word if seeded else first}")]
        turned = word if seeded else 0xFFFF - (first + size - 1)
        return [
            _port(protocol, f"numgen inc mod {size} offset {turned}"),
            f"{protocol} sport set {protocol} sport ^ 0xffff",
        ]

    first, last = ports.range
    if made:
        for index, block in enumerate(made):
            table.chain(f"next_{protocol}_{index}", number(block.first, block.last - block.first + 1, False))
        jumps = ", ".join(f"{block.subscriber} : goto next_{protocol}_{index}" for index, block in enumerate(made))
        table.chain(f"next_{protocol}", [f"ct original ip saddr vmap {{ {jumps} }}", drop("port-exhausted")])
    else:
        table.chain(
            f"next_{protocol}", number(first, window(engine.profile) if is_sequential else last - first + 1, True)
        )
    head = (
        [f"jump {name}" for name in _times(table, f"next_{protocol}", step)]
        if is_sequential
        else [
            f"meta mark set numgen inc mod {COUNTED}",
            f"jump next_{protocol}",
        ]
    )
    parity = [
        f"meta l4proto {protocol} ct original proto-src & 1 == 0 {protocol} sport set {protocol} sport & 0xfffe return",
        f"{protocol} sport set {protocol} sport | 1",
    ]
    table.chain(f"draw_{protocol}", [*head, *(parity if ports.parity else [])])


def _port(protocol: str, number: str) -> str:
    return f"{protocol} sport set ({number}) << 16"


def _times(table: Table, chain: str, times: int) -> Iterator[str]:
    """The chains to jump to so that `chain` is run so many times; eight of one make the next."""
    level = 1
    while times:
        times, digit = divmod(times, 8)
        yield from [chain] * digit
        if times:
            wider = f"{chain}_{8**level}_times"
            table.chain(wider, [f"jump {chain}"] * 8)
            chain, level = wider, level + 1


def _choose_address(engine: Engine, made: list[Block]) -> list[str]:
    """Write the external address into the packet's source."""
    addresses = engine.translation.external
    if made:
        owners = ", ".join(f"{block.subscriber} : {block.external}" for block in made)
        has_block = ", ".join(str(block.subscriber) for block in made)
        return [
            f"ct original ip saddr != {{ {has_block} }} {drop('port-exhausted')}",
            f"ip saddr set ct original ip saddr map {{ {owners} }}"
            if len(addresses) > 1
            else f"ip saddr set {addresses[0]}",
        ]
    if len(addresses) == 1:
        return [f"ip saddr set {addresses[0]}"]
    if engine.profile.pooling is Pooling.PAIRED:
        return [f"ip saddr set {paired_address(engine)}"]
    return [f"meta mark set numgen inc mod {COUNTED}", f"ip saddr set {_hashed('meta mark', engine)}"]


def paired_address(engine: Engine) -> str:
    """The external address of an inside host, where there are several (RFC 4787 REQ-2)."""
    return _hashed("ct original ip saddr", engine)


def _hashed(what: str, engine: Engine) -> str:
    addresses = engine.translation.external
    choices = ", ".join(f"{index} : {address}" for index, address in enumerate(addresses))
    return f"jhash {what} mod {len(addresses)} seed {engine.words['pool']:#x} map {{ {choices} }}"
