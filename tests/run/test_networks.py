"""What a run says of different networks: outcome, path, candidate types, drops; and its captures.

The path's addresses are compared with the plan's: a claim that names others would not have been believed.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from testbed.plan.outcomes import Outcome
from testbed.results.record import Record
from tests.run.command import Ran, call, records, scenario, tree

pytestmark = pytest.mark.lab

HOST, REFLEXIVE, PEER = "host", "server-reflexive", "peer-reflexive"
NAT_A, NAT_B = "11.0.0.6", "11.0.0.10"
"""The first nat and the second of a topology that begins with its rendezvous: addresses follow the file's order."""

MEET = "nodes:\n  meet: {kind: rendezvous, uplink: internet}\n"
TWO_HOMES = (
    MEET
    + """
  nat_a: {kind: nat, uplink: internet}
  nat_b: {kind: nat, uplink: internet}
  alice: {kind: peer, uplink: nat_a, link: {delay: 2ms}}
  bob: {kind: peer, uplink: nat_b, link: {delay: 2ms}}
"""
)
ONE_HOME = (
    MEET
    + """
  nat: {kind: nat, uplink: internet}
  alice: {kind: peer, uplink: nat}
  bob: {kind: peer, uplink: nat}
"""
)
ONE_PUBLIC = (
    MEET
    + """
  nat: {kind: nat, uplink: internet}
  alice: {kind: peer, uplink: nat}
  bob: {kind: peer, uplink: internet}
"""
)
CARRIER = (
    MEET
    + """
  carrier: {kind: nat, uplink: internet}
  nat_b: {kind: nat, uplink: internet}
  nat_a: {kind: nat, uplink: carrier}
  alice: {kind: peer, uplink: nat_a}
  bob: {kind: peer, uplink: nat_b}
"""
)
TWO_UPLINKS = (
    MEET
    + """
  first: {kind: nat, uplink: internet, profile: eim-apdf}
  second: {kind: nat, uplink: internet}
  nat_b: {kind: nat, uplink: internet}
  alice: {kind: peer, uplink: [first, second]}
  bob: {kind: peer, uplink: nat_b}
"""
)


class Row(NamedTuple):
    sentence: str
    topology: str
    matrix: str
    outcome: Outcome
    seen_of: tuple[str, str] = ("", "")
    """Whose address each end sends to: what bob sees of alice, what alice sees of bob."""
    types: tuple[str, str] = ("", "")


DIRECT, RELAYED, FAILED = Outcome.DIRECT, Outcome.RELAYED, Outcome.FAILED
ROWS = [
    Row("two homes", TWO_HOMES, "nat_a: [eim-apdf], nat_b: [eim-apdf]", DIRECT, (NAT_A, NAT_B), (REFLEXIVE, REFLEXIVE)),
    Row(
        "one that looks at both addresses and ports",
        TWO_HOMES,
        "nat_a: [eim-adf], nat_b: [apdm-apdf]",
        DIRECT,
        (NAT_A, NAT_B),
    ),
    Row("both do", TWO_HOMES, "nat_a: [apdm-apdf], nat_b: [apdm-apdf]", RELAYED),
    Row("no UDP through one", TWO_HOMES, "nat_a: [udp-blocked], nat_b: [eim-eif]", FAILED),
    Row("one home", ONE_HOME, "nat: [apdm-apdf]", DIRECT, ("192.168.1.2", "192.168.1.3"), (HOST, HOST)),
    Row("a public peer", ONE_PUBLIC, "nat: [apdm-apdf]", DIRECT, (NAT_A, NAT_B), (PEER, HOST)),
    Row("a carrier's nat", CARRIER, "carrier: [eim-eif], nat_a: [eim-apdf], nat_b: [eim-apdf]", DIRECT, (NAT_A, NAT_B)),
    Row("a carrier's nat that does", CARRIER, "carrier: [apdm-apdf], nat_a: [eim-eif], nat_b: [eim-apdf]", RELAYED),
    Row("two uplinks", TWO_UPLINKS, "second: [udp-blocked], nat_b: [eim-apdf]", DIRECT, (NAT_A, "11.0.0.14")),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.sentence for row in ROWS])
def test_what_a_network_allows(row: Row, tmp_path: Path) -> None:
    (tmp_path / "topologies").mkdir()
    (tmp_path / "topologies/net.yaml").write_text(row.topology)
    scenario(
        tmp_path,
        f"topology: net\nmatrix: {{{row.matrix}, agent: [quic, udp]}}\ntrials: 1\ndeadline: 2s\nsetup_deadline: 4s\n",
    )
    ran = call("run", "own.yaml", "--out", "out", "--capture", "none", at=tmp_path)
    assert ran.status == 0, ran.err
    assert not (tmp_path / "out/captures").exists()
    for record in records(tmp_path / "out"):
        assert record.outcome is row.outcome, record.reason
        if row.outcome is Outcome.DIRECT:
            check_path(record, row)


def check_path(record: Record, row: Row) -> None:
    assert record.path is not None
    hosts = tuple(record.path[node][1].rpartition(":")[0] for node in ("bob", "alice"))
    assert hosts == row.seen_of
    if row.types[0]:
        assert record.path["types"] == row.types


