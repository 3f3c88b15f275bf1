"""Requests that wait for their answers, sent again until there is one (RFC 8489 §6.2.1).

Rule 1: a request goes out at once, then again after RTO, 3 RTO, 7 RTO, … : each gap is twice the one before. The
        same bytes each time.
Rule 2: it is given up `LAST_WAIT` RTOs after the last of `MOST_SENDS` sends, or at the caller's own limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from testbed.datagram import Datagram

MOST_SENDS = 7
"""Rc of RFC 8489."""
LAST_WAIT = 16
"""Rm of RFC 8489, in RTOs."""
DEFAULT_RTO = 200_000_000
"""Nanoseconds. RFC 8489 asks for 500 ms where nothing is known of the path; here both ends of it are ours, links of
more than 200 ms merely cost a duplicate request, and a lost packet should not colour a trial for half a second."""

Context = TypeVar("Context")


@dataclass(slots=True)
class _Pending(Generic[Context]):
    request: Datagram
    context: Context
    sent_at: int
    due: int
    sends: int
    limit: int | None


class Transactions(Generic[Context]):
    """The outstanding requests of one machine, each with what the machine wants to remember of it."""

    def __init__(self, rto: int = DEFAULT_RTO) -> None:
        self._rto = rto
        self._pending: dict[bytes, _Pending[Context]] = {}
        self._outbox: list[Datagram] = []

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, transaction_id: bytes) -> bool:
        return transaction_id in self._pending

    def start(
        self, transaction_id: bytes, request: Datagram, context: Context, now: int, *, limit: int | None = None
    ) -> None:
        """Send it now and until it is answered. `limit`: when it is given up at the latest, as a time."""
        self._pending[transaction_id] = _Pending(request, context, now, now + self._rto, 1, limit)
        self._outbox.append(request)

    def context(self, transaction_id: bytes) -> Context | None:
        """What is remembered of an outstanding request."""
        pending = self._pending.get(transaction_id)
        return pending.context if pending is not None else None

    def answered(self, transaction_id: bytes) -> tuple[Context, int] | None:
        """What was remembered of it, and when it was first sent; None for one that is not ours, or no longer."""
        pending = self._pending.pop(transaction_id, None)
        return (pending.context, pending.sent_at) if pending is not None else None

    def cancel(self) -> None:
        """Forget every request."""
        self._pending.clear()

    def next_timeout(self) -> int | None:
        """When the next request is to be sent again or given up."""
        return min(map(_due, self._pending.values())) if self._pending else None

    def handle_timeout(self, now: int) -> list[Context]:
        """Send again what is due. Returns what was remembered of those that are given up."""
        given_up: list[Context] = []
        for transaction_id, pending in list(self._pending.items()):
            if now < _due(pending):
                continue
            if pending.sends == MOST_SENDS or (pending.limit is not None and pending.limit <= now):
                del self._pending[transaction_id]
                given_up.append(pending.context)
                continue
            self._outbox.append(pending.request)
            pending.sends += 1
            wait = LAST_WAIT if pending.sends == MOST_SENDS else 1 << (pending.sends - 1)
            pending.due = now + self._rto * wait
        return given_up

    def datagrams_to_send(self) -> list[Datagram]:
        """What is to be sent now."""
        outbox, self._outbox = self._outbox, []
        return outbox


def _due(pending: _Pending[Context]) -> int:
    return pending.due if pending.limit is None else min(pending.due, pending.limit)
