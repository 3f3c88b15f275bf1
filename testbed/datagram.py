"""The two nouns that every layer shares: where a datagram comes from or goes to, and the datagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Endpoint(NamedTuple):
    """A transport address: an IP address in its canonical text form, and a port.

    A named tuple, because that is what sockets take and return.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """The inverse of `str`: `11.0.0.6:5000`, `[2001:db8::1]:5000`. Raises ValueError."""
        host, separator, port = text.rpartition(":")
        if not separator or not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text!r} is not HOST:PORT")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram as its sender or its receiver sees it."""

    source: Endpoint
    destination: Endpoint
    data: bytes
