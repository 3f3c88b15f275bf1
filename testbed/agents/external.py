"""External programs as agents: environment in, JSON lines out (docs/agents.md).

Rule 1: what a program prints is hostile until read: a line that is too long, no JSON, or no event becomes a warning,
        counted, and never an error of ours.
Rule 2: a time that a program gives must lie between its start and now; otherwise the time of arrival stands, with a
        warning. CLOCK_MONOTONIC is one clock for every namespace.
Rule 3: a program that ends without a last word has failed; one that ends with status 77 says "unsupported".
Rule 4: to stop a program is to ask, to wait, and then to kill, with a warning that says so.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Protocol, TypeAlias

import trio

from testbed.agents.contract import EXIT_UNSUPPORTED, AgentResult, AgentSetup, OnEvent
from testbed.agents.loop import current_clock
from testbed.errors import UsageError
from testbed.traversal import events as vocabulary
from testbed.traversal.bases import FIRST_PORTS
from testbed.traversal.events import Connected, Event, EventError, Failed, Start, Unsupported
from testbed.units import seconds

LONGEST_LINE = 16 * 1024
MOST_EVENTS = 10_000
PATIENCE = 2.0
"""Seconds between asking a program to end and killing it."""
KEPT_OF_STDERR = 4096


class Process(Protocol):
    """What a lab gives back for a program that it started; subprocess.Popen has this shape."""

    pid: int
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def poll(self) -> int | None:
        """The exit status, or None while it runs; below zero it is a signal's number."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


Spawn: TypeAlias = Callable[[Sequence[str], Mapping[str, str]], Process]
"""Starts a program inside the end's namespace with this environment, stdout and stderr as pipes."""


def environment(setup: AgentSetup) -> dict[str, str]:
    """What a program is told: the variables of docs/agents.md."""
    servers = setup.servers
    told = {
        "TESTBED_NAME": setup.name,
        "TESTBED_PEER": setup.peer,
        "TESTBED_ROLE": setup.role.value,
        "TESTBED_ADDRESS": ",".join(setup.addresses),
        "TESTBED_PORT": str(FIRST_PORTS[setup.seed % len(FIRST_PORTS)]),
        "TESTBED_STUN": ",".join(map(str, servers.stun)),
        "TESTBED_SIGNAL": str(servers.signalling),
        "TESTBED_DEADLINE": f"{seconds(setup.deadline):g}",
        "TESTBED_SETUP_DEADLINE": f"{seconds(setup.setup_deadline):g}",
        "TESTBED_SEED": str(setup.seed),
        "TESTBED_STRATEGY": setup.strategy,
        "TESTBED_PARAMETERS": json.dumps(dict(setup.parameters)),
    }
    if servers.turn is not None:
        told |= {
            "TESTBED_TURN": str(servers.turn),
            "TESTBED_TURN_USER": servers.credentials.username,
            "TESTBED_TURN_PASSWORD": servers.credentials.password,
            "TESTBED_TURN_REALM": servers.realm,
        }
    return told


async def run_external_agent(
    setup: AgentSetup, *, command: Sequence[str], spawn: Spawn, on_event: OnEvent, stop: trio.Event
) -> AgentResult:
    """Run a program as one end, until `stop` or until it ends. Raises UsageError where it cannot be started."""
    now = current_clock().now
    try:
        process = spawn(command, {**os.environ, **environment(setup)})
    except OSError as error:
        raise UsageError(f"agent: command: {command[0]}: {error.strerror}") from error
    reader, errors = Reader(now(), on_event), _Tail()
    limit = seconds(setup.setup_deadline + setup.deadline)
    try:
        async with trio.open_nursery() as nursery:
            ended_output, ended_errors = trio.Event(), trio.Event()
            nursery.start_soon(_read, process.stdout, lambda data: reader.feed(data, now()), ended_output)
            nursery.start_soon(_read, process.stderr, errors.feed, ended_errors)
            with trio.move_on_after(limit) as in_time:
                await _ended_or_stopped(process, stop)
            if in_time.cancelled_caught and reader.is_connected:
                await _ended_or_stopped(process, stop)
            elif in_time.cancelled_caught:
                reader.report(Failed(now(), f"not connected after {limit:g} s"))
            if (status := process.poll()) is None:
                await _end(process, reader)
            else:
                with trio.move_on_after(PATIENCE):  # a child of its own may hold a pipe open
                    await ended_output.wait()
                    await ended_errors.wait()
                reader.close(now(), status, errors.last_line())
            nursery.cancel_scope.cancel()
    finally:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    return AgentResult(tuple(reader.events), reader.summary())


