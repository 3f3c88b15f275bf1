"""TCP: which segments are of a connection, and how long it is remembered (RFC 5382)."""

from __future__ import annotations

import pytest

from testbed.nat.packet import Flag, Reason, Transport
from testbed.nat.tcp import BEGINNING, Segment, State, next_state, segment
from testbed.spec.profile import Dependence, NatProfile, TcpTimeout
from tests.nat.bench import ACK, FIN, RST, SECOND, SYN, SYN_ACK, Bench, external, host, reason, remote

EI = Dependence.ENDPOINT_INDEPENDENT
TIMERS = NatProfile(filtering=EI, tcp_timeout=TcpTimeout(established=7000 * SECOND, transitory=200 * SECOND))


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (SYN, Segment.SYN),
        (SYN_ACK, Segment.SYN_ACK),
        (ACK, Segment.ACK),
        (FIN, Segment.FIN),
        (Flag.FIN, Segment.FIN),
        (RST | ACK, Segment.RST),
        (SYN | RST, Segment.RST),
        (Flag(0), None),
    ],
)
def test_what_flags_mean(flags: Flag, kind: Segment | None) -> None:
    assert segment(flags) is kind


# Segments of the end that opened (>) and of the other (<); the state after them, or None where the last one is none of
# the connection.
CONNECTIONS = {
    "opening": (">SYN", State.SYN_SENT),
    "opening, asked again": (">SYN >SYN", State.SYN_SENT),
    "answered": (">SYN <SYN+ACK", State.SYN_RECEIVED),
    "answered twice": (">SYN <SYN+ACK <SYN+ACK", State.SYN_RECEIVED),
    "open": (">SYN <SYN+ACK >ACK", State.ESTABLISHED),
    "in use": (">SYN <SYN+ACK >ACK <ACK >ACK", State.ESTABLISHED),
    "both at once": (">SYN <SYN", State.SYN_BOTH),
    "both at once, answered by us": (">SYN <SYN >SYN+ACK", State.SYN_RECEIVED),
    "both at once, open": (">SYN <SYN <SYN+ACK >ACK", State.ESTABLISHED),
    "closing": (">SYN <SYN+ACK >ACK >FIN", State.FIN_WAIT),
    "closing, acknowledged": (">SYN <SYN+ACK >ACK >FIN <ACK", State.CLOSE_WAIT),
    "closing from both sides": (">SYN <SYN+ACK >ACK <FIN >FIN", State.LAST_ACK),
    "closing from the other side": (">SYN <SYN+ACK >ACK <FIN >ACK >FIN <ACK", State.TIME_WAIT),
    "half closed is not opened again": (">SYN <SYN+ACK >ACK <FIN <SYN", None),
    "reset": (">SYN <SYN+ACK >ACK <RST", State.CLOSED),
    "refused": (">SYN <RST", State.REFUSED),
    "taken back": (">SYN >RST", State.REFUSED),
    "refused, and tried again": (">SYN <RST >SYN", State.SYN_SENT),
    "refused, and the other end tries": (">SYN <RST <SYN", State.SYN_SENT),
    "refused, and an end of nothing": (">SYN <RST <FIN", None),
    "after a reset": (">SYN <SYN+ACK <RST <ACK >FIN", State.CLOSED),
    "opened again": (">SYN <SYN+ACK <RST >SYN", State.SYN_SENT),
    "opened again after an end": (">SYN <SYN+ACK >ACK >FIN <FIN >ACK >SYN", State.SYN_SENT),
    "the other end reuses it": (">SYN <SYN+ACK >ACK >FIN <FIN >ACK <SYN", State.SYN_SENT),
    "one segment from the middle": (">ACK", State.PICKED_UP),
    "seen from the middle on": (">ACK >ACK", State.ESTABLISHED),
    "from the middle, answered": (">ACK <ACK", State.ESTABLISHED),
    "from the middle, closing": (">ACK <FIN", State.FIN_WAIT),
    "from the middle, reset": (">ACK >ACK >RST", State.REFUSED),
    "an answer to nothing": (">SYN+ACK", None),
    "an end of nothing": (">FIN", None),
    "a reset of nothing": (">RST", None),
    "an answer by the one who asked": (">SYN >SYN+ACK", None),
    "an acknowledgement of nothing": (">SYN >ACK", None),
    "no flags at all": (">SYN >", None),
}


