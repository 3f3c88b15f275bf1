"""Why a trial came out so, as tables: made-up trials with the sentence that each deserves, made-up captures with the
ending of each packet, words that name a trial, and trials of the model explained from their records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.datagram import Endpoint
from testbed.errors import UsageError
from testbed.lab import pcapng
from testbed.lab.pcapng import Point, Seen
from testbed.plan.trials import CellPlan, TrialSettings
from testbed.report.explanation import page
from testbed.results.explanation import Explanation
from testbed.results.record import Event as RecordEvent
from testbed.results.record import Happening, Record
from testbed.sim.trial import play
from testbed.spec.event import Change
from testbed.spec.event import Event as SpecEvent
from testbed.spec.kinds import kind
from testbed.spec.profile import Hairpinning, NatProfile, Unsolicited
from testbed.traversal.candidates import CandidateType
from testbed.traversal.events import CandidateFound, Check, Connected, Event, Exhausted, Failed, Relay, Start, to_json
from testbed.trial.explain import NOT_KEPT, build, read_events
from testbed.trial.explain_choice import choose
from testbed.trial.explain_events import in_lab
from testbed.trial.explain_flows import Traffic
from testbed.trial.explain_journeys import Journey, captured, sightings
from testbed.trial.explain_sentence import Case, sentence
from testbed.trial.explain_timeline import listed
from tests.results.build import record
from tests.sim.build import SECOND, SETTINGS, TWO_HOMES, cell, link, node

MS = 1_000_000
A, B = Endpoint("192.168.1.2", 5000), Endpoint("192.168.2.2", 6000)
A_OUT, B_OUT = Endpoint("11.0.0.6", 5000), Endpoint("11.0.0.10", 6000)
A_NEW, B_NEW = Endpoint("11.0.0.6", 40000), Endpoint("11.0.0.10", 41000)
MEET = Endpoint("11.0.0.2", 3478)
HOST, REFLEXIVE = CandidateType.HOST, CandidateType.SERVER_REFLEXIVE

# ---------------------------------------------------------------------------- sentences


def alice(remote: Endpoint, where: str, reason: str, *, n: int = 1, left_by: Endpoint | None = A_OUT) -> list[Journey]:
    """Her checks, a millisecond apart, from the tenth on."""
    return [Journey("alice", (10 + i) * MS, A, remote, left_by, where, reason, True) for i in range(n)]


def bob(remote: Endpoint, where: str, reason: str, *, n: int = 1, left_by: Endpoint | None = B_OUT) -> list[Journey]:
    """His, from the fiftieth millisecond on."""
    return [Journey("bob", (50 + i) * MS, B, remote, left_by, where, reason, True) for i in range(n)]


def events(name: str, *more: Event, relay: bool = True, reflexive: bool = True) -> tuple[Event, ...]:
    """What an end says before it does anything, and then `more`."""
    own, outside = (A, A_OUT) if name == "alice" else (B, B_OUT)
    told: list[Event] = [Start(0, name), CandidateFound(0, HOST, own, own)]
    told += [CandidateFound(MS, REFLEXIVE, outside, own, MEET)] if reflexive else []
    told += [Relay(5 * MS, 40 * MS)] if relay else []
    return (*told, *more)


def both(*more: Event, **facts: bool) -> Mapping[str, tuple[Event, ...]]:
    return {name: events(name, *more, **facts) for name in ("alice", "bob")}


def accepting() -> NatProfile:
    found = kind("eim-apdf")
    assert found is not None
    return found.model_copy(update={"unsolicited": Unsolicited.ACCEPT})


LOSSY = {**TWO_HOMES, "alice": node("peer", "nat_a", link=link(loss=200_000))}
PUBLIC = {**TWO_HOMES, "bob": node("peer", "internet")}
SAME = {**TWO_HOMES, "bob": node("peer", "nat_a")}
PATH = {"alice": (str(A), str(B_OUT)), "bob": (str(B), str(A_OUT)), "types": ("server-reflexive", "server-reflexive")}
HOSTS = {"alice": (str(A), str(B)), "bob": (str(B), str(A)), "types": ("host", "host")}

APDM_A = cell(nat_a="apdm-apdf", nat_b="eim-apdf")
BOTH_APDM = cell(nat_a="apdm-apdf", nat_b="apdm-apdf")
PLAIN = cell(nat_a="eim-apdf", nat_b="eim-apdf")

Row = tuple[str, CellPlan, Record, Mapping[str, Sequence[Event]], list[Journey], str]


def row(
    about: str,
    plan: CellPlan,
    outcome: str,
    journeys: list[Journey],
    deserved: str,
    *,
    said: Mapping[str, Sequence[Event]] | None = None,
    **facts: Any,
) -> Row:
    return about, plan, record(outcome=outcome, **facts), both() if said is None else said, journeys, deserved


ROWS: list[Row] = [
    row(
        "a mapping for the server is none for the peer, and what leaves by another is not known to the peer",
        APDM_A,
        "relayed",
        alice(B_OUT, "nat_b", "no-permission", n=18, left_by=A_NEW) + bob(A_OUT, "nat_a", "no-permission", n=18),
        "Not direct: each of alice's 18 checks to bob's server-reflexive address 11.0.0.10:6000 died at nat_b "
        "(no-permission), because they came from 11.0.0.6:40000 (nat_a maps by address and port), to which bob had "
        "sent nothing; each of bob's 18 checks to alice's server-reflexive address 11.0.0.6:5000 died at nat_a "
        "(no-permission), because nat_a maps by address and port and has that address for the rendezvous only, while "
        "alice's own checks leave by 11.0.0.6:40000.",
    ),
    row(
        "checks to a host candidate of another network go without saying",
        PLAIN,
        "relayed",
        alice(B, "internet", "no-route", n=3) + alice(B_OUT, "nat_b", "no-permission"),
        "Not direct: alice's only check to bob's server-reflexive address 11.0.0.10:6000 died at nat_b "
        "(no-permission), because it came from 11.0.0.6:5000, to which bob had sent nothing.",
    ),
    row(
        "but not where there was no other",
        PLAIN,
        "relayed",
        alice(B, "internet", "no-route", n=3),
        "Not direct: each of alice's 3 checks to bob's host address 192.168.2.2:6000 found no route at internet, "
        "because bob knew no address of its own but those inside of its network.",
        said={"alice": events("alice"), "bob": events("bob", reflexive=False)},
    ),
    row(
        "a filter that was opened too late",
        PLAIN,
        "relayed",
        alice(B_OUT, "nat_b", "no-permission", n=2) + bob(A_OUT, "nat_a or nat_b", "loss"),
        "Not direct: each of alice's 2 checks to bob's server-reflexive address 11.0.0.10:6000 died at nat_b "
        "(no-permission), because they came before bob had sent anything to 11.0.0.6:5000; bob's only check to alice's "
        "server-reflexive address 11.0.0.6:5000 was lost on the link nat_a or nat_b.",
    ),
    row(
        "a guess that hit nothing",
        BOTH_APDM,
        "relayed",
        alice(B_NEW, "nat_b", "no-mapping", left_by=A_NEW)
        + alice(Endpoint("11.0.0.10", 41001), "nat_b", "no-mapping", left_by=A_NEW),
        "Not direct: each of alice's 2 checks to 2 ports of 11.0.0.10 that nobody told died at nat_b (no-mapping), "
        "because bob had nothing open there: they were a guess.",
    ),
    row(
        "loss is told with its place, its direction and its share, beside what else became of the rest",
        cell(LOSSY, nat_a="eim-apdf", nat_b="eim-apdf"),
        "relayed",
        alice(B_OUT, "alice", "loss", n=4, left_by=None) + alice(B_OUT, "bob", "arrived", n=2),
        "Not direct: of alice's 6 checks to bob's server-reflexive address 11.0.0.10:6000, 2 arrived at bob and 4 "
        "were lost on the link alice (20% loss up alice).",
    ),
    row(
        "checks that arrive and answers that do not",
        PLAIN,
        "relayed",
        alice(B_OUT, "bob", "arrived", n=2)
        + bob(A_OUT, "bob", "loss", left_by=None)
        + [Journey("bob", 60 * MS, B, A_OUT, None, "bob", "loss")] * 2,
        "Not direct: each of alice's 2 checks to bob's server-reflexive address 11.0.0.10:6000 arrived at bob; bob's "
        "only check to alice's server-reflexive address 11.0.0.6:5000 was lost on the link bob; each of bob's 2 "
        "answers was lost on the link bob.",
    ),
    row(
        "checks that come when nobody listens any more",
        PLAIN,
        "relayed",
        alice(B_OUT, "bob", "late", n=2),
        "Not direct: each of alice's 2 checks to bob's server-reflexive address 11.0.0.10:6000 arrived at bob after it "
        "had given up.",
    ),
    row(
        "no port is left",
        APDM_A,
        "relayed",
        alice(B_OUT, "nat_a", "port-exhausted", n=5, left_by=None),
        "Not direct: each of alice's 5 checks to bob's server-reflexive address 11.0.0.10:6000 died at nat_a "
        "(port-exhausted), because nat_a has no external port left.",
    ),
    row(
        "no room is left",
        APDM_A,
        "relayed",
        alice(B_OUT, "nat_a", "table-full", n=5, left_by=None),
        "Not direct: each of alice's 5 checks to bob's server-reflexive address 11.0.0.10:6000 died at nat_a "
        "(table-full), because nat_a holds 65535 mappings already.",
    ),
    row(
        "the port clash: the NAT's own stack has the port",
        cell(nat_a="eim-apdf", nat_b=accepting()),
        "relayed",
        alice(B_OUT, "nat_b", "own-stack", n=5) + bob(A_OUT, "nat_a", "no-permission", left_by=B_NEW),
        "Not direct: each of alice's 5 checks to bob's server-reflexive address 11.0.0.10:6000 was taken by nat_b's "
        "own stack, because nat_b accepts what nobody has asked for, and that port is its own from then on, so that "
        "bob's checks had to leave by 11.0.0.10:41000; bob's only check to alice's server-reflexive address "
        "11.0.0.6:5000 died at nat_a (no-permission), because it came from 11.0.0.10:41000, to which alice had sent "
        "nothing.",
    ),
    row(
        "both behind one NAT that does not hairpin",
        cell(SAME, nat_a="eim-apdf"),
        "relayed",
        alice(Endpoint("11.0.0.6", 6000), "nat_a", "hairpin-refused", n=2, left_by=None),
        "Not direct: each of alice's 2 checks to 11.0.0.6:6000 died at nat_a (hairpin-refused), because both are "
        "behind nat_a, and it sends nothing back to the side that it came from.",
    ),
    row(
        "a NAT that drops without a word is not explained away",
        PLAIN,
        "relayed",
        alice(B_OUT, "nat_b", "unexplained", n=2),
        "Not direct: each of alice's 2 checks to bob's server-reflexive address 11.0.0.10:6000 went no further than "
        "nat_b, which does not say why.",
    ),
    row(
        "nobody looks for a direct path",
        cell(strategy="relay-only"),
        "relayed",
        [],
        "Not direct: the strategy relay-only looks for no direct path.",
    ),
    row(
        "UDP is blocked, so nobody learns of anybody",
        PLAIN,
        "failed",
        [Journey("alice", i * MS, A, MEET, None, "nat_a", "udp-blocked", True) for i in range(9)],
        "Failed: no check was sent (nobody came): each of alice's 9 packets to the rendezvous died at nat_a "
        "(udp-blocked), because nat_a forwards no UDP; no bytes reached alice and bob through the relay.",
        said=both(Failed(9 * MS, "nobody came"), relay=False),
        reason="nobody came",
    ),
    row(
        "the relay is of no use either",
        PLAIN,
        "failed",
        alice(B_OUT, "nat_b", "no-permission", n=2)
        + [Journey("alice", i * MS, A, MEET, A_OUT, "meet", "loss") for i in range(4)]
        + [Journey("bob", i * MS, B, MEET, B_OUT, "meet", "arrived") for i in range(4)],
        "Failed: each of alice's 2 checks to bob's server-reflexive address 11.0.0.10:6000 died at nat_b "
        "(no-permission), because they came from 11.0.0.6:5000, to which bob had sent nothing; no bytes reached alice "
        "and bob through the relay: each of alice's 4 packets to the rendezvous was lost on the link meet.",
        said=both(relay=False),
    ),
    row(
        "words that no packet bears out",
        PLAIN,
        "relayed",
        [],
        "Not direct: no packet passed in one direction (alice claims 192.168.1.2:5000 to bob's server-reflexive "
        "11.0.0.10:6000, bob claims 192.168.2.2:6000 to alice's server-reflexive 11.0.0.6:5000).",
        said={
            "alice": events("alice", Connected(9 * MS, A, B_OUT)),
            "bob": events("bob", Connected(9 * MS, B, A_OUT)),
        },
        reason="no packet passed in one direction",
        warnings=("claim_refuted",),
    ),
    row(
        "one end's word only",
        PLAIN,
        "relayed",
        bob(A_OUT, "nat_a or nat_b", "loss", n=2),
        "Not direct: one end says so, the other not (alice claims 192.168.1.2:5000 to bob's server-reflexive "
        "11.0.0.10:6000, bob claims nothing); each of bob's 2 checks to alice's server-reflexive address 11.0.0.6:5000 "
        "was lost on the link nat_a or nat_b.",
        said={"alice": events("alice", Connected(9 * MS, A, B_OUT)), "bob": events("bob", Exhausted(9 * MS))},
        reason="one end says so, the other not",
        warnings=("ends_disagree",),
    ),
    row(
        "what the testbed got wrong says nothing about the peers",
        PLAIN,
        "broken",
        [],
        "Broken: the testbed is at fault, and the trial says nothing about the peers: the wire process ended by "
        "itself.",
        reason="the wire process ended by itself",
    ),
    row(
        "a program that cannot",
        PLAIN,
        "unsupported",
        [],
        "Unsupported: the program says that it cannot do what is asked: no IPv6 here.",
        reason="no IPv6 here",
    ),
    row(
        "direct, as NATs that map by nothing of the remote let it be",
        PLAIN,
        "direct",
        [],
        "Direct after 111 ms: alice reaches bob at 11.0.0.10:6000 and bob reaches alice at 11.0.0.6:5000, because no "
        "NAT on the way maps by remote: where the rendezvous saw an end, the other finds it.",
        path=PATH,
    ),
    row(
        "direct, because one end has no NAT",
        cell(PUBLIC, nat_a="apdm-apdf"),
        "direct",
        [],
        "Direct after 111 ms: alice reaches bob at 11.0.0.10:6000 and bob reaches alice at 11.0.0.6:5000, because what "
        "alice sends comes from a port that nat_a, which maps by address and port, told nobody, and bob lets it in all "
        "the same.",
        path=PATH,
    ),
    row(
        "direct, because one filter does not look at ports",
        cell(nat_a="eim-adf", nat_b="apdm-apdf"),
        "direct",
        [],
        "Direct after 111 ms: alice reaches bob at 11.0.0.10:6000 and bob reaches alice at 11.0.0.6:5000, because what "
        "bob sends comes from a port that nat_b, which maps by address and port, told nobody, and nat_a lets it in all "
        "the same.",
        path=PATH,
    ),
    row(
        "direct by a guess",
        cell(nat_a="apdm-apdf", nat_b="eim-apdf", strategy="birthday"),
        "direct",
        [],
        "Direct after 111 ms: alice reaches bob at 11.0.0.10:6000 and bob reaches alice at 11.0.0.6:5000, although "
        "nat_a maps by remote: the strategy birthday found the address that was not told.",
        path=PATH,
    ),
    row(
        "direct on one segment",
        cell(SAME, nat_a="apdm-apdf"),
        "direct",
        [],
        "Direct after 111 ms: alice reaches bob at 192.168.2.2:6000 and bob reaches alice at 192.168.1.2:5000, because "
        "these are their own addresses, between which no NAT lies.",
        path=HOSTS,
    ),
]


@pytest.mark.parametrize(("about", "plan", "kept", "said", "journeys", "deserved"), ROWS, ids=[r[0] for r in ROWS])
def test_sentence(
    about: str,
    plan: CellPlan,
    kept: Record,
    said: Mapping[str, Sequence[Event]],
    journeys: list[Journey],
    deserved: str,
) -> None:
    assert sentence(Case(kept, said, Traffic(plan, said, journeys, in_lab(kept, plan)))) == deserved, about


# ---------------------------------------------------------------------------- what happened meanwhile


def nat_event(change: Change) -> tuple[SpecEvent, ...]:
    return (SpecEvent(at=5 * MS, node="nat_a", do=change),)


NEW = Endpoint("11.128.0.2", 5000)
"""The first address that nobody has: the rendezvous took one."""
CUT = (
    SpecEvent.model_validate({"at": 5 * MS, "link": "nat_a", "set": {"loss": 1_000_000}}),
    SpecEvent.model_validate({"at": 30 * MS, "link": "nat_a", "set": {"loss": 0}}),
)
EVENT_ROWS = [
    (
        "a nat that was restarted has nothing for what was told before",
        nat_event(Change.RESTART),
        "relayed",
        bob(A_OUT, "nat_a", "no-mapping", n=2),
        "Not direct: each of bob's 2 checks to alice's server-reflexive address 11.0.0.6:5000 died at nat_a "
        "(no-mapping), because nat_a was restarted 0.0 s before and lost its mappings.",
    ),
    (
        "one that got another address answers at the old one no more, and its packets come from the new one",
        nat_event(Change.CHANGE_ADDRESS),
        "relayed",
        alice(B_OUT, "nat_b", "no-permission", left_by=NEW) + bob(A_OUT, "nat_a", "no-mapping"),
        "Not direct: alice's only check to bob's server-reflexive address 11.0.0.10:6000 died at nat_b "
        "(no-permission), because it came from 11.128.0.2:5000 (nat_a got another address), to which bob had sent "
        "nothing; bob's only check to alice's server-reflexive address 11.0.0.6:5000 died at nat_a (no-mapping), "
        "because nat_a got another address, 11.128.0.2, 0.0 s before and answers at 11.0.0.6 no more.",
    ),
    (
        "a link loses what an event lets it lose, at that time",
        CUT,
        "relayed",
        alice(B_OUT, "nat_a", "loss", n=3) + bob(A_OUT, "alice", "arrived"),
        "Not direct: each of alice's 3 checks to bob's server-reflexive address 11.0.0.10:6000 was lost on the link "
        "nat_a (100% loss up nat_a); bob's only check to alice's server-reflexive address 11.0.0.6:5000 arrived at "
        "alice.",
    ),
    (
        "what an event did to a packet that left before it is nothing",
        (SpecEvent(at=80 * MS, node="nat_a", do=Change.FLUSH),),
        "relayed",
        alice(B_OUT, "nat_b", "no-permission"),
        "Not direct: alice's only check to bob's server-reflexive address 11.0.0.10:6000 died at nat_b "
        "(no-permission), because it came from 11.0.0.6:5000, to which bob had sent nothing.",
    ),
    (
        "direct, by what the other end saw after it",
        nat_event(Change.CHANGE_ADDRESS),
        "direct",
        [],
        "Direct after 111 ms: alice reaches bob at 11.0.0.10:6000 and bob reaches alice at 11.128.0.2:5000, because "
        "bob answers where alice's checks come from since nat_a got another address; meanwhile nat_a: change-address "
        "to 11.128.0.2 at 0.01 s.",
    ),
]


@pytest.mark.parametrize(
    ("about", "planned", "outcome", "journeys", "deserved"), EVENT_ROWS, ids=[r[0] for r in EVENT_ROWS]
)
def test_sentence_of_what_happened(
    about: str, planned: tuple[SpecEvent, ...], outcome: str, journeys: list[Journey], deserved: str
) -> None:
    plan = cell(nat_a="eim-apdf", nat_b="eim-apdf", events=planned)
    path = {**PATH, "bob": (str(B), str(NEW))} if outcome == "direct" else None
    done = [Happening(at=e.at, t=e.at, what=e.place) for e in plan.events]
    kept, said = record(outcome=outcome, path=path, events=done), both()
    assert sentence(Case(kept, said, Traffic(plan, said, journeys, in_lab(kept, plan)))) == deserved, about


def test_what_happened_is_in_the_timeline_and_a_fact_of_theory() -> None:
    planned = (
        SpecEvent(at=200 * MS, node="nat_a", do=Change.FLUSH),
        SpecEvent(at=19 * SECOND, node="nat_b", do=Change.FLUSH),
    )
    plan = cell(nat_a="eim-apdf", nat_b="eim-apdf", events=planned)
    played = play(plan, SETTINGS, 5)
    told = {
        name: [RecordEvent.model_validate(to_json(event)) for event in said] for name, said in played.events.items()
    }
    done = [
        Happening(at=200 * MS, t=200 * MS, what="nat_a: flush"),
        Happening(at=19 * SECOND, t=None, what="nat_b: flush", not_applied="the trial was over"),
    ]
    dropped = {"nat_a": {"dropped": {"no-mapping": 1}}, "nat_b": {"dropped": {"no-permission": 1}}}
    kept = record(seed=5, agents=told, events=done, nats=dropped, outcome="relayed")
    explained = build("run", kept, plan, read_events(kept), None, SETTINGS, [])
    assert [(e.t, e.who, e.text) for e in explained.timeline if e.event == "happens"] == [(0.2, "nat_a", "flush")]
    assert "nat_b: flush, due at 19 s, did not happen: the trial was over" in explained.notes
    assert explained.theory is not None
    assert explained.theory.differs is None
    never = kept.model_copy(update={"events": (done[0].model_copy(update={"t": None}), done[1])})
    explained = build("run", never, plan, read_events(never), None, SETTINGS, [])
    assert explained.theory is not None
    assert explained.theory.differs == "in the model nat_a: flush happens, in the lab not"


# ---------------------------------------------------------------------------- checks and packets


def test_a_check_is_a_packet_that_left_when_its_sender_said_so() -> None:
    def packet(at: int, remote: Endpoint = B_OUT) -> Journey:
        return Journey("alice", at * MS, A, remote, A_OUT, "bob", "arrived")

    said = both(Check(10 * MS, B_OUT, A, 1, 1), Check(30 * MS, B_OUT, A, 1, 2, count=2))
    guessed = Endpoint(B_OUT.host, 7)
    sent = [packet(5), packet(10), packet(20), packet(30), packet(31, guessed), packet(32)]
    traffic = Traffic(PLAIN, said, sent)
    assert [journey.at for journey in traffic.checks("alice")] == [10 * MS, 30 * MS, 31 * MS]
    assert [(flow.remote, flow.checks, flow.others) for flow in traffic.flows()] == [
        (str(B_OUT), 2, 3),
        (str(guessed), 1, 0),
    ]


LISTS = [((), ""), (("a",), "a"), (("a", "b"), "a and b"), (("a", "b", "c"), "a, b and c")]


@pytest.mark.parametrize(("names", "text"), LISTS)
def test_names_are_listed_as_people_do(names: tuple[str, ...], text: str) -> None:
    assert listed(names) == text


def test_of_many_names_the_first_are_told_and_how_many_more() -> None:
    assert listed([str(n) for n in range(12)]) == "0, 1, 2 and 9 others"


# ---------------------------------------------------------------------------- captures

STEP = 5 * MS
Sight = tuple[str, str, Endpoint, Endpoint] | tuple[str, str, Endpoint, Endpoint, str]
"""Point, `in` or `out`, source, destination, and a NAT's comment."""
LEAVES: list[Sight] = [
    ("alice/eth0", "out", A, B_OUT),
    ("nat_a/lan0", "in", A, B_OUT),
    ("nat_a/wan0", "out", A_OUT, B_OUT),
]
GETS_THERE: list[Sight] = [
    ("nat_b/wan0", "in", A_OUT, B_OUT),
    ("nat_b/lan0", "out", A_OUT, B),
    ("bob/eth0", "in", A_OUT, B),
]
REFUSED: Sight = ("nat_b/wan0", "in", A_OUT, B_OUT, "dropped by nat_b: no-permission")
LOSES = cell(LOSSY, nat_a="eim-apdf", nat_b="eim-apdf")

