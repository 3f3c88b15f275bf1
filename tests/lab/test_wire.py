"""The wire: what programs at the ends of its links see, and what becomes of it when something dies."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from testbed.errors import BrokenError
from testbed.lab import child
from testbed.lab.namespaces import Namespace, new_namespace
from testbed.lab.wire import process
from testbed.lab.wire.engine import is_control, with_flipped_bit
from testbed.lab.wire.process import Wire
from testbed.lab.wire.report import DirectionReport, Lateness, WireReport
from testbed.link.model import Arrival, Direction, seeds_of_directions
from testbed.spec.link import Distribution, GilbertElliott, Impairment, Link
from tests.lab.cables import DEVICE, LOWER, PATIENCE, UPPER, cables, udp, wired

MS = 1_000_000
SECOND = 1000 * MS
PERCENT = 10_000
HEADERS = 14 + 20 + 8
"""Bytes of a frame before a UDP payload."""

# ---------------------------------------------------------------------------- without a kernel

FRAMES = [
    ("ARP", "ffffffffffff 020000000001 0806 0001", True),
    ("IGMP", "01005e000016 020000000001 0800 46c0002800004000 01 02 0000", True),
    ("UDP over IPv4", "020000000002 020000000001 0800 4500002800004000 40 11 0000", False),
    ("a neighbour solicitation", "333300000001 020000000001 86dd 60000000 0020 3a ff" + "00" * 32 + "87 00", True),
    (
        "a listener report, behind a hop-by-hop header",
        "333300000016 020000000001 86dd 60000000 0024 00 01" + "00" * 34,
        True,
    ),
    ("an echo request", "020000000002 020000000001 86dd 60000000 0020 3a 40" + "00" * 32 + "80 00", False),
    ("UDP over IPv6", "020000000002 020000000001 86dd 60000000 0020 11 40" + "00" * 34, False),
    ("a frame that ends where its header does", "020000000002 020000000001 0800", False),
]


@pytest.mark.parametrize(("name", "frame", "control"), FRAMES, ids=[row[0] for row in FRAMES])
def test_which_frames_are_the_kernels_own(name: str, frame: str, control: bool) -> None:
    assert is_control(bytes.fromhex(frame)) is control


def test_a_bit_is_counted_from_the_first_byte_and_from_its_low_end() -> None:
    assert with_flipped_bit(bytes(3), 17) == b"\0\0\2"


PERCENTILES = [
    ("no frames, no percentiles", [0, 0, 0], 0, Lateness(0, None, None, None, None)),
    ("each is rounded up to its step's end", [98, 1, 1], 25, Lateness(100, 10, 10, 20, 25)),
    ("but not beyond the largest", [100, 0, 0], 7, Lateness(100, 7, 7, 7, 7)),
    ("the last step has no end", [0, 0, 3], 999, Lateness(3, 999, 999, 999, 999)),
]


@pytest.mark.parametrize(("sentence", "steps", "largest", "found"), PERCENTILES, ids=[row[0] for row in PERCENTILES])
def test_lateness(sentence: str, steps: list[int], largest: int, found: Lateness) -> None:
    assert Lateness.from_histogram(steps, 10, largest) == found


def test_a_report_can_be_written_and_read() -> None:
    report = WireReport(
        scheduling="fifo",
        busy=12_000_000,
        sent=3,
        unread=1,
        truncated=2,
        refused={"ENETDOWN": 4},
        lateness=Lateness(3, 1, 2, 3, 4),
        directions=(DirectionReport("cable", "up", 1, 2, 3, 4, 5, 6, 7),),
    )
    assert WireReport.from_json(report.to_json()) == report
    assert report.missing == 7


# ---------------------------------------------------------------------------- what programs see


def direction(report: WireReport, towards: str, cable: str = "cable0") -> DirectionReport:
    return next(d for d in report.directions if (d.cable, d.towards) == (cable, towards))


def number(payload: bytes) -> int:
    return int(struct.unpack_from("=I", payload)[0])


def numbered(index: int, size: int) -> bytes:
    return struct.pack("=I", index) + bytes(size - 4)


@pytest.mark.lab
def test_nothing_arrives_before_its_delay_in_either_direction() -> None:
    with wired(Link(up=Impairment(delay=20 * MS), down=Impairment(delay=5 * MS))) as (wire, [pair]):
        lower, upper = pair.sockets()
        with lower, upper:
            for sender, receiver, to, delay in ((lower, upper, UPPER, 20 * MS), (upper, lower, LOWER, 5 * MS)):
                before = time.monotonic_ns()
                sender.sendto(b"hello", (to, 5000))
                assert receiver.recv(100) == b"hello"
                assert time.monotonic_ns() - before >= delay
        report = wire.finish()
    assert (report.sent, report.missing, report.lateness.frames) == (2, 0, 2)
    assert (direction(report, "up").frames, direction(report, "down").frames) == (1, 1)


FATES = [
    ("loss", Impairment(loss=30 * PERCENT)),
    ("bursts", Impairment(loss=GilbertElliott(p=5 * PERCENT, r=20 * PERCENT))),
    ("duplicates", Impairment(duplicate=30 * PERCENT)),
    ("corruption, which a checksum makes a loss", Impairment(corrupt=30 * PERCENT)),
    (
        "all of it, jitter and a line",
        Impairment(
            loss=5 * PERCENT,
            duplicate=5 * PERCENT,
            corrupt=5 * PERCENT,
            delay=2 * MS,
            jitter=MS,
            distribution=Distribution.NORMAL,
            rate=1_000_000_000,
        ),
    ),
    ("reordering", Impairment(delay=5 * MS, jitter=3 * MS, reorder=20 * PERCENT)),
]


@pytest.mark.lab
@pytest.mark.parametrize("towards", ["up", "down"])
@pytest.mark.parametrize(("name", "impairment"), FATES, ids=[row[0] for row in FATES])
def test_every_frame_meets_the_fate_that_the_model_says(name: str, impairment: Impairment, towards: str) -> None:
    seed, count, size = 11, 400, 100
    endless = impairment.model_copy(update={"limit": 10_000})
    model = Direction(endless, seeds_of_directions(seed)[towards == "down"])
    fates = [model.offer(HEADERS + size, 0) for _ in range(count)]
    good = [sum(isinstance(f, Arrival) and f.flipped is None for f in copies) for copies in fates]
    expected = Counter({index: copies for index, copies in enumerate(good) if copies})
    link = Link(**{towards: endless})
    with wired(link, seed=seed) as (wire, [pair]):
        lower, upper = pair.sockets()
        with lower, upper:
            sender, receiver, to = (lower, upper, UPPER) if towards == "up" else (upper, lower, LOWER)
            for index in range(count):
                sender.sendto(numbered(index, size), (to, 5000))
            found = Counter(number(receiver.recv(200)) for _ in range(expected.total()))
            assert found == expected
            receiver.setblocking(False)
            with pytest.raises(BlockingIOError):
                receiver.recv(200)
        report = wire.finish()
    did = direction(report, towards)
    copies = [f for frame in fates for f in frame]
    assert did == DirectionReport(
        cable="cable0",
        towards=towards,
        frames=count,
        control=0,
        lost=sum(not isinstance(f, Arrival) for f in copies),
        duplicated=len(copies) - count,
        corrupted=sum(isinstance(f, Arrival) and f.flipped is not None for f in copies),
        reordered=sum(isinstance(f, Arrival) and f.early for f in copies),
        overflow=0,
    )
    assert report.missing == 0


def counter(box: Namespace, protocol: str, name: str) -> int:
    with box:
        lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
    names, values = (line for line in lines if line[0] == f"{protocol}:")
    return int(values[names.index(name)])


@pytest.mark.lab
def test_a_corrupted_packet_dies_at_a_checksum() -> None:
    impairment = Impairment(corrupt=50 * PERCENT)
    model = Direction(impairment, seeds_of_directions(1)[0])
    flipped = [isinstance(f, Arrival) and f.flipped is not None for (f,) in (model.offer(64, 0) for _ in range(200))]
    flipped = flipped[: len(flipped) - flipped[::-1].index(False)]  # up to the last that arrives whole
    with wired(Link(up=impairment)) as (_, [pair]):
        lower, upper = pair.sockets()
        with lower, upper:
            for index in range(len(flipped)):
                lower.sendto(numbered(index, 64 - HEADERS), (UPPER, 5000))
            whole = [number(upper.recv(100)) for _ in range(flipped.count(False))]
        assert whole == [index for index, is_flipped in enumerate(flipped) if not is_flipped]
        died = counter(pair.upper, "Udp", "InErrors") + counter(pair.upper, "Ip", "InHdrErrors")
    assert died == flipped.count(True)


MTUS = [("the usual", 1500), ("the least that carries QUIC", 1280), ("jumbo", 9000), ("the largest", 65535)]


@pytest.mark.lab
@pytest.mark.parametrize(("sentence", "mtu"), MTUS, ids=[row[0] for row in MTUS])
def test_a_packet_of_the_mtu_passes_whole_and_a_larger_one_is_refused(sentence: str, mtu: int) -> None:
    payload = os.urandom(mtu - 28)
    with wired(Link(mtu=mtu)) as (wire, [pair]):
        lower, upper = pair.sockets()
        with lower, upper:
            lower.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
            lower.sendto(payload, (UPPER, 5000))
            assert upper.recv(1 << 17) == payload
            with pytest.raises(OSError, match="Message too long") as caught:
                lower.sendto(payload + b"!", (UPPER, 5000))
            assert caught.value.errno == errno.EMSGSIZE
        assert wire.finish().missing == 0


@pytest.mark.lab
def test_a_line_is_no_faster_than_its_rate() -> None:
    frames, size, rate = 50, 1000, 20_000_000
    with wired(Link(up=Impairment(rate=rate))) as (_, [pair]):
        lower, upper = pair.sockets()
        with lower, upper:
            before = time.monotonic_ns()
            for index in range(frames):
                lower.sendto(numbered(index, size), (UPPER, 5000))
            assert [number(upper.recv(2000)) for _ in range(frames)] == list(range(frames))
            assert time.monotonic_ns() - before >= frames * (HEADERS + size) * 8 * SECOND // rate


@pytest.mark.lab
def test_tcp_passes_a_line_with_loss() -> None:
    data = os.urandom(300_000)
    impairment = Impairment(rate=50_000_000, delay=MS, loss=1 * PERCENT)
    with wired(Link(up=impairment, down=Impairment(delay=MS))) as (wire, [pair]):
        with pair.upper:
            server = socket.create_server((UPPER, 5001))
        with pair.lower:
            client = socket.create_connection((UPPER, 5001), timeout=PATIENCE)
        with server, client:
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(PATIENCE)
                writer = os.fork()
                if writer == 0:
                    try:
                        client.sendall(data)
                    finally:
                        os._exit(0)
                client.close()
                received = b"".join(iter(lambda: accepted.recv(1 << 16), b""))
        os.waitpid(writer, 0)
        assert received == data
        assert wire.finish().missing == 0


@pytest.mark.lab
def test_frames_beyond_the_limit_are_dropped_and_counted() -> None:
    """A frame takes minutes on the line; the ring keeps the order, so one frame down is behind all up."""
    with wired(Link(up=Impairment(rate=8, limit=10))) as (wire, [pair]):
        lower, upper = pair.sockets()
        with lower, upper:
            for index in range(50):
                lower.sendto(numbered(index, 100), (UPPER, 5000))
            upper.sendto(b"behind them", (LOWER, 5000))
            assert lower.recv(100) == b"behind them"
        report = wire.finish()
    assert (direction(report, "up").frames, direction(report, "up").overflow) == (50, 40)
    assert report.missing == 0


@pytest.mark.lab
def test_links_are_apart() -> None:
    """Every pair has the same addresses; each sees its own frames only."""
    with wired(*(Link() for _ in range(5))) as (wire, pairs):
        sockets = [pair.sockets() for pair in pairs]
        for index, (lower, _) in enumerate(sockets):
            lower.sendto(numbered(index, 10), (UPPER, 5000))
        assert [number(upper.recv(100)) for _, upper in sockets] == list(range(5))
        for pair in sockets:
            for opened in pair:
                opened.close()
        report = wire.finish()
    assert [direction(report, "up", f"cable{index}").frames for index in range(5)] == [1] * 5


def set_down(box: Namespace) -> None:
    with box, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("=16sh14x", DEVICE.encode(), 0))  # SIOCSIFFLAGS, without IFF_UP


@pytest.mark.lab
def test_what_the_kernel_does_not_take_is_counted_by_name() -> None:
    """The ring keeps the order, so a frame of the other link is behind all that were refused."""
    with wired(Link(), Link()) as (wire, [cut, whole]):
        set_down(cut.upper)
        with udp(cut.lower, LOWER) as sender:
            for index in range(3):
                sender.sendto(numbered(index, 10), (UPPER, 5000))
        lower, upper = whole.sockets()
        with lower, upper:
            lower.sendto(b"behind them", (UPPER, 5000))
            assert upper.recv(100) == b"behind them"
        report = wire.finish()
    assert report.refused == {"ENOBUFS": 3}
    assert report.missing == 3


# ---------------------------------------------------------------------------- life and death


def is_over(pidfd: int) -> bool:
    """Wait for the end of a process, as long as a patient person would."""
    return bool(select.select([pidfd], [], [], PATIENCE)[0])


@pytest.mark.lab
def test_a_wire_that_is_killed_is_seen_and_named() -> None:
    with wired(Link()) as (wire, _):
        assert not wire.is_dead
        os.kill(wire.pid, signal.SIGKILL)
        assert is_over(wire.fileno())
        assert wire.is_dead
        with pytest.raises(BrokenError, match=r"^the wire process died \(signal 9\)$"):
            wire.finish()
        assert wire.is_dead


@pytest.mark.lab
def test_a_wire_that_is_interrupted_from_the_terminal_goes_on() -> None:
    with wired(Link()) as (wire, [pair]):
        os.kill(wire.pid, signal.SIGINT)
        lower, upper = pair.sockets()
        with lower, upper:
            lower.sendto(b"still there", (UPPER, 5000))
            assert upper.recv(100) == b"still there"
        assert wire.finish().sent == 1


@pytest.mark.lab
def test_a_wire_that_cannot_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no packet sockets today")

    monkeypatch.setattr(process, "Engine", refuse)
    namespace = new_namespace()
    wire = Wire()
    wire.carry(namespace, cables([Link()]))
    with pytest.raises(BrokenError, match=r"(?s)died \(exit status 1\): .*PermissionError: no packet sockets today$"):
        wire.wait()
    wire.close()
    namespace.close()


@pytest.mark.lab
def test_a_wire_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with wired(Link()) as (wire, _):
        monkeypatch.setattr(child, "_ANSWER_WITHIN", 0.05)
        watching = os.pidfd_open(wire.pid)
        os.kill(wire.pid, signal.SIGSTOP)
        with pytest.raises(BrokenError, match=r"did not answer within 0\.05 s"):
            wire.finish()
        assert is_over(watching)
        os.close(watching)


@pytest.mark.lab
def test_closing_after_stopping_and_closing_twice_do_nothing() -> None:
    with wired(Link()) as (wire, _):
        wire.finish()
        wire.close()
        assert wire.is_dead
        wire.close()


@pytest.mark.lab
def test_a_wire_holds_no_descriptor_that_is_not_its_own() -> None:
    """Beyond the standard three: its end of the pair, its own namespace, and the socket that reads and sends."""
    with wired(Link()) as (wire, _):
        held = [entry for entry in Path(f"/proc/{wire.pid}/fd").iterdir() if int(entry.name) > 2]
        assert sorted(entry.readlink().name.partition(":")[0] for entry in held) == ["net", "socket", "socket"]


@pytest.mark.lab
def test_a_wire_carries_for_one_lab_after_another() -> None:
    """Counts, dice and delays begin anew; what was under way in the lab before is gone."""
    slow, lossy = Link(up=Impairment(delay=SECOND)), Link(up=Impairment(loss=40 * PERCENT))
    arrived, reports = [], []
    with closing(Wire()) as wire:
        for link in (lossy, slow, lossy):
            with wired(link, Link(), wire=wire) as (_, [pair, clean]):
                (lower, upper), (first, last) = pair.sockets(), clean.sockets()
                with lower, upper, first, last:
                    for index in range(50):
                        lower.sendto(numbered(index, 10), (UPPER, 5000))
                    first.sendto(b"behind them", (UPPER, 5000))
                    assert last.recv(100) == b"behind them"
                    upper.setblocking(False)
                    arrived.append([number(data) for data in waiting(upper)])
                reports.append(direction(wire.finish(), "up"))
    assert arrived[0] == arrived[2]
    assert 0 < len(arrived[0]) < 50
    assert arrived[1] == []
    assert reports[0] == reports[2]
    assert [report.frames for report in reports] == [50] * 3


def waiting(opened: socket.socket) -> Iterator[bytes]:
    """What has arrived at a socket that does not block."""
    with suppress(BlockingIOError):
        while True:
            yield opened.recv(2000)


@pytest.mark.lab
def test_a_wire_that_was_left_in_the_middle_is_ended() -> None:
    with closing(Wire()) as wire:
        with wired(Link(), wire=wire):
            assert wire.is_serving
        assert is_over(wire.fileno())


@pytest.mark.lab
def test_a_wire_dies_with_its_parent() -> None:
    reading, writing = os.pipe()
    namespace = new_namespace()
    parent = os.fork()
    if parent == 0:
        try:
            wire = Wire()
            wire.carry(namespace, cables([Link()]))
            wire.wait()
            os.write(writing, struct.pack("=I", wire.pid))
            signal.pause()
        finally:
            os._exit(1)
    (pid,) = struct.unpack("=I", os.read(reading, 4))
    watching = os.pidfd_open(pid)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert is_over(watching)
    for descriptor in (reading, writing, watching):
        os.close(descriptor)
    namespace.close()


@pytest.mark.lab
def test_fates_do_not_depend_on_what_else_is_carried() -> None:
    """The same link and seed beside other links, with other traffic on them: the same frames are lost."""
    lossy = Link(up=Impairment(loss=40 * PERCENT))

    def arrived(*others: Link) -> list[int]:
        with wired(lossy, *others) as (_, [pair, *rest]):
            opened = [p.sockets() for p in (pair, *rest)]
            _, upper = opened[0]
            for index in range(100):
                for other, _ in opened:
                    other.sendto(numbered(index, 50), (UPPER, 5000))
            model = Direction(lossy.up, seeds_of_directions(1)[0])
            count = sum(isinstance(f, Arrival) for i in range(100) for f in model.offer(92, i))
            found = [number(upper.recv(100)) for _ in range(count)]
            for sockets in opened:
                for each in sockets:
                    each.close()
            return found

    assert arrived() == arrived(lossy, Link())


@pytest.mark.lab
def test_a_change_is_for_frames_that_come_after_it() -> None:
    """What was sent before it keeps its delay and its fate, though it has not arrived yet; the dice go on."""
    slow, lossy = Link(up=Impairment(delay=50 * MS)), Link(up=Impairment(loss=40 * PERCENT))
    model = Direction(slow.up, seeds_of_directions(1)[0], varies=True)
    expected = [index for index in range(20) if isinstance(model.offer(92, index)[0], Arrival)]
    model.change(lossy.up)
    expected = [i for i in range(20, 60) if isinstance(model.offer(92, i)[0], Arrival)] + expected
    with wired(slow) as (wire, [pair]):
        lower, upper = pair.sockets()
        for index in range(20):
            lower.sendto(numbered(index, 50), (UPPER, 5000))
        wire.change("cable0", lossy)
        for index in range(20, 60):
            lower.sendto(numbered(index, 50), (UPPER, 5000))
        assert [number(upper.recv(100)) for _ in expected] == expected
        lower.close()
        upper.close()


@pytest.mark.lab
def test_a_wire_that_has_died_takes_no_orders() -> None:
    with wired(Link(up=Impairment(delay=MS))) as (wire, _):
        os.kill(wire.pid, signal.SIGKILL)
        with pytest.raises(BrokenError, match=r"the wire process died \(signal 9\)"):
            wire.change("cable0", Link())
