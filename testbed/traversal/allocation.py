"""How a NAT assigns external ports, measured from inside: one fresh socket, several servers, one question at a time.

Rule 1: the socket is new, so each server that the NAT tells apart makes a new mapping; the questions follow each other,
        so the mappings were made in the order of the answers. A question that is sent again makes no second mapping.
Rule 2: a server's OTHER-ADDRESS (RFC 5780 §7.4) is one more server to ask: two addresses × two ports make four
        mappings where ports count, two where only addresses do.
Rule 3: ports are assigned in steps if every difference goes the same way and none is large; the step is their greatest
        common divisor, since what other hosts take in between shows as multiples. Anything else is unpredictable, and
        is said to be so.
Rule 4: what was measured is true at that moment. The next mapping that this socket makes is the first that is
        predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from random import Random

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import stun
from testbed.traversal.candidates import DescriptionError, JsonObject, distinct, read_endpoint
from testbed.traversal.strategies import WINDOW
from testbed.traversal.stun import Kind, Message, Method
from testbed.traversal.stun_attributes import Attribute
from testbed.traversal.transactions import DEFAULT_RTO, Transactions

LARGEST_STEP = 256
"""A difference beyond this is no step. Of two ports drawn at random from all, one pair in 128 lies so close together;
of four, fewer than one in a million do, and in one direction."""
MOST_SERVERS = 4
PATIENCE = 2_000_000_000
"""Nanoseconds for all questions: a server that is silent so long ends the measuring, with what there is."""


@dataclass(frozen=True, slots=True)
class Window:
    """Addresses that an end will probably have next, the most probable first: steps from one address on."""

    first: Endpoint
    step: int
    size: int

    def addresses(self) -> tuple[Endpoint, ...]:
        """Those of them that are ports; where a NAT goes on at the end of its range is not known."""
        host, port = self.first
        ports = (port + self.step * index for index in range(self.size))
        return tuple(Endpoint(host, number) for number in ports if 0 < number < 65536)

    def to_json(self) -> JsonObject:
        """As it goes into a signalling message, where 64 addresses would not fit."""
        return {"first": str(self.first), "step": self.step, "size": self.size}

    @classmethod
    def from_json(cls, value: object) -> Window:
        """The other end's. Raises DescriptionError."""
        if not isinstance(value, dict):
            raise DescriptionError("a window is not an object")
        first, step, size = read_endpoint(value.get("first")), value.get("step"), value.get("size")
        if type(step) is not int or not 0 < abs(step) <= LARGEST_STEP:
            raise DescriptionError(f"{step!r} is no step")
        if type(size) is not int or not 0 < size <= WINDOW.most:
            raise DescriptionError(f"{size!r} is no size of a window")
        return cls(first, step, size)


def predict(observed: Sequence[Endpoint], size: int) -> Window | str:
    """The window that follows the mappings observed, in order; or why there is none."""
    mapped = distinct(observed)
    if len({endpoint.host for endpoint in mapped}) > 1:
        return "unpredictable: mappings have several external addresses"
    if len(mapped) < 2:
        return "unpredictable: two mappings are needed to see a step"
    ports = [endpoint.port for endpoint in mapped]
    differences = [after - before for before, after in pairwise(ports)]
    is_one_way = all((difference > 0) is (differences[0] > 0) for difference in differences)
    if not is_one_way or max(map(abs, differences)) > LARGEST_STEP:
        return f"unpredictable: ports {', '.join(map(str, ports))} are not steps apart"
    step = gcd(*differences) if differences[0] > 0 else -gcd(*differences)
    last = mapped[-1]
    window = Window(Endpoint(last.host, last.port + step), step, size)
    return window if 0 < window.first.port < 65536 else "unpredictable: the next port is beyond the last one"


class Measurement:
    """Asks from one fresh socket, and ends in a window or in the reason for none."""

    def __init__(
        self, base: Endpoint, servers: Sequence[Endpoint], size: int, rng: Random, *, rto: int = DEFAULT_RTO
    ) -> None:
        """`size`: of the window that is wanted."""
        self._base, self._size, self._rng = base, size, rng
        self._servers = list(distinct(servers))
        self._transactions = Transactions[Endpoint](rto)
        self._limit: int | None = None
        self.observed: tuple[Endpoint, ...] = ()
        """The mappings, in the order in which they were made."""
        self.result: Window | str | None = None
        """None until it is over."""

    def start(self, now: int) -> None:
        """Ask the first server."""
        self._limit = now + PATIENCE
        self._ask(0, now)

    def receive_message(self, message: Message, datagram: Datagram, now: int) -> bool:
        """Whether a decoded message was the answer."""
        server = self._transactions.context(message.transaction_id)
        if server is None or message.kind not in (Kind.SUCCESS, Kind.ERROR):
            return False
        if (datagram.source, datagram.destination) != (server, self._base):
            return False
        self._transactions.answered(message.transaction_id)
        mapped, other = message.endpoint(Attribute.XOR_MAPPED_ADDRESS), message.endpoint(Attribute.OTHER_ADDRESS)
        if mapped is not None:
            self.observed += (mapped,)
        if other is not None:
            self._servers = list(distinct((*self._servers, other)))[:MOST_SERVERS]
        self._ask(self._servers.index(server) + 1, now)
        return True

    def next_timeout(self) -> int | None:
        """When the question is asked again, or all of them given up."""
        return self._transactions.next_timeout()

    def handle_timeout(self, now: int) -> None:
        """Ask again; give up."""
        if self._transactions.handle_timeout(now):
            self._finish()

    def datagrams_to_send(self) -> list[Datagram]:
        """The question that is due."""
        return self._transactions.datagrams_to_send()

    def _ask(self, index: int, now: int) -> None:
        if index >= len(self._servers):
            self._finish()
            return
        server = self._servers[index]
        transaction_id = self._rng.randbytes(stun.TRANSACTION_ID_SIZE)
        data = stun.encode(stun.request(Method.BINDING, transaction_id))
        self._transactions.start(transaction_id, Datagram(self._base, server, data), server, now, limit=self._limit)

    def _finish(self) -> None:
        self.result = predict(self.observed, self._size)