WAYS: list[tuple[str, CellPlan, list[Sight], tuple[str, str, Endpoint | None]]] = [
    ("all the way", PLAIN, [*LEAVES, *GETS_THERE], ("bob", "arrived", A_OUT)),
    ("as far as a filter", PLAIN, [*LEAVES, REFUSED], ("nat_b", "no-permission", A_OUT)),
    ("not over the first link", PLAIN, LEAVES[:1], ("alice", "loss", None)),
    ("not over a core, whose two links are as good as each other", PLAIN, LEAVES, ("nat_a or nat_b", "loss", A_OUT)),
    ("not over the last link", PLAIN, [*LEAVES, *GETS_THERE[:2]], ("bob", "loss", A_OUT)),
    ("into a NAT that says nothing", PLAIN, [*LEAVES, GETS_THERE[0]], ("nat_b", "unexplained", A_OUT)),
    (
        "into the own stack of one that takes all",
        cell(nat_a="eim-apdf", nat_b=accepting()),
        [*LEAVES, GETS_THERE[0]],
        ("nat_b", "own-stack", A_OUT),
    ),
    (
        "to an address that the Internet does not route",
        PLAIN,
        [("alice/eth0", "out", A, B), ("nat_a/lan0", "in", A, B), ("nat_a/wan0", "out", A_OUT, B)],
        ("internet", "no-route", A_OUT),
    ),
    ("twice over a link that duplicates", PLAIN, [*LEAVES, REFUSED, REFUSED], ("nat_b", "no-permission", A_OUT)),
    (
        "to the rendezvous",
        PLAIN,
        [
            ("alice/eth0", "out", A, MEET),
            ("nat_a/lan0", "in", A, MEET),
            ("nat_a/wan0", "out", A_OUT, MEET),
            ("meet/eth0", "in", A_OUT, MEET),
        ],
        ("meet", "arrived", A_OUT),
    ),
]


