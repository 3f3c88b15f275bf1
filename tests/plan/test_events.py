"""What events mean for a network: the addresses to come, who can reach them, what a link does from when on."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest

from testbed.errors import UsageError
from testbed.plan.events import LinkEvent, NatEvent, describe
from testbed.plan.trials import CellPlan
from testbed.sim.routes import Routes
from testbed.spec.event import Event
from testbed.spec.model import CONTEXT_FILE
from testbed.spec.topology import Node
from tests.sim.build import MS, TEN, TWO_HOMES, cell, node

CARRIER = {
    "meet": node("rendezvous", "internet"),
    "carrier": node("nat", "internet"),
    "nat_a": node("nat", "carrier"),
    "sister": node("host", "carrier"),
    "alice": node("peer", "nat_a"),
    "nat_b": node("nat", "internet"),
    "bob": node("peer", "nat_b"),
}
BEHIND_A_ROUTER = {**TWO_HOMES, "office": node("router", "internet"), "nat_a": node("nat", "office")}


def plan(*events: str | dict[str, object], nodes: Mapping[str, Node] = TWO_HOMES) -> CellPlan:
    """Of events as a file says them; a word is a nat that changes its address."""
    written = [e if isinstance(e, dict) else {"at": "1s", "node": e, "do": "change-address"} for e in events]
    return cell(nodes, events=[Event.model_validate(event, context=CONTEXT_FILE) for event in written])


ADDRESSES = [
    ("on a core the next further address, after all that others have", TWO_HOMES, ["nat_a"], ["11.128.0.2"]),
    ("one after the other", TWO_HOMES, ["nat_b", "nat_b"], ["11.128.0.2", "11.128.0.3"]),
    ("in the order of the topology, not of the events", TWO_HOMES, ["nat_b", "nat_a"], ["11.128.0.3", "11.128.0.2"]),
    ("below a carrier the next of its segment", CARRIER, ["nat_a"], ["100.64.0.4"]),
    ("below a router too", BEHIND_A_ROUTER, ["nat_a"], ["11.64.0.3"]),
]


@pytest.mark.parametrize(("sentence", "nodes", "changing", "expected"), ADDRESSES, ids=[r[0] for r in ADDRESSES])
def test_the_addresses_to_come(sentence: str, nodes: dict[str, Node], changing: list[str], expected: list[str]) -> None:
    planned, without = plan(*changing, nodes=nodes), plan(nodes=nodes)
    assert [str(e.external[0]) for e in planned.events if isinstance(e, NatEvent)] == expected, sentence
    for name, box in planned.network.boxes.items():
        assert box.addresses() == without.network.boxes[name].addresses(), "nobody else moves"
        assert set(box.possible_addresses()) - set(box.addresses()) == {a for later in box.spare for a in later}
    reach(planned, expected)


def reach(planned: CellPlan, addresses: list[str]) -> None:
    """Who reaches the nat at the address that it has reaches it at those to come."""
    routes = Routes(planned.network)
    for event, address in zip(planned.events, addresses, strict=True):
        assert isinstance(event, NatEvent)
        now = str(planned.network.boxes[event.node].translation.external[0])  # type: ignore[union-attr]
        for name in planned.network.boxes:
            if name != event.node:
                before, after = routes.leg(name, "11.0.0.2", now), routes.leg(name, "11.0.0.2", address)
                assert before == after, f"{name} to {address}"


def test_neighbours_know_the_address_to_come() -> None:
    boxes = plan("nat_a", nodes=CARRIER).network.boxes
    new, old = IPv4Address("100.64.0.4"), IPv4Address("100.64.0.2")
    for name in ("carrier", "sister"):
        known = {neighbour.address: neighbour.mac for neighbour in boxes[name].neighbours}
        assert known[new] == known[old]


def test_a_segment_that_is_full_has_no_room_for_another_address() -> None:
    crowded = {**CARRIER, "carrier": node("nat", "internet", lan="100.64.0.0/29")}
    assert [str(a) for (a,) in plan("nat_a", "nat_a", "nat_a", nodes=crowded).network.boxes["nat_a"].spare] == [
        "100.64.0.4", "100.64.0.5", "100.64.0.6",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"nodes\.carrier\.lan: 100\.64\.0\.0/29 has no room for another address of"):
        plan("nat_a", "nat_a", "nat_a", "nat_a", nodes=crowded)


def test_a_links_events_say_all_of_it_and_add_up() -> None:
    planned = plan(
        {"at": "2s", "link": "nat_a", "set": {"loss": "1%"}},
        {"at": "1s", "link": "nat_a", "set": {"delay": "5ms", "down": {"delay": "7ms"}}},
        {"at": "3s", "link": "nat_a", "set": "lte"},
        {"at": "3s", "link": "bob", "set": {"up": {"loss": "100%"}}},
    )
    first, second, third, fourth = (e for e in planned.events if isinstance(e, LinkEvent))
    assert [(e.at // MS, e.cable, e.text) for e in (first, second, third, fourth)] == [
        (1000, "nat_a", "delay: 5ms, down {delay: 7ms}"),
        (2000, "nat_a", "loss: 1%"),
        (3000, "nat_a", "preset: lte"),
        (3000, "bob", "up {loss: 100%}"),
    ]
    assert (first.link.up.delay, first.link.down.delay, first.link.up.loss) == (5 * MS, 7 * MS, 0)
    assert (second.link.up.delay, second.link.down.delay, second.link.down.loss) == (5 * MS, 7 * MS, 10_000)
    assert (third.link.up.loss, third.link.mtu) == (0, TEN.mtu), "a preset replaces what the link did"
    assert fourth.link.down == TEN.down
    assert {cable.name for cable in planned.network.cables if cable.varies} == {"nat_a", "bob"}


def test_what_a_scenario_says_in_a_few_words() -> None:
    events = [
        Event.model_validate(event, context=CONTEXT_FILE)
        for event in (
            {"at": "1s", "node": "nat_a", "do": "change-address"},
            {"at": "1s", "link": "alice", "set": {"loss": "100%"}},
        )
    ]
    assert list(map(describe, events)) == ["nat_a: change-address", "link alice: loss: 100%"]
