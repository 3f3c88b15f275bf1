"""From a scenario to its cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import SpecError, UsageError
from testbed.spec.load import LoadedScenario, load_scenario
from testbed.spec.scenario import Command

NATS = "nat_a: [eim-eif], nat_b: [eim-eif]"

EXPANSIONS = [
    # (what is varied, the cells, why)
    (
        "{nat_a: [eim-eif, eim-adf], nat_b: [eim-eif, apdm-apdf]}",
        [
            "nat_a=eim-eif,nat_b=eim-eif",
            "nat_a=eim-eif,nat_b=apdm-apdf",
            "nat_a=eim-adf,nat_b=eim-eif",
            "nat_a=eim-adf,nat_b=apdm-apdf",
        ],
        "the last factor varies fastest",
    ),
    (
        "[{nat_a: [eim-eif], nat_b: [eim-adf]}, {nat_a: [eim-adf], nat_b: [eim-eif, eim-adf]}]",
        ["nat_a=eim-eif,nat_b=eim-adf", "nat_a=eim-adf,nat_b=eim-eif", "nat_a=eim-adf,nat_b=eim-adf"],
        "products follow each other",
    ),
    (
        "[{nat_a: [eim-eif], nat_b: [eim-adf]}, {nat_b: [eim-adf, eim-eif], nat_a: [eim-eif]}]",
        ["nat_a=eim-eif,nat_b=eim-adf", "nat_b=eim-eif,nat_a=eim-eif"],
        "a cell in two products is one cell, in whatever order its factors stand",
    ),
    ("{nat_a: eim-eif, nat_b: eim-adf}", ["nat_a=eim-eif,nat_b=eim-adf"], "one value needs no brackets"),
    (
        f"{{{NATS}, agent: [udp, {{command: [./punch, -v]}}]}}",
        ["nat_a=eim-eif,nat_b=eim-eif,agent=udp", "nat_a=eim-eif,nat_b=eim-eif,agent=./punch -v"],
        "a program is a value too",
    ),
    (
        f"{{{NATS}, nodes.alice.link.mtu: [1280, 1500]}}",
        [
            "nat_a=eim-eif,nat_b=eim-eif,nodes.alice.link.mtu=1280",
            "nat_a=eim-eif,nat_b=eim-eif,nodes.alice.link.mtu=1500",
        ],
        "a number is a value",
    ),
]


def load(tmp_path: Path, matrix: str, more: str = "", topology: str = "two_homes") -> LoadedScenario:
    path = tmp_path / "scenarios" / "s.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"topology: {topology}\nmatrix: {matrix}\n{more}")
    return load_scenario(str(path))


def ids(loaded: LoadedScenario) -> list[str]:
    return [cell.id for cell in loaded.cells]


@pytest.mark.parametrize(("matrix", "cells", "why"), EXPANSIONS, ids=[row[2] for row in EXPANSIONS])
def test_cells(tmp_path: Path, matrix: str, cells: list[str], why: str) -> None:
    assert ids(load(tmp_path, matrix)) == cells, why


def test_where_nothing_is_varied_there_is_one_cell(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("topology: access_lines\nagent: {command: [./punch]}\n")
    (cell,) = load_scenario(str(path)).cells
    assert (cell.id, cell.factors, cell.pair) == ("all", {}, ("alice", "bob"))
    assert cell.agent == Command(command=("./punch",))
    assert cell.profiles.keys() == {"nat_a", "nat_b"}


def test_a_cell_holds_all_that_it_decides(tmp_path: Path) -> None:
    (cell,) = load(tmp_path, "{nat_a: [eim-eif], nat_b: [apdm-apdf], agent: [udp], strategy: [reflexive]}").cells
    assert {name: profile.name for name, profile in cell.profiles.items()} == {"nat_a": "eim-eif", "nat_b": "apdm-apdf"}
    assert (cell.agent, cell.strategy) == ("udp", "reflexive")


# ---- dotted factors


DOTTED = [
    ("nodes.alice.link.delay: [7ms]", 7_000_000, 7_000_000, "both directions of a link"),
    ("nodes.alice.link.up.delay: [7ms]", 7_000_000, 1_000_000, "one direction"),
    ("nodes.alice.link: [fibre]", 2_000_000, 2_000_000, "the whole link, by a preset's name"),
    ("nodes.alice.link.preset: [dsl]", 1_000_000, 1_000_000, "a preset below what the topology says"),
]


@pytest.mark.parametrize(("factor", "up", "down", "why"), DOTTED, ids=[row[3] for row in DOTTED])
def test_a_dotted_factor_changes_the_topology(tmp_path: Path, factor: str, up: int, down: int, why: str) -> None:
    loaded = load(tmp_path, f"{{{NATS}, {factor}}}")
    link = loaded.cells[0].topology.nodes["alice"].attachments[0].link
    assert (link.up.delay, link.down.delay) == (up, down), why
    assert loaded.topology.nodes["alice"].attachments[0].link.up.delay == 1_000_000, "its own value stays"
    assert loaded.cells[0].topology.nodes["bob"] == loaded.topology.nodes["bob"], "and so do the other nodes"


def test_a_dotted_factor_below_a_link_by_name_keeps_the_rest_of_it(tmp_path: Path) -> None:
    (cell,) = load(tmp_path, "{nodes.nat_a.link.loss: [5%]}", topology="access_lines").cells
    link = cell.topology.nodes["nat_a"].attachments[0].link
    assert (link.up.loss, link.up.delay, link.up.rate) == (50_000, 2_000_000, 5_000_000)


def test_a_dotted_factor_changes_a_prefix_an_uplink_and_a_region(tmp_path: Path) -> None:
    (tmp_path / "world.yaml").write_text(
        "regions: {lon: {par: 5ms}, par: {}}\n"
        "nodes:\n"
        "  meet: {kind: rendezvous, uplink: lon}\n"
        "  nat: {kind: nat, uplink: lon, profile: eim-eif}\n"
        "  alice: {kind: peer, uplink: nat}\n"
        "  bob: {kind: peer, uplink: [lon, par], link: [{delay: 1ms}, {delay: 2ms}]}\n"
    )
    matrix = (
        "{regions.lon.par: [9ms], nodes.nat.lan: [10.9.0.0/24], nodes.nat.uplink: [par], nodes.bob.link.1.delay: [3ms]}"
    )
    (cell,) = load(tmp_path, matrix, topology="../world.yaml").cells
    assert cell.topology.regions["lon"]["par"] == 9_000_000
    assert str(cell.topology.nodes["nat"].lan) == "10.9.0.0/24"
    assert cell.topology.nodes["nat"].attachments[0].uplink == "par"
    assert [a.link.up.delay for a in cell.topology.nodes["bob"].attachments] == [1_000_000, 3_000_000]


# ---- pairs


THREE = """\
nodes:
  meet: {kind: rendezvous, uplink: internet}
  alice: {kind: peer, uplink: internet}
  bob: {kind: peer, uplink: internet}
  carol: {kind: peer, uplink: internet}
