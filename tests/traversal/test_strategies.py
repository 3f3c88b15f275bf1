"""Which strategy gets which pair of NATs through, in virtual time, and within which limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import exp, factorial
from random import Random

import pytest

from testbed.datagram import Datagram, Endpoint
from testbed.errors import UsageError
from testbed.spec import scenario
from testbed.stats import clopper_pearson
from testbed.traversal import punching, strategies
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.events import Check, Connected, Event, Exhausted, Failed, Prediction, RoundOfChecks
from testbed.traversal.strategies import strategy
from tests.traversal.network import KINDS, SECOND, Malice, Nat, Network
from tests.traversal.pair import ALICE, BOB, SERVER, Pair
from tests.traversal.test_udp_peer import HOME_A, HOME_B, THEORY

FEW: Mapping[str, object] = {"ports": 8, "probes": 64, "rate": 256}
"""A birthday that hardly ever succeeds: one time in 130."""
PAIRS = [(one, other) for one in KINDS for other in KINDS]


def nat(kind: str, external: str, seed: int | None = None) -> Nat:
    """Ports in sequence, or drawn at random where there is a seed."""
    return Nat.of(kind, external, rng=Random(f"{kind} {external} {seed}") if seed is not None else None)


def pair(one: str, other: str, name: str, *, seed: int | None = None, **arguments: object) -> Pair:
    behind = (nat(one, HOME_A, seed),), (nat(other, HOME_B, seed),)
    network = arguments.pop("network", Network(seed or 0))
    return Pair(*behind, strategy=name, network=network, **arguments)  # type: ignore[arg-type]


def is_met_by_candidates(one: str, other: str) -> bool:
    return THEORY[one][KINDS.index(other)] == "1"


def is_met_by_birthday(one: str, other: str) -> bool:
    """What strategies.py says of two ends, ports being many enough."""
    looks = [dict(zip(("mapping", "filtering"), kind.split("-"), strict=True)) for kind in (one, other)]
    by_address = [look["mapping"] != "apdm" and look["filtering"] != "apdf" for look in looks]
    both_filter_by_address = all(look["filtering"] != "apdf" for look in looks)
    return "eim" in (looks[0]["mapping"], looks[1]["mapping"]) or any(by_address) or both_filter_by_address


def said(trial: Pair, kind: type[Event]) -> list[Event]:
    return [event for events in trial.events.values() for event in events if isinstance(event, kind)]


def test_a_scenario_and_the_machines_have_the_same_strategies() -> None:
    told = {name: {word: known[:3] for word, known in has.items()} for name, has in scenario.STRATEGIES.items()}
    assert told == {
        name: {word: (known.least, known.most, known.default) for word, known in family.parameters.items()}
        for name, family in strategies.STRATEGIES.items()
    }
    assert list(scenario.ABOUT_STRATEGIES) == list(scenario.STRATEGIES)


# ---- which of the 81 pairs each strategy gets through


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_ports_in_sequence_are_predicted_whatever_both_ends_are(one: str, other: str) -> None:
    assert pair(one, other, "port-prediction").run().is_direct


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_ports_at_random_are_not_predicted_and_nothing_else_is_lost(one: str, other: str) -> None:
    trial = pair(one, other, "port-prediction", seed=0).run()
    assert trial.is_direct == is_met_by_candidates(one, other)
    for name, kind in (("alice", one), ("bob", other)):
        measured = [event for event in trial.events[name] if isinstance(event, Prediction)]
        assert all(not event.predicted and "unpredictable" in str(event.reason) for event in measured)
        assert bool(measured) == (not kind.startswith("eim"))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_birthday_that_finds_nothing_loses_nothing(one: str, other: str) -> None:
    trial = pair(one, other, "birthday", seed=0, parameters=FEW).run()
    assert trial.is_direct == is_met_by_candidates(one, other)


@pytest.mark.parametrize(("one", "other"), [cell for cell in PAIRS if is_met_by_birthday(*cell)])
def test_a_birthday_meets_what_it_can_meet(one: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so few ports in the world that it finds several."""
    world = range(30000, 34096)
    monkeypatch.setattr(punching, "PROBED_PORTS", world)
    trial = pair(one, other, "birthday", seed=1, parameters={"ports": 200, "probes": 200, "rate": 1000})
    for box in (*trial.alice_behind, *trial.bob_behind):
        box.range = world
    assert trial.run().is_direct