# ---------------------------------------------------------------------------- drops and captures


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """One trial that is relayed, with all of its packets."""
    at = tmp_path_factory.mktemp("captured")
    (at / "topologies").mkdir()
    (at / "topologies/net.yaml").write_text(TWO_HOMES)
    cells = "[{nat_a: [apdm-apdf], nat_b: [apdm-apdf]}, {nat_a: [eim-eif], nat_b: [eim-eif]}]"
    scenario(at, f"topology: net\nagent: udp\nmatrix: {cells}\ntrials: 1\ndeadline: 1s\n")
    return at, call("run", "own.yaml", "--out", "out", "--capture", "all", at=at)


def test_nats_say_what_they_dropped_and_why(captured: tuple[Path, Ran]) -> None:
    relayed, direct = records(captured[0] / "out")
    for nat in ("nat_a", "nat_b"):
        assert set(relayed.nats[nat].dropped) <= {"no-permission", "no-mapping"}
        assert sum(relayed.nats[nat].dropped.values()) > 0
        assert not any(direct.nats[nat].dropped.values()), "an open nat drops nothing"


def test_a_capture_opens_elsewhere_and_has_a_block_for_each_point(captured: tuple[Path, Ran]) -> None:
    from scapy.utils import RawPcapNgReader, rdpcap

    path = captured[0] / "out/captures/nat_a=apdm-apdf,nat_b=apdm-apdf-0.pcapng"
    packets = rdpcap(str(path))
    assert len(packets) > 100
    points = {packet.sniffed_on for packet in packets}
    assert {"alice/eth0", "bob/eth0", "meet/eth0"} <= points, points
    with RawPcapNgReader(str(path)) as reader:
        list(reader)
        names = [options.get("name", b"").decode() for _, _, options in reader.interfaces]
    assert len(names) == len(set(names))


def test_what_a_nat_dropped_is_marked_in_the_capture(captured: tuple[Path, Ran]) -> None:
    from scapy.utils import rdpcap

    (relayed, _) = records(captured[0] / "out")
    packets = rdpcap(str(captured[0] / "out/captures/nat_a=apdm-apdf,nat_b=apdm-apdf-0.pcapng"))
    marks = Counter(packet.comment.decode() for packet in packets if packet.comment)
    told = Counter(
        {
            f"dropped by {nat}: {why}": count
            for nat, r in relayed.nats.items()
            for why, count in r.dropped.items()
            if count
        }
    )
    assert marks == told


@pytest.mark.parametrize(("keep", "kept"), [("failed", ["apdm"]), ("all", ["apdm", "eim"]), ("none", [])])
def test_which_captures_are_kept(keep: str, kept: list[str], captured: tuple[Path, Ran], tmp_path: Path) -> None:
    for name in ("own.yaml", "topologies"):
        source = captured[0] / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    ran = call("run", "own.yaml", "--out", "out", "--capture", keep, at=tmp_path)
    assert ran.status == 0, ran.err
    found = [name.removeprefix("captures/") for name in tree(tmp_path / "out") if name.startswith("captures/")]
    assert [name.split("=")[1].split("-")[0] for name in found] == kept
    assert (tmp_path / "out/captures").exists() == bool(kept)


# ---------------------------------------------------------------------------- the rest


def test_a_run_that_keeps_no_capture_has_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "topologies").mkdir()
    (tmp_path / "topologies/net.yaml").write_text(ONE_PUBLIC)
    scenario(tmp_path, "topology: net\nagent: udp\nmatrix: {nat: [eim-eif]}\ntrials: 1\n")
    assert call("run", "own.yaml", "--out", "out", at=tmp_path).status == 0
    assert tree(tmp_path / "out") == [
        "inputs",
        "inputs/run.json",
        "inputs/scenarios",
        "inputs/scenarios/own.yaml",
        "inputs/topologies",
        "inputs/topologies/net.yaml",
        "result.json",
        "trials.jsonl",
    ]


def test_several_pairs_in_one_topology_are_cells(tmp_path: Path) -> None:
    (tmp_path / "topologies").mkdir()
    (tmp_path / "topologies/net.yaml").write_text(ONE_HOME + "  carol: {kind: peer, uplink: internet}\n")
    scenario(
        tmp_path,
        "topology: net\nagent: udp\nmatrix: {nat: [apdm-apdf]}\ntrials: 1\npairs: [[alice, bob], [carol, alice]]\n",
    )
    ran = call("run", "own.yaml", "--out", "out", "--json", at=tmp_path)
    assert ran.status == 0, ran.err
    first, second = records(tmp_path / "out")
    assert set(first.agents) == {"alice", "bob"}
    assert set(second.agents) == {"carol", "alice"}
    assert first.outcome is second.outcome is Outcome.DIRECT
    assert first.path is not None
    assert first.path["types"] == (HOST, HOST)
    assert len({json.dumps(cell.factors) for cell in ran.document.cells}) == 2


def test_the_port_clash_defect_shows_where_its_file_says(tmp_path: Path) -> None:
    ran = call("run", "defect_input_accept", "--trials", 2, "--out", "out", "--json", at=tmp_path)
    assert ran.status == 0, ran.err
    rates = {cell.id: cell.success_rate.value for cell in ran.document.cells}
    spoilt = [cell for cell, rate in rates.items() if rate == 0]
    assert len(rates) == 4
    assert [cell for cell in rates if cell.endswith("nat_b=linux-masquerade-input-accept")] == spoilt
