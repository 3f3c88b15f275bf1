"""What happens to the network while two peers meet: one table, for the model and for the lab."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from testbed.plan.outcomes import Outcome
from testbed.plan.trials import plan_cell, settings_of, trial_seed
from testbed.sim.trial import play
from testbed.spec.load import load_scenario
from tests.run.command import call, records, scenario

MEET = "nodes:\n  meet: {kind: rendezvous, uplink: internet, link: {delay: 5ms}}\n"
HOMES = (
    MEET
    + """
  nat_a: {kind: nat, uplink: internet, link: {delay: 20ms}}
  alice: {kind: peer, uplink: nat_a}
  nat_b: {kind: nat, uplink: internet, link: {delay: 20ms}}
  bob: {kind: peer, uplink: nat_b}
"""
)
CARRIER = (
    MEET
    + """
  carrier: {kind: nat, uplink: internet, link: {delay: 10ms}, profile: eim-apdf}
  nat_a: {kind: nat, uplink: carrier, link: {delay: 10ms}}
  neighbour: {kind: host, uplink: carrier}
  alice: {kind: peer, uplink: nat_a}
  nat_b: {kind: nat, uplink: internet, link: {delay: 20ms}}
  bob: {kind: peer, uplink: nat_b}
"""
)
FIREWALL = (
    MEET
    + """
  nat_a: {kind: router, uplink: internet, link: {delay: 20ms}}
  alice: {kind: peer, uplink: nat_a}
  nat_b: {kind: nat, uplink: internet, link: {delay: 20ms}}
  bob: {kind: peer, uplink: nat_b}
"""
)
TWO_UPLINKS = (
    MEET
    + """
  nat_a: {kind: nat, uplink: internet, link: {delay: 20ms}}
  second: {kind: nat, uplink: internet, link: {delay: 20ms}, profile: eim-apdf}
  alice: {kind: peer, uplink: [nat_a, second]}
  nat_b: {kind: nat, uplink: internet, link: {delay: 20ms}}
  bob: {kind: peer, uplink: nat_b}
