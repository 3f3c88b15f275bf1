"""The nine kinds against each other: what theory says, and that being stricter never helps."""

from __future__ import annotations

from functools import cache
from itertools import pairwise, product

import pytest

from testbed.plan.outcomes import Outcome
from testbed.sim.trial import Played
from testbed.spec.kinds import FILTERINGS, KINDS, MAPPINGS
from testbed.spec.profile import NatProfile
from tests.sim.build import cell, profile, trial, words

# Targets learnt from STUN, no prediction of ports. A `1` where two ends connect, by the other's kind in the order of
# KINDS; symmetric, as it must be. With session reply, the answer to an admitted packet leaves by the mapping that the
# packet came by, and is therefore expected there.
STRICT = {
    "eim-eif": "111111111",
    "eim-adf": "111111111",
    "eim-apdf": "111000000",
    "adm-eif": "110110110",
    "adm-adf": "110100100",
    "adm-apdf": "110000000",
    "apdm-eif": "110110110",
    "apdm-adf": "110100100",
    "apdm-apdf": "110000000",
}
CONNECTING = {False: 45, True: 57}
CELLS = list(product(KINDS, KINDS))


@cache
def played(one: str, other: str, session_reply: bool = False) -> Played:
    return trial(cell(nat_a=kind(one, session_reply), nat_b=kind(other, session_reply)))


def connects(one: str, other: str, session_reply: bool = False) -> bool:
    return played(one, other, session_reply).verdict.outcome is Outcome.DIRECT


def kind(name: str, session_reply: bool) -> NatProfile:
    return profile(name).model_copy(update={"session_reply": session_reply})


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [pytest.param(one, other, STRICT[one][KINDS.index(other)] == "1", id=f"{one} and {other}") for one, other in CELLS],
)
def test_theory(one: str, other: str, meets: bool) -> None:
    found = played(one, other)
    assert found.verdict.outcome is (Outcome.DIRECT if meets else Outcome.RELAYED)
    for end in ("alice", "bob"):
        assert "relay" in words(found, end)
        assert ("exhausted" in words(found, end)) is not meets


@pytest.mark.parametrize("session_reply", [False, True])
def test_how_many_connect(session_reply: bool) -> None:
    assert sum(connects(one, other, session_reply) for one, other in CELLS) == CONNECTING[session_reply]


@pytest.mark.parametrize("session_reply", [False, True])
def test_it_does_not_matter_who_is_who(session_reply: bool) -> None:
    for one, other in CELLS:
        assert connects(one, other, session_reply) is connects(other, one, session_reply), (one, other)


@pytest.mark.parametrize("agent", ["udp", "quic"])
@pytest.mark.parametrize("seed", range(2, 8))
def test_a_path_with_a_mapping_for_each_direction_does_not_hang_on_its_ports(seed: int, agent: str) -> None:
    """Neither end has an address of the other's that the other sends from; many pairs are as quick as each other."""
    assert trial(cell(agent=agent, nat_a="apdm-eif", nat_b="apdm-eif"), seed).verdict.outcome is Outcome.DIRECT


def test_session_reply_takes_nothing_away() -> None:
    for one, other in CELLS:
        assert connects(one, other, True) or not connects(one, other, False), (one, other)


@pytest.mark.parametrize("session_reply", [False, True])
def test_stricter_never_helps(session_reply: bool) -> None:
    """Of two pairs that differ in one behaviour of one NAT, by one step, the stricter does not connect where the
    laxer fails.
    """
    for one, other in CELLS:
        for stricter in one_step_stricter(one):
            before, after = connects(one, other, session_reply), connects(stricter, other, session_reply)
            assert before or not after, f"{one} fails to meet {other}, and {stricter} does not"


def one_step_stricter(name: str) -> list[str]:
    mapping, filtering = name.split("-")
    mappings = [f"{after}-{filtering}" for before, after in pairwise(MAPPINGS) if before == mapping]
    filterings = [f"{mapping}-{after}" for before, after in pairwise(FILTERINGS) if before == filtering]
    return mappings + filterings
