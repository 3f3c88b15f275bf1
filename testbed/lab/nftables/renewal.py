"""What a packet that passes does to the entries that let it pass: the forward hook and the last postrouting hook.

Rule 1: on the way out the packet shows its external endpoint, and connection tracking remembers the inside one; on
        the way in it is the other way around. Entries that are missing are made, those that are there get their time.
Rule 2: a direction that does not refresh (RFC 4787 §4.3) makes entries and leaves the time of old ones alone.
Rule 3: a packet of a flow whose entries were renewed a moment ago passes them by (`hot`). It costs a mapping's lifetime
        that moment at most, and makes a busy flow a third faster. Only where the lifetime is long beside it; of TCP
        only segments of an established connection that do not change its state.
Rule 4: an answer may leave by a mapping that is not its own (`session_reply`): it keeps that mapping's entries, and
        makes none for itself.

Functions that take a lifetime are called once for each timer of a protocol (`add_timed`).
"""

from __future__ import annotations

from functools import partial

from testbed.lab.nftables.allocation import RESTORE_WITHOUT_CHECKSUM
from testbed.lab.nftables.dice import PROTOCOLS
from testbed.lab.nftables.engine import MADE, Engine, add_timed, dispatch, write
from testbed.lab.nftables.keys import SOURCE_PORT, TARGET_PORT, Fields, remote
from testbed.lab.nftables.table import Table, drop, duration
from testbed.spec.profile import Dependence, NatProfile

_ERROR_LIFE = "30s"
"""How long after a packet from outside its receiver may still answer with an ICMP error."""
HOT = 100_000_000
"""Nanoseconds for which a flow is hot. Not less: what has run out stays until the kernel collects it, once a second,
and more than 16 entries of one key make its table grow in vain (RHT_ELASTICITY)."""
_FLOWS = 131072
_LONG = 100 * HOT
"""A lifetime beside which that is nothing."""
_STRICT = Dependence.ADDRESS_AND_PORT_DEPENDENT
_ZONE = "ct zone"


def is_hot(engine: Engine, protocol: str) -> bool:
    """Whether flows of this protocol become hot."""
    return hot_time(engine.profile, protocol) > 0


def hot_time(profile: NatProfile, protocol: str) -> int:
    """Nanoseconds by which a lifetime may be too short."""
    lifetime = profile.udp_timeout if protocol == "udp" else profile.tcp_timeout.established
    return HOT if lifetime >= _LONG else 0


def declare_hot(table: Table, engine: Engine, protocol: str) -> None:
    """The set of hot flows."""
    if is_hot(engine, protocol):
        key = _flow(Fields(protocol), "in")
        form = f"{{ typeof {key}; flags dynamic,timeout; timeout {duration(HOT)}; size {_FLOWS}; }}"
        table.declare(f"set hot_{protocol} {form}")


def pass_hot(engine: Engine, way: str) -> list[str]:
    """Let packets of hot flows pass: `way` is "in", or "out" where they show their external endpoint."""
    still = {"udp": "meta l4proto udp", "tcp": "meta l4proto tcp tcp flags & (fin | syn | rst) == 0"}
    shown = f"ip saddr {engine.external} " if way == "out" else ""
    return [
        f"{shown}{still[protocol]} {_flow(Fields(protocol), way)} @hot_{protocol} accept"
        for protocol in PROTOCOLS
        if is_hot(engine, protocol)
    ]


def _flow(fields: Fields, way: str) -> str:
    """A flow in one direction. The zone, because a remote may write to one host through two of its mappings."""
    return f"{_ZONE} . " + (fields.inbound(_STRICT) if way == "in" else fields.outbound(_STRICT))


def _heated(engine: Engine, fields: Fields, way: str, life: str) -> list[str]:
    """Note that the entries of this flow are being renewed."""
    protocol = fields.protocol
    if not is_hot(engine, protocol) or life != engine.timers(protocol)[0].lifetime:
        return []
    heat = write("update", f"hot_{protocol}", _flow(fields, way))
    return [f"ct status confirmed {heat}"]


