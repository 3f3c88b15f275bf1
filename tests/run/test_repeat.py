"""The same seed gives the same trial: addresses, ports, what NATs choose, the order in the file.

What may differ by timing (how many checks were sent, how long it took) is not compared. Ports that a NAT draws are
compared for the profiles that draw from a seed; native ones choose as the kernel does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.plan.outcomes import Outcome
from testbed.results.record import Record
from tests.run.command import call, records, said, scenario

pytestmark = pytest.mark.lab

SCENARIO = """
topology: two_homes
matrix:
  - {nat_a: [eim-adf-random], nat_b: [apdm-adf-sequential, adm-eif], agent: [quic, udp]}
trials: 2
deadline: 5s
"""


def candidates(record: Record) -> dict[str, set[tuple[str, str]]]:
    """Type and address of every candidate that an end found; servers may answer in any order."""
    return {
        node: {(str(entry["type"]), str(entry["address"])) for entry in said(record, node, "candidate")}
        for node in record.agents
    }


def assigned(record: Record, node: str) -> dict[object, object]:
    """Which address each server saw of an end; of a NAT with one mapping for all, the first to answer tells."""
    return {entry["server"]: entry["address"] for entry in said(record, node, "candidate") if entry.get("server")}


def externals(record: Record) -> list[tuple[str, ...]]:
    """Where each end's packets came from, as the other saw it."""
    assert record.path is not None
    return [record.path[node] for node in record.agents]


def play(at: Path, *arguments: object) -> list[Record]:
    scenario(at, SCENARIO)
    ran = call("run", "own.yaml", "--out", "out", *arguments, at=at)
    assert ran.status == 0, ran.err
    return records(at / "out")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return play(tmp_path_factory.mktemp("once"))


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """The same, one trial after the other."""
    return play(tmp_path_factory.mktemp("again"), "--jobs", 1)


def test_the_same_seed_gives_the_same_candidates(once: list[Record], again: list[Record]) -> None:
    assert len(once) == len(again) == 8
    for first, second in zip(once, again, strict=True):
        assert first.key == second.key
        assert first.seed == second.seed
        assert candidates(first) == candidates(second), first.cell
        assert assigned(first, "bob") == assigned(second, "bob"), "bob's NAT has a mapping for each server"
        assert len(assigned(first, "bob")) == 2
        assert first.outcome is second.outcome, first.cell


def test_the_same_seed_gives_the_same_external_ports(once: list[Record], again: list[Record]) -> None:
    compared = 0
    for first, second in zip(once, again, strict=True):
        if first.outcome is Outcome.DIRECT:
            assert externals(first) == externals(second), first.cell
            compared += 1
    assert compared


def test_another_seed_gives_others(once: list[Record], tmp_path: Path) -> None:
    for first, second in zip(once, play(tmp_path, "--seed", 2), strict=True):
        assert (first.cell, first.index) == (second.cell, second.index)
        assert candidates(first) != candidates(second)
        hosts = [
            {address.split(":")[0] for found in candidates(record).values() for _, address in found}
            for record in (first, second)
        ]
        assert hosts[0] == hosts[1], "addresses are the plan's, whatever the seed"


def test_trials_of_a_cell_differ(once: list[Record]) -> None:
    assert candidates(once[0]) != candidates(once[1])
