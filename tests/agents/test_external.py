"""External programs: what they are told, what is made of what they say, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path

import pytest
import trio

from testbed.agents import external
from testbed.agents.contract import AgentResult, AgentSetup, ServerAddresses
from testbed.agents.external import LONGEST_LINE, Reader, environment, run_external_agent
from testbed.agents.rendezvous import run_rendezvous
from testbed.datagram import Endpoint
from testbed.errors import UsageError
from testbed.traversal.candidates import Role
from testbed.traversal.events import VOCABULARY, Connected, Event, Failed, Start, Unsupported
from testbed.traversal.metrics import is_over
from testbed.traversal.turn import Credentials
from tests.agents.sockets import address, open_socket

SECOND = 1_000_000_000
EXAMPLE = Path(__file__).parents[2] / "examples" / "punch.py"
SERVERS = ServerAddresses(
    (Endpoint("11.0.0.2", 3478), Endpoint("11.128.0.1", 3478)),
    Endpoint("11.0.0.2", 3478),
    Credentials("peer", "secret"),
    "testbed",
    Endpoint("11.0.0.2", 3480),
)


def setup_of(
    name: str = "alice", servers: ServerAddresses = SERVERS, number: int = 31, deadline: int = 10 * SECOND
) -> AgentSetup:
    role = Role.CONTROLLING if name == "alice" else Role.CONTROLLED
    other = "bob" if name == "alice" else "alice"
    return AgentSetup(
        name, other, role, (address(number),), servers, deadline, deadline, number, parameters={"rounds": 2}
    )


def spawn(command: Sequence[str], told: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(program: str, *, deadline: int = 10 * SECOND, stop_at: type[Event] | None = None) -> AgentResult:
    """Run a program given as Python text."""

    async def main() -> AgentResult:
        stop = trio.Event()

        def on_event(event: Event) -> None:
            if stop_at is not None and isinstance(event, stop_at):
                stop.set()

        return await run_external_agent(
            setup_of(deadline=deadline),
            command=[sys.executable, "-u", "-c", program],
            spawn=spawn,
            on_event=on_event,
            stop=stop,
        )

    return trio.run(main)


def test_a_program_is_told_everything() -> None:
    assert environment(setup_of()) == {
        "TESTBED_NAME": "alice",
        "TESTBED_PEER": "bob",
        "TESTBED_ROLE": "controlling",
        "TESTBED_ADDRESS": address(31),
        "TESTBED_PORT": "20031",
        "TESTBED_STUN": "11.0.0.2:3478,11.128.0.1:3478",
        "TESTBED_SIGNAL": "11.0.0.2:3480",
        "TESTBED_DEADLINE": "10",
        "TESTBED_SETUP_DEADLINE": "10",
        "TESTBED_SEED": "31",
        "TESTBED_STRATEGY": "reflexive",
        "TESTBED_PARAMETERS": '{"rounds": 2}',
        "TESTBED_TURN": "11.0.0.2:3478",
        "TESTBED_TURN_USER": "peer",
        "TESTBED_TURN_PASSWORD": "secret",
        "TESTBED_TURN_REALM": "testbed",
    }


def test_where_there_is_no_relay_none_is_told() -> None:
    servers = ServerAddresses(SERVERS.stun, None, SERVERS.credentials, SERVERS.realm, SERVERS.signalling)
    assert not any("TURN" in name for name in environment(setup_of(servers=servers)))


def read(*pieces: bytes, now: int = 100) -> Reader:
    reader = Reader(10, lambda _: None)
    for piece in pieces:
        reader.feed(piece, now)
    return reader


START = b'{"t": 20, "event": "start"}\n'


def test_lines_may_come_in_any_pieces() -> None:
    whole = START + b'\n{"t": 30, "event": "data", "local": "10.0.0.1:5", "remote": "11.0.0.1:6"}\n'
    reader = read(*(whole[index : index + 7] for index in range(0, len(whole), 7)))
    assert [event.word for event in reader.events] == ["start", "data"]
    assert reader.summary() == ()


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        pytest.param(b"hello", "a line of output is not JSON", id="prose"),
        pytest.param(b"[" * 5000, "a line of output is not JSON", id="brackets without end"),
        pytest.param(b"\xff\xfe", "a line of output is not JSON", id="no text"),
        pytest.param(b"[1]", "a line of output is no event: not an object", id="no object"),
        pytest.param(b"{}", "event None is not known", id="no word"),
        pytest.param(b'{"event": "dance"}', "event 'dance' is not known", id="an unknown word"),
        pytest.param(b'{"event": "check"}', "check: remote is missing", id="a key that is missing"),
        pytest.param(b'{"event": "check", "remote": "alice:5"}', "'alice:5' is not IP:PORT", id="a name, no address"),
        pytest.param(b'{"event": "round", "round": "one"}', "round: 'one' is not a whole number", id="a word number"),
        pytest.param(b'{"event": "failed", "reason": 5}', "reason: 5 is not a text", id="a number for a text"),
        pytest.param(b"x" * (LONGEST_LINE + 1), f"longer than {LONGEST_LINE} bytes", id="a line without end"),
        pytest.param(b'{"event": "start", "t": 5}', "the time of arrival stands", id="a time before the start"),
        pytest.param(b'{"event": "start", "t": 500}', "the time of arrival stands", id="a time to come"),
    ],
)
def test_bad_lines_become_warnings(line: bytes, warning: str) -> None:
    reader = read(START, line + b"\n", line + b"\n")
    (text,) = reader.summary()
    assert warning in text
    assert text.endswith("(2 times)")
    assert all(event.t in (20, 100) for event in reader.events)


def test_an_event_without_a_time_happened_when_it_arrived() -> None:
    assert read(b'{"event": "start"}\n').events == [Start(100)]


def test_a_program_that_does_not_say_start_started_when_it_was_started() -> None:
    reader = read(b'{"event": "registered", "t": 50}\n')
    assert reader.events[0] == Start(10)
    assert "first event is not start" in reader.summary()[0]


def test_too_many_events_are_dropped_and_counted() -> None:
    reader = read(START * (external.MOST_EVENTS + 5))
    assert len(reader.events) == external.MOST_EVENTS
    assert reader.summary() == (f"more than {external.MOST_EVENTS} events: the rest is dropped (5 times)",)


SAY_START = 'print(\'{"event": "start"}\')\n'
SAY_CONNECTED = 'print(\'{"event": "connected", "local": "10.0.0.1:5", "remote": "11.0.0.1:6"}\')\n'


@pytest.mark.parametrize(
    ("program", "last"),
    [
        pytest.param("import sys; sys.exit('no UDP here')", "the program ended with status 1: no UDP here", id="dies"),
        pytest.param("pass", "the program ended with status 0", id="ends without a word"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "the program ended by signal 9", id="is killed"),
        pytest.param('print(\'{"event": "failed", "reason": "mine"}\', end=\'\')', "mine", id="says failed itself"),
    ],
)
def test_a_program_that_ends_without_being_connected_has_failed(program: str, last: str) -> None:
    event = run(SAY_START + program).events[-1]
    assert isinstance(event, Failed)
    assert event.reason == last


def test_status_77_is_unsupported_with_the_last_line_of_stderr() -> None:
    event = run("import sys; print('no TURN', file=sys.stderr); sys.exit(77)").events[-1]
    assert isinstance(event, Unsupported)
    assert event.reason == "no TURN"


def test_a_program_that_says_nothing_is_ended_at_its_deadlines() -> None:
    result = run("import signal; signal.pause()", deadline=SECOND // 4)
    event = result.events[-1]
    assert isinstance(event, Failed)
    assert event.reason == "not connected after 0.5 s"
    assert 0.5 * SECOND <= event.t - result.events[0].t < 5 * SECOND


def test_a_connected_program_runs_until_it_is_told_to_stop() -> None:
    result = run(SAY_START + SAY_CONNECTED + "import signal; signal.pause()", stop_at=Connected)
    assert [event.word for event in result.events] == ["start", "connected"]
    assert result.warnings == ()


def test_a_program_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "PATIENCE", 0.05)
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SAY_START + SAY_CONNECTED
    result = run(deaf + "while True: signal.pause()", stop_at=Connected)
    assert result.warnings == ("the program did not end within 0.05 s of SIGTERM and was killed",)


def test_a_child_that_keeps_the_pipe_open_does_not_keep_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "PATIENCE", 0.05)
    parent = "import os, signal\npid = os.fork()\nif pid == 0: signal.alarm(5); signal.pause()\n"
    result = run(SAY_START + parent + "os._exit(3)")
    assert isinstance(result.events[-1], Failed)


def test_a_program_that_is_not_there_is_the_users_error() -> None:
    async def main() -> None:
        await run_external_agent(
            setup_of(), command=["./no-such-program"], spawn=spawn, on_event=lambda _: None, stop=trio.Event()
        )

    with pytest.raises(UsageError, match=r"agent: command: ./no-such-program: No such file"):
        trio.run(main)


def test_the_example_meets_itself() -> None:
    seen: dict[str, list[Event]] = {"alice": [], "bob": []}
    results: dict[str, AgentResult] = {}

    async def main() -> None:
        stop = trio.Event()

        def on_event(name: str, event: Event) -> None:
            seen[name].append(event)
            if is_over(seen):
                stop.set()

        async def run_one(setup: AgentSetup) -> None:
            results[setup.name] = await run_external_agent(
                setup,
                command=[sys.executable, str(EXAMPLE)],
                spawn=spawn,
                on_event=partial(on_event, setup.name),
                stop=stop,
            )

        async with trio.open_nursery() as nursery:
            serve = partial(run_rendezvous, (address(32), address(33)), open_socket=open_socket, seed=1)
            servers: ServerAddresses = await nursery.start(serve)
            async with trio.open_nursery() as agents:
                agents.start_soon(run_one, setup_of("alice", servers, 34))
                agents.start_soon(run_one, setup_of("bob", servers, 35))
            nursery.cancel_scope.cancel()

    trio.run(main)
    for name, other in (("alice", 35), ("bob", 34)):
        assert results[name].warnings == ()
        connected = next(event for event in seen[name] if isinstance(event, Connected))
        assert connected.remote.host == address(other)
        words = list(dict.fromkeys(event.word for event in seen[name]))
        assert words[:3] == ["start", "candidate", "gathered"]
        assert {"registered", "check", "data", "connected"} <= set(words)


DOCUMENT = (EXAMPLE.parents[1] / "docs" / "agents.md").read_text(encoding="utf-8")


def test_the_lines_in_the_document_are_read_without_a_warning() -> None:
    lines = [line for line in DOCUMENT.splitlines() if line.startswith('{"t"')]
    reader = Reader(0, lambda _: None)
    for line in lines:
        reader.feed(line.encode() + b"\n", json.loads(line)["t"])
    assert len(reader.events) == len(lines) > 8
    assert reader.summary() == ()


@pytest.mark.parametrize("word", VOCABULARY)
def test_the_document_names_every_event_and_its_keys(word: str) -> None:
    (row,) = (line for line in DOCUMENT.splitlines() if line.startswith(f"| `{word}` |"))
    keys = row.split("|")[2]
    named = {key.strip("*`"): key.startswith("**") for key in keys.split()}
    expected = {entry.name: entry.default is MISSING for entry in fields(VOCABULARY[word]) if entry.name != "t"}
    assert named == expected


def test_the_document_names_every_variable() -> None:
    for name in environment(setup_of()):
        assert f"`{name}`" in DOCUMENT
