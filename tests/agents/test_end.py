"""The driver of an end: sockets that its machine asks for during an attempt."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from testbed.agents.contract import AgentResult
from testbed.agents.end import run_end
from testbed.datagram import Datagram, Endpoint
from testbed.traversal.events import Event, Exhausted, Failed
from testbed.traversal.punching import CloseBase, OpenBase
from tests.agents.sockets import address, open_socket

HOME = Endpoint(address(1), 20001)


@dataclass
class Asking:
    """Asks for sockets one after the other, sends from each to its first one, and gives up when it heard of all."""

    wanted: list[Endpoint]
    closes: bool = False
    opened: list[Endpoint] = field(default_factory=list)
    refused: list[Endpoint] = field(default_factory=list)
    heard_from: list[Endpoint] = field(default_factory=list)
    outbox: list[Datagram] = field(default_factory=list)
    asked: list[Event | OpenBase | CloseBase] = field(default_factory=list)

    def start(self, now: int) -> None:
        self.ask(now)

    def ask(self, now: int) -> None:
        if self.wanted:
            self.asked.append(OpenBase(self.wanted.pop(0)))
        elif len(self.heard_from) == len(self.opened):
            self.asked += [Exhausted(now), Failed(now, "that was all")]

    def base_opened(self, base: Endpoint, now: int) -> None:
        self.opened.append(base)
        self.outbox.append(Datagram(base, HOME, b"here"))
        self.ask(now)

    def base_refused(self, base: Endpoint, now: int) -> None:
        self.refused.append(base)
        self.ask(now)

    def receive(self, datagram: Datagram, now: int) -> None:
        self.heard_from.append(datagram.source)
        if self.closes:
            self.asked.append(CloseBase(datagram.source))
        self.ask(now)

    def next_timeout(self) -> int | None:
        return None

    def handle_timeout(self, now: int) -> None:
        raise AssertionError("it waits for nothing")

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        outbox, self.outbox = self.outbox, []
        return outbox

    def events(self) -> list[Event | OpenBase | CloseBase]:
        asked, self.asked = self.asked, []
        return asked


def run(machine: Asking) -> AgentResult:
    async def main() -> AgentResult:
        sockets = {HOME: open_socket(HOME)}
        with trio.fail_after(10):
            return await run_end(machine, sockets, open_socket=open_socket, on_event=lambda _: None, stop=trio.Event())

    return trio.run(main)


def test_sockets_are_opened_as_they_are_asked_for_and_send() -> None:
    wanted = [Endpoint(HOME.host, 10000 + number) for number in range(100)]
    machine = Asking(list(wanted))
    result = run(machine)
    assert machine.opened == wanted
    assert sorted(machine.heard_from) == wanted
    assert [event.word for event in result.events] == ["exhausted", "failed"]


def test_a_socket_that_cannot_be_bound_is_refused_and_the_rest_goes_on() -> None:
    elsewhere = Endpoint("192.0.2.1", 10000)  # no address of this machine
    other = Endpoint(HOME.host, 10001)
    machine = Asking([HOME, elsewhere, other])
    run(machine)
    assert machine.refused == [HOME, elsewhere]
    assert machine.opened == [other]


def test_a_socket_that_is_not_needed_any_more_is_closed() -> None:
    machine = Asking([Endpoint(HOME.host, 10002)], closes=True)
    run(machine)
    again = Asking([Endpoint(HOME.host, 10002)])
    run(again)
    assert again.opened == machine.opened