def recording(plan: CellPlan, sights: Sequence[Sight], payloads: Sequence[bytes], last: int) -> pcapng.Recorded:
    """A capture of these sightings, five milliseconds apart, and of a frame of no interest at `last`."""
    names = list(dict.fromkeys([*(sight[0] for sight in sights), "meet/eth0"]))
    macs = {
        f"{box.name}/{device.name}": bytes.fromhex(device.mac.replace(":", ""))
        for box in plan.network.boxes.values()
        for device in box.interfaces
    }
    seen = []
    for number, ((point, way, source, destination, *comment), payload) in enumerate(zip(sights, payloads, strict=True)):
        frame = _frame(macs[point] if way == "out" else b"\x0a" * 6, source, destination, payload)
        seen.append(Seen(names.index(point), 100 + number * STEP, len(frame), frame, comment[0] if comment else ""))
    frame = _frame(b"\x0b" * 6, Endpoint("11.0.0.2", 9), Endpoint("11.0.0.2", 9), b"the end")
    seen.append(Seen(names.index("meet/eth0"), last, len(frame), frame))
    return pcapng.decode(b"".join(pcapng.encode([Point(name) for name in names], seen)))


def _frame(mac: bytes, source: Endpoint, destination: Endpoint, payload: bytes) -> bytes:
    addresses = b"".join(bytes(map(int, end.host.split("."))) for end in (source, destination))
    udp = b"".join(n.to_bytes(2, "big") for n in (source.port, destination.port, 8 + len(payload), 0)) + payload
    header = b"\x45\0" + (28 + len(payload)).to_bytes(2, "big") + b"\0\0\0\0\x40\x11\0\0" + addresses
    return b"\x02" * 6 + mac + b"\x08\x00" + header + udp


