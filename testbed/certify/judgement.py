"""What an observation means, in the words of a profile.

Rule 1: pure functions of what was seen; the tests have a row for each answer.
Rule 2: what fits no word of RFC 4787 is said as it was seen, and so agrees with no profile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from itertools import pairwise

from testbed.datagram import Endpoint
from testbed.spec.profile import Dependence, Hairpinning, Refresh, Unsolicited
from testbed.units import format_duration

NOTHING = "nothing passes"
_MILLISECOND = 1_000_000
_BY_STRICTNESS = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT_DEPENDENT,
)


class Reaction(StrEnum):
    """What comes back for a packet that nothing permits."""

    SILENCE = "silence"
    ICMP = "an ICMP error"
    RESET = "a reset"
    ARRIVES = "it arrives"


def mapping_of(own: Endpoint, seen: Sequence[Endpoint | None]) -> str:
    """From how one socket is seen by: a remote, a new port of it, a new address, the first remote again."""
    first, new_port, new_address, again = seen
    if None in seen:
        return NOTHING
    if all(endpoint == own for endpoint in seen):
        return Dependence.NONE.value
    if again != first:
        return "a mapping changes by itself"
    return _dependence(new_port == first, new_address == first)


def stricter(one: str, other: str) -> str:
    """Of what two sockets show of a mapping: two ports drawn at random may be alike for once, but not twice."""
    strictness = [dependence.value for dependence in _BY_STRICTNESS]
    if one in strictness and other in strictness:
        return max(one, other, key=strictness.index)
    return one if one == other else f"{one}, then {other}"


def filtering_of(first: bool, new_port: bool, new_address: bool) -> str:
    """From who may answer: the remote itself, a new port of it, a new address."""
    return _dependence(new_port, new_address) if first else NOTHING


def _dependence(new_port: bool, new_address: bool) -> str:
    match new_port, new_address:
        case True, True:
            return Dependence.ENDPOINT_INDEPENDENT.value
        case True, False:
            return Dependence.ADDRESS_DEPENDENT.value
        case False, False:
            return Dependence.ADDRESS_AND_PORT_DEPENDENT.value
        case _:
            return "dependent on the port alone"


def preserved(pairs: Sequence[tuple[int, int]]) -> str:
    """From (inside port, external port) of free ports; one port drawn at random may be the host's own by chance."""
    kept = sum(inside == external for inside, external in pairs)
    if not pairs:
        return NOTHING
    return "true" if kept == len(pairs) else "false" if kept <= 1 else f"{kept} of {len(pairs)} are kept"


def step_of(ports: Sequence[int]) -> int | None:
    """The step between ports assigned one after another; None where there is none.

    One difference may be another: the sequence has begun again, or a port was taken.
    """
    differences = Counter(after - before for before, after in pairwise(ports))
    if len(ports) < 4:
        return None
    (step, count), *_ = differences.most_common(1)
    return step if count >= len(ports) - 2 and step != 0 else None


def alternating(ports: Sequence[int], step: int) -> bool:
    """Whether ports follow each other in this step, give or take the one that parity asks for."""
    return all(abs(after - before - step) <= 1 for before, after in pairwise(ports))


def parity(pairs: Sequence[tuple[int, int]]) -> str:
    """From (inside port, external port) of ports that were not preserved."""
    return "true" if all(inside % 2 == external % 2 for inside, external in pairs) else "false"


def blocks_of(mine: AbstractSet[Endpoint], others: AbstractSet[Endpoint], first: int, size: int) -> tuple[str, str]:
    """From all the endpoints that two hosts can have: how large their blocks are, and how many each has.

    `first`: where the range begins that is cut into blocks; `size`: what they are said to be.
    """
    if mine & others or len(mine) != len(others) or not mine:
        shared = f"{len(mine)} and {len(others)} ports, {len(mine & others)} of them shared"
        return shared, shared
    counts = [Counter((host, (port - first) // size) for host, port in each) for each in (mine, others)]
    if any(count != size for each in counts for count in each.values()):
        return f"{len(mine)} ports that are no blocks of {size}", str(len(counts[0]))
    return str(size), str(len(counts[0]))


def unsolicited_of(datagram: Reaction | None, segment: Reaction) -> str:
    """From what a datagram and a SYN meet; `datagram` None where the network forwards none."""
    known = {
        (Reaction.SILENCE, Reaction.SILENCE): Unsolicited.DROP,
        (Reaction.ICMP, Reaction.ICMP): Unsolicited.ICMP_UNREACHABLE,
        (Reaction.SILENCE, Reaction.RESET): Unsolicited.TCP_RESET,
        # a stack of its own: no such port
        (Reaction.ICMP, Reaction.RESET): Unsolicited.ACCEPT,
    }
    for (one, other), behaviour in known.items():
        if datagram in (None, one) and segment is other:
            return behaviour.value
    return f"{datagram or 'nothing'} for UDP, {segment} for TCP"


def hairpinning_of(source: Endpoint | None, own: Endpoint, external: Sequence[str]) -> str:
    """From the source that an inside host sees on another's packet to its external endpoint."""
    if source is None:
        return Hairpinning.NONE.value
    if source == own:
        return Hairpinning.INTERNAL_SOURCE.value
    return Hairpinning.EXTERNAL_SOURCE.value if source.host in external else f"source {source}"


def refresh_of(outbound: bool, inbound: bool) -> str:
    """From which packets have kept a mapping alive."""
    match outbound, inbound:
        case True, True:
            return Refresh.BOTH.value
        case True, False:
            return Refresh.OUTBOUND.value
        case False, True:
            return Refresh.INBOUND.value
        case _:
            return "neither"


def lifetime_of(declared: int, left: int, elapsed: int, exactness: int) -> str:
    """The lifetime that the kernel's timer shows. All in nanoseconds.

    `left`: what the timer had left; `elapsed`: since before the packet that set it. What is declared is said where the
    timer can have been set to it.
    """
    if left - exactness <= declared <= left + elapsed + exactness:
        return format_duration(declared)
    return f"about {format_duration(round(left, -6) if left >= _MILLISECOND else left)}"