class _Tail:
    """The end of what a program writes to stderr."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        self._data += data
        del self._data[:-KEPT_OF_STDERR]

    def last_line(self) -> str:
        lines = self._data.decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""


@dataclass
class Reader:
    """Turns a program's output into events, at most `MOST_EVENTS` of them."""

    started_at: int
    on_event: OnEvent
    events: list[Event] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    _line: bytearray = field(default_factory=bytearray)
    _is_too_long: bool = False

    @property
    def is_connected(self) -> bool:
        """Whether the program says so."""
        return any(isinstance(event, Connected) for event in self.events)

    def feed(self, data: bytes, now: int) -> None:
        """Some bytes of output, however they are cut."""
        first, *rest = data.split(b"\n")
        self._add(first)
        for part in rest:
            self._finish_line(now)
            self._add(part)

    def close(self, now: int, status: int, last_error: str) -> None:
        """The program ended by itself: what does that mean?"""
        if self._line:
            self._finish_line(now)
        said = f": {last_error}" if last_error else ""
        if status == EXIT_UNSUPPORTED and not self._has(Unsupported):
            self.report(Unsupported(now, last_error or f"the program ended with status {EXIT_UNSUPPORTED}"))
        elif not self._has(Connected, Failed, Unsupported):
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            self.report(Failed(now, f"the program ended {how}{said}"))
        elif status != 0 and status != EXIT_UNSUPPORTED:
            self.warnings[f"the program ended with status {status}{said}"] += 1

    def report(self, event: Event) -> None:
        """One event, the program's or ours about it."""
        if not self.events and not isinstance(event, Start):
            self.warnings["the program's first event is not start: its clock begins when it was started"] += 1
            self._keep(Start(self.started_at))
        self._keep(event)

    def summary(self) -> tuple[str, ...]:
        """Each warning once, with how often it was due."""
        return tuple(text if count == 1 else f"{text} ({count} times)" for text, count in self.warnings.items())

    def _has(self, *kinds: type[Event]) -> bool:
        return any(isinstance(event, kinds) for event in self.events)

    def _keep(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def _add(self, part: bytes) -> None:
        if len(self._line) + len(part) > LONGEST_LINE:
            self._is_too_long = True
            self._line.clear()
        if not self._is_too_long:
            self._line += part

    def _finish_line(self, now: int) -> None:
        line, too_long = bytes(self._line), self._is_too_long
        self._line.clear()
        self._is_too_long = False
        if too_long:
            self.warnings[f"a line of output is longer than {LONGEST_LINE} bytes"] += 1
        elif len(self.events) >= MOST_EVENTS:
            self.warnings[f"more than {MOST_EVENTS} events: the rest is dropped"] += 1
        elif line.strip():
            self._read_line(line, now)

    def _read_line(self, line: bytes, now: int) -> None:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            self.warnings["a line of output is not JSON"] += 1
            return
        if isinstance(value, dict):
            value.setdefault("t", now)
        try:
            event = vocabulary.from_json(value)
        except EventError as error:
            self.warnings[f"a line of output is no event: {error}"[:200]] += 1
            return
        if not self.started_at <= event.t <= now:
            self.warnings["a time is not CLOCK_MONOTONIC in nanoseconds: the time of arrival stands"] += 1
            event = replace(event, t=now)
        self.report(event)


async def _read(stream: IO[bytes] | None, take: Callable[[bytes], None], ended: trio.Event) -> None:
    if stream is not None:
        descriptor = stream.fileno()
        os.set_blocking(descriptor, False)
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            if not (data := os.read(descriptor, 1 << 16)):
                break
            take(data)
    ended.set()


async def _ended(process: Process) -> None:
    """Wait until it has ended; its status is left for `poll`."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


async def _ended_or_stopped(process: Process, stop: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait_for_stop() -> None:
            await stop.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_for_stop)
        await _ended(process)
        nursery.cancel_scope.cancel()


async def _end(process: Process, reader: Reader) -> None:
    process.terminate()
    with trio.move_on_after(PATIENCE) as in_time:
        await _ended(process)
    if in_time.cancelled_caught:
        reader.warnings[f"the program did not end within {PATIENCE:g} s of SIGTERM and was killed"] += 1
        process.kill()
        await _ended(process)
    process.poll()
