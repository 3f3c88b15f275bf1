"""Long-term credentials, the server's side (RFC 8489 §9.2.4).

Rule 1: a nonce needs no memory: it is the time at which it ends and a keyed digest of that.
Rule 2: what is refused here is refused without MESSAGE-INTEGRITY: there is no key that both sides are known to have.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from testbed.traversal import stun
from testbed.traversal.stun import Message
from testbed.traversal.stun_attributes import Attribute

SECOND = 1_000_000_000
NONCE_LIFETIME = 3600 * SECOND


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Who asks, and the key that the answer is signed with."""

    username: str
    key: bytes


class Authenticator:
    """Knows every password; says who a request comes from, or how to refuse it."""

    def __init__(self, realm: str, passwords: Mapping[str, str], rng: Random) -> None:
        self._realm, self._secret = realm, rng.randbytes(16)
        self._keys = {name: stun.long_term_key(name, realm, password) for name, password in passwords.items()}

    def check(self, request: Message, now: int) -> Authenticated | Message:
        """Who asks, or the refusal to send: 401 without credentials or with wrong ones, 400, 438."""
        if not request.has_integrity:
            return self._challenge(request, 401, "Unauthenticated", now)
        username, realm, nonce = map(request.text, (Attribute.USERNAME, Attribute.REALM, Attribute.NONCE))
        if username is None or realm is None or nonce is None:
            return stun.refusal(request, 400, "Bad Request")
        if not self._is_fresh(nonce, now):
            return self._challenge(request, 438, "Stale Nonce", now)
        key = self._keys.get(username)
        if key is None or realm != self._realm or not request.verify(key):
            return self._challenge(request, 401, "Unauthenticated", now)
        return Authenticated(username, key)

    def _challenge(self, request: Message, code: int, phrase: str, now: int) -> Message:
        nonce = self._nonce((now + NONCE_LIFETIME) // SECOND)
        return stun.refusal(request, code, phrase, (Attribute.REALM, self._realm), (Attribute.NONCE, nonce))

    def _nonce(self, ends: int) -> str:
        digest = hmac.digest(self._secret, str(ends).encode(), "sha1")[:8]
        return f"{ends:x}-{digest.hex()}"

    def _is_fresh(self, nonce: str, now: int) -> bool:
        text = nonce.partition("-")[0]
        if len(text) > 16 or not text.isascii() or not text.isalnum():
            return False
        try:
            ends = int(text, 16)
        except ValueError:
            return False
        return ends * SECOND > now and hmac.compare_digest(nonce.encode(), self._nonce(ends).encode())
