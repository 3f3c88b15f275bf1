"""What the lab saw of both ends, as the judge of outcomes takes it.

Rule 1: only packets that match a claimed path can decide anything, so only those are digested.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testbed.datagram import Endpoint
from testbed.lab.capture import UdpPacket
from testbed.plan.outcomes import Claim, End, Passage
from testbed.traversal.events import Connected, Event, Failed, Relay, Unsupported


def end_of(addresses: Iterable[str], said: Sequence[Event], packets: Iterable[UdpPacket]) -> End:
    """All that is known of one end: its box's addresses, its events, the packets on its interfaces."""
    connected = next((event for event in said if isinstance(event, Connected)), None)
    paths = _paths(connected)
    sent, received = set(), set()
    for packet in packets if connected is not None else ():
        if packet.is_outgoing and (packet.source, packet.destination) in paths:
            sent.add(Passage(packet.source, packet.destination, packet.digest))
        elif not packet.is_outgoing and (packet.destination, packet.source) in paths:
            received.add(Passage(packet.source, packet.destination, packet.digest))
    return End(
        frozenset(addresses),
        claim=Claim(connected.local, connected.remote, connected.received_from) if connected is not None else None,
        relayed=any(isinstance(event, Relay) for event in said),
        unsupported=next((event.reason for event in said if isinstance(event, Unsupported)), None),
        failed=next((event.reason for event in said if isinstance(event, Failed)), None),
        sent=frozenset(sent),
        received=frozenset(received),
    )


def _paths(connected: Connected | None) -> set[tuple[Endpoint, Endpoint]]:
    """(local, remote) of the claimed path, in each direction."""
    if connected is None:
        return set()
    return {(connected.local, connected.remote), (connected.local, connected.received_from or connected.remote)}
