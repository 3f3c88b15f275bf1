"""How long a NAT remembers: lifetimes, who refreshes them, and what a restart leaves.

Rule 1: the declared lifetime is read from the timer of the kernel, or of the userspace engine, just after a packet
        that sets it. That the timer means what it says is tried in a copy of the profile that lives so briefly that
        one can wait for it.
Rule 2: waiting for a timer is the one wait here. If this process was held up meanwhile, its moments are not those that
        were meant; the measurement is void, and made with a lifetime twice as long. `how` says which one it was.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from contextlib import ExitStack
from typing import NamedTuple

from testbed.certify import judgement
from testbed.certify.rows import PHASES, STARTS_ANEW, Seen
from testbed.certify.stage import Stage
from testbed.certify.subject import HOSTS, SERVER
from testbed.datagram import Endpoint
from testbed.errors import BrokenError
from testbed.lab.nftables.upkeep import exactness
from testbed.spec.profile import SECOND, BlockAllocation
from testbed.units import format_duration, seconds

BRIEF = 1_500_000_000
"""The lifetime of the copy; in whole seconds, as connection tracking counts, one."""
PORT, CLOSED = 5000, 4321
_TRIES = 3


class Aged(NamedTuple):
    """What is left of mappings after more than their lifetime."""

    idle: bool
    sent: bool
    """Of the one whose host has sent in between."""
    received: bool
    """Of the one whose remote has."""
    in_between: bool
    """Whether a mapping was alive in between."""


def lifetime_of_datagrams(stage: Stage) -> dict[str, Seen]:
    """RFC 4787 §4.3: the timer of a mapping, and which direction sets it again."""
    stage.start()
    before = time.monotonic_ns()
    out = stage.out(stage.host(_port(stage)), stage.remote(PORT))
    left, elapsed = stage.time_left("udp"), time.monotonic_ns() - before
    declared = stage.profile.udp_timeout
    timer = judgement.NOTHING
    if out is not None and left:
        timer = judgement.lifetime_of(declared, max(left), elapsed, exactness(stage.made))
    brief = BRIEF if stage.has_own_table or stage.is_firewall else SECOND
    brief, aged = _age(stage, brief)
    lives = f"a copy of {format_duration(brief)}: alive at 60 %, gone at 130 %"
    if aged.idle or not aged.in_between:
        timer += f", and a mapping of {format_duration(brief)} is {'still there' if aged.idle else 'gone too soon'}"
    return {
        "udp_timeout": Seen(timer, f"{stage.timer}, read after a packet; {lives}"),
        "refresh": Seen(
            judgement.refresh_of(aged.sent, aged.received),
            f"a copy of {format_duration(brief)}: a packet of each direction at 60 %, alive at 130 %",
        ),
    }


def lifetime_of_connections(stage: Stage) -> dict[str, Seen]:
    """RFC 5382 REQ-5, RFC 7857 §2: the timers of connections that open, are open, close, and were reset."""
    stage.silence_resets()
    timers = stage.profile.tcp_timeout
    seen = {"established": Seen(*_of_connection(stage, timers.established, "established"))}
    for phase in PHASES:
        if phase in timers.own:
            seen[phase] = Seen(*_of_connection(stage, timers.own[phase], phase))
        elif "transitory" not in seen:
            seen["transitory"] = Seen(*_of_connection(stage, timers.transitory, phase))
    return {f"tcp_timeout.{name}": what for name, what in seen.items()}


def _of_connection(stage: Stage, declared: int, phase: str) -> tuple[str, str]:
    """What the timer of a connection in this phase shows, and how it was measured."""
    stage.start()
    own, there = Endpoint(str(stage.inside[0]), _port(stage)), Endpoint(stage.servers[0], PORT)
    with ExitStack() as scope:
        client = scope.enter_context(stage.tcp(HOSTS[0], own))
        before = time.monotonic_ns()
        if phase == "partially_open":
            client.setblocking(False)
            client.connect_ex(Endpoint(stage.servers[1], CLOSED))
            stage.settle()
            return _timer(stage, declared, before), f"{stage.timer}, read after a SYN that nobody answers"
        listener = scope.enter_context(stage.tcp(SERVER, there))
        listener.listen()
        client.connect(there)
        connection, _ = listener.accept()
        scope.enter_context(connection)
        before = time.monotonic_ns()
        after = "the first byte of a connection"
        if phase == "established":
            client.sendall(b"x")
            connection.settimeout(5)
            connection.recv(1)
        elif phase == "closing":
            client.shutdown(socket.SHUT_WR)
            after = "the first FIN of a connection"
        else:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            after = "the RST that ends a connection"
        stage.settle()
        return _timer(stage, declared, before), f"{stage.timer}, read after {after}"


def blocks_returned(stage: Stage) -> dict[str, Seen]:
    """A block is given when it is needed, and taken back when its last mapping has ended."""
    first, size = stage.profile.ports.range[0], stage.profile.ports.block or 0
    ports = stage.made.ports.model_copy(update={"range": (first, first + size - 1), "preserve": False, "parity": False})
    brief = BRIEF
    for _ in range(_TRIES):
        stage.start(stage.made.model_copy(update={"ports": ports, "udp_timeout": brief, "external_addresses": 1}))
        one, other, remote = stage.host(6000, 0), stage.host(6000, 1), stage.remote(PORT)
        began = time.monotonic_ns()
        has_it, waits = stage.out(one, remote) is not None, stage.out(other, remote) is None
        asked = time.monotonic_ns()
        _wait_until(began + brief * 13 // 10)
        gets_it = stage.out(other, remote) is not None
        if asked < began + brief * 9 // 10:
            break
        brief *= 2
    else:
        raise BrokenError(f"this machine is too busy to wait for a timer of {format_duration(brief)}")
    how = f"a copy with one block and a lifetime of {format_duration(brief)}: whether a second host gets it afterwards"
    if not has_it:
        return {"ports.block_allocation": Seen(judgement.NOTHING, how)}
    observed = BlockAllocation.DYNAMIC.value if waits and gets_it else "never back" if waits else "shared"
    return {"ports.block_allocation": Seen(observed, how)}


def restarted(stage: Stage) -> dict[str, Seen]:
    """A mapping of before is gone, and a new one works."""
    stage.start()
    host, remote = stage.host(_port(stage)), stage.remote(PORT)
    before = stage.out(host, remote)
    worked = stage.admits(remote, before)
    stage.start()
    host, remote = stage.host(_port(stage)), stage.remote(PORT)
    is_gone = not stage.admits(remote, before)
    works = stage.admits(remote, stage.out(host, remote))
    how = stage.anew
    if not worked or not works:
        return {"restart": Seen(judgement.NOTHING, how)}
    return {"restart": Seen(STARTS_ANEW if is_gone else "a mapping outlives it", how)}


def _age(stage: Stage, brief: int) -> tuple[int, Aged]:
    """Of three mappings one is left alone, of one the host sends, of one the remote does; then which are there.

    Also the lifetime that could be waited for.
    """
    for _ in range(_TRIES):
        stage.start(stage.made.model_copy(update={"udp_timeout": brief}))
        remote = stage.remote(PORT)
        hosts = [stage.host(_port(stage) + 2 * number) for number in range(3)]
        began = time.monotonic_ns()
        idle, sent, received = (stage.out(host, remote) for host in hosts)
        _wait_until(began + brief * 6 // 10)
        in_between = stage.admits(remote, received)
        stage.out(hosts[1], remote)
        refreshed = time.monotonic_ns()
        _wait_until(began + brief * 13 // 10)
        aged = Aged(stage.admits(remote, idle), stage.admits(remote, sent), stage.admits(remote, received), in_between)
        ended = time.monotonic_ns()
        if refreshed < began + brief * 9 // 10 and ended < began + brief * 15 // 10:
            return brief, aged
        brief *= 2
    raise BrokenError(f"this machine is too busy to wait for a timer of {format_duration(brief)}")


def _timer(stage: Stage, declared: int, before: int) -> str:
    left = stage.time_left("tcp")
    if not left:
        return judgement.NOTHING
    return judgement.lifetime_of(declared, max(left), time.monotonic_ns() - before, exactness(stage.made))


def _wait_until(moment: int) -> None:
    if (left := moment - time.monotonic_ns()) > 0:
        select.select([], [], [], seconds(left))


def _port(stage: Stage) -> int:
    return stage.block(0)[0] + 33
