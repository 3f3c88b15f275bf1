"""What a packet that passes does to the entries that let it pass: the forward hook and the last postrouting hook.

Rule 1: on the way out the packet shows its external endpoint, and connection tracking remembers the inside one; on
        the way in it is the other way around. Entries that are missing are made, those that are there get their time.
Rule 2: a direction that does not refresh (RFC 4787 §4.3) makes entries and leaves the time of old ones alone.
Rule 3: an answer may leave by a mapping that is not its own (`session_reply`): it keeps that mapping's entries, and
        makes none for itself.

Functions that take a lifetime are called once for each timer of a protocol (`add_timed`).
"""

from __future__ import annotations

from functools import partial

from testbed.lab.nftables.allocation import RESTORE_WITHOUT_CHECKSUM
from testbed.lab.nftables.dice import PROTOCOLS
from testbed.lab.nftables.engine import Engine, add_timed, dispatch, write
from testbed.lab.nftables.keys import SOURCE_PORT, TARGET_PORT, Fields, remote
from testbed.lab.nftables.table import Table, drop
from testbed.spec.profile import Dependence

_ERROR_LIFE = "30s"
"""How long after a packet from outside its receiver may still answer with an ICMP error."""
_STRICT = Dependence.ADDRESS_AND_PORT_DEPENDENT
_ZONE = "ct zone"


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
    rules = []
    for direction in ("reply", "original"):
        external = f"ct {direction} ip daddr . ct {direction} proto-dst"
        owned = external + remote(engine.owner, "ip saddr", "th sport")
        steps = [
            write("update", f"back_{protocol}", owned, fields.destination, life),
            write("update", f"zone_in_{protocol}", owned, _ZONE, life),
        ]
        if engine.filters:
            permitted = external + remote(engine.filtering, "ip saddr", "th sport")
            steps.append(write("update", f"permit_{protocol}", permitted, "", life))
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
    steps = [
        write(verb, f"zone_in_{protocol}", owned, _ZONE, life),
        write(verb, f"zone_error_{protocol}", f"ip saddr . {SOURCE_PORT}", _ZONE, life),
    ]
    if engine.filters:
        steps.append(write(verb, f"permit_{protocol}", fields.outbound(engine.filtering), "", life))
    rules = [" ".join(steps)]
    for direction in ("original", "reply"):
        back = write(verb, f"back_{protocol}", owned, f"ct {direction} ip saddr . ct {direction} proto-src", life)
        key = fields.first(engine.mapping, direction)
        zone = write(verb, f"zone_out_{protocol}", key, _ZONE, life)
        known = f"{key} @zone_out_{protocol} " if direction == "reply" else ""  # Rule 3
        rules.append(f"{fields.known}ct direction {direction} {back} {known}{zone}")
    if engine.answers_by_session:
        key = fields.first(_STRICT, "reply")
        kept = write(verb, f"zone_session_{protocol}", key, _ZONE, life)
        rules.append(f"{fields.known}ct direction reply {key} @zone_session_{protocol} {kept}")
    return rules


def _hairpinned(engine: Engine, fields: Fields, direction: str, life: str) -> list[str]:
    """A packet from one inside host to another: outbound for the first mapping, inbound for the second."""
    protocol, mine, verb = fields.protocol, fields.known, engine.renew
    target = f"ct {direction} ip daddr . ct {direction} proto-dst"
    target_parts = remote(engine.filtering, f"ct {direction} ip daddr", f"ct {direction} proto-dst")
    source_parts = remote(engine.filtering, "ip saddr", "th sport")
    host = f"ct {direction} ip saddr . ct {direction} proto-src"
    rules = [mine + write(verb, f"back_{protocol}", fields.source, host, life)]
    if engine.filters:
        rules.append(mine + write(verb, f"permit_{protocol}", fields.source + target_parts, "", life))
    if not engine.has_hairpin_zone:
        rules.append(mine + write(verb, f"zone_in_{protocol}", fields.source, _ZONE, life))
        rules.append(mine + write(verb, f"zone_out_{protocol}", fields.first(engine.mapping), _ZONE, life))
    if engine.filters:
        rules.append(f"{mine}{target}{source_parts} != @permit_{protocol} {drop('no-permission')}")
    if engine.renews_inward:
        rules.append(mine + write("update", f"back_{protocol}", target, fields.destination, life))
        if engine.permission_names_mapping:
            key = fields.inbound(engine.mapping)
            rules.append(f"{key} @out_{protocol} {write('update', f'out_{protocol}', key, fields.destination, life)}")
    return rules