@pytest.mark.parametrize(("about", "plan", "sights", "ending"), WAYS, ids=[row[0] for row in WAYS])
def test_a_packet_goes(
    about: str, plan: CellPlan, sights: list[Sight], ending: tuple[str, str, Endpoint | None]
) -> None:
    recorded = recording(plan, sights, [b"a check"] * len(sights), last=1000 * MS)
    (journey,) = captured(sightings(recorded, -100, plan.network), plan, {})
    assert (journey.sender, journey.at, journey.local) == ("alice", 0, A)
    assert (journey.where, journey.reason, journey.external) == ending, about


def test_a_packet_that_had_no_time_to_arrive_is_not_lost() -> None:
    recorded = recording(PLAIN, LEAVES, [b"a check"] * 3, last=100 + 3 * STEP)
    (journey,) = captured(sightings(recorded, 0, PLAIN.network), PLAIN, {})
    assert journey.reason == "under-way"


def test_a_packet_that_arrives_after_the_last_word_is_late() -> None:
    recorded = recording(PLAIN, [*LEAVES, *GETS_THERE], [b"a check"] * 6, last=1000 * MS)
    seen = sightings(recorded, 0, PLAIN.network)
    assert [captured(seen, PLAIN, {"bob": at})[0].reason for at in (MS, 900 * MS)] == ["late", "arrived"]


