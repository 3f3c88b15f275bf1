"""What every agent takes and gives: reference agents, external programs and the trial that runs them.

Rule 1: an agent is told everything: addresses, servers, deadlines, seed. It looks nothing up.
Rule 2: an agent reports by events (`traversal.events`), each as it happens; it draws no verdict. What a trial came
        out as is decided elsewhere, from both ends' events and the lab's packets.
Rule 3: an agent that is connected stays and answers until it is told to stop, because the other end may not be yet.

All times are integer nanoseconds of CLOCK_MONOTONIC, which is one clock for every namespace and for captures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import trio

from testbed.datagram import Endpoint
from testbed.traversal.candidates import Role
from testbed.traversal.events import Event
from testbed.traversal.rendezvous import ServerAddresses as ServerAddresses

EXIT_UNSUPPORTED = 77
"""The exit status by which an external program says "unsupported"; test programs have said "skipped" so for long."""


class Socket(Protocol):
    """A bound, non-blocking UDP socket: what a lab opens inside a namespace."""

    def fileno(self) -> int:
        """Its descriptor."""

    def recvfrom(self, bufsize: int, /) -> tuple[bytes, tuple[str, int]]:
        """One datagram and its source; BlockingIOError where there is none."""

    def sendto(self, data: bytes, address: tuple[str, int], /) -> int:
        """Send one datagram; BlockingIOError where the buffer is full."""

    def getsockname(self) -> tuple[str, int]:
        """Where it is bound."""

    def close(self) -> None:
        """Close the descriptor."""


OpenSocket: TypeAlias = Callable[[Endpoint], Socket]
"""Opens a non-blocking UDP socket bound to an address of the end's namespace. Raises OSError as bind(2) does."""

OnEvent: TypeAlias = Callable[[Event], None]
"""Called at once, in the agent's own task; it must not block."""


@dataclass(frozen=True, slots=True)
class AgentSetup:
    """All that one end is told."""

    name: str
    peer: str
    role: Role
    addresses: tuple[str, ...]
    """The end's own addresses, one an uplink; a socket is bound to each."""
    servers: ServerAddresses
    deadline: int
    """Nanoseconds from the first check to application bytes over the direct path."""
    setup_deadline: int
    """Nanoseconds from the start to the first check."""
    seed: int
    """All of this end's chance: ports, tokens, transaction ids."""
    strategy: str = "reflexive"
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentResult:
    """What an end leaves behind."""

    events: tuple[Event, ...]
    warnings: tuple[str, ...] = ()
    """What to check before trusting the result: a late loop, lines that could not be read."""
    lateness: int = 0
    """Nanoseconds by which the loop was late at most."""
    secrets: tuple[str, ...] = ()
    """TLS secrets in the key log format, for the capture."""


class Agent(Protocol):
    """A reference agent: runs one end until `stop`, or until nothing is left to do, and returns what it saw.

    An end that never connects returns by itself after `Failed`; one that is connected runs until `stop`.
    """

    async def __call__(
        self, setup: AgentSetup, *, open_socket: OpenSocket, on_event: OnEvent, stop: trio.Event
    ) -> AgentResult:
        """Run one end."""
