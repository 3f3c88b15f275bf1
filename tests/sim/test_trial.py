"""Single trials in virtual time: networks of all shapes, what is lost where, and how a trial is judged and timed."""

from __future__ import annotations

import pytest

from testbed.agents.loop import bind_seeded
from testbed.datagram import Endpoint
from testbed.errors import UsageError
from testbed.lab.events import link_seed as lab_seed
from testbed.link.model import seeds_of_directions
from testbed.plan.outcomes import Outcome
from testbed.plan.seeds import derive
from testbed.plan.trials import TrialSettings
from testbed.sim.network import link_seed
from testbed.sim.routes import Routes
from testbed.sim.trial import can_play, play
from testbed.spec.link import Link
from testbed.spec.profile import Dependence, Engine, NatProfile, Ports, Unsolicited
from testbed.spec.scenario import Command
from testbed.spec.topology import Attachment, Node, NodeKind
from testbed.traversal.candidates import CandidateType
from testbed.traversal.events import CandidateFound, Connected
from testbed.traversal.metrics import Limits, measure
from tests.sim.build import MS, SECOND, SETTINGS, TEN, TWO_HOMES, cell, dropped, link, node, trial, words

HOST, REFLEXIVE, PEER = CandidateType.HOST, CandidateType.SERVER_REFLEXIVE, CandidateType.PEER_REFLEXIVE
FIREWALL = NatProfile(mapping=Dependence.NONE)


def connected(played: object, name: str = "alice") -> Connected:
    return next(event for event in played.events[name] if isinstance(event, Connected))  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------- seeds and words shared with the lab


def test_ports_are_drawn_where_agents_draw_them() -> None:
    opened = list[Endpoint]()
    bind_seeded(["192.168.1.2"], derive(5, "agent", "alice"), opened.append)  # type: ignore[arg-type]
    hosts = [
        e.address
        for e in trial(cell(), 5).events["alice"]
        if isinstance(e, CandidateFound) and e.type is CandidateType.HOST
    ]
    assert hosts == opened


def test_links_have_the_seeds_that_a_lab_gives_them() -> None:
    plan = cell({**TWO_HOMES, "bob": node("peer", "nat_b", link=Link(seed=77))})
    for line in Routes(plan.network).lines:
        up, down = seeds_of_directions(lab_seed(line.cable.link, 5, line.cable.name))
        assert link_seed(line, 5) == (up if line.is_up else down)


@pytest.mark.parametrize("kinds", [("eim-eif", "eim-apdf"), ("apdm-apdf", "apdm-apdf"), ("apdm-eif", "apdm-eif")])
def test_times_are_those_of_a_run(kinds: tuple[str, str]) -> None:
    plan = cell(nat_a=kinds[0], nat_b=kinds[1])
    played = trial(plan)
    limits = Limits(SETTINGS.setup_deadline, SETTINGS.deadline)
    direct = played.verdict.outcome is Outcome.DIRECT
    measured = measure(played.events, "alice", frozenset(plan.servers), limits, direct=direct).metrics
    for mine, name in ((played.discovery, "candidate_discovery_time"), (played.traversal, "time_to_traverse")):
        assert (None if mine is None else mine / SECOND) == measured[name]


def test_same_seed_same_trial() -> None:
    lossy = cell({**TWO_HOMES, "bob": node("peer", "nat_b", link=link(loss=100_000, jitter=5 * MS, delay=10 * MS))})
    assert trial(lossy, 7) == trial(lossy, 7)
    assert trial(lossy, 7).events != trial(lossy, 8).events


def test_what_cannot_be_played_says_so() -> None:
    plan = cell()
    external = type(plan)(**{**{f: getattr(plan, f) for f in plan.__slots__}, "agent": Command(command=("true",))})
    assert can_play(plan) is None
    assert "external program" in str(can_play(external))
    with pytest.raises(UsageError, match="external program"):
        play(external, SETTINGS, 1)


# ---------------------------------------------------------------------------- networks of all shapes