def add_renewal(table: Table, engine: Engine) -> None:
    """The chains that a packet from outside visits in the forward hook, `renew_udp` and `renew_tcp`."""
    for protocol in PROTOCOLS:
        fields = Fields(protocol)
        noted = _noted(engine, fields)
        if engine.renews_inward:
            add_timed(table, engine, f"renew_{protocol}", protocol, partial(_renewed, engine, fields), first=noted)
        else:
            table.chain(f"renew_{protocol}", noted)


def add_entering(table: Table, engine: Engine) -> None:
    """The last hook on the way out, for the outside and for hairpinned packets."""
    wan, lan = engine.leaves("wan"), engine.leaves("lan")
    rules = [
        *(f"meta mark {MADE[protocol]:#x} {wan} goto made_{protocol}" for protocol in PROTOCOLS),
        *pass_hot(engine, "out"),
        RESTORE_WITHOUT_CHECKSUM,
        f"{wan} ip saddr {engine.inside} {drop('not-translated')}",
        # what the box itself sends from there (a reset, say) is nobody's mapping
        f"{wan} ip saddr {engine.external} ct status snat,dnat {dispatch('enter')}",
    ]
    turned = {"original": "hairpin", "reply": "hairpin_answer"} if engine.has_hairpin_zone else {"original": "hairpin"}
    if engine.hairpins_translated:
        hairpinned = f"{lan} ip saddr {engine.external} ct status dnat"
        rules += [f"{hairpinned} ct direction {direction} {dispatch(name)}" for direction, name in turned.items()]
    table.chain("enter", rules, hook="filter hook postrouting priority 110; policy accept")
    for protocol in PROTOCOLS:
        fields = Fields(protocol)
        table.chain(f"made_{protocol}", _made(engine, fields))
        add_timed(table, engine, f"enter_{protocol}", protocol, partial(_entered, engine, fields))
        if engine.hairpins_translated:
            for direction, name in turned.items():
                add_timed(
                    table, engine, f"{name}_{protocol}", protocol, partial(_hairpinned, engine, fields, direction)
                )


# ---------------------------------------------------------------------------- inward


def _noted(engine: Engine, fields: Fields) -> list[str]:
    """Where an answer to this packet will find its zone: an ICMP error of the host, or a packet by `session_reply`."""
    inner = f"ip daddr . {TARGET_PORT} . ip saddr . {SOURCE_PORT}"
    rules = [write("update", f"zone_inner_{fields.protocol}", inner, _ZONE, f" timeout {_ERROR_LIFE}")]
    if engine.answers_by_session:
        session = write("update", f"zone_session_{fields.protocol}", fields.inbound(_STRICT), _ZONE)
        rules.append(f"ct direction original {session}")
    return rules


def _renewed(engine: Engine, fields: Fields, life: str) -> list[str]:
    """Keep the mapping alive; the packet's destination shows the inside endpoint already."""
    protocol = fields.protocol
    rules = _heated(engine, fields, "in", life)
    for direction in ("reply", "original"):
        external = f"ct {direction} ip daddr . ct {direction} proto-dst"
        owned = external + remote(engine.owner, "ip saddr", "th sport")
        permitted = external + remote(engine.admission, "ip saddr", "th sport")
        steps = [
            write("update", f"back_{protocol}", owned, fields.destination, life),
            write("update", f"permit_{protocol}", permitted, _ZONE, life),
        ]
        if engine.zones_by_endpoint:
            steps.append(write("update", f"zone_in_{protocol}", owned, _ZONE, life))
        rules.append(f"{fields.known}ct direction {direction} {' '.join(steps)}")
    # A remote that the mapping was not made for keeps its reverse alive, but has no entry of its own in `out`.
    own = "" if engine.permission_names_mapping else "ct direction reply "
    key = fields.inbound(engine.mapping)
    return rules + [
        f"{own}{key} @{name}_{protocol} {write('update', f'{name}_{protocol}', key, data, life)}"
        for name, data in (("out", fields.destination), ("zone_out", _ZONE))
    ]


# ---------------------------------------------------------------------------- outward