@pytest.mark.parametrize(("one", "other"), [cell for cell in PAIRS if not is_met_by_birthday(*cell)])
def test_a_birthday_does_not_meet_the_rest(one: str, other: str) -> None:
    trial = pair(one, other, "birthday", seed=0).run()
    assert not trial.is_direct
    assert all({"relay", "exhausted"} <= set(trial.words(name)) for name in trial.events)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_relay_only_checks_nothing(one: str, other: str) -> None:
    trial = pair(one, other, "relay-only").run()
    for name in trial.events:
        assert not any(isinstance(event, (Check, Connected, RoundOfChecks, Failed)) for event in trial.events[name])
        assert {"relay", "exhausted"} <= set(trial.words(name))


def test_relay_only_without_a_relay_says_why_it_failed() -> None:
    trial = pair("eim-eif", "eim-eif", "relay-only", network=Network(blocked=is_relay)).run()
    for name in trial.events:
        last = trial.events[name][-1]
        assert isinstance(last, Failed)
        assert last.reason == "the strategy 'relay-only' looks for no direct path"


def is_relay(datagram: Datagram) -> bool:
    is_allocate = classify(datagram.data) is Protocol.STUN and datagram.data[:2] == b"\x00\x03"
    return is_allocate or classify(datagram.data) is Protocol.CHANNEL


@pytest.mark.parametrize(
    ("one", "other", "seed", "last"),
    [
        pytest.param("eim-apdf", "eim-apdf", None, 1, id="candidates are enough: the first round"),
        pytest.param("apdm-apdf", "eim-apdf", None, 3, id="ports in sequence: the first round that predicts"),
        pytest.param("apdm-apdf", "apdm-apdf", None, 3, id="both in sequence: likewise"),
        pytest.param("apdm-apdf", "eim-apdf", 0, 5, id="ports at random: the birthday"),
    ],
)
def test_all_of_them_in_turn(one: str, other: str, seed: int | None, last: int) -> None:
    trial = pair(one, other, "all", seed=seed).run()
    assert trial.is_direct
    rounds = [event.round for event in trial.events["alice"] if isinstance(event, RoundOfChecks)]
    assert rounds == list(range(1, last + 1))


def test_all_of_them_in_vain_end_before_the_deadline() -> None:
    trial = pair("apdm-apdf", "apdm-apdf", "all", seed=0).run()
    assert not trial.is_direct
    assert not said(trial, Failed)
    first = min(event.t for event in said(trial, Check))
    (end,) = (event.t for event in trial.events["alice"] if isinstance(event, Exhausted))
    assert 7 * SECOND < end - first < 9 * SECOND


@pytest.mark.parametrize("name", ["port-prediction", "birthday", "all"])
def test_two_peers_in_one_home_meet_by_their_host_candidates(name: str) -> None:
    home = nat("apdm-apdf", HOME_A)
    trial = Pair((home,), (home,), hosts=("192.168.1.2", "192.168.1.3"), strategy=name).run()
    assert trial.is_direct


@pytest.mark.parametrize("name", ["port-prediction", "birthday", "all"])
def test_a_relay_that_is_down_is_no_hindrance(name: str) -> None:
    trial = pair("apdm-apdf", "eim-apdf", name, network=Network(blocked=is_relay)).run()
    assert trial.is_direct


# ---- the closed forms

PROBES = (78, 174, 256, 533, 1024, 2048)


