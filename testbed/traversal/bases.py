"""Sockets that an attempt asks for beside those that an end begins with.

Rule 1: sockets belong to the driver. `OpenBase` asks for one at an address and a port that our own chance has drawn;
        the driver answers whether it is bound. One that is refused is asked for again elsewhere, up to a limit.
Rule 2: many are opened in bursts, each of which is used before the next one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from testbed.datagram import Endpoint

FIRST_PORTS = range(20000, 30000)
"""Where an end's first sockets are bound: below the kernel's ephemeral ports, so that nothing else is there."""
PORTS = range(10000, 20000)
"""Where others are: below the first and those that kernels choose."""
AT_ONCE, GAP = 32, 20_000_000
"""Sockets of one burst, and nanoseconds to the next: 256 at once would be too long a task for an event loop, and more
than a small router's queue may hold."""
MOST_REFUSALS = 32
"""Sockets that may be refused before an end goes on with fewer."""


@dataclass(frozen=True, slots=True)
class OpenBase:
    """A socket is to be bound here; answer with `base_opened` or `base_refused`."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class CloseBase:
    """The socket bound here is not needed any more."""

    endpoint: Endpoint


BaseRequest: TypeAlias = "OpenBase | CloseBase"


class Bases:
    """The sockets of one round after another."""

    def __init__(self, host: str, taken: set[int], rng: Random) -> None:
        """`taken`: ports that are in use on the host."""
        self._host, self._taken, self._rng = host, set(taken), rng
        self._to_open = self._refusals = 0
        self._open_at: int | None = None
        self._wanted: set[Endpoint] = set()
        self._new: list[Endpoint] = []
        self._requests: list[BaseRequest] = []
        self.opened: tuple[Endpoint, ...] = ()
        """Those of this round that are bound."""

    @property
    def is_answered(self) -> bool:
        """Whether every socket that was asked for was opened or refused."""
        return not self._wanted

    @property
    def is_complete(self) -> bool:
        """Whether, beside that, none is left to be asked for."""
        return not self._wanted and not self._to_open

    def open(self, count: int) -> None:
        """Ask for so many, the first burst of them at once."""
        self._to_open = count
        self._ask_for_burst()

    def take_new(self, now: int) -> tuple[Endpoint, ...]:
        """Those that were bound since the last call, to be used now; the next burst follows after a gap."""
        new, self._new = tuple(self._new), []
        self._open_at = now + GAP if self._to_open else None
        return new

    def base_opened(self, base: Endpoint) -> bool:
        """The driver has bound it; whether it is still wanted."""
        if base not in self._wanted:
            self._requests.append(CloseBase(base))
            return False
        self._wanted.discard(base)
        self.opened += (base,)
        self._new.append(base)
        return True

    def base_refused(self, base: Endpoint) -> bool:
        """The driver cannot bind it; whether it was wanted."""
        if base not in self._wanted:
            return False
        self._wanted.discard(base)
        self._refusals += 1
        if self._refusals < MOST_REFUSALS:
            self._ask()
        return True

    def end_round(self, is_used: Callable[[Endpoint], bool]) -> None:
        """Close them, except those that are used; none is wanted any more."""
        self._requests += [CloseBase(base) for base in self.opened if not is_used(base)]
        self.stop()
        self.opened, self._new, self._refusals = (), [], 0

    def stop(self) -> None:
        """Ask for no more."""
        self._to_open, self._open_at = 0, None
        self._wanted.clear()

    def next_timeout(self) -> int | None:
        """When the next burst is due."""
        return self._open_at

    def handle_timeout(self, now: int) -> None:
        """Ask for the next burst."""
        if self._open_at is not None and self._open_at <= now:
            self._open_at = None
            self._ask_for_burst()

    def requests(self) -> list[BaseRequest]:
        """What the driver is to do."""
        requests, self._requests = self._requests, []
        return requests

    def _ask_for_burst(self) -> None:
        burst = min(self._to_open, AT_ONCE)
        self._to_open -= burst
        for _ in range(burst):
            self._ask()

    def _ask(self) -> None:
        port = self._rng.choice(PORTS)
        while port in self._taken:
            port = self._rng.choice(PORTS)
        self._taken.add(port)
        base = Endpoint(self._host, port)
        self._wanted.add(base)
        self._requests.append(OpenBase(base))
