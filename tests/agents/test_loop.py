"""The driver: seeded sockets, batches, the timer, sockets that come and go."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from testbed.agents.contract import Socket
from testbed.agents.loop import Loop, bind_seeded
from testbed.datagram import Datagram, Endpoint
from tests.agents.sockets import address, open_socket

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("seed", "other", "same"),
    [
        pytest.param(7, 7, True, id="the same seed gives the same ports"),
        pytest.param(7, 8, False, id="another seed gives others"),
    ],
)
def test_ports_come_from_the_seed(seed: int, other: int, same: bool) -> None:
    opened: list[Endpoint] = []

    def open_none(local: Endpoint) -> Socket:
        opened.append(local)
        return open_socket(Endpoint(address(7), 0))

    first, second = (bind_seeded(("192.0.2.1", "192.0.2.2"), s, open_none) for s in (seed, other))
    for entry in (*first.values(), *second.values()):
        entry.close()
    assert (list(first) == list(second)) is same


def test_a_taken_port_is_left_to_whoever_has_it() -> None:
    free = bind_seeded((address(8),), 1, open_socket)
    beside = bind_seeded((address(8),), 1, open_socket)
    assert set(free).isdisjoint(beside)
    for entry in (*free.values(), *beside.values()):
        entry.close()


def test_what_can_not_be_bound_at_all_is_the_callers_error() -> None:
    with pytest.raises(OSError, match=r"assign|address") as caught:
        bind_seeded((address(9), "192.0.2.1"), 1, open_socket)
    assert caught.value.errno == errno.EADDRNOTAVAIL


class Echo:
    """A machine that sends back what it gets, and counts how often its timer fired."""

    def __init__(self) -> None:
        self.outbox: list[Datagram] = []
        self.fired: list[int] = []
        self.due: int | None = None
        self.got: list[bytes] = []

    def receive(self, datagram: Datagram, now: int) -> None:
        self.got.append(datagram.data)
        self.outbox.append(Datagram(datagram.destination, datagram.source, datagram.data))

    def next_timeout(self) -> int | None:
        return self.due

    def handle_timeout(self, now: int) -> None:
        self.fired.append(now)
        self.due = None

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        outbox, self.outbox = self.outbox, []
        return outbox

    def events(self) -> list[bytes]:
        got, self.got = self.got, []
        return got


def test_the_timer_fires_when_the_machine_says() -> None:
    machine = Echo()

    async def run() -> int:
        loop = Loop(machine, lambda _: None)
        began = loop.now()
        machine.due = began + 3600 * SECOND
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.run)
            await trio.testing.wait_all_tasks_blocked()
            machine.due = began + 60 * SECOND  # sooner: it must be told, and wake up for it
            loop.flush()
            await trio.sleep(61)
            loop.stop()
        return began

    began = trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0.001))
    (fired,) = machine.fired
    assert 60 * SECOND <= fired - began < 61 * SECOND


def test_datagrams_go_in_and_out_by_the_socket_that_they_name() -> None:
    machine = Echo()

    async def run() -> None:
        here, gone, there = (Endpoint(address(number), 21000) for number in (10, 11, 12))
        loop = Loop(machine, lambda _: loop.stop())
        client = trio.socket.from_stdlib_socket(open_socket(there))
        with client:
            async with trio.open_nursery() as nursery:
                loop.add({here: open_socket(here)})
                nursery.start_soon(loop.run)
                await trio.testing.wait_all_tasks_blocked()
                loop.add({gone: open_socket(gone)})
                loop.remove(gone)
                machine.outbox.append(Datagram(gone, there, b"by a socket that is closed"))
                await client.sendto(b"hello", here)
            assert await client.recvfrom(100) == (b"hello", here)
        assert loop.errors == {"closed": 1}
        again = open_socket(here)  # the loop closed its own
        again.close()

    trio.run(run)
    assert machine.fired == []


def test_a_datagram_that_cannot_be_sent_is_lost_and_counted() -> None:
    machine = Echo()

    async def run() -> Loop[bytes]:
        local = Endpoint(address(13), 21000)
        loop = Loop(machine, lambda _: None)
        loop.add({local: open_socket(local)})
        machine.outbox.append(Datagram(local, Endpoint("192.0.2.1", 9), bytes(65600)))
        stop = trio.Event()
        stop.set()
        await loop.run(stop=stop)
        return loop

    assert trio.run(run).errors == {"EMSGSIZE": 1}