def _entered(engine: Engine, fields: Fields, life: str) -> list[str]:
    """Enter or keep all that says where the packet's source endpoint leads."""
    protocol, verb = fields.protocol, engine.renew
    owned = fields.source + remote(engine.owner, "ip daddr", "th dport")
    rules = [*_heated(engine, fields, "out", life), _shown(engine, fields, life)]
    for direction in ("original", "reply"):
        back = write(verb, f"back_{protocol}", owned, f"ct {direction} ip saddr . ct {direction} proto-src", life)
        key = fields.first(engine.mapping, direction)
        zone = write(verb, f"zone_out_{protocol}", key, _ZONE, life)
        known = f"{key} @zone_out_{protocol} " if direction == "reply" else ""  # Rule 4
        rules += _kept(engine, fields, direction, life)  # before the zone: a zone that lives has a mapping
        rules.append(f"{fields.known}ct direction {direction} {back} {known}{zone}")
    if engine.answers_by_session:
        key = fields.first(_STRICT, "reply")
        kept = write(verb, f"zone_session_{protocol}", key, _ZONE, life)
        rules.append(f"{fields.known}ct direction reply {key} @zone_session_{protocol} {kept}")
    return rules


def _made(engine: Engine, fields: Fields) -> list[str]:
    """Enter all that belongs to a mapping that this packet has made; `out` and `back` have it."""
    zone = write(engine.renew, f"zone_out_{fields.protocol}", fields.first(engine.mapping), _ZONE)
    restore = [RESTORE_WITHOUT_CHECKSUM] if fields.protocol == "udp" else []
    return [*restore, f"{fields.known}{_shown(engine, fields, '')} {zone}"]


def _shown(engine: Engine, fields: Fields, life: str) -> str:
    """Enter or keep what is found by the external endpoint, which the packet shows."""
    verb, protocol = engine.renew, fields.protocol
    steps = [
        write(verb, f"permit_{protocol}", fields.outbound(engine.admission), _ZONE, life),
        write(verb, f"zone_error_{protocol}", f"ip saddr . {SOURCE_PORT}", _ZONE, life),
    ]
    if engine.zones_by_endpoint:
        owned = fields.source + remote(engine.owner, "ip daddr", "th dport")
        steps.append(write(verb, f"zone_in_{protocol}", owned, _ZONE, life))
    return " ".join(steps)


def _kept(engine: Engine, fields: Fields, direction: str, life: str) -> list[str]:
    """Keep the mapping itself; a flow's first packet has done so before (allocation.py)."""
    if engine.renew == "add":
        return []
    out, key = f"out_{fields.protocol}", fields.first(engine.mapping, direction)
    known = f"{key} @{out} " if direction == "reply" else ""  # Rule 4
    keep = write("update", out, key, fields.source, life)
    return [f"{fields.known}ct status confirmed ct direction {direction} {known}{keep}"]


def _hairpinned(engine: Engine, fields: Fields, direction: str, life: str) -> list[str]:
    """A packet from one inside host to another: outbound for the first mapping, inbound for the second."""
    protocol, mine, verb = fields.protocol, fields.known, engine.renew
    target = f"ct {direction} ip daddr . ct {direction} proto-dst"
    target_parts = remote(engine.filtering, f"ct {direction} ip daddr", f"ct {direction} proto-dst")
    source_parts = remote(engine.filtering, "ip saddr", "th sport")
    host = f"ct {direction} ip saddr . ct {direction} proto-src"
    rules = [mine + write(verb, f"back_{protocol}", fields.source, host, life)]
    rules += _kept(engine, fields, direction, life)
    if engine.filters:
        rules.append(mine + write(verb, f"permit_{protocol}", fields.source + target_parts, _ZONE, life))
    if not engine.has_hairpin_zone:
        if not engine.filters:
            rules.append(mine + write(verb, f"permit_{protocol}", fields.source, _ZONE, life))
        rules.append(mine + write(verb, f"zone_out_{protocol}", fields.first(engine.mapping), _ZONE, life))
    if engine.filters:
        rules.append(f"{mine}{target}{source_parts} != @permit_{protocol} {drop('no-permission')}")
    if engine.renews_inward:
        rules.append(mine + write("update", f"back_{protocol}", target, fields.destination, life))
        if engine.permission_names_mapping:
            key = fields.inbound(engine.mapping)
            rules.append(f"{key} @out_{protocol} {write('update', f'out_{protocol}', key, fields.destination, life)}")
    return rules
