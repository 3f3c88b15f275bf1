"""The explicit-state engine: every behaviour of RFC 4787, its state in nftables maps.

Rule 1: all state is in maps whose entries time out, one of each for UDP and for TCP:
          out      inside endpoint [and remote]        -> external endpoint    the mapping
          back     external endpoint                   -> inside endpoint      its reverse; what is free is not in it
          permit   external endpoint [and remote]      -> connection tracking zone   who may send in
          zone_out, zone_session, zone_in              -> the same, for a packet from inside, for answers by session,
                                                          and where an endpoint alone must lead to it (engine.py)
          zone_error, zone_inner                       -> the same, for ICMP errors from outside and from inside
          hot    a flow in one direction               its entries have just been renewed
Rule 2: connection tracking only rewrites. A mapping has a zone of its own there: without that, an inside endpoint and
        a remote could have one translation only, and an answer would leave by whatever mapping came first.
Rule 3: what the filter refuses is dropped before connection tracking sees it, and leaves no trace.
Rule 4: an entry is made and renewed by the packet that passes, in the order of the hooks:

  prerouting  -300  sort       the filter for what comes in; the zone for both directions
  prerouting  -100  inward     of a flow's first packet: its timeouts, destination translation through `back`
  forward        0  through    renewal by what comes in (renewal.py)
  postrouting   90  assign     of a flow's first packet: the mapping is looked up or made (allocation.py)
  postrouting  100  outward    of a flow's first packet: source translation through `out`
  postrouting  110  enter      the packet shows its external endpoint: the other entries are made and renewed

What is not pretty: `ct zone` cannot be read before connection tracking, so a new mapping is given the next zone there
and entered after; and a map's size must be a multiple of 65536, or small: the kernel keeps 16 bits of it as a hint
and makes a table of that size at once (rhashtable's nelem_hint; 65535 costs 2.6 ms, 131072 nothing).
"""

from __future__ import annotations

from testbed.lab.nftables.allocation import add_allocation, paired_address
from testbed.lab.nftables.dice import PROTOCOLS, Words
from testbed.lab.nftables.engine import HAIRPIN_ZONE, Engine
from testbed.lab.nftables.keys import ENDPOINT, REMOTE_TYPES, Fields
from testbed.lab.nftables.native import unsolicited
from testbed.lab.nftables.renewal import add_entering, add_renewal, declare_hot, pass_hot
from testbed.lab.nftables.table import ICMP_ERRORS, Table, drop
from testbed.lab.nftables.timers import declare_timeouts, lifetime, use_timeouts
from testbed.plan.network import Translation
from testbed.spec.profile import Dependence

_MANY = 131072
_PROTOCOL_NUMBERS = {"udp": 17, "tcp": 6}
_ZONES = HAIRPIN_ZONE - 1
# Fields of the packet that an ICMP error carries; its IP header is taken to have no options.
_INNER_PROTOCOL, _INNER_SOURCE_PORT, _INNER_TARGET_PORT = "@th,136,8", "@th,224,16", "@th,240,16"


def compile_explicit(translation: Translation, words: Words) -> str:
    """The rules of a NAT, its chance given by `words` (dice.py)."""
    engine = Engine(translation, words)
    table = Table()
    declare_timeouts(table, engine.profile)
    for protocol in PROTOCOLS:
        _declare_maps(table, engine, Fields(protocol))
    _add_sorting(table, engine)
    _add_inward(table, engine)
    add_renewal(table, engine)
    add_allocation(table, engine)
    _add_outward(table, engine)
    add_entering(table, engine)
    return table.text()


def mappings_limit(engine: Engine) -> int:
    """Entries of `out`, which UDP and TCP have one each of.

    Where ports run out before the limit is met, any size will do, and a cheap one is taken. What has run out takes
    room until the kernel collects it, once a second.
    """
    first, last = engine.profile.ports.range
    ports = (last - first + 1) * len(engine.translation.external)
    limit = engine.profile.max_mappings
    return limit if limit < ports or engine.profile.ports.overload else _MANY


