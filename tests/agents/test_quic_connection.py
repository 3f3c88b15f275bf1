"""The adapter over aioquic: one test for each thing that aioquic does otherwise, and for each rule of the drafts."""

from __future__ import annotations

import io

import aioquic
import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode

from testbed.agents import quic_frames as frames
from testbed.agents.quic_connection import TraversalConnection
from testbed.agents.quic_frames import AddAddress, Discovery, Frame, ObservedAddress, PunchMeNow, RemoveAddress
from testbed.agents.quic_multipath import PATH_LIMIT
from testbed.agents.quic_private import check_aioquic
from testbed.agents.quic_tls import server_configuration
from testbed.datagram import Endpoint
from testbed.errors import MachineError
from testbed.traversal.quic_happenings import (
    Answered,
    CandidateAdded,
    Challenged,
    Completed,
    Moved,
    Path,
    Punched,
    Received,
    Terminated,
)
from tests.agents.quic_wire import CLIENT, CLIENT_RELAYED, DIRECT, MS, RELAY, SERVER, SERVER_RELAYED, Wire, reverse

ELSEWHERE = Endpoint("11.0.9.9", 9)


def no_direct_path(path: Path) -> Path | None:
    return reverse(path) if path in (RELAY, reverse(RELAY)) else None


def code_of(wire: Wire, name: str) -> int | None:
    """With which error the end closed the connection."""
    event = wire.end(name)._close_event
    return event.error_code if event is not None else None


# ---- paths


def test_two_ends_meet_through_the_relay_and_bytes_go_both_ways() -> None:
    wire = Wire().run()
    for name, path in (("client", reverse(RELAY)), ("server", RELAY)):
        assert wire.of(name, Completed)
        wire.end(name).send_datagram_frame(name.encode())
        wire.run()
        other = "server" if name == "client" else "client"
        assert wire.of(other, Received) == [Received(path, name.encode())]


def test_a_server_before_its_first_packet_sends_nothing_and_waits_for_nothing() -> None:
    server = TraversalConnection(server_configuration(io.StringIO()), bytes(8))
    assert server.active is None
    assert server.timer() is None
    assert server.transmit(0) == []


def test_a_probe_validates_a_path_and_the_client_stays_where_it_is() -> None:
    wire = Wire().run()
    assert wire.client.probe(DIRECT)
    wire.run()
    assert wire.of("client", Answered) == [Answered(DIRECT, DIRECT, 20 * MS)]
    assert wire.of("server", Challenged)[0] == Challenged(reverse(DIRECT))
    assert wire.client.active == RELAY
    assert wire.server.active == reverse(RELAY)


def test_the_server_follows_the_first_packet_that_is_no_probe() -> None:
    wire = Wire().run()
    wire.client.probe(DIRECT)
    wire.run()
    wire.client.migrate(DIRECT)
    wire.client.send_datagram_frame(b"here")
    wire.run()
    assert wire.of("server", Moved) == [Moved(reverse(DIRECT), is_validated=False)]
    assert wire.of("server", Received) == [Received(reverse(DIRECT), b"here")]
    assert wire.server.active == reverse(DIRECT)
    # it challenges the path that the client chose, and the answer comes
    assert Answered(reverse(DIRECT), reverse(DIRECT), 20 * MS) in wire.of("server", Answered)


@pytest.mark.parametrize("path", [Path(CLIENT, ELSEWHERE), DIRECT], ids=["unknown", "not validated"])
def test_a_client_migrates_to_validated_paths_only(path: Path) -> None:
    wire = Wire(seen=no_direct_path).run()
    wire.client.probe(DIRECT)
    with pytest.raises(ValueError, match="no path to migrate to"):
        wire.client.migrate(path)


@pytest.mark.parametrize("name", ["client", "server"])
def test_every_probe_of_a_silent_path_leaves_at_full_size(name: str) -> None:
    """Trap: three times nothing received is nothing, so that aioquic lets no probe out."""
    wire = Wire(seen=no_direct_path).run()
    path = DIRECT if name == "client" else reverse(DIRECT)
    for _ in range(10):
        assert wire.end(name).probe(path)
        wire.run(30 * MS)
    assert [len(data) for data in wire.probes(name, path)] == [1200] * 10


