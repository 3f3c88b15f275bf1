"""Rules that are told to forget while packets pass them as fast as they can: afterwards the NAT works as a new one.

(tests/nat/test_kernel_events.py says what they do; here is that no packet meets half of it.)
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from testbed.lab.nftables.prepare import prepare
from testbed.lab.nftables.running import RunningRules
from testbed.spec.event import Change
from testbed.spec.kinds import kind
from tests.lab.nftables.bench import EXTERNAL, bench

pytestmark = pytest.mark.lab

TIMES = 40


@contextmanager
def flood(sender: socket.socket, targets: Sequence[tuple[str, int]]) -> Iterator[None]:
    """A process that sends until the end, on another CPU where there is one."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setaffinity(0, {max(range(os.cpu_count() or 1))})
        finally:
            os.write(writing, b"+")
        while True:
            for target in targets:
                sender.sendto(b"flooding", target)
    try:
        os.read(reading, 1)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("change", [Change.FLUSH, Change.RESTART])
@pytest.mark.parametrize("name", ["eim-apdf-random", "apdm-apdf", "eim-eif"])
def test_no_packet_meets_half_of_it(name: str, change: Change) -> None:
    profile = kind(name)
    assert profile is not None
    with bench(profile) as b, closing(RunningRules(prepare(b.translation), (), 1)) as rules:
        host, remotes = b.host(5000), [b.remote(7000), b.remote(7000, 1)]
        b.out(host, remotes[0])
        for _ in range(TIMES):
            with flood(host, [remote.getsockname() for remote in remotes]), b.nat:
                rules.restart() if change is Change.RESTART else rules.flush()
            b.drain()
            external = b.out(host, remotes[0])
            assert external.host == str(EXTERNAL)
            assert b.admits(remotes[0], external)


def test_a_new_address_is_all_of_it_too() -> None:
    profile = kind("apdm-apdf")
    assert profile is not None
    addresses = [EXTERNAL + 1 + number for number in range(TIMES)]
    with bench(profile) as b:
        later = [prepare(replace(b.translation, external=(address,))) for address in addresses]
        with closing(RunningRules(prepare(b.translation), later, 1)) as rules:
            host, remote = b.host(5000), b.remote(7000)
            for address in addresses:
                with flood(host, [remote.getsockname()]), b.nat:
                    rules.change_address([address])
                b.drain()
                assert b.out(host, remote).host == str(address)