def _declare_maps(table: Table, engine: Engine, fields: Fields) -> None:
    protocol = fields.protocol
    life = lifetime(engine.profile, protocol)

    def declare(kind: str, name: str, type_: str, size: int = _MANY) -> None:
        form = f"{{ {type_}; flags dynamic,timeout; timeout {life}; size {size}; }}"
        table.declare(f"{kind} {name}_{protocol} {form}")

    keys = ENDPOINT + REMOTE_TYPES[engine.mapping]
    owned = ENDPOINT + REMOTE_TYPES[engine.owner]
    declare("map", "out", f"type {keys} : {ENDPOINT}", mappings_limit(engine))
    declare("map", "back", f"type {owned} : {ENDPOINT}")
    declare("map", "permit", f"typeof {fields.inbound(engine.admission)} : ct zone")
    declare("map", "zone_out", f"typeof {fields.outbound(engine.mapping)} : ct zone")
    if engine.zones_by_endpoint:
        declare("map", "zone_in", f"typeof {fields.inbound(engine.owner)} : ct zone")
    declare("map", "zone_error", f"typeof ip daddr . {_INNER_SOURCE_PORT} : ct zone")
    declare("map", "zone_inner", f"typeof ip saddr . {_INNER_TARGET_PORT} . ip daddr . {_INNER_SOURCE_PORT} : ct zone")
    if engine.answers_by_session:
        declare("map", "zone_session", f"typeof {_session(fields, 'out')} : ct zone")
    declare_hot(table, engine, protocol)


def _session(fields: Fields, way: str) -> str:
    strict = Dependence.ADDRESS_AND_PORT_DEPENDENT
    return fields.outbound(strict) if way == "out" else fields.inbound(strict)


# ---------------------------------------------------------------------------- before connection tracking


def _add_sorting(table: Table, engine: Engine) -> None:
    itself = f"ip daddr {engine.external}"
    blocked = [f"meta l4proto udp {drop('udp-blocked')}"] if engine.profile.udp_blocked else []
    hairpins: list[str] = []
    if not engine.hairpins:
        hairpins.append(f"{itself} meta l4proto {{ udp, tcp }} {drop('hairpin-refused')}")
    elif engine.has_hairpin_zone:
        hairpins.append(f"{itself} meta l4proto {{ udp, tcp }} ct zone set {HAIRPIN_ZONE} accept")
    elif not engine.hairpins_translated:  # a sender may reach one host by several mappings: by the zone of each
        arrived = Fields("udp").inbound(engine.owner)
        hairpins += [
            f"{itself} meta l4proto {q} ct zone set {arrived} map @{engine.zone_in}_{q} accept" for q in PROTOCOLS
        ]
    table.chain(
        "sort",
        [f"{engine.came('lan')} goto sort_leaving", f"{engine.came('wan')} {itself} goto sort_coming"],
        hook="filter hook prerouting priority -300; policy accept",
    )
    table.chain(
        "sort_leaving",
        [
            f"ip daddr {engine.inside} accept",
            f"ip saddr != {engine.inside} accept",
            *blocked,
            *hairpins,
            *_by_protocol("leave", "error_out"),
        ],
    )
    table.chain("sort_coming", [*blocked, *_by_protocol("come", "error_in")])
    inner = {q: f"{ICMP_ERRORS} {_INNER_PROTOCOL} {number} ct zone set" for q, number in _PROTOCOL_NUMBERS.items()}
    came_in, sent_on = (
        f"ip daddr . {_INNER_SOURCE_PORT}",
        f"ip saddr . {_INNER_TARGET_PORT} . ip daddr . {_INNER_SOURCE_PORT}",
    )
    table.chain("error_in", [f"{inner[q]} {came_in} map @zone_error_{q} accept" for q in PROTOCOLS])
    table.chain("error_out", [f"{inner[q]} {sent_on} map @zone_inner_{q} accept" for q in PROTOCOLS])
    for protocol in PROTOCOLS:
        _sort_protocol(table, engine, Fields(protocol))