def test_without_a_probe_the_limit_on_unproven_addresses_stands() -> None:
    wire = Wire(seen=no_direct_path).run()
    entry = wire.server._find_network_path(reverse(DIRECT))
    assert not entry.can_send(1200)


@pytest.mark.parametrize("name", ["client", "server"])
def test_lost_probes_are_nobodys_congestion(name: str) -> None:
    wire = Wire(seen=no_direct_path).run()
    end = wire.end(name)
    end.send_datagram_frame(b"x")
    wire.run()
    window = end._loss.congestion_window
    for _ in range(30):
        end.probe(DIRECT if name == "client" else reverse(DIRECT))
        wire.run(10 * MS)
    end.send_datagram_frame(b"y")
    wire.run()
    assert end._loss.congestion_window >= window
    assert end._loss.bytes_in_flight == 0
    assert end._loss._pto_count == 0


def test_round_trip_time_and_window_begin_anew_on_another_path() -> None:
    wire = Wire().run()
    wire.client.probe(DIRECT)
    wire.run()
    for end in (wire.client, wire.server):
        end._loss._cc.congestion_window = 2400
        end._loss._rtt_smoothed = end._loss._rtt_min = 9.0
    wire.client.migrate(DIRECT)
    wire.client.send_datagram_frame(b"x")
    wire.run(100 * MS)
    wire.server.send_datagram_frame(b"x")
    wire.run(100 * MS)
    for end in (wire.client, wire.server):
        assert end._loss.congestion_window >= 12000
        assert end._loss._rtt_smoothed < 0.1


def test_a_probe_may_wait_longer_than_five_others() -> None:
    """Trap: aioquic remembers five challenges; at an RTT of a satellite's the first answer comes after the sixth."""
    wire = Wire(delay=300 * MS).run(4000 * MS)
    for _ in range(12):
        wire.client.probe(DIRECT)
        wire.run(33 * MS)
    wire.run(230 * MS)  # 626 ms after the first, 263 ms after the last
    assert wire.of("client", Answered) == [Answered(DIRECT, DIRECT, 600 * MS)]


def test_connection_ids_bound_the_paths() -> None:
    wire = Wire(seen=no_direct_path).run()
    paths = [Path(CLIENT, Endpoint("11.0.9.9", port)) for port in range(1, 30)]
    assert sum(map(wire.client.probe, paths)) == PATH_LIMIT - 1
    wire.run()
    assert len({by for name, by, data in wire.sent if name == "client" and by != RELAY}) == PATH_LIMIT - 1
    assert wire.client.is_open
    assert wire.server.is_open


def test_each_path_has_a_connection_id_of_its_own() -> None:
    wire = Wire(seen=no_direct_path).run()
    for port in range(1, 8):
        wire.client.probe(Path(CLIENT, Endpoint("11.0.9.9", port)))
    wire.client.send_datagram_frame(b"x")
    wire.run()
    by_path = {by: data[1:9] for name, by, data in wire.sent if name == "client"}
    assert len(set(by_path.values())) == len(by_path) == 8


def test_a_server_that_is_probed_from_everywhere_forgets_the_oldest() -> None:
    wire = Wire().run()
    ports = iter(range(3000, 3000 + 2 * PATH_LIMIT))

    def another_each_time(path: Path) -> Path | None:
        return Path(SERVER, Endpoint("11.0.9.9", next(ports))) if path.local == CLIENT else reverse(path)

    wire.seen = another_each_time
    for _ in range(2 * PATH_LIMIT):
        wire.client.probe(DIRECT)
        wire.run(50 * MS)
    assert len(wire.server._network_paths) == PATH_LIMIT
    spare = [entry for entry in wire.server._network_paths if entry.peer_cid is not None]
    assert len(spare) + len(wire.server._peer_cid_available) == PATH_LIMIT - 1  # none is lost with its path
    assert wire.server.active == reverse(RELAY)
    assert wire.server.is_open
    assert wire.client.is_open


# ---- addresses that are not known


def from_elsewhere(path: Path) -> Path | None:
    """What the server sends by the direct path comes from another address than the client knows."""
    if path.local == SERVER:
        return Path(CLIENT, ELSEWHERE)
    if path == Path(CLIENT, ELSEWHERE):
        return reverse(DIRECT)
    return reverse(path) if path.local != CLIENT else None


