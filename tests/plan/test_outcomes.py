"""Every way in which words and packets can differ, and what the trial then counts as."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.datagram import Endpoint
from testbed.plan.outcomes import CLAIM_REFUTED, ENDS_DISAGREE, Claim, End, Outcome, Passage, judge

A, A_OUTSIDE = Endpoint("192.168.1.2", 5000), Endpoint("11.0.0.6", 40000)
B, B_OUTSIDE = Endpoint("192.168.2.2", 6000), Endpoint("11.0.0.10", 41000)
RELAY = Endpoint("11.0.0.2", 3478)
RELAYS = frozenset({"11.0.0.2", "11.128.0.1"})

ALICE = End(
    frozenset({A.host}),
    Claim(A, B_OUTSIDE),
    relayed=True,
    sent=frozenset({Passage(A, B_OUTSIDE, 1)}),
    received=frozenset({Passage(B_OUTSIDE, A, 2)}),
)
BOB = End(
    frozenset({B.host}),
    Claim(B, A_OUTSIDE),
    relayed=True,
    sent=frozenset({Passage(B, A_OUTSIDE, 2)}),
    received=frozenset({Passage(A_OUTSIDE, B, 1)}),
)
SILENT_A, SILENT_B = replace(ALICE, claim=None), replace(BOB, claim=None)

ELSEWHERE = Endpoint("11.0.0.6", 40001)
"""A mapping that alice's NAT uses towards bob only, where it maps by address and port."""
BOB_HEARS_ELSEWHERE = replace(BOB, claim=Claim(B, A_OUTSIDE, ELSEWHERE), received=frozenset({Passage(ELSEWHERE, B, 1)}))

ROWS = [
    ("each direction has a mapping of its own, and the claim says so", ALICE, BOB_HEARS_ELSEWHERE, Outcome.DIRECT, ()),
    (
        "packets from an address that was not claimed prove nothing",
        ALICE,
        replace(BOB_HEARS_ELSEWHERE, claim=Claim(B, A_OUTSIDE)),
        Outcome.RELAYED,
        (CLAIM_REFUTED,),
    ),
    (
        "bytes that come from the relay are relayed, wherever answers go",
        ALICE,
        replace(BOB, claim=Claim(B, A_OUTSIDE, RELAY)),
        Outcome.RELAYED,
        (CLAIM_REFUTED,),
    ),
    ("both say so and packets passed both ways", ALICE, BOB, Outcome.DIRECT, ()),
    ("direct needs no relay", replace(ALICE, relayed=False), replace(BOB, relayed=False), Outcome.DIRECT, ()),
    ("neither says so, the relay works", SILENT_A, SILENT_B, Outcome.RELAYED, ()),
    ("neither says so, one end has the relay", SILENT_A, replace(SILENT_B, relayed=False), Outcome.FAILED, ()),
    ("packets alone are not success", SILENT_A, replace(SILENT_B, relayed=False), Outcome.FAILED, ()),
    ("only the first says so", ALICE, SILENT_B, Outcome.RELAYED, (ENDS_DISAGREE,)),
    ("only the second says so", SILENT_A, BOB, Outcome.RELAYED, (ENDS_DISAGREE,)),
    (
        "both say so, nothing ever passed",
        replace(ALICE, sent=frozenset(), received=frozenset()),
        replace(BOB, sent=frozenset(), received=frozenset()),
        Outcome.RELAYED,
        (CLAIM_REFUTED,),
    ),
    (
        "both say so, the way back is missing",
        replace(ALICE, received=frozenset()),
        BOB,
        Outcome.RELAYED,
        (CLAIM_REFUTED,),
    ),
    (
        "both say so, the way there is missing",
        ALICE,
        replace(BOB, received=frozenset()),
        Outcome.RELAYED,
        (CLAIM_REFUTED,),
    ),
    (
        "packets passed, but on another path than the claimed one",
        replace(ALICE, claim=Claim(A, Endpoint("11.0.0.10", 9))),
        BOB,
        Outcome.RELAYED,
        (CLAIM_REFUTED,),
    ),
    (
        "what was claimed is the relay's path",
        replace(ALICE, claim=Claim(A, RELAY)),
        BOB,
        Outcome.RELAYED,
        (CLAIM_REFUTED,),
    ),
    (
        "the claimed local address is somebody else's",
        replace(ALICE, claim=Claim(Endpoint("11.0.0.6", 1), B_OUTSIDE)),
        BOB,
        Outcome.RELAYED,
        (CLAIM_REFUTED,),
    ),
    (
        "different packets left and arrived: connected, but not to each other",
        ALICE,
        replace(BOB, received=frozenset({Passage(A_OUTSIDE, B, 7)})),
        Outcome.RELAYED,
        (CLAIM_REFUTED,),
    ),
    ("one end cannot do this at all", ALICE, replace(BOB, unsupported="no IPv4"), Outcome.UNSUPPORTED, ()),
]


@pytest.mark.parametrize(("one", "other", "outcome", "notes"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_outcome(one: End, other: End, outcome: Outcome, notes: tuple[str, ...]) -> None:
    for first, second in ((one, other), (other, one)):
        verdict = judge(first, second, RELAYS)
        assert (verdict.outcome, verdict.notes) == (outcome, notes)
        assert (verdict.reason is None) == (outcome is Outcome.DIRECT)


def test_what_of_ours_died_is_never_a_failed_punch() -> None:
    assert judge(ALICE, BOB, RELAYS, broken="the wire died").outcome is Outcome.BROKEN
    assert judge(SILENT_A, SILENT_B, RELAYS, broken="the wire died").reason == "the wire died"


def test_only_what_peers_did_counts() -> None:
    assert [o for o in Outcome if o.counts] == [Outcome.DIRECT, Outcome.RELAYED, Outcome.FAILED]
