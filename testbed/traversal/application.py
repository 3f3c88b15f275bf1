"""Application bytes of the UDP agent: enough to know that bytes go both ways on a path, and how long they take.

Rule 1: an end sends a greeting until it is echoed. Greeting heard: bytes arrive here. Echo heard: ours arrive there.
Rule 2: every datagram carries a tag under a key that both ends' passwords make, different for each direction: what a
        stranger sends, or a middlebox reflects, is not application bytes.

    0x0F · kind (1) · number (4) · tag (8) · text
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from hashlib import blake2s

from testbed.traversal.candidates import Role
from testbed.traversal.demultiplex import APPLICATION_MAGIC

GREETING, ECHO = 1, 2
TAG_SIZE = 8
FIRST_WAIT, LONGEST_WAIT = 50_000_000, 400_000_000
"""Nanoseconds until a greeting is sent again: the gap doubles."""
TEXT = b"testbed application bytes"
_HEADER = struct.Struct("!BBI8s")


@dataclass(frozen=True, slots=True)
class Heard:
    """A datagram of the other end, of which the tag fits."""

    is_echo: bool
    number: int
    size: int
    """Of the text in it, in bytes."""


class Codec:
    """Makes one end's datagrams and reads the other's."""

    def __init__(self, role: Role, own_password: str, other_password: str) -> None:
        secret = "/".join(sorted((own_password, other_password)))
        other = Role.CONTROLLED if role is Role.CONTROLLING else Role.CONTROLLING
        self._key = blake2s(f"{role}/{secret}".encode()).digest()
        self._other_key = blake2s(f"{other}/{secret}".encode()).digest()

    def greeting(self, number: int) -> bytes:
        """Our greeting number so-and-so."""
        return self._make(GREETING, number)

    def echo(self, number: int) -> bytes:
        """The answer to the other's greeting of that number."""
        return self._make(ECHO, number)

    def read(self, data: bytes) -> Heard | None:
        """What the other end said; None where it was not the other end."""
        if len(data) < _HEADER.size:
            return None
        magic, kind, number, tag = _HEADER.unpack_from(data)
        text = data[_HEADER.size :]
        if magic != APPLICATION_MAGIC or kind not in (GREETING, ECHO):
            return None
        if not hmac.compare_digest(tag, _tag(self._other_key, kind, number, text)):
            return None
        return Heard(kind == ECHO, number, len(text))

    def _make(self, kind: int, number: int) -> bytes:
        return _HEADER.pack(APPLICATION_MAGIC, kind, number, _tag(self._key, kind, number, TEXT)) + TEXT


class Greetings:
    """The greetings of one end on one path."""

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}
        self._due: int | None = None
        self._wait = FIRST_WAIT
        self._heard = False
        self.rtt: int | None = None
        """Nanoseconds to the other end and back; None until an echo came."""

    @property
    def is_started(self) -> bool:
        """Whether greetings go out, or went out until they were echoed."""
        return bool(self._sent) or self._due is not None

    def start(self, now: int) -> None:
        """Greet from now on."""
        if not self.is_started:
            self._due = now

    def next_timeout(self) -> int | None:
        """When the next greeting is due."""
        return self._due

    def due(self, now: int) -> int | None:
        """The number of a greeting that is to be sent now."""
        if self._due is None or now < self._due:
            return None
        number = len(self._sent) + 1
        self._sent[number] = now
        self._due, self._wait = now + self._wait, min(2 * self._wait, LONGEST_WAIT)
        return number

    def hear(self, heard: Heard, now: int) -> bool:
        """Whether it is news: the first greeting of the other's, or the first echo of ours."""
        if heard.is_echo:
            if self.rtt is not None or heard.number not in self._sent:
                return False
            self.rtt, self._due = now - self._sent[heard.number], None
            return True
        first, self._heard = not self._heard, True
        return first

    @property
    def is_heard(self) -> bool:
        """Whether application bytes of the other end arrived."""
        return self._heard


def _tag(key: bytes, kind: int, number: int, text: bytes) -> bytes:
    return blake2s(struct.pack("!BI", kind, number) + text, key=key, digest_size=TAG_SIZE).digest()