def test_a_client_that_admits_strangers_finds_a_peer_reflexive_path() -> None:
    """Trap: a client behind EIM/EIF meets a server behind APDM only from an address that nobody told it."""
    wire = Wire(seen=from_elsewhere).run()
    wire.client.is_admitting = True
    wire.server.probe(reverse(DIRECT))
    wire.run()
    path = Path(CLIENT, ELSEWHERE)
    assert wire.of("client", Challenged) == [Challenged(path)]
    assert wire.of("server", Answered) == [Answered(reverse(DIRECT), reverse(DIRECT), 20 * MS)]
    assert wire.client.probe(path)
    wire.run()
    assert wire.of("client", Answered) == [Answered(path, path, 20 * MS)]
    wire.client.migrate(path)
    wire.client.send_datagram_frame(b"x")
    wire.run()
    assert wire.of("server", Received) == [Received(reverse(DIRECT), b"x")]


def test_a_client_that_does_not_drops_them() -> None:
    wire = Wire(seen=from_elsewhere).run()
    wire.server.probe(reverse(DIRECT))
    wire.run()
    assert wire.of("client", Challenged) == []
    assert len(wire.client._network_paths) == 1


def test_a_replayed_packet_from_a_stranger_leaves_no_path() -> None:
    wire = Wire(seen=from_elsewhere).run()
    wire.client.is_admitting = True
    wire.server.send_datagram_frame(b"x")
    wire.run()
    stranger = Path(CLIENT, Endpoint("11.0.66.6", 666))
    for name, _, data in wire.sent:
        if name == "server":
            wire.client.receive(data, stranger, wire.now)
            wire.client.receive(data[:-1] + bytes([data[-1] ^ 1]), stranger, wire.now)
    assert [entry.addr for entry in wire.client._network_paths] == [RELAY]


def test_the_answer_may_come_by_another_path_and_says_so() -> None:
    """Two NATs that map by address and port and filter by less: each direction has a mapping of its own."""

    def each_its_own(path: Path) -> Path | None:
        if path == DIRECT:
            return Path(SERVER, Endpoint("11.0.1.1", 5))
        if path.local == SERVER:
            return Path(CLIENT, ELSEWHERE)
        return reverse(path) if path.local != CLIENT else None

    wire = Wire(seen=each_its_own).run()
    wire.client.is_admitting = True
    wire.client.probe(DIRECT)
    wire.run()
    assert wire.of("client", Answered) == [Answered(DIRECT, Path(CLIENT, ELSEWHERE), 20 * MS)]


# ---- address discovery


def test_each_end_learns_its_address_on_every_path_the_first_one_included() -> None:
    def through_nat(path: Path) -> Path | None:
        if path == DIRECT:
            return Path(SERVER, ELSEWHERE)
        return DIRECT if path == Path(SERVER, ELSEWHERE) else reverse(path)

    wire = Wire(seen=through_nat).run()
    assert wire.client.observed(RELAY) == CLIENT_RELAYED
    assert wire.server.observed(reverse(RELAY)) == SERVER_RELAYED
    wire.client.probe(DIRECT)
    wire.run()
    assert wire.client.observed(DIRECT) == ELSEWHERE
    assert wire.server.observed(Path(SERVER, ELSEWHERE)) == SERVER
    assert wire.server.active == reverse(RELAY)  # it is a probing frame


def test_an_observation_that_is_lost_is_sent_again_on_its_path() -> None:
    wire = Wire()
    lost: list[int] = []

    def lose_one(path: Path) -> Path | None:
        if path.local == SERVER_RELAYED and wire.server._handshake_complete and len(lost) < 2:
            lost.append(1)
            return None
        return reverse(path)

    wire.seen = lose_one
    wire.run(2000 * MS)
    assert wire.client.observed(RELAY) == CLIENT_RELAYED


@pytest.mark.parametrize(
    ("client", "server", "client_learns", "server_learns"),
    [
        (Discovery.BOTH, Discovery.BOTH, True, True),
        (Discovery.PROVIDES, Discovery.BOTH, False, True),
        (Discovery.WANTS, Discovery.BOTH, True, False),
        (Discovery.WANTS, Discovery.WANTS, False, False),
        (Discovery.PROVIDES, Discovery.PROVIDES, False, False),
    ],
)
def test_addresses_are_told_to_whom_wants_them_by_whom_provides(
    client: Discovery, server: Discovery, client_learns: bool, server_learns: bool
) -> None:
    wire = Wire(discovery=(client, server)).run()
    assert (wire.client.observed(RELAY) is not None) == client_learns
    assert (wire.server.observed(reverse(RELAY)) is not None) == server_learns
    assert wire.client.is_open


