"""The driver: one pure machine, its non-blocking UDP sockets, one trio task a socket and one for the timer.

Rule 1: the machine is told the time and never asks for it. The time is CLOCK_MONOTONIC in nanoseconds, by way of
        trio's clock, so that a test may replace that; captures use the same clock.
Rule 2: a wake-up takes up to `BATCH` datagrams before anything is sent: one await a datagram costs twice the CPU.
Rule 3: a datagram that cannot be sent is lost, as networks lose them, and counted by errno. Machines send again.
Rule 4: sockets are given or opened through a function that is given: they belong into namespaces of a lab.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Generic, Protocol, TypeVar

import trio

from testbed.agents.contract import OpenSocket, Socket
from testbed.datagram import Datagram, Endpoint
from testbed.traversal.bases import FIRST_PORTS
from testbed.units import NS_PER_SECOND

BATCH = 64
LARGEST = 65535
PORT_TRIES = 32
EventType_co = TypeVar("EventType_co", covariant=True)
EventType = TypeVar("EventType")


class Machine(Protocol[EventType_co]):
    """The contract of `traversal`."""

    def receive(self, datagram: Datagram, now: int) -> object:
        """A datagram came in."""

    def next_timeout(self) -> int | None:
        """When `handle_timeout` is due."""

    def handle_timeout(self, now: int) -> None:
        """The time has come."""

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """What is to be sent now."""

    def events(self) -> Sequence[EventType_co]:
        """What happened since the last call."""


class Clock:
    """Trio's clock as nanoseconds of CLOCK_MONOTONIC, the same for every loop of a `trio.run`."""

    def __init__(self) -> None:
        self._offset = time.monotonic_ns() - round(trio.current_time() * NS_PER_SECOND)

    def now(self) -> int:
        """Nanoseconds."""
        return round(trio.current_time() * NS_PER_SECOND) + self._offset

    def trio_time(self, when: int) -> float:
        """The same moment as trio counts."""
        return (when - self._offset) / NS_PER_SECOND


_CLOCK: trio.lowlevel.RunVar[Clock] = trio.lowlevel.RunVar("testbed clock")


def current_clock() -> Clock:
    """The clock of this `trio.run`."""
    try:
        return _CLOCK.get()
    except LookupError:
        clock = Clock()
        _CLOCK.set(clock)
        return clock


def bind_seeded(addresses: Iterable[str], seed: int, open_socket: OpenSocket) -> dict[Endpoint, Socket]:
    """A socket on each address, its port drawn from the seed; the next draw where one is taken."""
    rng, sockets = Random(seed), dict[Endpoint, Socket]()
    for address in addresses:
        for attempt in range(PORT_TRIES):
            local = Endpoint(address, rng.choice(FIRST_PORTS))
            try:
                sockets[local] = open_socket(local)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or attempt == PORT_TRIES - 1:
                    for socket in sockets.values():
                        socket.close()
                    raise
    return sockets


class Loop(Generic[EventType]):
    """Drives one machine until `stop`."""

    def __init__(self, machine: Machine[EventType], on_event: Callable[[EventType], object]) -> None:
        """`on_event` is called before what the machine wants to send leaves; it must not block."""
        self._machine, self._on_event = machine, on_event
        self._clock = current_clock()
        self._sockets: dict[Endpoint, Socket] = {}
        self._nursery: trio.Nursery | None = None
        self._kick = trio.Event()
        self._armed: int | None = None
        self.lateness = 0
        """Nanoseconds by which a timer was late at most."""
        self.errors: Counter[str] = Counter()
        """Datagrams that could not be sent or received, by the name of the errno."""

    def now(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC."""
        return self._clock.now()

    def add(self, sockets: Mapping[Endpoint, Socket]) -> None:
        """Take over sockets, by the address that they are bound to; the loop closes them in the end."""
        self._sockets.update(sockets)
        if self._nursery is not None:
            for local, socket in sockets.items():
                self._nursery.start_soon(self._receive, local, socket)

    def remove(self, local: Endpoint) -> None:
        """Close the socket of an address."""
        socket = self._sockets.pop(local, None)
        if socket is not None:
            trio.lowlevel.notify_closing(socket)
            socket.close()

    def stop(self) -> None:
        """Make `run` return, once what was due has been sent."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    async def run(self, *, stop: trio.Event | None = None) -> None:
        """Drive the machine until `stop` is set or called."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for local, socket in self._sockets.items():
                    nursery.start_soon(self._receive, local, socket)
                nursery.start_soon(self._keep_time)
                self.flush()
                if stop is not None:
                    await stop.wait()
                    nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            for socket in self._sockets.values():
                socket.close()

    def flush(self) -> None:
        """Report what happened and send what is due; call it after the machine was told something from outside."""
        now = self._clock.now()
        while events := self._machine.events():
            for event in events:
                self._on_event(event)
        for datagram in self._machine.datagrams_to_send(now):
            self._send(datagram)
        due = self._machine.next_timeout()
        if due is not None and (self._armed is None or due < self._armed):
            self._kick.set()

    def _send(self, datagram: Datagram) -> None:
        socket = self._sockets.get(datagram.source)
        if socket is None:
            self.errors["closed"] += 1
            return
        try:
            socket.sendto(datagram.data, datagram.destination)
        except OSError as error:
            self.errors[errno.errorcode.get(error.errno or 0, str(error))] += 1

    async def _receive(self, local: Endpoint, socket: Socket) -> None:
        machine, recvfrom = self._machine, socket.recvfrom
        while self._sockets.get(local) is socket:  # it may be closed before this task first runs
            try:
                await trio.lowlevel.wait_readable(socket)
            except trio.ClosedResourceError:
                return
            now = self._clock.now()
            for _ in range(BATCH):
                try:
                    data, source = recvfrom(LARGEST)
                except BlockingIOError:
                    break
                except OSError as error:  # an ICMP error that the kernel reports here
                    self.errors[errno.errorcode.get(error.errno or 0, str(error))] += 1
                    continue
                machine.receive(Datagram(Endpoint(source[0], source[1]), local, data), now)
            self.flush()

    async def _keep_time(self) -> None:
        while True:
            self._kick = trio.Event()
            self._armed = due = self._machine.next_timeout()
            with trio.move_on_at(self._clock.trio_time(due) if due is not None else float("inf")):
                await self._kick.wait()
            now = self._clock.now()
            if due is not None and due <= now:
                self.lateness = max(self.lateness, now - due)
                self._machine.handle_timeout(now)
                self.flush()
