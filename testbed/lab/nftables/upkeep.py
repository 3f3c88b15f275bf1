"""A NAT that runs: how long its mappings have left, and how it forgets everything.

Rule 1: what is read is what the kernel counts down itself: the entries of a map, or of connection tracking where that
        is the mapping. Rules are asked for nothing.
Rule 2: what forgets is as it was before its rules came: to load them again makes a restart.

Numbers: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from testbed.lab.nftables.dice import PROTOCOLS
from testbed.lab.nftables.netfilter import FAMILY_IPV4, Netfilter, Request, attribute, attributes, batch, text
from testbed.lab.nftables.renewal import hot_time
from testbed.lab.nftables.table import NAME
from testbed.plan.engines import engine_of
from testbed.spec.profile import Dependence, Engine, NatProfile

_DELETE_TABLE, _GET_ELEMENTS = 2, 13
_CONNTRACK, _GET, _DELETE = 1, 1, 2
_SET_TABLE, _SET_NAME, _ELEMENTS, _EXPIRES = 1, 2, 3, 5
_ORIGINAL, _TIMEOUT = 1, 7
_TUPLE_PROTOCOL, _PROTOCOL_NUMBER = 2, 1
_NUMBERS = {"udp": 17, "tcp": 6}
_MILLISECOND, _SECOND = 1_000_000, 1_000_000_000
_JIFFIES = 20 * _MILLISECOND


def time_left(profile: NatProfile, protocol: str) -> list[int]:
    """Nanoseconds that each mapping of a protocol has left, in the NAT whose namespace the thread is in."""
    with Netfilter() as netfilter:
        if profile.mapping is not Dependence.NONE and engine_of(profile) is Engine.NATIVE:
            return list(_tracked(netfilter, _NUMBERS[protocol]))
        return list(_listed(netfilter, f"{'permitted' if profile.mapping is Dependence.NONE else 'out'}_{protocol}"))


def exactness(profile: NatProfile) -> int:
    """How far from the truth `time_left` may be: a few jiffies, and the whole second that connection tracking shows, or
    the moment for which a flow is hot (renewal.py).
    """
    if profile.mapping is Dependence.NONE:
        return _JIFFIES
    if engine_of(profile) is Engine.NATIVE:
        return _SECOND + _JIFFIES
    return _JIFFIES + max(hot_time(profile, protocol) for protocol in PROTOCOLS)


def forget() -> None:
    """Remove the rules and every connection of the namespace that the thread is in. Raises BrokenError."""
    with Netfilter() as netfilter:
        netfilter.send(batch([Request(_DELETE_TABLE, 0, attribute(_SET_TABLE, text(NAME)))]))
        forget_connections(netfilter)


def forget_connections(netfilter: Netfilter) -> None:
    """Remove every connection of the socket's namespace. Raises BrokenError."""
    netfilter.ask(_CONNTRACK, _DELETE, b"", family=FAMILY_IPV4)


def _listed(netfilter: Netfilter, name: str) -> Iterator[int]:
    """What the entries of a set or map have left; the kernel counts milliseconds."""
    where = attribute(_SET_TABLE, text(NAME)) + attribute(_SET_NAME, text(name))
    for body in netfilter.dump(_GET_ELEMENTS, where):
        for part in attributes(body):
            if part.kind != _ELEMENTS:
                continue
            for element in attributes(part.value):
                parts = dict(attributes(element.value))
                if _EXPIRES in parts:
                    yield int(struct.unpack(">Q", parts[_EXPIRES])[0]) * _MILLISECOND


def _tracked(netfilter: Netfilter, number: int) -> Iterator[int]:
    """What connections of a protocol have left; connection tracking shows whole seconds."""
    for body in netfilter.dump(_GET, subsystem=_CONNTRACK):
        parts = dict(attributes(body))
        original = dict(attributes(parts[_ORIGINAL]))
        protocol = dict(attributes(original[_TUPLE_PROTOCOL]))
        if protocol[_PROTOCOL_NUMBER][0] == number and _TIMEOUT in parts:
            yield int(struct.unpack(">I", parts[_TIMEOUT])[0]) * _SECOND
