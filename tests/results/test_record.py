"""A record survives its line, and nothing else passes for one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.plan.outcomes import Outcome
from testbed.results.record import METRICS, Key, Record, sample, warning, warning_kind
from tests.results.build import record

FULL = record(
    index=7,
    reason=None,
    path={
        "alice": ("11.0.0.6:5000", "11.0.0.10:40001"),
        "bob": ("[2001:db8::1]:1", "1.2.3.4:2"),
        "types": ("host", "host"),
    },
    agents={
        "alice": ({"t": 1234567, "event": "candidate", "address": "11.0.0.6:5000", "deep": {"er": [1, None]}},),
        "bob": (),
    },
    nats={"nat_b": {"dropped": {"no-permission": 2}}},
    warnings=("late_event_loop: 12.4 ms late", "ends_disagree"),
)
LINE = json.loads(FULL.to_line())

TEXT = st.text(max_size=20)
TIMES = st.floats(0, 1e6)
RECORDS = st.builds(
    record,
    cell=TEXT,
    index=st.integers(0, 10**9),
    outcome=st.sampled_from([o.value for o in Outcome]),
    attempt=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
    factors=st.dictionaries(
        TEXT, st.one_of(TEXT, st.integers(), st.booleans(), st.fixed_dictionaries({"command": st.lists(TEXT)}))
    ),
    reason=st.none() | TEXT,
    metrics=st.dictionaries(st.sampled_from(sorted(METRICS)), st.none() | TIMES),
    censored=st.just({}),
    nats=st.dictionaries(TEXT, st.fixed_dictionaries({"dropped": st.dictionaries(TEXT, st.integers(0, 99))})),
    warnings=st.lists(TEXT).map(tuple),
)


@given(RECORDS)
def test_any_record_survives_its_line(made: Record) -> None:
    line = made.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert Record.from_line(line) == made


def test_the_line_has_the_keys_of_the_design() -> None:
    assert list(LINE) == [
        "v", "cell", "index", "attempt", "seed", "factors", "outcome", "reason", "metrics", "censored",
        "path", "agents", "nats", "events", "warnings",
    ]  # fmt: skip
    assert LINE["agents"]["alice"][0] == {
        "t": 1234567, "event": "candidate", "address": "11.0.0.6:5000", "deep": {"er": [1, None]},
    }  # fmt: skip
    assert LINE["nats"] == {"nat_b": {"dropped": {"no-permission": 2}}}
    assert Record.from_line(FULL.to_line()).key == Key("nat_a=eim-eif", 7, 1)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("another version", {"v": 2}, "trial records of version 2 cannot be read, only of version 1"),
    ("no version", {"v": None}, "trial records of version None cannot be read, only of version 1"),
    ("a key that nobody knows", {"colour": "red"}, "colour: Extra inputs are not permitted"),
    ("an outcome that nobody knows", {"outcome": "lucky"}, "outcome: Input should be 'direct', 'relayed', "),
    ("a number as text", {"seed": "1"}, "seed: Input should be a valid integer"),
    ("trials count from 0", {"index": -1}, "index: Input should be greater than or equal to 0"),
    ("attempts count from 1", {"attempt": 0}, "attempt: Input should be greater than 0"),
    ("a metric that nobody knows", {"metrics": {"luck": 1.0}}, "metrics: Value error, no metric is called 'luck'"),
    ("no time is negative", {"metrics": {"relay_rtt": -0.1}}, "metrics.relay_rtt: Input should be greater"),
    ("both measured and censored", {"censored": {"relay_rtt": 1.0}}, "censored: Value error, relay_rtt is both"),
    ("an event without its time", {"agents": {"a": [{"event": "x"}]}}, "agents.a.0.t: Field required"),
    ("a path of one address", {"path": {"a": ["1.2.3.4:5"], "types": []}}, "path: Value error, a has two addresses"),
    ("a path that is no address", {"path": {"a": ["x", "y"], "types": []}}, "path: Value error, 'x' is not HOST:PORT"),
    (
        "a path without types",
        {"path": {"a": ["1.2.3.4:5", "1.2.3.4:6"]}},
        "path: Value error, a path names the candidate",
    ),
]


@pytest.mark.parametrize(("change", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_is_not_a_record_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        Record.from_line(json.dumps({**LINE, **change}))
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(FULL.to_line()[:50], "not JSON", id="half a line"),
        pytest.param(b"[1]", "a trial is a JSON object", id="a list"),
        pytest.param(FULL.to_line().replace(b"0.0561", b"NaN"), "metrics.candidate", id="a number that is none"),
        pytest.param(b"\xff{}", "not JSON", id="not text"),
    ],
)
def test_what_is_not_json_is_refused(line: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Record.from_line(line)


def test_a_sample_takes_values_and_limits_and_leaves_out_what_has_no_meaning() -> None:
    records = [record(took=0.1), record(outcome="relayed"), record(outcome="broken"), record(took=0.3)]
    found = sample(records, "time_to_traverse")
    assert (found.values, found.censored) == ((0.1, 0.3), (10.0,))
    assert sample(records, "connect_time").n == 0


@pytest.mark.parametrize(("kind", "detail"), [("late_event_loop", "12 ms: at once"), ("ends_disagree", "")])
def test_a_warning_knows_its_kind(kind: str, detail: str) -> None:
    assert warning_kind(warning(kind, detail)) == kind
