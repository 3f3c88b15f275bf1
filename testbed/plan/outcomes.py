"""What counts as which outcome: from what both ends say and what the lab saw, to one value.

Rule 1: `direct` needs both ends' word that they are connected to each other on a path that is not the
        relay's, *and* packets in both directions on that path in the lab's own captures.
Rule 2: one end's word only is not direct; it is noted as `ends_disagree`.
Rule 3: words that no packet bears out are not direct; they are noted as `claim_refuted`.
Rule 4: a program's label for a path is never believed; its addresses are checked.
Rule 5: what the testbed itself got wrong is `broken`, and never a failure of the peers.

A NAT rewrites addresses and ports but not a UDP payload. So a datagram that left one end on its claimed
path and the same payload arriving at the other end on *its* claimed path are one packet on one path,
whatever lies between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from testbed.datagram import Endpoint


class Outcome(StrEnum):
    """How a trial came out."""

    DIRECT = "direct"
    RELAYED = "relayed"
    """No direct path by the deadline; the relay works."""
    FAILED = "failed"
    """Nothing works."""
    UNSUPPORTED = "unsupported"
    """The program says that it cannot do this."""
    BROKEN = "broken"
    """The testbed is at fault."""

    @property
    def counts(self) -> bool:
        """Whether the outcome enters a rate."""
        return self in (Outcome.DIRECT, Outcome.RELAYED, Outcome.FAILED)


ENDS_DISAGREE = "ends_disagree"
CLAIM_REFUTED = "claim_refuted"


@dataclass(frozen=True, slots=True)
class Claim:
    """One end's word: I am connected, from this address of mine to that address of the other's."""

    local: Endpoint
    remote: Endpoint
    """Where its packets go to."""
    received_from: Endpoint | None = None
    """Where the other's come from, if that is another address: each direction may have a mapping of its own."""

    @property
    def source(self) -> Endpoint:
        """Where the other's packets come from."""
        return self.received_from or self.remote

    def addresses(self) -> tuple[str, ...]:
        """Every address that the claim names."""
        return self.local.host, self.remote.host, self.source.host


@dataclass(frozen=True, slots=True)
class Passage:
    """A UDP datagram seen on the interface of one end: its addresses as seen there, and its payload's digest."""

    source: Endpoint
    destination: Endpoint
    digest: int


@dataclass(frozen=True, slots=True)
class End:
    """All that is known of one end after a trial."""

    addresses: frozenset[str]
    """Of its box, in the lab."""
    claim: Claim | None = None
    relayed: bool = False
    """Application bytes arrived here through the relay, by the end's own word."""
    unsupported: str | None = None
    failed: str | None = None
    """Why it gave up, by its own word: what a person wants to read where nothing else is known."""
    sent: frozenset[Passage] = field(default=frozenset())
    received: frozenset[Passage] = field(default=frozenset())

    def digests_sent(self) -> set[int]:
        """Payloads that left on the claimed path."""
        claim = self.claim
        return {p.digest for p in self.sent if claim and (p.source, p.destination) == (claim.local, claim.remote)}

    def digests_received(self) -> set[int]:
        """Payloads that arrived on the claimed path."""
        claim = self.claim
        return {p.digest for p in self.received if claim and (p.destination, p.source) == (claim.local, claim.source)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome, why it is not a better one, and what was odd about it."""

    outcome: Outcome
    reason: str | None = None
    notes: tuple[str, ...] = ()


def judge(one: End, other: End, relays: frozenset[str], broken: str | None = None) -> Verdict:
    """The outcome of a trial between two ends. `relays`: every address of a relay. `broken`: what of ours died."""
    if broken is not None:
        return Verdict(Outcome.BROKEN, broken)
    for end in (one, other):
        if end.unsupported is not None:
            return Verdict(Outcome.UNSUPPORTED, end.unsupported)
    notes, reason = _doubts(one, other, relays)
    if reason is None:
        return Verdict(Outcome.DIRECT, None, notes)
    if one.relayed and other.relayed:
        return Verdict(Outcome.RELAYED, reason, notes)
    return Verdict(Outcome.FAILED, reason, notes)


def _doubts(one: End, other: End, relays: frozenset[str]) -> tuple[tuple[str, ...], str | None]:
    """Notes, and the reason why the path is not direct; None where it is."""
    claims = [end.claim for end in (one, other) if end.claim is not None]
    if not claims:
        words = dict.fromkeys(end.failed for end in (one, other) if end.failed)
        return (), "; ".join(words) or "no direct path by the deadline"
    if len(claims) == 1:
        return (ENDS_DISAGREE,), "one end says that it is connected, the other does not"
    for end, claim in zip((one, other), claims, strict=True):
        if relays.intersection(claim.addresses()):
            return (CLAIM_REFUTED,), f"the claimed path {claim.local} to {claim.remote} is the relay's"
        if claim.local.host not in end.addresses:
            return (CLAIM_REFUTED,), f"{claim.local} is not an address of the end that claims it"
    there = one.digests_sent() & other.digests_received()
    back = other.digests_sent() & one.digests_received()
    if there and back:
        return (), None
    missing = "in either direction" if not there and not back else "in one direction"
    return (CLAIM_REFUTED,), f"both ends say that they are connected; no packet passed {missing}"
