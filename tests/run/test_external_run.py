"""External programs in real runs: those that lie, those that fail, and the example that tells the truth.

A program's word is checked against the lab's packets; the table's programs say and send exactly what each row tells.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from testbed.plan.outcomes import CLAIM_REFUTED, ENDS_DISAGREE, Outcome
from testbed.results.record import Record
from tests.run.command import Ran, call, records, scenario
from tests.spec.corpus import ROOT

pytestmark = pytest.mark.lab

PUNCH = ROOT / "examples/punch.py"
DIRECT, RELAYED, FAILED, UNSUPPORTED = Outcome.DIRECT, Outcome.RELAYED, Outcome.FAILED, Outcome.UNSUPPORTED

PROGRAM = '''
"""Says and sends what its first argument tells. Both ends are in one home, so each knows the other's address."""
import json, os, signal, socket, sys, time

role, mode = os.environ["TESTBED_ROLE"], sys.argv[1]
here = os.environ["TESTBED_ADDRESS"]
there = {"192.168.1.2": "192.168.1.3", "192.168.1.3": "192.168.1.2"}[here]
relay = os.environ["TESTBED_TURN"]

def say(event, **more):
    print(json.dumps({"t": time.monotonic_ns(), "event": event, **more}), flush=True)

def claim(local=here + ":5000", remote=there + ":5000"):
    say("connected", local=local, remote=remote)
    signal.pause()

def send():
    return sending.sendto(b"from " + role.encode(), (there, 5000))

def talk():
    """Until the other was heard; then once more, so that it hears us too."""
    while True:
        send()
        try:
            sending.recv(100)
        except OSError:  # nothing yet, or nobody there yet
            continue
        return send()

say("start")
sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sending.settimeout(0.05)
sending.bind((here, 5000))
if mode == "honest":
    talk()
    claim()
elif mode == "words-without-packets":
    claim()
elif mode == "one-sends":
    if role == "controlling":
        for _ in range(40):  # the other may not be there yet
            send()
            try:
                sending.recv(100)
            except OSError:
                pass
    else:
        sending.settimeout(20)
        sending.recv(100)
    claim()
elif mode == "relay-as-direct":
    sending.sendto(b"?", tuple([relay.split(":")[0], int(relay.split(":")[1])]))
    claim(remote=relay)
elif mode == "address-of-another":
    talk()
    claim(local="192.168.1.77:5000")
elif mode == "other-path-than-used":
    talk()
    claim(remote=there + ":5001")
elif mode == "one-claims":
    talk()
    if role == "controlling":
        claim()
    say("failed", reason="I know of nothing")
elif mode == "unsupported":
    sys.exit("no IPv4 in here") if role == "controlled" and len(sys.argv) > 2 else print("no IPv4", file=sys.stderr)
    sys.exit(77)
elif mode == "crash":
    raise RuntimeError("out of ideas")
elif mode == "silence":
    pass
elif mode == "noise":
    print("Hello, world")
    print("{" * 50000)
    print(json.dumps({"event": "victory"}))
    say("failed", reason="bored")