def _by_protocol(name: str, errors: str) -> list[str]:
    """Go to the chain of the packet's protocol: the first of few comparisons is cheaper than a look into a map."""
    return [*(f"meta l4proto {q} goto {name}_{q}" for q in PROTOCOLS), f"meta l4proto icmp goto {errors}"]


def _sort_protocol(table: Table, engine: Engine, fields: Fields) -> None:
    protocol = fields.protocol
    answering = [f"ct zone set {_session(fields, 'out')} map @zone_session_{protocol} accept"]
    table.chain(
        f"leave_{protocol}",
        [
            # an answer to an admitted flow first: whichever of the two ends began, the same mapping is used
            *(answering if engine.answers_by_session else []),
            f"ct zone set {fields.outbound(engine.mapping)} map @zone_out_{protocol} accept",
            f"ct zone set numgen inc mod {_ZONES} offset 1",
        ],
    )
    owned, admitted = fields.inbound(engine.owner), f"{fields.inbound(engine.admission)} @permit_{protocol}"
    if engine.zones_by_endpoint:
        admit = [f"{admitted} ct zone set {owned} map @zone_in_{protocol} accept"]
    else:
        admit = [f"ct zone set {fields.inbound(engine.admission)} map @permit_{protocol} accept"]
    if engine.filters:
        admit.append(f"{owned} @back_{protocol} goto refuse_{protocol}")
        table.chain(f"refuse_{protocol}", unsolicited(engine.profile.unsolicited, "no-permission"))
    else:  # of a mapping that was made towards another inside host there is no more than this
        admit.append(f"{owned} @back_{protocol} accept")
    table.chain(f"come_{protocol}", [*admit, *unsolicited(engine.profile.unsolicited, "no-mapping")])


# ---------------------------------------------------------------------------- inward


def _add_inward(table: Table, engine: Engine) -> None:
    sides = [engine.came("wan"), *([engine.came("lan")] if engine.hairpins else [])]
    arrived = Fields("udp").inbound(engine.owner)  # the same for both: their ports are in one place
    table.chain(
        "inward",
        [
            *use_timeouts(),
            *(
                f"{side} ip daddr {engine.external} meta l4proto {protocol} dnat ip to {arrived} map @back_{protocol}"
                for side in sides
                for protocol in PROTOCOLS
            ),
        ],
        hook="nat hook prerouting priority -100; policy accept",
    )
    table.chain(
        "through",
        [
            # what connection tracking takes for invalid is not translated, and `enter` drops it
            f"ip saddr {engine.inside} {engine.came('lan')} accept",
            *pass_hot(engine, "in"),
            f"ct state invalid {drop('not-translated')}",
            f"{engine.came('lan')} {drop('not-translated')}",
            f"{engine.came('wan')} meta l4proto vmap {{ udp : jump renew_udp, tcp : jump renew_tcp }}",
            "ct status dnat accept",
            "ct state established,related accept",
            drop("no-mapping"),
        ],
        hook="filter hook forward priority 0; policy drop",
    )
    table.chain(
        "own",
        [
            f"ip daddr {engine.external} meta l4proto {{ udp, tcp }} {drop('no-mapping')}",
            f"{engine.came('wan')} {ICMP_ERRORS} ct state invalid {drop('no-mapping')}",
        ],
        hook="filter hook input priority 0; policy accept",
    )


# ---------------------------------------------------------------------------- outward


def _add_outward(table: Table, engine: Engine) -> None:
    rules = []
    for protocol in PROTOCOLS:
        known = f"{Fields(protocol).first(engine.mapping)} map @out_{protocol}"
        rules.append(f"{engine.leaves('wan')} meta l4proto {protocol} snat ip to {known}")
        if engine.hairpins_translated:
            rules.append(f"{engine.leaves('lan')} ct status dnat meta l4proto {protocol} snat ip to {known}")
    addresses = engine.translation.external
    address = str(addresses[0]) if len(addresses) == 1 else paired_address(engine)
    rules.append(f"{engine.leaves('wan')} ip saddr {engine.inside} meta l4proto icmp snat ip to {address}")
    table.chain("outward", rules, hook="nat hook postrouting priority 100; policy accept")
