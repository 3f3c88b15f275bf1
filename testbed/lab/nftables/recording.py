"""Rules as bytes that can be sent again: what libnftables made of a text, read back from the kernel.

Rule 1: a recording is made once and replayed often. Compiling a text costs milliseconds, sending the bytes a part of
        one; and a recording is what the kernel has, not what we think that nft says.
Rule 2: what the kernel numbers by itself is left out (handles, positions, use counts), and sets come before the
        rules that bind them: an anonymous set takes no elements once a rule has it (nf_tables_newsetelem).
Rule 3: what differs between trials and between NATs of one profile was compiled as marks (marks.py). Where they are
        found in the bytes, a replay writes what belongs there.
Rule 4: a recording is replayed into an empty namespace and read back before it is used; both must be equal.

Attribute numbers: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from testbed.errors import BrokenError, MachineError
from testbed.lab.nftables.marks import Mark
from testbed.lab.nftables.netfilter import (
    NESTED,
    Attribute,
    Netfilter,
    Request,
    attribute,
    attributes,
    batch,
)

_NEW_TABLE, _GET_TABLE = 0, 1
_NEW_CHAIN, _GET_CHAIN = 3, 4
_NEW_RULE, _GET_RULE = 6, 7
_NEW_SET, _GET_SET = 9, 10
_NEW_ELEMENT, _GET_ELEMENT = 12, 13
_NEW_OBJECT, _GET_OBJECT = 18, 19
_CREATE, _APPEND = 0x400, 0x800
_SET_FLAGS, _SET_EVAL = 3, 0x20
_SET_ID = 10
_ELEMENTS = 3
_EXPRESSIONS = 4
_PLAN: tuple[tuple[int, int, frozenset[int]], ...] = (
    # how it is read, how it is made, and which attributes are what was asked for
    (_GET_TABLE, _NEW_TABLE, frozenset({1, 2, 6})),  # name, flags, user data
    (_GET_OBJECT, _NEW_OBJECT, frozenset({1, 2, 3, 4, 8})),  # table, name, type, data, user data
    (_GET_CHAIN, _NEW_CHAIN, frozenset({1, 3, 4, 5, 7, 10, 12})),  # table, name, hook, policy, type, flags, user data
    # table, name, flags, key, data, policy, description, timeout, collection interval, user data, object, expressions
    (_GET_SET, _NEW_SET, frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18})),
)
_RULE_PARTS = frozenset({1, 2, _EXPRESSIONS, 7})  # table, chain, expressions, user data
_NESTED_PARTS = {_NEW_OBJECT: {4}, _NEW_CHAIN: {4}, _NEW_SET: {9, 17, 18}, _NEW_RULE: {_EXPRESSIONS}}


@dataclass(frozen=True, slots=True)
class Recording:
    """A transaction that makes a table, and where in its bytes each mark stands."""

    data: bytes
    places: Mapping[str, tuple[int, ...]]

    def bytes_with(self, values: Mapping[str, bytes]) -> bytearray:
        """The transaction with values in the places of their marks."""
        data = bytearray(self.data)
        for name, places in self.places.items():
            value = values[name]
            for place in places:
                data[place : place + len(value)] = value
        return data

    def filled(self, values: Mapping[str, bytes]) -> Recording:
        """A recording in which the marks of these names are values for good. Those that it has not need none."""
        chosen = Recording(self.data, {name: places for name, places in self.places.items() if name in values})
        left = {name: places for name, places in self.places.items() if name not in values}
        return Recording(bytes(chosen.bytes_with(values)), left)


def record(requests: list[Request], text: str, marks: Mapping[str, Mark]) -> Recording:
    """What `text` with its marks became, as read back from the kernel. Raises BrokenError, MachineError."""
    _check_port_arithmetic(requests)
    data = batch(requests)
    places = {}
    for name, mark in marks.items():
        expected, found = mark.count(text), tuple(_occurrences(data, mark.data))
        if len(found) != expected:
            raise BrokenError(f"the mark of {name} stands {expected} times in the rules, {len(found)} in their bytes")
        if found:  # the same rules serve profiles that have more marks, which no rule of theirs names
            places[name] = found
    return Recording(data, places)


def read_back(netfilter: Netfilter) -> Iterator[Request]:
    """The requests that would make all that is in this namespace's nf_tables, family IPv4."""
    elements: list[Request] = []
    for get, new, wanted in _PLAN:
        for number, body in enumerate(list(netfilter.dump(get)), 1):
            parts = list(attributes(body))
            made = _encode(new, (part for part in parts if part.kind in wanted))
            if new == _NEW_SET:
                made += attribute(_SET_ID, struct.pack(">I", number))
                elements += _read_elements(netfilter, parts) if not _is_dynamic(parts) else ()
            yield Request(new, _CREATE, made)
    yield from elements
    for body in netfilter.dump(_GET_RULE):
        kept = (part for part in attributes(body) if part.kind in _RULE_PARTS)
        yield Request(_NEW_RULE, _CREATE | _APPEND, _encode(_NEW_RULE, kept))


