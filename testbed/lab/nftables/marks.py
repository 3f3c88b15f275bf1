"""Marks: numbers that occur nowhere else, compiled into rules so that their places in the bytes can be found.

Rule 1: what differs between two NATs of one profile, and between two trials, is compiled as marks: the words of
        dice.py, the external addresses, the inside prefix. One recording then serves all of them.
Rule 2: a mark must be found in the bytes as often as it stands in the text, or the recording is refused.
Rule 3: where a value is not compiled to its own bytes (several prefixes become a set of intervals, blocks become
        lists of addresses), it stays itself, and the recording serves one NAT.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from testbed.lab.nftables.dice import WORDS, Words
from testbed.plan.network import Translation

WORD_MARKS: Words = {name: 0x5EED_0001 + number * 0x0101 for number, name in enumerate(WORDS)}
_EXTERNAL = IPv4Address("233.252.177.16")
_INSIDE = IPv4Address("238.177.201.0")
"""Multicast: nobody's addresses, so no plan has them."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark: its bytes, and how it may be written in a text."""

    data: bytes
    written: tuple[str, ...]

    def count(self, text: str) -> int:
        """How often it stands in a text."""
        return sum(len(re.findall(rf"(?<![\w.]){re.escape(one)}(?![\w.])", text)) for one in self.written)


def word_marks() -> Mapping[str, Mark]:
    """The marks of the words."""
    return {name: Mark(word(value), (f"{value:#x}", str(value))) for name, value in WORD_MARKS.items()}


def word(value: int) -> bytes:
    """A word as netlink has it."""
    return struct.pack(">I", value)


def marked(translation: Translation) -> tuple[Translation, Mapping[str, Mark], Mapping[str, bytes]]:
    """A translation with marks for addresses; the marks by name; and what belongs in their places."""
    inside = translation.inside[0]
    is_plain = len(translation.inside) == 1 and inside.prefixlen in (8, 16, 24)
    if not is_plain or translation.profile.ports.block is not None:
        return translation, {}, {}
    network = IPv4Network((int(_INSIDE) >> 32 - inside.prefixlen << 32 - inside.prefixlen, inside.prefixlen))
    external = tuple(_EXTERNAL + number for number in range(len(translation.external)))
    marks = {"inside": Mark(_prefix(network), (str(network),))}
    values = {"inside": _prefix(inside)}
    for number, (mark, address) in enumerate(zip(external, translation.external, strict=True)):
        marks[f"external.{number}"] = Mark(mark.packed, (str(mark),))
        values[f"external.{number}"] = address.packed
    return replace(translation, external=external, inside=(network,)), marks, values


def _prefix(network: IPv4Network) -> bytes:
    """What a comparison with a prefix of whole bytes has in it: so few bytes of it, as one attribute."""
    octets = network.prefixlen // 8
    return struct.pack("=HH", 4 + octets, 1) + network.network_address.packed[:octets]