"""


def test_where_several_pairs_meet_the_pair_is_a_factor(tmp_path: Path) -> None:
    (tmp_path / "three.yaml").write_text(THREE)
    matrix, topology = "{agent: [quic, udp]}", "../three.yaml"
    loaded = load(tmp_path, matrix, "pairs: [[alice, bob], [bob, alice], [alice, carol]]\n", topology)
    assert ids(loaded)[:4] == [
        "agent=quic,pair=alice-bob",
        "agent=quic,pair=bob-alice",
        "agent=quic,pair=alice-carol",
        "agent=udp,pair=alice-bob",
    ]
    assert [cell.pair for cell in loaded.cells[:2]] == [("alice", "bob"), ("bob", "alice")], "the first is the client"
    one = load(tmp_path, matrix, "pairs: [[carol, bob]]\n", topology)
    assert ids(one) == ["agent=quic", "agent=udp"]
    assert one.cells[0].pair == ("carol", "bob")


def test_a_gate_may_name_a_pair(tmp_path: Path) -> None:
    (tmp_path / "three.yaml").write_text(THREE)
    pairs = (
        "pairs: [[alice, bob], [alice, carol]]\nexpect: [{where: {pair: alice-%s}, success_rate: {at_least: 9%%}}]\n"
    )
    assert load(tmp_path, "{}", pairs % "bob", "../three.yaml").scenario.expect[0].where == {"pair": "alice-bob"}
    with pytest.raises(SpecError, match=r"no cell has pair=alice-bbo, did you mean 'alice-bob'\?$"):
        load(tmp_path, "{}", pairs % "bbo", "../three.yaml")


# ---- --only


ONLY = [
    (["nat_b=eim-eif"], 3, "one value of one factor"),
    (["nat_b=eim-eif", "nat_b=eim-adf"], 6, "two values of one factor: either"),
    (["nat_a=apdm-apdf", "nat_b=eim-adf"], 3, "two factors: both"),
    (["nat_a=apdm-apdf", "nat_b=eim-adf", "strategy=birthday"], 1, "three factors: all"),
    ([], 15, "nothing said: all"),
]


@pytest.mark.parametrize(("only", "count", "why"), ONLY, ids=[row[2] for row in ONLY])
def test_only_selects_cells(only: list[str], count: int, why: str) -> None:
    assert len(load_scenario("symmetric_nat", only=only).cells) == count, why


REFUSED = [
    ("nat_b", "--only nat_b: write FACTOR=VALUE, such as --only nat_a=apdm-apdf"),
    ("natb=eim-eif", "--only natb=eim-eif: no factor is called 'natb', did you mean 'nat_b'?"),
    ("nat_b=eim-efi", "--only nat_b=eim-efi: no cell has nat_b=eim-efi, did you mean 'eim-eif'?"),
]


@pytest.mark.parametrize(("choice", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_only_refuses_what_names_nothing(choice: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_scenario("symmetric_nat", only=[choice])
    assert str(caught.value) == message


def test_only_refuses_what_no_cell_is_all_of() -> None:
    with pytest.raises(UsageError, match=r"^no cell is all of --only nat_a=eim-eif --only nat_b=eim-eif$"):
        load_scenario("symmetric_nat", only=["nat_a=eim-eif", "nat_b=eim-eif"])


def test_only_reads_values_as_the_id_shows_them(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"{{{NATS}, nodes.alice.link.mtu: [1280, 1500], agent: [udp, {{command: [a, b]}}]}}")
    path = str(tmp_path / "scenarios" / "s.yaml")
    for cell in loaded.cells:
        only = [f"nodes.alice.link.mtu={cell.factors['nodes.alice.link.mtu']}", "agent=a b"]
        assert all("agent=a b" in left.id for left in load_scenario(path, only=only).cells)