def canonical(requests: Iterable[Request]) -> list[Request]:
    """The same with the elements of each set sorted: the kernel lists them in the order of a random hash."""
    found: list[Request] = []
    elements: dict[bytes, list[bytes]] = {}
    for request in requests:
        if request.command != _NEW_ELEMENT:
            found.append(request)
            continue
        parts = list(attributes(request.body))
        name = b"".join(attribute(*part) for part in parts if part.kind != _ELEMENTS)
        listed = (part.value for part in parts if part.kind == _ELEMENTS)
        elements.setdefault(name, []).extend(one.value for value in listed for one in attributes(value))
    found += [Request(_NEW_ELEMENT, 0, name + b"".join(sorted(each))) for name, each in elements.items()]
    return found


def _is_dynamic(parts: list[Attribute]) -> bool:
    """Whether packets fill a set (NFT_SET_EVAL): where none has passed, it is empty."""
    return any(part.kind == _SET_FLAGS and struct.unpack(">I", part.value)[0] & _SET_EVAL for part in parts)


def _read_elements(netfilter: Netfilter, parts: list[Attribute]) -> Iterator[Request]:
    where = b"".join(attribute(part.kind, part.value) for part in parts if part.kind in (1, 2))  # table, set
    for body in netfilter.dump(_GET_ELEMENT, where):
        listed = [part for part in attributes(body) if part.kind == _ELEMENTS]
        if any(part.value for part in listed):
            made = where + b"".join(attribute(_ELEMENTS | NESTED, part.value) for part in listed)
            yield Request(_NEW_ELEMENT, _CREATE, made)


def _encode(command: int, parts: Iterator[Attribute]) -> bytes:
    nested = _NESTED_PARTS.get(command, set())
    return b"".join(attribute(part.kind | (NESTED if part.kind in nested else 0), part.value) for part in parts)


def _occurrences(data: bytes, word: bytes) -> Iterator[int]:
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


def _check_port_arithmetic(requests: list[Request]) -> None:
    """Every computed port must be shifted and then turned to network order, four bytes of it (allocation.py)."""
    for request in requests:
        if request.command != _NEW_RULE or not (b"numgen\0" in request.body or b"hash\0" in request.body):
            continue
        expressions = next((a.value for a in attributes(request.body) if a.kind == _EXPRESSIONS), b"")
        steps = [dict(attributes(one.value)) for one in attributes(expressions)]
        names = [step[1].rstrip(b"\0").decode() for step in steps]
        if names[-1:] != ["payload"] or "lookup" in names or not {"numgen", "hash"} & set(names):
            continue
        turned = dict(attributes(steps[-2].get(2, b"")))
        # NFTA_BYTEORDER_OP 3: 1 is hton; NFTA_BYTEORDER_LEN 4, NFTA_BYTEORDER_SIZE 5
        words = [struct.unpack(">I", turned.get(kind, bytes(4)))[0] for kind in (3, 4, 5)]
        if names[-3:] != ["bitwise", "byteorder", "payload"] or words != [1, 4, 4]:
            raise MachineError(
                f"this libnftables compiles arithmetic on ports in another way ({', '.join(names)}) than version 1.0.6",
                mend="sudo apt-get install nftables",
            )
