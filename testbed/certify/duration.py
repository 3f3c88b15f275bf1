"""How long a NAT remembers: lifetimes, who refreshes them, and what a restart leaves.

Rule 1: the declared lifetime is read from the kernel's own timer, just after a packet that sets it. That the timer
        means what it says is tried in a copy of the profile that lives so briefly that one can wait for it.
Rule 2: waiting for a timer is the one wait here. If this process was held up meanwhile, its moments are not those that
        were meant; the measurement is void, and made with a lifetime twice as long. `how` says which one it was.
"""

from __future__ import annotations

import select
import time
from typing import NamedTuple

from testbed.certify import judgement
from testbed.certify.rows import STARTS_ANEW, Seen
from testbed.certify.stage import Stage
from testbed.certify.subject import HOSTS, SERVER
from testbed.datagram import Endpoint
from testbed.errors import BrokenError
from testbed.lab.nftables.upkeep import exactness
from testbed.spec.profile import SECOND
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
        "udp_timeout": Seen(timer, f"the kernel's timer, read after a packet; {lives}"),
        "refresh": Seen(
            judgement.refresh_of(aged.sent, aged.received),
            f"a copy of {format_duration(brief)}: a packet of each direction at 60 %, alive at 130 %",
        ),
    }


def lifetime_of_connections(stage: Stage) -> dict[str, Seen]:
    """RFC 5382 REQ-5: the timers of a connection that is opening, and of one that is open."""
    stage.silence_resets()
    timers = stage.profile.tcp_timeout
    own = Endpoint(str(stage.inside[0]), _port(stage))
    stage.start()
    with stage.tcp(HOSTS[0], own) as client:
        client.setblocking(False)
        before = time.monotonic_ns()
        client.connect_ex(Endpoint(stage.servers[1], CLOSED))
        stage.settle()
        transitory = _timer(stage, timers.transitory, before)
    stage.start()
    there = Endpoint(stage.servers[0], PORT)
    with stage.tcp(SERVER, there) as listener, stage.tcp(HOSTS[0], own) as client:
        listener.listen()
        client.connect(there)
        connection, _ = listener.accept()
        with connection:
            before = time.monotonic_ns()
            client.sendall(b"x")
            connection.settimeout(5)
            connection.recv(1)
            stage.settle()
            established = _timer(stage, timers.established, before)
    return {
        "tcp_timeout.established": Seen(established, "the kernel's timer, read after the first byte of a connection"),
        "tcp_timeout.transitory": Seen(transitory, "the kernel's timer, read after a SYN that nobody answers"),
    }


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
    how = "rules and connections are removed, and the same rules come again"
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
