"""What a NAT dropped and why: the kernel's packet log, and the counters beside it.

Rule 1: each reason has a counter, which is exact, and a log, which shows packets. A log that overflows loses packets
        and says so (`lost`); a counter loses nothing.
Rule 2: a log must be open before the first packet, in the NAT's namespace; where none is open, the kernel skips the
        statement.
Rule 3: the time of a drop is the kernel's. It stamps packets up to its forward hook (nfnetlink_log.c); one that is
        dropped later, for want of a port or of room, has the time at which it is read.

Numbers: linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from testbed.lab.clocks import monotonic_shift
from testbed.lab.drops import SNAP, Drop
from testbed.lab.nftables.netfilter import Netfilter, attribute, attributes, messages, text
from testbed.lab.nftables.table import LOG_GROUP, NAME, REASONS, counter

_SUBSYSTEM, _PACKET, _CONFIG = 4, 0, 1
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
_BIND, _COPY_PACKET = 1, 2
_TIMESTAMP, _PAYLOAD, _PREFIX = 3, 9, 10
_GENERIC = 4
_GET_OBJECT = 19
_TABLE, _NAME, _TYPE, _DATA = 1, 2, 3, 4
_COUNTER_TYPE, _PACKETS = 1, 2
_FAMILY_UNSPECIFIED = 0


class PacketLog:
    """The log of the namespace that the thread is in now; rules may be loaded before or after.

    `room`: bytes that may wait to be read, of which each drop takes about a thousand.
    """

    def __init__(self, *, room: int = 4 << 20) -> None:
        self._netfilter = Netfilter()
        self._netfilter.make_room_for_answers(room)
        self.lost = 0
        """How often the log overflowed."""
        try:
            bind = struct.pack("=B", _BIND)
            mode = struct.pack(">IBx", SNAP, _COPY_PACKET)
            body = attribute(_COMMAND, bind) + attribute(_MODE, mode) + attribute(_THRESHOLD, struct.pack(">I", 1))
            self._netfilter.ask(_SUBSYSTEM, _CONFIG, body, family=_FAMILY_UNSPECIFIED, resource=LOG_GROUP)
            self._netfilter.socket.setblocking(False)
            self._objects = Netfilter()
        except BaseException:
            self._netfilter.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the log; twice does nothing."""
        self._netfilter.close()
        self._objects.close()

    def fileno(self) -> int:
        """Readable when a drop waits."""
        return self._netfilter.socket.fileno()

    def read(self) -> list[Drop]:
        """The drops that wait, the oldest first."""
        found: list[Drop] = []
        while True:
            try:
                data = self._netfilter.socket.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost += 1
                continue
            now, shift = time.monotonic_ns(), monotonic_shift(readings=3)
            for kind, _, body in messages(data):
                if kind == _SUBSYSTEM << 8 | _PACKET:
                    found.append(_drop(body[_GENERIC:], now, shift))

    def counters(self) -> Mapping[str, int]:
        """How many packets were dropped for each reason, since the rules were made; only those that were."""
        return _counters(self._objects)


def counters() -> Mapping[str, int]:
    """The same for the namespace that the thread is in now."""
    with Netfilter() as netfilter:
        return _counters(netfilter)


def _counters(netfilter: Netfilter) -> Mapping[str, int]:
    found = {}
    reasons = {counter(reason): reason for reason in REASONS}
    for body in netfilter.dump(_GET_OBJECT, attribute(_TABLE, text(NAME))):
        parts = dict(attributes(body))
        if struct.unpack(">I", parts[_TYPE])[0] != _COUNTER_TYPE:
            continue
        packets = struct.unpack(">Q", dict(attributes(parts[_DATA]))[_PACKETS])[0]
        reason = reasons[parts[_NAME].rstrip(b"\0").decode()]
        if packets:
            found[reason] = packets
    return {reason: found[reason] for reason in REASONS if reason in found}


def _drop(body: bytes, now: int, shift: int) -> Drop:
    parts = dict(attributes(body))
    if _TIMESTAMP in parts:
        seconds, microseconds = struct.unpack(">QQ", parts[_TIMESTAMP])
        now = seconds * 1_000_000_000 + microseconds * 1_000 + shift
    return Drop(now, parts.get(_PREFIX, b"").rstrip(b"\0").decode(), parts.get(_PAYLOAD, b""))