def birthday_rate(probes: int, trials: int) -> int:
    """How many trials are direct; alice opens in the even ones, bob in the odd ones. Both ends always agree."""
    parameters = {"ports": 256, "probes": probes, "rate": 2048}
    ends = (("apdm-apdf", "eim-apdf"), ("eim-apdf", "apdm-apdf"))
    direct = 0
    for seed in range(trials):
        trial = pair(*ends[seed % 2], "birthday", seed=seed, parameters=parameters).run()
        claims = [trial.connected(name) is not None for name in trial.events]
        assert len(set(claims)) == 1
        direct += all(claims)
    return direct


def holds(successes: int, trials: int, expected: float, comparisons: int) -> bool:
    """Whether the interval around the rate holds the expected one, 95 % for all comparisons together."""
    rate = clopper_pearson(successes, trials, 1 - 0.05 / comparisons)
    return rate.low <= expected <= rate.high


@pytest.mark.slow
@pytest.mark.parametrize("probes", PROBES)
def test_birthday_by_its_closed_form(probes: int) -> None:
    assert holds(birthday_rate(probes, 200), 200, 1 - (1 - 256 / 65535) ** probes, len(PROBES))


def test_birthday_by_its_closed_form_at_one_point() -> None:
    assert holds(birthday_rate(174, 60), 60, 0.494, 1)


def predict_past(others: int, window: int, seed: int = 0) -> bool:
    """Whether a trial is direct in which others take so many ports between measuring and punching."""
    network = Network(seed)
    trial = pair(
        "apdm-apdf", "eim-apdf", "port-prediction", parameters={"rounds": 1, "window": window}, network=network
    )

    def disturb(event: Event) -> None:
        if isinstance(event, Prediction):
            for _ in range(others):
                trial.alice_behind[0].take_port()

    trial.on_event = disturb
    return trial.run().is_direct


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("others", range(6))
def test_a_window_holds_one_port_and_those_that_others_took(others: int, window: int) -> None:
    assert predict_past(others, window) == (others < window)


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("expected_between", [0.5, 2.0])
def test_prediction_under_cross_traffic_by_its_closed_form(window: int, expected_between: float) -> None:
    """P(Poisson(rate x gap) <= window - 1)."""
    rng, trials = Random(f"cross traffic {window} {expected_between}"), 80
    successes = sum(predict_past(poisson(rng, expected_between), window, seed) for seed in range(trials))
    fits = sum(exp(-expected_between) * expected_between**k / factorial(k) for k in range(window))
    assert holds(successes, trials, fits, 6)


def poisson(rng: Random, expected: float) -> int:
    count, left = 0, rng.expovariate(1.0)
    while left < expected:
        count, left = count + 1, left + rng.expovariate(1.0)
    return count


# ---- limits


def test_a_birthday_sends_what_its_numbers_say_and_says_what_it_sent() -> None:
    parameters = {"ports": 100, "probes": 333, "rate": 500}
    trial = pair("apdm-apdf", "apdm-apdf", "birthday", seed=0, parameters=parameters).run()
    assert not trial.is_direct
    at_home: Counter[str] = Counter()
    fresh = {base for bases in trial.opened.values() for base in bases}
    for _, datagram in trial.network.sent:
        if datagram.source.host in (ALICE, BOB) and datagram.destination.host not in SERVER:
            at_home[f"{datagram.source.host} {'opens' if datagram.source in fresh else 'probes'}"] += 1
    plain = 6 * 3  # offsets, and the other end's candidates
    for host in (ALICE, BOB):
        assert at_home[f"{host} opens"] == 100
        assert at_home[f"{host} probes"] == 333 + plain
    counted = sum(event.count or 1 for event in said(trial, Check) if isinstance(event, Check))
    assert counted == at_home.total()
    assert len(said(trial, Check)) < 80


