"""How long an idle mapping lives, and how nft's maps are told.

Rule 1: UDP has one timer, the map's own.
Rule 2: TCP has two (RFC 5382 REQ-5). Connection tracking knows the state of a connection and shows it in one way
        only: by the time that it gives the entry. So it is given the profile's two timers, and each packet's rule
        reads which one the connection has (`ct expiration`) and sets the map's timer to it. Where the two are too close
        to be told apart, or the wrong way around, that of an established connection is set ten minutes further.
        The native engine gives connection tracking the profile's own timers, finer ones too (RFC 7857 §2).
Rule 3: of UDP, connection tracking forgets a flow a little before the mapping ends: a packet that meets a new
        mapping must not meet the old flow.

The timeouts live in the rules (`ct timeout` objects), so that a namespace needs no sysctl for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.lab.nftables.table import Table, duration
from testbed.spec.profile import SECOND, NatProfile

_OPENING = ("syn_sent", "syn_recv", "syn_sent2")
_OPEN_STATES = ("established", "retrans", "unack")
_CLOSING = ("fin_wait", "close_wait", "last_ack", "time_wait")
_RESET = "close"
_APART, _CLOSE = 600, 10
"""Seconds by which the value of an established connection is made larger, where it is larger by less than the other."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A condition on the packet's connection, and the lifetime that then holds; both as text, empty by default."""

    when: str
    lifetime: str


def timers(profile: NatProfile, protocol: str) -> tuple[Timer, ...]:
    """The timers of a protocol; exactly one of their conditions holds for a packet."""
    tcp = profile.tcp_timeout
    if protocol == "udp" or tcp.established == tcp.transitory:
        return (Timer("", ""),)
    opened, other = _given(profile)
    border = f"{min((opened + other) // 2, other + _APART // 2)}s"
    return (
        Timer(f"ct expiration > {border} ", f" timeout {duration(tcp.established)}"),
        Timer(f"ct expiration <= {border} ", ""),
    )


def lifetime(profile: NatProfile, protocol: str) -> str:
    """The default lifetime of an entry: where a TCP connection is not established, the transitory one."""
    return duration(profile.udp_timeout if protocol == "udp" else profile.tcp_timeout.transitory)


def declare_timeouts(table: Table, profile: NatProfile) -> None:
    """The objects that `use_timeouts` refers to, of the explicit engine and the firewall."""
    udp = max(1, -(-profile.udp_timeout // SECOND) - 1)
    opened, other = _given(profile)
    states = dict.fromkeys((*_OPENING, *_CLOSING, _RESET), other)
    _declare(table, udp, dict.fromkeys(_OPEN_STATES, opened) | states)


def declare_native_timeouts(table: Table, profile: NatProfile) -> None:
    """The same for the native engine, where connection tracking itself is the mapping."""
    tcp = profile.tcp_timeout
    phases = {
        "partially_open": _OPENING,
        "closing": _CLOSING,
        "reset": (_RESET,),
    }
    states = dict.fromkeys(_OPEN_STATES, tcp.established // SECOND)
    for phase, names in phases.items():
        states |= dict.fromkeys(names, tcp.own.get(phase, tcp.transitory) // SECOND)
    _declare(table, profile.udp_timeout // SECOND, states)


def use_timeouts() -> list[str]:
    """Rules for a hook after connection tracking, which give a new flow its timeouts."""
    return [f'meta l4proto {protocol} ct timeout set "{protocol}_flow"' for protocol in ("udp", "tcp")]


def _given(profile: NatProfile) -> tuple[int, int]:
    """What connection tracking gives an established connection and any other, in seconds."""
    established, transitory = (
        -(-timer // SECOND) for timer in (profile.tcp_timeout.established, profile.tcp_timeout.transitory)
    )
    if established - transitory >= _CLOSE or profile.tcp_timeout.established == profile.tcp_timeout.transitory:
        return established, transitory
    longest = max(established, transitory)
    return longest + _APART, longest


def _declare(table: Table, udp: int, states: Mapping[str, int]) -> None:
    """All in seconds."""
    table.declare(_object("udp", f"unreplied: {udp}, replied: {udp}"))
    table.declare(_object("tcp", ", ".join(f"{name}: {value}" for name, value in states.items())))


def _object(protocol: str, policy: str) -> str:
    return f"ct timeout {protocol}_flow {{ protocol {protocol}; l3proto ip; policy = {{ {policy} }}; }}"