ONE_HOME = {
    "meet": node("rendezvous", "internet"),
    "nat": node("nat", "internet"),
    "alice": node("peer", "nat"),
    "bob": node("peer", "nat"),
}
ONE_PUBLIC = {**TWO_HOMES, "bob": node("peer", "internet")}
CARRIER = {
    "meet": node("rendezvous", "internet"),
    "carrier": node("nat", "internet"),
    "nat_a": node("nat", "carrier"),
    "alice": node("peer", "nat_a"),
    "nat_b": node("nat", "internet"),
    "bob": node("peer", "nat_b"),
}
BEHIND_A_ROUTER = {
    "meet": node("rendezvous", "internet"),
    "office": node("router", "internet"),
    "alice": node("peer", "office"),
    "nat_b": node("nat", "internet"),
    "bob": node("peer", "nat_b"),
}
SAME_PREFIX = {
    **TWO_HOMES,
    "nat_a": node("nat", "internet", lan="192.168.7.0/24"),
    "nat_b": node("nat", "internet", lan="192.168.7.0/24"),
}
REGIONS = {
    "meet": node("rendezvous", "here"),
    "nat_a": node("nat", "here"),
    "alice": node("peer", "nat_a"),
    "nat_b": node("nat", "there"),
    "bob": node("peer", "nat_b"),
}


@pytest.mark.parametrize(
    ("nodes", "profiles", "types"),
    [
        pytest.param(ONE_HOME, {"nat": "apdm-apdf"}, {HOST}, id="one home: they meet on its segment, whatever its NAT"),
        pytest.param(ONE_PUBLIC, {"nat_a": "apdm-apdf"}, {HOST, PEER}, id="one public: any NAT will do"),
        pytest.param(CARRIER, {"carrier": "eim-apdf"}, {REFLEXIVE}, id="a carrier's NAT that is no stricter"),
        pytest.param(CARRIER, {"carrier": "apdm-apdf"}, None, id="a carrier's NAT is as strict as the stricter"),
        pytest.param(BEHIND_A_ROUTER, {}, {HOST, REFLEXIVE}, id="a router that only forwards"),
        pytest.param(BEHIND_A_ROUTER, {"office": FIREWALL}, {HOST, REFLEXIVE}, id="a firewall is punched like a NAT"),
        pytest.param(SAME_PREFIX, {}, {REFLEXIVE}, id="two homes with one prefix"),
        pytest.param(TWO_HOMES, {"nat_a": NatProfile(udp_blocked=True)}, None, id="a network that forwards no UDP"),
    ],
)
def test_networks(
    nodes: dict[str, Node], profiles: dict[str, str | NatProfile], types: set[CandidateType] | None
) -> None:
    plan = cell(nodes, **profiles)  # type: ignore[arg-type]
    played = trial(plan, settings=TrialSettings(3 * SECOND, 3 * SECOND))
    if types is None:
        assert played.verdict.outcome is not Outcome.DIRECT
    else:
        assert played.verdict.outcome is Outcome.DIRECT
        assert set(connected(played).types) == types


def test_udp_blocked_is_failed_and_says_where() -> None:
    played = trial(cell(nat_a=NatProfile(udp_blocked=True)), settings=TrialSettings(3 * SECOND, 3 * SECOND))
    assert played.verdict.outcome is Outcome.FAILED
    assert dropped(played, "nat_a") == {"udp-blocked"}
    assert "failed" in words(played, "alice")


def test_regions_lie_apart() -> None:
    near, far = ({"here": {"there": d}, "there": {"here": d}} for d in (0, 100 * MS))
    times = [trial(cell(REGIONS, regions=apart)).traversal for apart in (near, far)]
    assert None not in times
    assert times[1] - times[0] >= 400 * MS  # type: ignore[operator]


def test_a_multihomed_node_leaves_by_the_uplink_of_its_source() -> None:
    both = Node(
        kind=NodeKind.PEER, attachments=(Attachment(uplink="nat_a", link=TEN), Attachment(uplink="internet", link=TEN))
    )
    plan = cell({**TWO_HOMES, "alice": both}, nat_a="apdm-apdf", nat_b="apdm-apdf")
    played = trial(plan)
    assert played.verdict.outcome is Outcome.DIRECT
    public = str(plan.network.boxes["alice"].addresses()[1])
    assert connected(played).local.host == public, "by its public uplink, since the other one's NAT is too strict"