def test_an_observation_that_is_older_than_the_last_is_ignored() -> None:
    wire = Wire().run()
    for number in (7, 6):
        wire.server._pending.append(ObservedAddress(number, Endpoint("11.0.5.5", 50 + number)))
        wire.server.send_ping(1)
        wire.run()
    assert wire.client.observed(RELAY) == Endpoint("11.0.5.5", 57)


# ---- candidates and rounds


def test_candidates_trickle_to_the_client_and_can_be_taken_back() -> None:
    wire = Wire().run()
    wire.server.add_candidate(SERVER)
    wire.server.add_candidate(ELSEWHERE)
    wire.server.add_candidate(SERVER)
    wire.server.send_ping(1)
    wire.run()
    assert wire.of("client", CandidateAdded) == [CandidateAdded(SERVER), CandidateAdded(ELSEWHERE)]
    wire.server.remove_candidate(SERVER)
    wire.server.send_ping(1)
    wire.run()
    assert wire.client.candidates == {1: ELSEWHERE}


def test_more_frames_than_a_packet_holds_take_more_packets() -> None:
    wire = Wire(pair_limit=200).run()
    wire.server.add_candidate(SERVER)
    wire.server.send_ping(1)
    wire.run()
    for port in range(1, 121):
        assert wire.client.punch(1, 0, Endpoint("11.0.9.9", port))
    packets = wire.client.transmit(wire.now)
    assert len(packets) == 2  # 13 bytes each
    for data, path in packets:
        wire.server.receive(data, reverse(path), wire.now)
    assert len([punched for punched in wire.server.happenings() if isinstance(punched, Punched)]) == 120


def test_a_round_has_as_many_pairs_as_the_server_takes() -> None:
    wire = Wire(pair_limit=2).run()
    wire.server.add_candidate(SERVER)
    wire.server.send_ping(1)
    wire.run()
    assert [wire.client.punch(1, 0, Endpoint("11.0.9.9", port)) for port in (1, 2, 3)] == [True, True, False]
    assert wire.client.punch(2, 0, CLIENT)
    # what is not said yet of an older round is not said any more
    wire.client.send_ping(1)
    wire.run()
    assert wire.of("server", Punched) == [Punched(2, SERVER, CLIENT)]
    # a client that does not keep to it is not followed
    for port in (5, 6):
        wire.client._pending.append(PunchMeNow(2, 0, Endpoint("11.0.9.9", port)))
    wire.client.send_ping(1)
    wire.run()
    assert len(wire.of("server", Punched)) == 2


def test_a_round_that_is_over_and_a_candidate_that_is_none_punch_nothing() -> None:
    wire = Wire().run()
    wire.server.add_candidate(SERVER)
    wire.server.send_ping(1)
    wire.run()
    for frame in (PunchMeNow(3, 0, CLIENT), PunchMeNow(2, 0, ELSEWHERE), PunchMeNow(3, 9, ELSEWHERE)):
        wire.client._pending.append(frame)
        wire.client.send_ping(1)
        wire.run()
    assert wire.of("server", Punched) == [Punched(3, SERVER, CLIENT)]


def test_a_candidate_that_is_lost_is_sent_again_and_a_stale_punch_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[PunchMeNow] = []
    monkeypatch.setattr(TraversalConnection, "_punched", lambda _, frame: heard.append(frame))
    wire = Wire().run()
    wire.seen = lambda path: None
    wire.server.add_candidate(SERVER)
    wire.server.send_ping(1)
    wire.run(20 * MS)
    wire.seen = reverse
    wire.run(1000 * MS)
    assert wire.of("client", CandidateAdded) == [CandidateAdded(SERVER)]
    wire.seen = lambda path: None
    wire.client.punch(1, 0, CLIENT)
    wire.client.send_ping(1)
    wire.run(20 * MS)
    wire.seen = reverse
    wire.client.punch(2, 0, ELSEWHERE)
    wire.client.send_ping(1)
    wire.run(1000 * MS)
    assert heard == [PunchMeNow(2, 0, ELSEWHERE)]