def test_only_a_link_that_can_lose_is_blamed() -> None:
    plan = cell({**TWO_HOMES, "nat_b": node("nat", "internet", link=link(loss=10_000))})
    recorded = recording(plan, LEAVES, [b"a check"] * 3, last=1000 * MS)
    (journey,) = captured(sightings(recorded, 0, plan.network), plan, {})
    assert (journey.where, journey.reason) == ("nat_b", "loss")


@given(st.permutations(range(2)), st.booleans())
def test_packets_of_one_payload_are_told_apart_by_their_addresses(order: list[int], is_twin: bool) -> None:
    """One to an address that is routed, one to one that is not: whichever goes first."""
    inside: list[Sight] = [("alice/eth0", "out", A, B), ("nat_a/lan0", "in", A, B), ("nat_a/wan0", "out", A_OUT, B)]
    both_ways = [[*LEAVES, *GETS_THERE], inside]
    sights = [s for stage in zip(*(both_ways[i][:3] for i in order), strict=True) for s in stage] + GETS_THERE
    payloads = [b"same" if is_twin else str(s[3] == B_OUT).encode() for s in sights[:-3]]
    payloads += [b"same" if is_twin else b"True"] * 3
    journeys = captured(sightings(recording(PLAIN, sights, payloads, last=1000 * MS), 0, PLAIN.network), PLAIN, {})
    assert {(j.remote, j.reason) for j in journeys} == {(B_OUT, "arrived"), (B, "no-route")}


