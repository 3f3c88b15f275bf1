"""The kernel's own masquerade, as on a real Linux router.

Rule 1: it keeps the port where it can, looks at the whole connection, and so shares one external endpoint between
        inside hosts that talk to different remotes (port overloading): an RFC 4787 NAT of its own kind.
Rule 2: `random` gives each connection another port, by the kernel's own dice: these ports cannot be seeded.
Rule 3: what the NAT's own stack accepts from outside becomes an entry of connection tracking, and our later packet
        to that remote is then moved to another port: the port clash. It needs `unsolicited: accept`; a packet that
        is dropped or rejected is never confirmed (nf_conntrack_confirm runs last in the input hook).
"""

from __future__ import annotations

from testbed.lab.nftables.table import Table, any_of, drop, log
from testbed.lab.nftables.timers import declare_native_timeouts, use_timeouts
from testbed.plan.network import Translation
from testbed.spec.profile import PORT_MAX, PORT_MIN, Unsolicited


def compile_native(translation: Translation) -> str:
    """The rules of a native NAT; there is nothing in them to seed."""
    profile = translation.profile
    wan, lan = f'iifname "{translation.wan}"', f'iifname "{translation.lan}"'
    inside = any_of(translation.inside)
    table = Table()
    declare_native_timeouts(table, profile)
    blocked = [f"meta l4proto udp {drop('udp-blocked')}"] if profile.udp_blocked else []
    table.chain("flow_timeouts", use_timeouts(), hook="filter hook prerouting priority -150; policy accept")
    table.chain(
        "inward",
        [f"{wan} ip daddr {any_of(translation.external)} meta l4proto {{ udp, tcp }} ct state new goto unsolicited"],
        hook="filter hook input priority 0; policy accept",
    )
    table.chain("unsolicited", blocked + unsolicited(profile.unsolicited, "no-mapping"))
    table.chain(
        "through",
        [
            f"{lan} ip daddr {inside} accept",
            *blocked,
            f"ct state invalid {drop('not-translated')}",
            f'{lan} oifname "{translation.wan}" accept',
            "ct state established,related accept",
            drop("no-mapping"),
        ],
        hook="filter hook forward priority 0; policy drop",
    )
    first, last = profile.ports.range
    ports = "" if (first, last) == (PORT_MIN, PORT_MAX) else f" to :{first}-{last}"
    flags = "" if profile.ports.preserve else " fully-random"
    # masquerade may name ports only where the protocol has them
    protocols = "meta l4proto { udp, tcp } " if ports else ""
    rules = [f'oifname "{translation.wan}" ip saddr {inside} {protocols}masquerade{ports}{flags}']
    if protocols:
        rules.append(f'oifname "{translation.wan}" ip saddr {inside} masquerade')
    table.chain("outward", rules, hook="nat hook postrouting priority 100; policy accept")
    return table.text()


def unsolicited(behaviour: Unsolicited, reason: str) -> list[str]:
    """What becomes of a packet from outside that nothing permits."""
    match behaviour:
        case Unsolicited.DROP:
            return [drop(reason)]
        case Unsolicited.ICMP_UNREACHABLE:
            return [f"{log(reason)} reject with icmp port-unreachable"]
        case Unsolicited.TCP_RESET:
            return [f"meta l4proto tcp {log(reason)} reject with tcp reset", drop(reason)]
        case Unsolicited.ACCEPT:
            return ["accept"]