def test_the_port_clash_spoils_a_punch_if_the_other_packet_comes_first() -> None:
    """Bob's first packet comes to Alice's NAT before hers has left: only where hers has further to go."""
    clash = NatProfile(ports=Ports(overload=True), unsolicited=Unsolicited.ACCEPT)
    keeps = NatProfile(ports=Ports(overload=True), engine=Engine.NATIVE)
    slow = {**TWO_HOMES, "bob": node("peer", "nat_b", link=link(delay=40 * MS))}
    assert trial(cell(slow, nat_a=keeps, nat_b=keeps)).verdict.outcome is Outcome.DIRECT
    played = trial(cell(slow, nat_a=keeps, nat_b=clash))
    assert played.verdict.outcome is Outcome.RELAYED
    assert "taken by its own stack" in dropped(played, "nat_b")


# ---------------------------------------------------------------------------- what is lost where


def at_bob(**impairments: int) -> dict[str, Node]:
    return {**TWO_HOMES, "bob": node("peer", "nat_b", link=link(delay=10 * MS, **impairments))}


@pytest.mark.parametrize(
    ("impairments", "reason"),
    [
        pytest.param({"loss": 200_000}, "loss", id="loss"),
        pytest.param({"corrupt": 200_000}, "corrupt", id="a flipped bit is a loss"),
        pytest.param({"rate": 100_000, "limit": 1}, "queue full", id="a queue with room for one"),
        pytest.param({"limit": 1}, "queue full", id="a line that only delays has room for so many too"),
    ],
)
def test_links_lose(impairments: dict[str, int], reason: str) -> None:
    assert reason in dropped(trial(cell(at_bob(**impairments))), "bob")


def test_duplicates_and_early_frames_do_no_harm() -> None:
    played = trial(cell(at_bob(duplicate=500_000, reorder=300_000, jitter=3 * MS)))
    assert played.verdict.outcome is Outcome.DIRECT


def test_a_datagram_that_does_not_fit_is_lost() -> None:
    narrow = {**TWO_HOMES, "alice": node("peer", "nat_a", link=Link(mtu=576))}
    played = trial(cell(narrow))
    assert all(len(lost.packet.payload) > 548 for lost in played.lost if lost.reason == "too big")  # type: ignore[arg-type]


def test_private_addresses_have_no_way_on_the_internet() -> None:
    """Checks to the other's host candidate end at the core, which has no route for them."""
    played = trial(cell())
    assert dropped(played, "internet") == {"no route"}


def test_a_segment_is_no_routers_business() -> None:
    """Between two hosts of one segment a frame crosses two cables; the router's NAT sees nothing of it."""
    plan = cell(ONE_HOME, nat="apdm-apdf")
    one, other = (str(plan.network.boxes[name].addresses()[0]) for name in plan.ends)
    leg = Routes(plan.network).leg("alice", one, other)
    assert leg is not None
    assert (len(leg.lines), leg.box, leg.interface) == (2, "bob", "eth0")


@pytest.mark.parametrize(
    ("box", "destination", "end"),
    [
        pytest.param("alice", "11.0.0.2", "nat_a", id="up to the NAT, which is to be asked"),
        pytest.param("nat_a", "11.0.0.2", "meet", id="through the core, which has nothing to say"),
        pytest.param("nat_a", "10.9.9.9", "internet", id="the core knows no way on"),
        pytest.param("nat_a", "192.168.1.2", "alice", id="down into the home"),
        pytest.param("nat_a", "192.168.1.77", None, id="nobody has this address"),
        pytest.param("internet", "10.9.9.9", None, id="no way at all"),
    ],
)
def test_where_a_packet_goes(box: str, destination: str, end: str | None) -> None:
    leg = Routes(cell().network).leg(box, "11.0.0.6", destination)
    assert (leg.box if leg is not None else None) == end


def test_two_sockets_cannot_have_one_address() -> None:
    from testbed.sim.network import VirtualNetwork

    plan = cell()
    network = VirtualNetwork(Routes(plan.network), 1)
    local = Endpoint("11.0.0.2", 3478)
    first, second = (network.attach(None, "meet", (), lambda now: None) for _ in range(2))  # type: ignore[arg-type]
    assert network.open(first, local)
    assert not network.open(second, local)
    network.close(first, local)
    assert network.open(second, local)