# ---------------------------------------------------------------------------- which trial

CELLS = [{"nat_a": a, "nat_b": b} for a in ("eim-eif", "apdm-apdf") for b in ("eim-eif", "apdm-apdf")]
RUN = [
    record(
        ",".join(f"{k}={v}" for k, v in factors.items()),
        index,
        "relayed" if index and factors["nat_a"] == "apdm-apdf" else "direct",
        factors=dict(factors),
    )
    for factors in CELLS
    for index in range(2)
]
ONE = [record("", 0, "direct"), record("", 1, "broken"), record("", 1, "relayed", attempt=2)]

NAMED = [
    ("nothing: the first that is not direct", RUN, None, ("nat_a=apdm-apdf,nat_b=eim-eif", 1, 1)),
    ("a cell and an index", RUN, "nat_a=eim-eif,nat_b=apdm-apdf:1", ("nat_a=eim-eif,nat_b=apdm-apdf", 1, 1)),
    ("factors in another order", RUN, "nat_b=apdm-apdf,nat_a=eim-eif:0", ("nat_a=eim-eif,nat_b=apdm-apdf", 0, 1)),
    (
        "a cell: its first that is not direct",
        RUN,
        "nat_a=apdm-apdf,nat_b=apdm-apdf",
        ("nat_a=apdm-apdf,nat_b=apdm-apdf", 1, 1),
    ),
    (
        "a cell all of whose trials are direct: its first",
        RUN,
        "nat_a=eim-eif,nat_b=eim-eif",
        ("nat_a=eim-eif,nat_b=eim-eif", 0, 1),
    ),
    ("an index, where there is one cell", ONE, "0", ("", 0, 1)),
    ("of several attempts the last", ONE, "1", ("", 1, 2)),
    ("nothing, where the one that was broken was tried again", ONE, None, ("", 1, 2)),
]


