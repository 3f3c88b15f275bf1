"""What the NATs of a lab dropped: counts by reason for the record, comments for the capture.

Rule 1: the reason is the NAT's own word, from the rule that dropped the packet; nothing is guessed from timing. Counts
        are the rules' counters, which lose nothing; a log that overflowed only leaves packets without a comment.
Rule 2: a dropped packet is found in the capture by its IP header and first bytes: the log shows what the rule saw,
        which is what came in.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbed.lab.drops import DropLog
from testbed.lab.tap import OUTGOING, Packet

_ETHERNET = 14
_TTL, _CHECKSUM = 8, slice(10, 12)
_COMPARED = 48


class Drops:
    """Everything that was dropped in one trial."""

    def __init__(self, logs: Mapping[str, DropLog]) -> None:
        """Reads the logs of all NATs; call it once, at the end. Raises BrokenError where a part of the lab has died."""
        self.counts: Mapping[str, Mapping[str, int]] = {name: log.counters() for name, log in logs.items()}
        self._reasons: dict[tuple[str, bytes], list[str]] = {}
        for name, log in logs.items():
            for drop in log.read():
                self._reasons.setdefault((name, _identity(drop.packet)), []).append(drop.reason)

    def comment(self, box: str, packet: Packet) -> str:
        """`dropped by nat_b: no-permission`, on a packet that came in there and went no further."""
        if packet.kind == OUTGOING or packet.data[12:14] != b"\x08\x00":
            return ""
        reasons = self._reasons.get((box, _identity(packet.data[_ETHERNET:])))
        return f"dropped by {box}: {reasons.pop(0)}" if reasons else ""


def _identity(packet: bytes) -> bytes:
    """What tells a packet from others, whatever a router has changed in its header."""
    head = bytearray(packet[:_COMPARED])
    if len(head) > _CHECKSUM.stop:
        head[_TTL] = 0
        head[_CHECKSUM] = b"\0\0"
    return bytes(head)
