"""A router that translates nothing and filters: RFC 4787 §5 without §4.

Rule 1: a permission is an entry of a set: the inside endpoint and what of the remote the filter can see. A packet
        from inside makes or renews it, a packet from outside needs it. Connection tracking decides about ICMP only,
        and shows in which state a TCP connection is (timers.py).
Rule 2: `filtering: none` lets everything in.
"""

from __future__ import annotations

from testbed.lab.nftables.dice import PROTOCOLS
from testbed.lab.nftables.keys import REMOTE_TYPES, remote
from testbed.lab.nftables.native import unsolicited
from testbed.lab.nftables.table import Table, any_of, drop
from testbed.lab.nftables.timers import declare_timeouts, lifetime, timers, use_timeouts
from testbed.plan.network import Translation
from testbed.spec.profile import Dependence, Refresh

_SIZE = 131072
"""Entries of the set; see explicit.py on why it is a multiple of 65536."""


def compile_firewall(translation: Translation) -> str:
    """The rules of a firewall; there is nothing in them to seed."""
    profile = translation.profile
    table = Table()
    declare_timeouts(table, profile)
    blocked = [f"meta l4proto udp {drop('udp-blocked')}"] if profile.udp_blocked else []
    inside = any_of(translation.inside)
    lan, wan = f'iifname "{translation.lan}"', f'iifname "{translation.wan}"'
    table.chain("flow_timeouts", use_timeouts(), hook="filter hook prerouting priority -150; policy accept")
    by_protocol = "meta l4proto vmap {{ " + ", ".join(f"{q} : goto {{0}}_{q}" for q in PROTOCOLS) + " }}"
    open_to_all = profile.filtering is Dependence.NONE
    table.chain(
        "through",
        [
            f"{lan} ip daddr {inside} accept",
            *blocked,
            *(["accept"] if open_to_all else [f"{lan} {by_protocol.format('outward')}", f"{lan} accept"]),
            *([] if open_to_all else [f"{wan} {by_protocol.format('inward')}", "ct state established,related accept"]),
            drop("no-permission"),
        ],
        hook="filter hook forward priority 0; policy drop",
    )
    if not open_to_all:
        for protocol in PROTOCOLS:
            _permissions(table, translation, protocol)
    return table.text()


def _permissions(table: Table, translation: Translation, protocol: str) -> None:
    profile = translation.profile
    type_ = "ipv4_addr . inet_service" + REMOTE_TYPES[profile.filtering]
    table.declare(
        f"set permitted_{protocol} {{ type {type_}; flags dynamic,timeout; "
        f"timeout {lifetime(profile, protocol)}; size {_SIZE}; }}"
    )
    out_key = f"ip saddr . {protocol} sport" + remote(profile.filtering, "ip daddr", f"{protocol} dport")
    in_key = f"ip daddr . {protocol} dport" + remote(profile.filtering, "ip saddr", f"{protocol} sport")
    renew = "add" if profile.refresh is Refresh.INBOUND else "update"
    outward = [
        f"{timer.when}{renew} @permitted_{protocol} {{ {out_key}{timer.lifetime} }} accept"
        for timer in timers(profile, protocol)
    ]
    inward = [
        f"{timer.when}{in_key} @permitted_{protocol} update @permitted_{protocol} {{ {in_key}{timer.lifetime} }} accept"
        for timer in timers(profile, protocol)
        if profile.refresh is not Refresh.OUTBOUND
    ]
    table.chain(f"outward_{protocol}", [*outward, drop("table-full")])
    refused = unsolicited(profile.unsolicited, "no-permission")
    table.chain(f"inward_{protocol}", [*inward, f"{in_key} @permitted_{protocol} accept", *refused])