@pytest.mark.parametrize(("about", "records", "word", "key"), NAMED, ids=[row[0] for row in NAMED])
def test_a_word_means_a_trial(about: str, records: list[Record], word: str | None, key: tuple[str, int, int]) -> None:
    found = choose(records, word)
    assert (found.cell, found.index, found.attempt) == key, about


REFUSED_WORDS = [
    ("an index alone among several cells", RUN, "1", "this may be 4 cells; add FACTOR=VALUE until one is left"),
    ("too few factors, with the cells that are left", RUN, "nat_a=eim-eif:0", "nat_a=eim-eif,nat_b=apdm-apdf"),
    ("an unknown factor", RUN, "nat_c=eim-eif:0", "no factor is called 'nat_c', did you mean 'nat_"),
    ("an unknown value", RUN, "nat_a=eim-eit:0", "nat_a is never 'eim-eit', did you mean 'eim-eif'?"),
    ("no factor at all", RUN, "first", "'first' is not FACTOR=VALUE"),
    ("an index that is not there", RUN, "nat_a=eim-eif,nat_b=eim-eif:7", "there is no trial 7 of"),
    ("a run without trials", [], None, "there is no trial in this run yet"),
]


@pytest.mark.parametrize(("about", "records", "word", "words"), REFUSED_WORDS, ids=[row[0] for row in REFUSED_WORDS])
def test_a_word_that_means_none_or_several_is_refused(
    about: str, records: list[Record], word: str | None, words: str
) -> None:
    with pytest.raises(UsageError) as refused:
        choose(records, word)
    assert words in str(refused.value), about