"""
)
DIRECT, RELAYED, FAILED = Outcome.DIRECT, Outcome.RELAYED, Outcome.FAILED
AFTER_GATHERING = "at: 200ms"
"""Both ends have told the other their candidates by then, and no check has been sent."""


class Row(NamedTuple):
    sentence: str
    nats: tuple[str, str]
    events: tuple[str, ...]
    outcome: Outcome
    topology: str = HOMES
    happen: int | None = None
    """How many of the events, unless all."""


ROWS = [
    Row(
        "after a restart a nat that keeps ports makes the same mapping again",
        ("eim-apdf", "eim-apdf"),
        (f"{AFTER_GATHERING}, node: nat_a, do: restart",),
        DIRECT,
    ),
    Row(
        "so does one whose choice of ports begins anew, for who comes first",
        ("eim-apdf-random", "eim-apdf"),
        (f"{AFTER_GATHERING}, node: nat_a, do: restart",),
        DIRECT,
    ),
    Row(
        "after a flush its choice goes on: what was told is dead, and who filters by port hears nothing else",
        ("eim-apdf-random", "eim-apdf"),
        (f"{AFTER_GATHERING}, node: nat_a, do: flush",),
        FAILED,
    ),
    Row(
        "who filters nothing hears it from the new port",
        ("eim-apdf-random", "eim-eif"),
        (f"{AFTER_GATHERING}, node: nat_a, do: flush",),
        DIRECT,
    ),
    Row(
        "another address kills what was told of the old one",
        ("eim-apdf", "eim-apdf"),
        (f"{AFTER_GATHERING}, node: nat_a, do: change-address",),
        FAILED,
    ),
    Row(
        "and is heard by who filters nothing",
        ("eim-apdf", "eim-eif"),
        (f"{AFTER_GATHERING}, node: nat_a, do: change-address",),
        DIRECT,
    ),
    Row(
        "two addresses one after the other",
        ("apdm-apdf", "eim-eif"),
        (f"{AFTER_GATHERING}, node: nat_a, do: change-address", "at: 210ms, node: nat_a, do: change-address"),
        DIRECT,
    ),
    Row(
        "the kernel's own masquerade moves to the new address too",
        ("linux-masquerade", "eim-eif"),
        (f"{AFTER_GATHERING}, node: nat_a, do: change-address",),
        DIRECT,
    ),
    Row(
        "behind a carrier's nat the home's new address is the carrier's affair: a new mapping there",
        ("eim-apdf", "eim-eif"),
        (f"{AFTER_GATHERING}, node: nat_a, do: change-address",),
        DIRECT,
        CARRIER,
    ),
    Row(
        "which who filters by port does not hear",
        ("eim-apdf", "eim-apdf"),
        (f"{AFTER_GATHERING}, node: nat_a, do: change-address",),
        FAILED,
        CARRIER,
    ),
    Row(
        "a firewall that has forgotten is opened again by the next check",
        ("firewall", "eim-apdf"),
        (f"{AFTER_GATHERING}, node: nat_a, do: flush", "at: 250ms, node: nat_a, do: restart"),
        DIRECT,
        FIREWALL,
    ),
    Row(
        "a line that is cut for a second costs a round",
        ("eim-apdf", "eim-apdf"),
        (f"{AFTER_GATHERING}, link: nat_a, set: {{loss: 100%}}", "at: 1200ms, link: nat_a, set: {loss: 0%}"),
        DIRECT,
    ),
    Row(
        "one that is cut in one direction only is cut",
        ("eim-apdf", "eim-apdf"),
        ("at: 10ms, link: alice, set: {up: {loss: 100%}}",),
        FAILED,
        HOMES,
    ),
    Row(
        "the second of two uplinks may be cut",
        ("eim-apdf", "eim-apdf"),
        (f"{AFTER_GATHERING}, link: alice.1, set: {{loss: 100%}}",),
        DIRECT,
        TWO_UPLINKS,
    ),
    Row(
        "what is due when both are connected does not happen",
        ("eim-apdf", "eim-apdf"),
        ("at: 10ms, node: nat_b, do: flush", "at: 7s, node: nat_a, do: restart", "at: 7500ms, link: bob, set: lte"),
        DIRECT,
        HOMES,
        1,
    ),
]


def write(row: Row, at: Path) -> Path:
    for name, text in (("topologies/net", row.topology), ("nat_profiles/firewall", "mapping: none\n")):
        (at / name).parent.mkdir()
        (at / f"{name}.yaml").write_text(text)
    events = "".join(f"  - {{{event}}}\n" for event in row.events)
    nats = f"nat_a: [{row.nats[0]}], nat_b: [{row.nats[1]}]"
    matrix = f"topology: net\nmatrix: {{{nats}, agent: [quic, udp]}}\ntrials: 1\n"
    return scenario(at, f"{matrix}deadline: 3s\nsetup_deadline: 5s\nevents:\n{events}")


rows = pytest.mark.parametrize("row", ROWS, ids=[row.sentence for row in ROWS])


@rows
def test_in_the_model(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_scenario(str(write(row, tmp_path)))
    settings = settings_of(loaded.scenario)
    for spec in loaded.cells:
        plan = plan_cell(spec)
        played = play(plan, settings, trial_seed(loaded.scenario.seed, plan.id, 0))
        assert played.verdict.outcome is row.outcome, played.verdict.reason
        assert played.happened == plan.events[: row.happen]


@pytest.mark.lab
@rows
def test_in_the_lab(row: Row, tmp_path: Path) -> None:
    write(row, tmp_path)
    ran = call("run", "own.yaml", "--out", "out", "--capture", "none", "--json", at=tmp_path)
    assert ran.status == 0, ran.err
    for record in records(tmp_path / "out"):
        assert record.outcome is row.outcome, record.reason
        happened = [event for event in record.events if event.t is not None]
        assert len(record.events) == len(row.events)
        assert list(record.events[: row.happen]) == happened
        assert {event.not_applied for event in record.events if event.t is None} <= {"the trial was over"}
        times = [event.t for event in happened if event.t is not None]
        start = max(said[0].t for said in record.agents.values())
        assert times == sorted(times)
        assert all(start + event.at <= time for event, time in zip(happened, times, strict=True))
    assert [cell.agrees for cell in ran.document.cells] == [True, True]
    assert [event.what.partition(":")[0] for event in ran.document.events] == [
        "link " + event.partition("link: ")[2].partition(",")[0]
        if "link: " in event
        else event.partition("node: ")[2].partition(",")[0]
        for event in row.events
    ]