'''


class Row(NamedTuple):
    mode: str
    outcome: Outcome
    reason: str
    note: str | None = None


ROWS = [
    Row("honest", DIRECT, ""),
    Row("words-without-packets", FAILED, "no packet passed in either direction", CLAIM_REFUTED),
    Row("one-sends", FAILED, "no packet passed in one direction", CLAIM_REFUTED),
    Row("relay-as-direct", FAILED, "is the relay's", CLAIM_REFUTED),
    Row("address-of-another", FAILED, "is not an address of the end that claims it", CLAIM_REFUTED),
    Row("other-path-than-used", FAILED, "no packet passed in either direction", CLAIM_REFUTED),
    Row("one-claims", FAILED, "one end says that it is connected", ENDS_DISAGREE),
    Row("unsupported", UNSUPPORTED, "no IPv4"),
    Row("crash", FAILED, "RuntimeError: out of ideas"),
    Row("silence", FAILED, "the program ended with status 0"),
    Row("noise", FAILED, "bored"),
]


@pytest.fixture(scope="module")
def lies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """All rows as the cells of one run."""
    at = tmp_path_factory.mktemp("lies")
    (at / "program.py").write_text(PROGRAM)
    agents = ", ".join(f"{{command: [{sys.executable}, program.py, {row.mode}]}}" for row in ROWS)
    matrix = f"matrix: {{nat: [apdm-apdf], agent: [{agents}]}}"
    scenario(at, f"topology: one_home\n{matrix}\ntrials: 1\ndeadline: 2s\nsetup_deadline: 3s\n")
    return at, call("run", "own.yaml", "--out", "out", "--json", at=at)


@pytest.mark.parametrize("row", ROWS, ids=[row.mode for row in ROWS])
def test_words_are_checked(row: Row, lies: tuple[Path, Ran]) -> None:
    at, ran = lies
    assert ran.status == 0, ran.err
    (record,) = (r for r in records(at / "out") if row.mode in str(r.factors["agent"]))
    assert record.outcome is row.outcome, record.reason
    assert row.reason in (record.reason or "")
    assert row.note is None or row.note in record.warnings


def test_a_program_that_says_nonsense_is_warned_of(lies: tuple[Path, Ran]) -> None:
    (record,) = (r for r in records(lies[0] / "out") if "noise" in str(r.factors["agent"]))
    for words in ("a line of output is not JSON", "longer than 16384 bytes", "is no event"):
        assert any(words in text for text in record.warnings), record.warnings


def test_what_is_unsupported_is_in_no_rate(lies: tuple[Path, Ran]) -> None:
    document = lies[1].document
    (cell,) = (cell for cell in document.cells if "unsupported" in cell.id)
    assert (cell.trials, cell.success_rate.n, cell.success_rate.value) == (1, 0, None)


PAIRS = [
    ("eim-apdf", "eim-apdf", DIRECT),
    ("eim-adf", "apdm-apdf", DIRECT),
    ("eim-apdf", "apdm-apdf", FAILED),
    ("udp-blocked", "eim-eif", FAILED),
]


def test_the_example_connects_where_theory_says(tmp_path: Path) -> None:
    matrix = ", ".join(f"{{nat_a: [{a}], nat_b: [{b}]}}" for a, b, _ in PAIRS)
    agent = f"{{command: [{sys.executable}, {PUNCH}]}}"
    scenario(
        tmp_path,
        f"topology: two_homes\nagent: {agent}\nmatrix: [{matrix}]\ntrials: 2\ndeadline: 2s\nsetup_deadline: 5s\n",
    )
    ran = call("run", "own.yaml", "--out", "out", at=tmp_path)
    assert ran.status == 0, ran.err
    found: dict[tuple[object, object], set[Outcome]] = {}
    for record in records(tmp_path / "out"):
        found.setdefault((record.factors["nat_a"], record.factors["nat_b"]), set()).add(record.outcome)
        check_metrics(record)
    assert found == {(a, b): {outcome} for a, b, outcome in PAIRS}


def check_metrics(record: Record) -> None:
    """What the example says is enough for every time, but for the relay's, which it has not."""
    assert record.metrics["relay_rtt"] is None
    if record.outcome is Outcome.DIRECT:
        assert record.path is not None
        for name in ("candidate_discovery_time", "time_to_traverse", "connect_time"):
            assert record.metrics[name] is not None, name


def test_a_program_that_vanishes_breaks_the_trial_and_says_so(tmp_path: Path) -> None:
    """It was there when the run began: whose fault it is cannot be known, but it is no failed punch."""
    program = tmp_path / "peer"
    program.write_text("#!/bin/sh\nexit 77\n")
    program.chmod(0o755)
    scenario(tmp_path, f"topology: one_home\nagent: {{command: [{program}]}}\nmatrix: {{nat: [eim-eif]}}\ntrials: 1\n")
    program_text = program.read_text()
    program.write_text(program_text.replace("/bin/sh", "/no/such/shell"))
    ran = call("run", "own.yaml", "--out", "out", at=tmp_path)
    assert ran.status == 4, ran.err
    (record,) = records(tmp_path / "out")
    assert record.reason is not None
    assert str(program) in record.reason
    assert "No such file" in record.reason