@pytest.mark.parametrize(("segments", "state"), CONNECTIONS.values(), ids=CONNECTIONS.keys())
def test_states(segments: str, state: State | None) -> None:
    found: State | None = State.NONE
    opener, is_answered = ">", False
    for one in segments.split():
        assert found is not None
        flags = Flag(0)
        for name in one[1:].split("+"):
            flags |= Flag[name] if name else 0
        if found in BEGINNING:
            opener, is_answered = one[0], False
        found = next_state(found, flags, is_ours=one[0] == opener, is_answered=is_answered)
        is_answered |= one[0] != opener
    assert found is state


def connect(bench: Bench) -> None:
    for source, destination, flags in (
        (host(), remote(), SYN),
        (remote(), external(), SYN_ACK),
        (host(), remote(), ACK),
    ):
        assert reason(bench.tcp(source, destination, flags)) is None


@pytest.mark.parametrize(
    ("last", "life"),
    [
        pytest.param((), 7000, id="established: the long timer"),
        pytest.param(((host(), FIN),), 200, id="after a FIN of ours: the short one"),
        pytest.param(((remote(), FIN),), 200, id="after a FIN of theirs too"),
        pytest.param(((remote(), RST),), 200, id="after a RST: the short one, not none"),
        pytest.param(
            ((host(), FIN), (remote(), FIN), (host(), ACK), (host(), SYN)), 200, id="opening again: the short one"
        ),
    ],
)
def test_timers_follow_the_state(last: tuple[tuple[object, Flag], ...], life: int) -> None:
    bench = Bench(TIMERS)
    connect(bench)
    for source, flags in last:
        bench.tcp(*((host(), remote()) if source == host() else (remote(), external())), flags)
    bench.now += life * SECOND - 1
    assert len(bench.nat.mappings(bench.now)) == 1
    bench.now += 1
    assert bench.nat.mappings(bench.now) == ()


FINER = NatProfile(
    filtering=EI,
    tcp_timeout=TcpTimeout(
        established=7000 * SECOND, partially_open=30 * SECOND, closing=60 * SECOND, reset=5 * SECOND
    ),
)
PHASES = {
    "a SYN without an answer": (((host(), SYN),), 30),
    "SYNs of both ends": (((host(), SYN), (remote(), SYN)), 30),
    "an answer without the last word": (((host(), SYN), (remote(), SYN_ACK)), 30),
    "open": (((host(), SYN), (remote(), SYN_ACK), (host(), ACK)), 7000),
    "a FIN of ours": (((host(), SYN), (remote(), SYN_ACK), (host(), ACK), (host(), FIN)), 60),
    "a FIN of theirs": (((host(), SYN), (remote(), SYN_ACK), (host(), ACK), (remote(), FIN)), 60),
    "refused": (((host(), SYN), (remote(), RST)), 5),
    "cut": (((host(), SYN), (remote(), SYN_ACK), (host(), ACK), (host(), RST)), 5),
    "opened again": (((host(), SYN), (remote(), RST), (host(), SYN)), 30),
}


@pytest.mark.parametrize(("segments", "life"), PHASES.values(), ids=PHASES.keys())
def test_each_phase_may_have_a_timer_of_its_own(segments: tuple[tuple[object, Flag], ...], life: int) -> None:
    """RFC 7857 §2: opening and closing apart, and what is left after a RST."""
    bench = Bench(FINER)
    for source, flags in segments:
        bench.tcp(*((host(), remote()) if source == host() else (remote(), external())), flags)
    bench.now += life * SECOND - 1
    assert len(bench.nat.mappings(bench.now)) == 1
    bench.now += 1
    assert bench.nat.mappings(bench.now) == ()