@pytest.mark.parametrize(
    ("sender", "frame", "settings"),
    [
        pytest.param("client", AddAddress(0, CLIENT), {}, id="a client has no candidates to add"),
        pytest.param("client", RemoveAddress(0), {}, id="nor to remove"),
        pytest.param("server", PunchMeNow(1, 0, SERVER), {}, id="a server begins no round"),
        pytest.param(
            "server",
            ObservedAddress(0, CLIENT),
            {"discovery": (Discovery.PROVIDES, Discovery.PROVIDES)},
            id="an address that was not asked for",
        ),
    ],
)
def test_frames_that_nobody_may_send_end_the_connection(
    sender: str, frame: Frame, settings: dict[str, tuple[Discovery, Discovery]]
) -> None:
    wire = Wire(**settings).run()  # type: ignore[arg-type]
    wire.end(sender)._pending.append(frame)
    wire.end(sender).send_ping(1)
    wire.run()
    assert code_of(wire, "server" if sender == "client" else "client") == QuicErrorCode.PROTOCOL_VIOLATION
    wire.run(3000 * MS)
    assert wire.of(sender, Terminated)


def test_a_frame_that_is_cut_off_ends_the_connection() -> None:
    wire = Wire().run()

    def cut_off(frame: Frame) -> bytes:
        return b"\x00\x01"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "encode_body", cut_off)
        wire.server.add_candidate(SERVER)
        wire.server.send_ping(1)
        wire.run()
    assert code_of(wire, "client") == QuicErrorCode.FRAME_ENCODING_ERROR


@pytest.mark.parametrize(
    ("sender", "parameters"),
    [
        pytest.param("client", frames.encode_parameter(frames.NAT_TRAVERSAL_PARAMETER, b"\x01"), id="a client's limit"),
        pytest.param("server", frames.encode_parameter(frames.NAT_TRAVERSAL_PARAMETER, b"\x00"), id="a limit of none"),
        pytest.param("server", frames.encode_parameter(frames.NAT_TRAVERSAL_PARAMETER, b""), id="no limit"),
        pytest.param("server", frames.encode_parameter(frames.ADDRESS_DISCOVERY_PARAMETER, b"\x03"), id="a fourth way"),
        pytest.param("client", frames.encode_parameter(frames.ADDRESS_DISCOVERY_PARAMETER, b""), id="no way at all"),
    ],
)
def test_transport_parameters_that_make_no_sense_end_the_handshake(sender: str, parameters: bytes) -> None:
    original = QuicConnection._serialize_transport_parameters

    def serialize(connection: TraversalConnection) -> bytes:
        return original(connection) + parameters

    with pytest.MonkeyPatch.context() as patch:
        wire = None
        if sender == "client":
            patch.setattr(TraversalConnection, "_serialize_transport_parameters", serialize)
            wire = Wire()
        else:
            wire = Wire()
            patch.setattr(TraversalConnection, "_serialize_transport_parameters", serialize)
        wire.run()
    assert code_of(wire, "server" if sender == "client" else "client") == QuicErrorCode.TRANSPORT_PARAMETER_ERROR


def test_an_end_that_speaks_neither_extension_is_left_alone() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            TraversalConnection, "_serialize_transport_parameters", QuicConnection._serialize_transport_parameters
        )
        wire = Wire().run()
    assert wire.of("client", Completed)
    assert wire.client.peer_pair_limit is None
    assert wire.client.peer_discovery is None
    assert not wire.client.punch(1, 0, CLIENT)
    assert wire.client.observed(RELAY) is None


# ---- aioquic itself


def test_this_aioquic_is_the_one_that_is_meant() -> None:
    check_aioquic()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioquic, "__version__", "1.6.1")
    with pytest.raises(MachineError, match=r"aioquic 1\.6\.1 is installed.*needs 1\.7\.2") as caught:
        check_aioquic.__wrapped__()
    assert caught.value.mend == "pip install aioquic==1.7.2"


def test_a_private_name_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(QuicConnection, "_use_reserved_peer_cid")
    with pytest.raises(MachineError, match="lacks _use_reserved_peer_cid"):
        check_aioquic.__wrapped__()
