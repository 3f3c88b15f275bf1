"""The driver of a reference agent's machine: its sockets at the start, those that it asks for, until it has given up.

Rule 1: a socket that is asked for during an attempt is opened at once, by the same function as the others; one that
        cannot be bound is refused to the machine, which decides what to do without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import trio

from testbed.agents.contract import AgentResult, AgentSetup, OnEvent, OpenSocket, Socket
from testbed.agents.loop import Loop
from testbed.datagram import Datagram, Endpoint
from testbed.traversal.events import Event, Failed
from testbed.traversal.peer import Attempt
from testbed.traversal.punching import CloseBase, OpenBase
from testbed.traversal.strategies import strategy


class End(Protocol):
    """The contract of a machine of `traversal` that is one end."""

    def start(self, now: int) -> None:
        """Begin."""

    def receive(self, datagram: Datagram, now: int) -> object:
        """A datagram came in."""

    def next_timeout(self) -> int | None:
        """When `handle_timeout` is due."""

    def handle_timeout(self, now: int) -> None:
        """The time has come."""

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """What is to be sent now."""

    def events(self) -> Sequence[Event | OpenBase | CloseBase]:
        """What happened since the last call, and the sockets that are to be opened or closed."""

    def base_opened(self, base: Endpoint, now: int) -> None:
        """A socket that was asked for is bound."""

    def base_refused(self, base: Endpoint, now: int) -> None:
        """A socket that was asked for cannot be bound."""


def attempt_of(setup: AgentSetup, bases: Iterable[Endpoint]) -> Attempt:
    """What a machine is told, from what its agent was told. `bases`: the sockets that are open."""
    return Attempt(
        name=setup.name,
        peer=setup.peer,
        role=setup.role,
        bases=tuple(bases),
        servers=setup.servers,
        strategy=strategy(setup.strategy, setup.parameters),
        deadline=setup.deadline,
        setup_deadline=setup.setup_deadline,
    )


async def run_end(
    end: End,
    sockets: Mapping[Endpoint, Socket],
    *,
    open_socket: OpenSocket,
    on_event: OnEvent,
    stop: trio.Event,
) -> AgentResult:
    """Run the machine until `stop`, or until it has given up. The sockets are closed in the end."""
    events: list[Event] = []

    def take(event: Event | OpenBase | CloseBase) -> None:
        match event:
            case OpenBase(endpoint=base):
                try:
                    loop.add({base: open_socket(base)})
                except OSError:
                    end.base_refused(base, loop.now())
                else:
                    end.base_opened(base, loop.now())
            case CloseBase(endpoint=base):
                loop.remove(base)
            case Event():
                events.append(event)
                on_event(event)
                if isinstance(event, Failed):
                    loop.stop()

    loop = Loop(end, take)
    loop.add(sockets)
    end.start(loop.now())
    await loop.run(stop=stop)
    return AgentResult(tuple(events), lateness=loop.lateness)