def test_what_has_no_timer_of_its_own_has_the_transitory_one() -> None:
    bench = Bench(
        NatProfile(filtering=EI, tcp_timeout=TcpTimeout(transitory=200 * SECOND, reset=5 * SECOND)),
    )
    bench.tcp(host(), remote(), SYN)
    bench.wait(199)
    assert len(bench.nat.mappings(bench.now)) == 1
    bench.tcp(remote(), external(), RST)
    bench.wait(5)
    assert bench.nat.mappings(bench.now) == ()


def test_a_new_connection_does_not_shorten_the_life_of_an_old_one() -> None:
    """One inside endpoint, two remotes: closing one of them leaves the other its time."""
    bench = Bench(TIMERS)
    connect(bench)
    bench.out(host(), remote(7001), Transport.TCP)
    bench.tcp(host(), remote(7001), RST)
    bench.wait(5000)
    assert reason(bench.tcp(remote(), external(), ACK)) is None


def test_a_mapping_that_died_early_is_made_anew_and_lives() -> None:
    """A reset brings its end forward; the old end must not take the new mapping along."""
    bench = Bench(TIMERS)
    connect(bench)
    bench.tcp(host(), remote(), RST)
    bench.wait(201)
    connect(bench)
    bench.wait(6900)
    bench.nat.handle_timeout(bench.now)
    assert len(bench.nat.mappings(bench.now)) == 1
    assert reason(bench.tcp(host(), remote(), ACK)) is None


def test_an_end_that_came_forward_is_not_an_end_twice() -> None:
    """A long life that was cut short is looked at when it ends, and once more when it would have ended."""
    bench = Bench(TIMERS)
    connect(bench)
    bench.wait(300)
    bench.tcp(host(), remote(), ACK)
    bench.tcp(host(), remote(), RST)
    bench.wait(200)
    assert bench.nat.mappings(bench.now) == ()
    connect(bench)
    bench.wait(6999)
    bench.nat.handle_timeout(bench.now)
    assert len(bench.nat.mappings(bench.now)) == 1


def test_permissions_live_as_long_as_the_connections_behind_them() -> None:
    bench = Bench(TIMERS.model_copy(update={"filtering": Dependence.ADDRESS_DEPENDENT}))
    connect(bench)
    bench.out(host(), remote(7001), Transport.TCP)
    bench.wait(201)
    assert reason(bench.tcp(remote(7001), external(), SYN)) is None, "the same address has a connection"
    assert reason(bench.tcp(remote(7001, 1), external(), SYN)) is Reason.NO_PERMISSION


@pytest.mark.parametrize(
    ("flags", "fate"),
    [
        pytest.param(SYN, None, id="a SYN opens"),
        pytest.param(ACK, None, id="an ACK goes on with what was before us"),
        pytest.param(SYN_ACK, Reason.NOT_TRANSLATED, id="an answer to nothing"),
        pytest.param(RST, Reason.NOT_TRANSLATED, id="a reset of nothing"),
    ],
)
def test_first_segment_from_inside(flags: Flag, fate: Reason | None) -> None:
    bench = Bench(TIMERS)
    assert reason(bench.tcp(host(), remote(), flags)) is fate
    assert len(bench.nat.mappings(bench.now)) == (fate is None)


@pytest.mark.parametrize(
    ("flags", "fate"),
    [
        pytest.param(SYN, None, id="an admitted SYN opens"),
        pytest.param(SYN_ACK, Reason.NO_MAPPING, id="an answer to nothing"),
    ],
)
def test_first_segment_from_outside(flags: Flag, fate: Reason | None) -> None:
    bench = Bench(TIMERS)
    bench.out(host(), remote(), Transport.TCP)
    assert reason(bench.tcp(remote(7001), external(), flags)) is fate


def test_simultaneous_open() -> None:
    """RFC 5382 REQ-2: the outer SYN comes first and is dropped in silence; ours goes out; theirs, again, connects."""
    bench = Bench(NatProfile())
    assert reason(bench.tcp(remote(), external(), SYN)) is Reason.NO_MAPPING
    for source, destination, flags in (
        (host(), remote(), SYN),
        (remote(), external(), SYN),
        (host(), remote(), SYN_ACK),
        (remote(), external(), ACK),
        (host(), remote(), ACK),
    ):
        assert reason(bench.tcp(source, destination, flags)) is None
