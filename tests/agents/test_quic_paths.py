"""Which paths are probed and which one is taken, over a connection that is already there."""

from __future__ import annotations

from testbed.datagram import Endpoint
from testbed.traversal.candidates import Candidate, CandidateType, Role, candidate
from testbed.traversal.checks import MAX_PEER_REFLEXIVE, TRIGGER_GAP, CheckSent, RemoteLearnt
from testbed.traversal.quic_happenings import Answered, Challenged, Moved, Path, Punched
from testbed.traversal.quic_paths import Paths, PathSelected
from tests.agents.quic_wire import CLIENT, DIRECT, MS, RELAY, SERVER, Wire, reverse

CLIENT_TOO, SERVER_TOO = Endpoint("192.168.11.2", 1000), Endpoint("192.168.22.2", 2000)
REFLEXIVE = Endpoint("11.0.1.1", 1000)


def host(address: Endpoint) -> Candidate:
    return candidate(CandidateType.HOST, address, address)


def met(*server_candidates: Endpoint, pair_limit: int = 16) -> Wire:
    """Two ends that met through the relay; the client knows the server's candidates."""
    wire = Wire(pair_limit=pair_limit).run()
    for address in server_candidates:
        wire.server.add_candidate(address)
    wire.server.send_ping(1)
    return wire.run()


def client_of(wire: Wire, *bases: Endpoint) -> Paths:
    return Paths(Role.CONTROLLING, bases or (CLIENT,), [host(base) for base in bases or (CLIENT,)], wire.client)


def server_of(wire: Wire, *bases: Endpoint) -> Paths:
    return Paths(Role.CONTROLLED, bases, [host(base) for base in bases], wire.server)


def checks(paths: Paths) -> list[Path]:
    return [Path(event.local, event.remote) for event in paths.events() if isinstance(event, CheckSent)]


def test_pairs_come_so_that_the_limit_cuts_off_repetitions() -> None:
    """Each address of ours with the server's first candidate, then each with its second, as far as four go."""
    wire = met(SERVER, SERVER_TOO, Endpoint("11.0.2.1", 2000), pair_limit=5)
    client_of(wire, CLIENT, CLIENT_TOO).punch(1)
    wire.client.send_ping(1)
    wire.run()
    pairs = [(SERVER, CLIENT), (SERVER, CLIENT_TOO), (SERVER_TOO, CLIENT), (SERVER_TOO, CLIENT_TOO)]
    assert wire.of("server", Punched)[:4] == [Punched(1, *pair) for pair in pairs]
    assert len(wire.of("server", Punched)) == 5


def test_a_pair_is_punched_once_a_round_and_one_that_comes_late_joins() -> None:
    wire = met(SERVER)
    paths = client_of(wire)
    for _ in range(2):
        paths.punch(1)
    wire.server.add_candidate(SERVER_TOO)
    wire.server.send_ping(1)
    wire.run()
    paths.punch(1)
    wire.client.send_ping(1)
    wire.run()
    assert wire.of("server", Punched) == [Punched(1, SERVER, CLIENT), Punched(1, SERVER_TOO, CLIENT)]


def test_the_client_probes_what_the_server_added_from_all_its_addresses() -> None:
    wire = met(SERVER)
    paths = client_of(wire, CLIENT, CLIENT_TOO)
    paths.check(SERVER, 1, wire.now)
    paths.check(SERVER_TOO, 1, wire.now)  # nobody named it
    assert checks(paths) == [DIRECT, Path(CLIENT_TOO, SERVER)]


def test_a_candidate_that_was_taken_back_is_probed_no_more() -> None:
    wire = met(SERVER)
    wire.server.remove_candidate(SERVER)
    wire.server.send_ping(1)
    wire.run()
    paths = client_of(wire)
    paths.check(SERVER, 1, wire.now)
    assert checks(paths) == []


def test_the_server_probes_from_the_candidate_that_was_named_and_nothing_else() -> None:
    wire = met(SERVER, SERVER_TOO)
    paths = server_of(wire, SERVER, SERVER_TOO)
    paths.asked(SERVER_TOO, CLIENT)
    paths.check(CLIENT, 1, wire.now)
    paths.check(CLIENT_TOO, 1, wire.now)
    assert checks(paths) == [Path(SERVER_TOO, CLIENT)]


def test_an_address_of_our_own_and_one_of_another_family_are_not_probed() -> None:
    wire = met(CLIENT, Endpoint("2001:db8::1", 2000))
    paths = client_of(wire)
    for address in wire.client.candidates.values():
        paths.check(address, 1, wire.now)
    paths.punch(1)
    assert checks(paths) == []


def test_a_challenge_triggers_one_back_and_not_again_within_the_gap() -> None:
    wire = met(SERVER)
    paths, stranger = client_of(wire), Path(CLIENT, REFLEXIVE)
    for later, expected in ((0, [stranger]), (TRIGGER_GAP - 1, []), (TRIGGER_GAP, [stranger])):
        paths.take(Challenged(stranger), wire.now + later)
        assert checks(paths) == expected


def test_addresses_that_challenges_teach_are_bounded() -> None:
    """Two NATs that map by address and port show a new address with every answer, without end."""
    wire = met(SERVER)
    paths = client_of(wire)
    for port in range(1, 40):
        paths.take(Challenged(Path(CLIENT, Endpoint("11.0.9.9", port))), wire.now)
    assert sum(isinstance(event, RemoteLearnt) for event in paths.events()) == MAX_PEER_REFLEXIVE


def test_what_happens_at_the_relay_is_no_path() -> None:
    wire = met(SERVER)
    paths = client_of(wire)
    paths.take(Challenged(RELAY), wire.now)
    paths.take(Answered(RELAY, RELAY, MS), wire.now)
    assert paths.events() == []


def test_the_client_takes_the_first_path_and_stays_there() -> None:
    wire = met(SERVER, SERVER_TOO)
    paths = client_of(wire)
    for address in (SERVER, SERVER_TOO):
        paths.check(address, 1, wire.now)
    wire.run()
    paths.take(Answered(DIRECT, DIRECT, MS), wire.now)
    paths.take(Answered(Path(CLIENT, SERVER_TOO), Path(CLIENT, SERVER_TOO), MS), wire.now)
    assert [event for event in paths.events() if isinstance(event, PathSelected)] == [PathSelected(wire.now, DIRECT)]
    assert wire.client.active == paths.selected == DIRECT
    paths.take(Challenged(Path(CLIENT, REFLEXIVE)), wire.now)
    paths.settle(wire.now)
    assert paths.events() == []


def test_a_path_whose_answer_came_from_elsewhere_waits_for_the_end_of_the_round() -> None:
    wire = met(SERVER)
    paths, elsewhere = client_of(wire), Path(CLIENT, REFLEXIVE)
    paths.check(SERVER, 1, wire.now)
    wire.run()
    paths.take(Answered(DIRECT, elsewhere, MS), wire.now)
    assert checks(paths) == [DIRECT, elsewhere]
    assert paths.selected is None
    paths.settle(wire.now)
    assert paths.selected == DIRECT


def test_the_server_goes_where_the_client_goes_and_back() -> None:
    wire = met(SERVER)
    paths, path = server_of(wire, SERVER), reverse(DIRECT)
    paths.take(Moved(path, is_validated=False), wire.now)
    assert paths.events() == [CheckSent(wire.now, *path, None), PathSelected(wire.now, path)]
    paths.take(Moved(reverse(RELAY), is_validated=True), wire.now)
    assert paths.selected is None
    paths.take(Moved(path, is_validated=True), wire.now)
    assert paths.events() == [PathSelected(wire.now, path)]
