"""The network that a topology means: addresses, routes, and who is behind what."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.errors import UsageError
from testbed.plan.addressing import plan_network, server_addresses
from testbed.plan.network import LAN, Box, Network, Route
from testbed.spec.profile import NatProfile
from testbed.spec.topology import Attachment, Node, NodeKind, Topology

NAT = NatProfile()


def node(kind: str, *uplinks: str, lan: str | None = None) -> Node:
    return Node(
        kind=NodeKind(kind),
        attachments=tuple(Attachment(uplink=uplink) for uplink in uplinks),
        lan=IPv4Network(lan) if lan else None,
    )


def network(nodes: dict[str, Node], regions: dict[str, dict[str, int]] | None = None) -> Network:
    profiles = {name: NAT for name, value in nodes.items() if value.kind is NodeKind.NAT}
    return plan_network(Topology(nodes=nodes, regions=regions or {}), profiles)


TWO_HOMES = {
    "meet": node("rendezvous", "internet"),
    "nat_a": node("nat", "internet"),
    "alice": node("peer", "nat_a"),
    "nat_b": node("nat", "internet"),
    "bob": node("peer", "nat_b"),
}

FIRST_ADDRESSES = [
    (
        "a box on the core gets the next /30 in file order",
        TWO_HOMES,
        {"meet": "11.0.0.2", "nat_a": "11.0.0.6", "nat_b": "11.0.0.10"},
    ),
    ("homes are numbered in file order", TWO_HOMES, {"alice": "192.168.1.2", "bob": "192.168.2.2"}),
    (
        "a nat above other nats is a carrier's",
        {"cgn": node("nat", "internet"), "home": node("nat", "cgn"), "alice": node("peer", "home")},
        {"cgn": "11.0.0.2", "home": "100.64.0.2", "alice": "192.168.1.2"},
    ),
    (
        "`lan` chooses the prefix, and homes may overlap",
        {
            "nat_a": node("nat", "internet", lan="10.7.0.0/24"),
            "alice": node("peer", "nat_a"),
            "nat_b": node("nat", "internet", lan="10.7.0.0/24"),
            "bob": node("peer", "nat_b"),
        },
        {"alice": "10.7.0.2", "bob": "10.7.0.2"},
    ),
    (
        "below a router on the core everything stays public",
        {"edge": node("router", "internet"), "alice": node("peer", "edge"), "bob": node("peer", "edge")},
        {"edge": "11.0.0.2", "alice": "11.64.0.2", "bob": "11.64.0.3"},
    ),
    (
        "below a router behind a nat everything stays private",
        {"nat": node("nat", "internet"), "inner": node("router", "nat"), "alice": node("peer", "inner")},
        {"inner": "192.168.1.2", "alice": "192.168.2.2"},
    ),
]


@pytest.mark.parametrize(("nodes", "expected"), [r[1:] for r in FIRST_ADDRESSES], ids=[r[0] for r in FIRST_ADDRESSES])
def test_first_address(nodes: dict[str, Node], expected: dict[str, str]) -> None:
    boxes = network(nodes).boxes
    assert {name: str(_outer(boxes[name])) for name in expected} == expected


def _outer(box: Box) -> IPv4Address:
    return next(i.addresses[0].ip for i in box.interfaces if i.name != LAN)


def test_a_rendezvous_answers_at_two_addresses() -> None:
    planned = network(TWO_HOMES)
    first, second = server_addresses(planned, "meet")
    assert (str(first), str(second)) == ("11.0.0.2", "11.128.0.1")
    assert Route(IPv4Network("11.128.0.1/32"), first, "to0") in planned.boxes["internet"].routes


def test_a_nat_translates_its_own_segment_and_what_is_routed_below_it() -> None:
    planned = network({"nat": node("nat", "internet"), "inner": node("router", "nat"), "alice": node("peer", "inner")})
    translation = planned.boxes["nat"].translation
    assert translation is not None
    assert {str(prefix) for prefix in translation.inside} == {"192.168.1.0/24", "192.168.2.0/24"}
    assert not any(route.destination == IPv4Network("192.168.2.0/24") for route in planned.boxes["internet"].routes)


def test_further_external_addresses_are_routed_to_the_nat() -> None:
    topology = Topology(nodes={"nat": node("nat", "internet"), "alice": node("peer", "nat")})
    planned = plan_network(topology, {"nat": NatProfile(external_addresses=3)})
    translation = planned.boxes["nat"].translation
    assert translation is not None
    assert [str(a) for a in translation.external] == ["11.0.0.2", "11.128.0.1", "11.128.0.2"]
    via_nat = [r.destination for r in planned.boxes["internet"].routes if r.via == IPv4Address("11.0.0.2")]
    assert via_nat == [IPv4Network("11.128.0.1/32"), IPv4Network("11.128.0.2/32")]


def test_a_multi_homed_node_routes_by_source() -> None:
    planned = network(TWO_HOMES | {"carol": node("peer", "nat_a", "nat_b")})
    carol = planned.boxes["carol"]
    assert [(str(rule.source), rule.table) for rule in carol.rules] == [("192.168.1.3", 101), ("192.168.2.3", 102)]
    defaults = {route.table: str(route.via) for route in carol.routes if route.destination.prefixlen == 0}
    assert defaults == {254: "192.168.1.1", 101: "192.168.1.1", 102: "192.168.2.1"}


def test_regions_know_each_others_prefixes() -> None:
    planned = network(
        {"alice": node("peer", "lon1"), "edge": node("router", "nyc3"), "bob": node("peer", "edge")},
        regions={"lon1": {"nyc3": 35_000_000}, "nyc3": {}},
    )
    between = planned.cables[-1]
    assert (between.name, between.link.up.delay, between.link.down.delay) == ("lon1--nyc3", 35_000_000, 35_000_000)
    reached = {
        route.destination for route in planned.boxes["lon1"].routes if route.interface == between.lower.interface
    }
    assert IPv4Network("11.64.0.0/24") in reached


def test_everybody_on_a_segment_knows_everybody() -> None:
    planned = network({"nat": node("nat", "internet"), "alice": node("peer", "nat"), "bob": node("peer", "nat")})
    known = {(n.interface, str(n.address)) for n in planned.boxes["alice"].neighbours}
    assert known == {("eth0", "192.168.1.1"), ("eth0", "192.168.1.3")}


def test_no_two_devices_share_a_mac_or_a_name() -> None:
    planned = network(TWO_HOMES | {"carol": node("peer", "nat_a", "nat_b")})
    ports = [port for cable in planned.cables for port in (cable.lower, cable.upper)]
    assert len({port.mac for port in ports}) == len(ports)
    assert len({(port.box, port.interface) for port in ports}) == len(ports)
    assert all(len(port.interface) <= 15 for port in ports)


def test_a_prefix_that_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nodes\.nat\.lan: 10\.0\.0\.0/30 has room for 1 nodes, 2 hang below nat"):
        network(
            {
                "nat": node("nat", "internet", lan="10.0.0.0/30"),
                "alice": node("peer", "nat"),
                "bob": node("peer", "nat"),
            }
        )


def test_one_host_needs_no_bridge_and_several_have_one() -> None:
    """The segment below a nat is the same for its hosts either way: one interface, one address, known neighbours."""
    for hosts, is_bridge in ((1, False), (2, True)):
        planned = network({"nat": node("nat", "internet"), **{f"h{n}": node("peer", "nat") for n in range(hosts)}})
        (lan,) = (i for i in planned.boxes["nat"].interfaces if i.name == LAN)
        assert lan.is_bridge is is_bridge
        assert [str(a) for a in lan.addresses] == ["192.168.1.1/24"]
        ends = [c.upper for c in planned.cables if c.upper.box == "nat"]
        assert [end.bridge for end in ends] == [LAN if is_bridge else None] * hosts
        assert {n.interface for n in planned.boxes["nat"].neighbours} == {"wan0", LAN}
        if not is_bridge:
            assert (ends[0].interface, ends[0].mac) == (LAN, lan.mac)
