"""What ports in a row say of the next one, and how they are asked for."""

from __future__ import annotations

from random import Random

import pytest

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import stun
from testbed.traversal.allocation import LARGEST_STEP, PATIENCE, Measurement, Window, predict
from testbed.traversal.stun_server import StunServer
from tests.traversal.network import MS, SECOND

HOME, BASE = "11.0.1.1", Endpoint("192.168.1.2", 12345)
SERVERS = (Endpoint("11.0.0.1", 3478), Endpoint("11.0.0.2", 3478))


@pytest.mark.parametrize(
    ("ports", "first", "step"),
    [
        pytest.param([500, 501, 502, 503], 504, 1, id="one after the other"),
        pytest.param([500, 499, 498, 497], 496, -1, id="downwards"),
        pytest.param([500, 502, 504, 506], 508, 2, id="every other, as parity asks for"),
        pytest.param([500, 501, 503, 504], 505, 1, id="another host took one in between"),
        pytest.param([500, 504, 510, 514], 516, 2, id="others took some: the divisor of all differences"),
        pytest.param([500, 501, 501, 500], 502, 1, id="a mapping by address shows two ports twice"),
        pytest.param([500, 500 + LARGEST_STEP], 500 + 2 * LARGEST_STEP, LARGEST_STEP, id="the largest step"),
    ],
)
def test_steps_are_seen(ports: list[int], first: int, step: int) -> None:
    window = predict([Endpoint(HOME, port) for port in ports], 3)
    assert window == Window(Endpoint(HOME, first), step, 3)
    assert window.addresses() == tuple(Endpoint(HOME, first + step * index) for index in range(3))


@pytest.mark.parametrize(
    ("ports", "says"),
    [
        pytest.param([], "two mappings are needed", id="no answer"),
        pytest.param([500, 500, 500], "two mappings are needed", id="one mapping for all: nothing to predict"),
        pytest.param([500, 501, 499], "500, 501, 499 are not steps apart", id="to and fro"),
        pytest.param([500, 40000, 50000], "are not steps apart", id="far apart"),
        pytest.param([500, 501 + LARGEST_STEP], "are not steps apart", id="further than a step may be"),
        pytest.param([65533, 65535], "beyond the last one", id="over the edge"),
        pytest.param([3, 2, 1], "beyond the last one", id="over the other edge"),
    ],
)
def test_what_is_unpredictable_says_why(ports: list[int], says: str) -> None:
    result = predict([Endpoint(HOME, port) for port in ports], 3)
    assert isinstance(result, str)
    assert result.startswith("unpredictable: ")
    assert says in result


def test_several_external_addresses_are_unpredictable() -> None:
    result = predict([Endpoint(HOME, 500), Endpoint("11.0.1.2", 501)], 3)
    assert result == "unpredictable: mappings have several external addresses"


@pytest.mark.parametrize(
    ("first", "step", "ports"),
    [
        pytest.param(65534, 1, [65534, 65535], id="no port is beyond 65535"),
        pytest.param(2, -1, [2, 1], id="nor below 1"),
        pytest.param(500, 7, [500, 507, 514, 521], id="by steps"),
    ],
)
def test_a_window_has_only_ports(first: int, step: int, ports: list[int]) -> None:
    assert [address.port for address in Window(Endpoint(HOME, first), step, 4).addresses()] == ports


def test_a_window_goes_there_and_back() -> None:
    window = Window(Endpoint(HOME, 500), -2, 64)
    assert Window.from_json(window.to_json()) == window


class Far:
    """Two servers, and a NAT that counts ports up for each of their four addresses."""

    def __init__(self, hosts: tuple[str, ...] = ("11.0.0.1", "11.0.0.2")) -> None:
        self.server = StunServer(hosts, (3478, 3479))
        self.mapped: dict[Endpoint, int] = {}

    def answer(self, asked: Datagram) -> Datagram:
        port = self.mapped.setdefault(asked.destination, 500 + len(self.mapped))
        self.server.receive(Datagram(Endpoint(HOME, port), asked.destination, asked.data), 0)
        (reply,) = self.server.datagrams_to_send(0)
        return Datagram(reply.source, BASE, reply.data)


def ask(measurement: Measurement, far: Far, now: int = 0) -> list[Endpoint]:
    """Play it to its end; whom it asked."""
    asked = []
    measurement.start(now)
    while measurement.result is None:
        (question,) = measurement.datagrams_to_send()
        asked.append(question.destination)
        reply = far.answer(question)
        assert measurement.receive_message(stun.decode(reply.data), reply, now)
    assert measurement.next_timeout() is None
    return asked


def test_two_addresses_and_two_ports_are_asked_in_turn() -> None:
    measurement = Measurement(BASE, SERVERS, 16, Random(1))
    asked = ask(measurement, Far())
    assert asked == [*SERVERS, Endpoint("11.0.0.2", 3479), Endpoint("11.0.0.1", 3479)]
    assert measurement.observed == tuple(Endpoint(HOME, port) for port in (500, 501, 502, 503))
    assert measurement.result == Window(Endpoint(HOME, 504), 1, 16)


def test_a_server_that_names_no_other_address_is_all_there_is() -> None:
    measurement = Measurement(BASE, SERVERS[:1], 16, Random(1))
    assert ask(measurement, Far(("11.0.0.1",))) == [SERVERS[0]]
    assert measurement.result == "unpredictable: two mappings are needed to see a step"


def test_a_question_is_asked_again_and_given_up_with_what_there_is() -> None:
    measurement = Measurement(BASE, SERVERS, 16, Random(1))
    measurement.start(0)
    now, sent = 0, 0
    while (due := measurement.next_timeout()) is not None:
        sent += len(measurement.datagrams_to_send())
        now = due
        measurement.handle_timeout(now)
    assert now == PATIENCE == 2 * SECOND
    assert sent == 4  # at 0, 200, 600, 1400 ms
    assert measurement.result == "unpredictable: two mappings are needed to see a step"


def test_only_the_server_that_was_asked_answers() -> None:
    measurement, far = Measurement(BASE, SERVERS, 16, Random(1)), Far()
    measurement.start(0)
    (question,) = measurement.datagrams_to_send()
    reply = far.answer(question)
    message = stun.decode(reply.data)
    for wrong in (
        Datagram(Endpoint("11.0.66.6", 3478), BASE, reply.data),
        Datagram(reply.source, Endpoint(BASE.host, 1), reply.data),
    ):
        assert not measurement.receive_message(message, wrong, MS)
    assert measurement.receive_message(message, reply, MS)
    assert not measurement.receive_message(message, reply, MS)
    assert len(measurement.observed) == 1