# ---------------------------------------------------------------------------- theory


def of_model(plan: CellPlan, seed: int = 1, limits: TrialSettings = SETTINGS) -> Record:
    """The record that a lab would write which does exactly what the model does."""
    played = play(plan, limits, seed)
    said = {name: [RecordEvent.model_validate(to_json(e)) for e in played.events[name]] for name in plan.ends}
    dropped: dict[str, dict[str, int]] = {}
    for lost in played.lost:
        if plan.network.boxes.get(lost.where) and plan.network.boxes[lost.where].translation is not None:
            counts = dropped.setdefault(lost.where, {})
            counts[str(lost.reason)] = counts.get(str(lost.reason), 0) + 1
    nats = {name: {"dropped": counts} for name, counts in dropped.items()}
    outcome = str(played.verdict.outcome)
    return record("a cell", 3, outcome, seed=seed, reason=played.verdict.reason, agents=said, nats=nats)


def explained(plan: CellPlan, kept: Record, limits: TrialSettings = SETTINGS) -> Explanation:
    return build("a run", kept, plan, read_events(kept), None, limits, [NOT_KEPT])


@pytest.mark.parametrize("agent", ["udp", "quic"])
@pytest.mark.parametrize("nats", [("apdm-apdf", "eim-apdf"), ("eim-eif", "apdm-apdf"), ("apdm-apdf", "apdm-apdf")])
def test_a_trial_that_went_as_the_model_says_differs_in_nothing(nats: tuple[str, str], agent: str) -> None:
    plan = cell(nat_a=nats[0], nat_b=nats[1], agent=agent)
    found = explained(plan, of_model(plan))
    assert found.theory is not None
    assert (found.theory.agrees, found.theory.differs) == (True, None)
    assert found.told_by == "model"
    assert all(ending.reason != "under-way" for flow in found.flows for ending in flow.endings)
    assert Explanation.model_validate_json(found.to_json()) == found


def test_a_hairpin_through_two_nats_is_followed() -> None:
    found = kind("eim-eif")
    assert found is not None
    carrier = found.model_copy(update={"hairpinning": Hairpinning.INTERNAL_SOURCE})
    below = {"nat_a": node("nat", "carrier"), "nat_b": node("nat", "carrier")}
    plan = cell({"carrier": node("nat", "internet"), **TWO_HOMES, **below}, carrier=carrier)
    told = explained(plan, of_model(plan))
    assert "died at nat_b (no-permission), because they came from 100.64.0." in told.sentence
    assert {ending.reason for flow in told.flows for ending in flow.endings} == {"no-permission", "no-route"}


def test_without_packets_the_sentence_says_whose_word_it_is() -> None:
    found = explained(APDM_A, of_model(APDM_A))
    assert "died at nat_b (no-permission), because they came from 11.0.0.6:" in found.sentence
    assert found.sentence.endswith("(where packets ended is the model's word).")
    assert NOT_KEPT in found.notes


def test_the_first_difference_is_named() -> None:
    kept = of_model(APDM_A)
    other = explained(PLAIN, kept)
    assert other.theory is not None
    assert not other.theory.agrees
    assert (other.theory.differs or "").startswith("in the lab alice has the server-reflexive candidate 11.0.0.6:")


def test_what_the_lab_lacks_is_named_too() -> None:
    kept = of_model(APDM_A)
    shorter = {**kept.agents, "bob": tuple(e for e in kept.agents["bob"] if e.event not in ("round", "exhausted"))}
    found = explained(APDM_A, kept.model_copy(update={"agents": shorter}))
    assert found.theory is not None
    assert found.theory.differs == "in the model bob begins round 1, in the lab not"


def test_of_a_broken_trial_and_of_a_program_theory_says_nothing() -> None:
    broken = explained(PLAIN, record("a cell", 0, "broken", reason="it broke"))
    assert (broken.theory, broken.told_by, broken.flows) == (None, "record", ())


# ---------------------------------------------------------------------------- the page


def test_the_page_says_why_before_it_says_what() -> None:
    shown = [line.plain for line in page(explained(APDM_A, of_model(APDM_A)), 80)]
    assert shown[0].startswith("a cell: trial 3")
    assert shown[2].startswith("Not direct: each of alice's 18 checks")
    heads = [shown.index(next(line for line in shown if words in line)) for words in ("who", "by the model", "theory:")]
    assert heads == sorted(heads)
    assert max(map(len, shown)) <= 80


def test_checks_of_a_round_are_one_line() -> None:
    found = explained(APDM_A, of_model(APDM_A))
    checks = [entry.text for entry in found.timeline if entry.event == "check" and entry.who == "alice"]
    assert len(checks) == 3 * 2
    assert all(text.startswith("6 checks to bob's ") for text in checks)
    assert [entry.t for entry in found.timeline] == sorted(entry.t for entry in found.timeline)
    assert found.timeline[0].t == 0
