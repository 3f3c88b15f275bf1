"""A NAT or firewall of rules that is told, while it runs, to restart, to forget, or to have another address.

Rule 1: the rules' counters of dropped packets outlive all of it: a table is never removed while a trial runs.
Rule 2: no packet meets half of it. While sets are being emptied, a packet may find an entry by one expression and make
        it anew by the next, which the kernel allows until the transaction is committed: a mapping from an endpoint to
        itself, for good. So a gate is shut before, a chain that drops what comes in, and opened by the same transaction
        as its last step: a packet that comes in between, some 0.2 ms, of a restart 2 ms, is lost.
Rule 3: flush empties every set and map, and connection tracking. Rules are left alone, and with them the counters from
        which ports are drawn (`numgen inc` lives in a rule): the streams go on.
Rule 4: restart also makes every rule anew: the streams begin anew.
Rule 5: another address replaces those rules, in their places, that name the old one. No rule that draws a port is among
        them (allocation.py keeps both apart), so the streams go on; were there one, the change would be refused.
        An anonymous set belongs to one rule: those of a rule that is replaced are made again, under other names.
Rule 6: one socket serves all of it, and is left to the end: to close one after something was removed waits for a grace
        period, some 8 ms (nft_rcv_nl_event), in which an end of the trial would stand still.

Numbers: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address

from testbed.errors import BrokenError
from testbed.lab.nftables import upkeep
from testbed.lab.nftables.netfilter import (
    GENERIC,
    NESTED,
    Netfilter,
    Request,
    attribute,
    attributes,
    batch,
    messages,
    text,
)
from testbed.lab.nftables.prepare import Prepared
from testbed.lab.nftables.recording import canonical
from testbed.lab.nftables.table import NAME

_NFTABLES = 10
_NEW_RULE, _GET_RULE, _DELETE_RULE = 6, 7, 8
_NEW_SET, _NEW_ELEMENT, _DELETE_ELEMENT = 9, 12, 14
_CREATE, _APPEND, _REPLACE = 0x400, 0x800, 0x100
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE = 1, 2, 3
_SET_TABLE, _SET_NAME, _SET_FLAGS = 1, 2, 3
_ANONYMOUS, _EVALUATED = 0x1, 0x20
_COUNTING = b"numgen\0"
_NEW_CHAIN, _DELETE_CHAIN = 3, 5
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY, _PREROUTING, _DROP = 1, 2, 0, 0
_BEFORE_ALL = -350
_GATE = attribute(_CHAIN_TABLE, text(NAME)) + attribute(_CHAIN_NAME, text("gate"))
_SHUT = Request(
    _NEW_CHAIN,
    _CREATE,
    _GATE
    + attribute(
        _CHAIN_HOOK | NESTED,
        attribute(_HOOK_NUMBER, struct.pack(">I", _PREROUTING))
        + attribute(_HOOK_PRIORITY, struct.pack(">i", _BEFORE_ALL)),
    )
    + attribute(_CHAIN_POLICY, struct.pack(">I", _DROP))
    + attribute(_CHAIN_TYPE, text("filter")),
)
_OPEN = Request(_DELETE_CHAIN, 0, _GATE)


class RunningRules:
    """The rules of one box. Its methods are called with the thread in the box's namespace; `load` first."""

    def __init__(self, prepared: Prepared, later: Sequence[Prepared], seed: int) -> None:
        """`later`: the same NAT with each of the addresses that it may get."""
        self._prepared, self._later, self._seed = prepared, tuple(later), seed
        self._changed = 0
        self._opened: Netfilter | None = None

    def load(self) -> None:
        """Make them, active at once. Raises BrokenError, MachineError."""
        self._prepared.load(self._seed)

    def restart(self) -> None:
        """Lose all state and begin with the first port again (nat.Nat.restart)."""
        requests = list(_requests(self._prepared.transaction(self._seed)))
        again = [*_sets(requests, _anonymous(requests)), *(r for r in requests if r.command == _NEW_RULE)]
        old = Request(_DELETE_RULE, 0, attribute(_RULE_TABLE, text(NAME)))
        self._carry_out([old, *_emptied(requests), *again])

    def flush(self) -> None:
        """Lose all mappings and permissions (nat.Nat.flush)."""
        self._carry_out(list(_emptied(_requests(self._prepared.transaction(self._seed)))))

    def change_address(self, external: Sequence[IPv4Address]) -> None:
        """Map to this address from now on; mappings to the old one are lost (nat.Nat.change_address)."""
        after = next((p for p in self._later if p.translation.external == tuple(external)), None)
        if after is None:
            raise BrokenError(f"no rules were prepared for the address {', '.join(map(str, external))}")
        requests = list(_requests(after.transaction(self._seed)))
        running = [dict(attributes(body)) for body in self._netfilter().dump(_GET_RULE)]
        replaced = list(_replaced(list(_requests(self._prepared.transaction(self._seed))), requests, running))
        prefix = self._next_prefix()
        anonymous = [name for name in _anonymous(requests) if any(name in rule.body for rule in replaced)]
        made = [*_sets(requests, anonymous), *replaced]
        for name in anonymous:
            made = [r._replace(body=r.body.replace(name, prefix + name[len(prefix) :])) for r in made]
        self._prepared = after
        self._carry_out([*made, *_emptied(requests)])

    def _next_prefix(self) -> bytes:
        """Two letters that no set of these rules begins with."""
        self._changed += 1
        first, second = divmod(self._changed, 26)
        return bytes((ord("a") + first, ord("a") + second))

    def _carry_out(self, requests: Sequence[Request]) -> None:
        netfilter = self._netfilter()
        if not requests:  # the kernel's own masquerade: connection tracking is all of its state
            upkeep.forget_connections(netfilter)
            return
        netfilter.send(batch([_SHUT]))
        upkeep.forget_connections(netfilter)
        netfilter.send(batch([*requests, _OPEN]))

    def _netfilter(self) -> Netfilter:
        if self._opened is None:
            self._opened = Netfilter()
        return self._opened

    def close(self) -> None:
        """Close what was opened; twice does nothing."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _requests(data: bytes | bytearray) -> Iterator[Request]:
    """The requests of a transaction, without the flags that only say that nothing may be there yet."""
    for kind, _, body in messages(bytes(data)):
        if kind >> 8 == _NFTABLES:
            command = kind & 0xFF
            yield Request(command, _CREATE | (_APPEND if command == _NEW_RULE else 0), body[GENERIC:])


def _emptied(requests: Iterator[Request] | Sequence[Request]) -> Iterator[Request]:
    """What empties every set and map that packets fill."""
    for request in requests:
        if request.command == _NEW_SET and _set_flags(request) & _EVALUATED:
            where = attribute(_SET_TABLE, text(NAME)) + attribute(_SET_NAME, _set_name(request))
            yield Request(_DELETE_ELEMENT, 0, where)


def _replaced(
    before: Sequence[Request], after: Sequence[Request], running: Sequence[Mapping[int, bytes]]
) -> Iterator[Request]:
    """What puts each rule of `after` that differs into the place of the one in the kernel. `running`: those there."""
    old, new = ([r for r in requests if r.command == _NEW_RULE] for requests in (before, after))
    if not len(old) == len(new) == len(running) or _others(before) != _others(after):
        raise BrokenError("the rules for the new address are not those for the old one")
    for was, request, found in zip(old, new, running, strict=True):
        parts = dict(attributes(request.body))
        if found[_RULE_CHAIN] != parts[_RULE_CHAIN]:
            raise BrokenError(f"the kernel lists the rules of {found[_RULE_CHAIN]!r} in another order")
        if was.body == request.body:
            continue
        if _COUNTING in request.body:
            raise BrokenError("a rule that names the address draws ports too: its stream would begin anew")
        yield Request(_NEW_RULE, _REPLACE, request.body + attribute(_RULE_HANDLE, found[_RULE_HANDLE]))


def _anonymous(requests: Sequence[Request]) -> list[bytes]:
    """The names of anonymous sets, each with its zero byte, so that none is the beginning of another."""
    return [_set_name(r) for r in requests if r.command == _NEW_SET and _set_flags(r) & _ANONYMOUS]


def _sets(requests: Sequence[Request], names: Sequence[bytes]) -> list[Request]:
    """What makes the sets of these names, and fills them."""
    return [r for r in requests if r.command in (_NEW_SET, _NEW_ELEMENT) and _set_name(r) in names]


def _others(requests: Sequence[Request]) -> list[Request]:
    return canonical(request for request in requests if request.command != _NEW_RULE)


def _set_name(request: Request) -> bytes:
    return next(part.value for part in attributes(request.body) if part.kind == _SET_NAME)


def _set_flags(request: Request) -> int:
    found = next((part.value for part in attributes(request.body) if part.kind == _SET_FLAGS), bytes(4))
    return int(struct.unpack(">I", found)[0])