def test_probes_are_paced_and_each_goes_to_a_port_of_its_own() -> None:
    parameters = {"ports": 1, "probes": 300, "rate": 100}
    trial = pair("apdm-apdf", "eim-apdf", "birthday", seed=0, parameters=parameters).run()
    probes = [
        (time, datagram.destination.port)
        for time, datagram in trial.network.sent
        if datagram.source.host == BOB and datagram.destination.host == HOME_A
    ]
    times = sorted(time for time, _ in probes)
    assert 2.9 * SECOND < times[-1] - times[0] < 3.1 * SECOND
    for start in range(times[0], times[-1], SECOND):
        assert sum(start <= time < start + SECOND for time in times) <= 100 + 2 * 6
    ports = Counter(port for _, port in probes)
    assert len(ports) >= 300
    assert sum(count > 1 for count in ports.values()) <= 2  # the candidates


def test_a_window_is_cut_to_what_our_own_strategy_allows() -> None:
    trial = pair("eim-apdf", "eim-apdf", "port-prediction", parameters={"window": 4})
    trial.alice.start(trial.network.now)
    trial.bob.start(trial.network.now)
    trial.network.run(SECOND // 10)
    window = {"first": "11.0.66.6:1000", "step": 1, "size": 64}
    body = {"punch": 1, "window": window}
    trial.bob._punching.hear(body, trial.network.now)  # type: ignore[attr-defined]
    trial.bob.handle_timeout(trial.network.now)
    trial.network.flush()
    to = {datagram.destination for _, datagram in trial.network.sent if datagram.destination.host == "11.0.66.6"}
    assert to == {Endpoint("11.0.66.6", port) for port in range(1000, 1004)}


@pytest.mark.parametrize(
    "window",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="a list"),
        pytest.param({"first": "11.0.66.6:1000", "step": 0, "size": 4}, id="no step"),
        pytest.param({"first": "11.0.66.6:1000", "step": 100000, "size": 4}, id="a step over all ports"),
        pytest.param({"first": "11.0.66.6:1000", "step": True, "size": 4}, id="a truth value"),
        pytest.param({"first": "11.0.66.6:1000", "step": 1, "size": 65}, id="more than any window"),
        pytest.param({"first": "11.0.66.6:0", "step": 1, "size": 4}, id="port 0"),
        pytest.param({"first": "home:1000", "step": 1, "size": 4}, id="a name"),
    ],
)
def test_a_window_that_makes_no_sense_is_none(window: object) -> None:
    trial = pair("eim-apdf", "eim-apdf", "port-prediction")
    trial.alice.start(trial.network.now)
    trial.bob.start(trial.network.now)
    trial.network.run(SECOND // 10)
    assert trial.bob._punching.hear({"punch": 1, "window": window}, trial.network.now)  # type: ignore[attr-defined]
    trial.network.run(SECOND // 10)
    assert not any(datagram.destination.host == "11.0.66.6" for _, datagram in trial.network.sent)


# ---- sockets


def test_sockets_that_cannot_be_opened_are_done_without() -> None:
    taken = Random(0)
    trial = pair(
        "apdm-apdf",
        "eim-apdf",
        "birthday",
        seed=0,
        parameters={"ports": 100, "probes": 10, "rate": 100},
        refuses=lambda base: taken.random() < 0.1,
    ).run()
    assert len(trial.opened["alice"]) == 100
    assert trial.opened["bob"] == []
    none = pair("apdm-apdf", "eim-apdf", "birthday", seed=0, parameters=FEW, refuses=lambda base: True).run()
    assert {"relay", "exhausted"} <= set(none.words("alice"))
    unmeasured = pair("apdm-apdf", "eim-eif", "port-prediction", refuses=lambda base: True).run()
    assert unmeasured.is_direct
    reasons = {event.reason for event in said(unmeasured, Prediction) if isinstance(event, Prediction)}
    assert reasons == {"no socket could be opened to measure from"}


def test_sockets_of_a_round_are_closed_when_the_next_begins() -> None:
    trial = pair("apdm-apdf", "apdm-apdf", "port-prediction", seed=0, parameters={"rounds": 3}).run()
    for name in ("alice", "bob"):
        assert len(trial.opened[name]) == 3
        assert [base for base in trial.opened[name] if base in trial.closed] == trial.opened[name][:2]


def test_a_machine_whose_sockets_never_come_goes_on_after_a_while() -> None:
    trial = pair("apdm-apdf", "eim-eif", "port-prediction", ignores=True).run()
    assert trial.is_direct


@pytest.mark.parametrize("name", ["port-prediction", "birthday"])
def test_the_same_seed_makes_the_same_trial(name: str) -> None:
    runs = [
        pair("apdm-apdf", "eim-apdf", name, seed=3, network=Network(5, Malice(0.1, 0.1, 0.1))).run() for _ in range(2)
    ]
    assert runs[0].network.sent == runs[1].network.sent
    assert runs[0].events == runs[1].events


@pytest.mark.parametrize("seed", range(8))
def test_a_lossy_network_costs_rounds_not_the_prediction(seed: int) -> None:
    """A question that is sent again makes no second mapping; a check that is lost took its port all the same."""
    trial = pair("apdm-apdf", "eim-apdf", "port-prediction", network=Network(seed, Malice(loss=0.1))).run()
    assert trial.is_direct


def test_a_probe_that_hit_survives_the_loss_of_what_follows() -> None:
    """Only the probe itself is sent once: the check that it triggers is repeated until it is answered."""
    trial = pair("apdm-apdf", "eim-apdf", "birthday", seed=0)
    lost: list[Datagram] = []

    def loses_first(datagram: Datagram) -> bool:
        is_answer = datagram.source in trial.opened["alice"] and datagram.source in {d.destination for d in heard}
        if is_answer and len(lost) < 3:
            lost.append(datagram)
            return True
        return False

    heard: list[Datagram] = []
    receive = trial.alice.receive

    def listen(datagram: Datagram, now: int) -> None:
        heard.append(datagram)
        receive(datagram, now)

    trial.alice.receive = listen  # type: ignore[method-assign]
    trial.network.blocked = loses_first
    assert trial.run().is_direct
    assert len(lost) == 3


def test_a_server_that_falls_silent_ends_the_measuring() -> None:
    def is_second(datagram: Datagram) -> bool:
        return datagram.destination.host == SERVER[1] and datagram.source.port != 40000

    trial = pair("apdm-apdf", "eim-apdf", "port-prediction", network=Network(blocked=is_second)).run()
    assert trial.is_direct == ("unpredictable" not in str(said(trial, Prediction)))
    assert {"relay", "round"} <= set(trial.words("alice"))


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        pytest.param("port-prediction", {"ports": 5}, "no parameter 'ports': it has rounds, window", id="a birthday's"),
        pytest.param("port-prediction", {"window": 0}, "0 is not a number from 1 to 64", id="an empty window"),
        pytest.param("port-prediction", {"window": 65}, "65 is not a number from 1 to 64", id="too wide a window"),
        pytest.param("birthday", {"rounds": 2}, "no parameter 'rounds': it has ports, probes, rate", id="rounds"),
        pytest.param("birthday", {"ports": 401}, "401 is not a number from 1 to 400", id="more sockets than files"),
        pytest.param("birthday", {"probes": 8193}, "8193 is not a number from 1 to 8192", id="a flood"),
        pytest.param("birthday", {"rate": 0}, "0 is not a number from 1 to 4096", id="no pace"),
        pytest.param("birthday", {"rate": 1.5}, "1.5 is not a number", id="half a probe"),
        pytest.param("relay-only", {"rounds": 1}, "no parameter 'rounds': it has none at all", id="rounds of nothing"),
        pytest.param("all", {"luck": 1}, "it has rounds, window, ports, probes, rate", id="what none of them has"),
    ],
)
def test_what_a_strategy_does_not_know_is_refused(name: str, parameters: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        strategy(name, parameters)
