"""The explicit engine's path of a packet, beside the kernel's plain masquerade: packets, TCP and new flows.

Rule 1: one NAT between two namespaces, everything on one CPU: a packet crosses in the softirq of its sender, so time is
        what the path costs.
Rule 2: what arrives is counted: a packet that was dropped has cost less.
Rule 3: a share is masquerade's time by ours, of the same round.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.paired import Rounds, said, take_turns
from testbed.lab.namespaces import libc
from testbed.lab.nftables.prepare import load_text
from testbed.spec.load import load_profile
from tests.lab.nftables.bench import HOSTS, REMOTES, Bench, bench

PLAIN = "masquerade"
KINDS = ("eim-apdf", "apdm-apdf", "eim-eif")
MASQUERADE = """
delete table ip testbed
table ip plain {
  chain leaving {
    type nat hook postrouting priority 100; policy accept;
    oifname "wan0" masquerade
  }
}
"""
AT_ONCE = 64
PAYLOAD = bytes(22)
"""With its headers a frame of 64 bytes."""
PACKETS, FLOWS, STREAM = 25_600, 16_000, 128 << 20
_MAC = {"lan0": bytes.fromhex("020000000001"), "eth0": bytes.fromhex("020000000002")}
_MESSAGE = struct.Struct("@PIxxxxPNPNixxxxI4x")
_VECTOR = struct.Struct("@PN")


def main(rounds: int = 15) -> int:
    """Print the shares; how many promises were missed."""
    missed = 0
    for what, least, subject in (
        ("packets a second, one flow of 64 bytes", 0.80, _packets),
        ("TCP throughput, one stream", 0.85, _stream),
        ("new flows a second", 0.65, _flows),
    ):
        with ExitStack() as scope:
            subjects = {name: subject(name, scope) for name in (PLAIN, *KINDS)}
            found = take_turns(subjects, rounds)
        missed += _show(what, least, found)
    return missed


def _show(what: str, least: float, found: Rounds) -> int:
    print(f"{what}: {PLAIN} {said(found.median(PLAIN), 'ms')} a round, n={found.n}")
    missed = 0
    for kind in KINDS:
        share = found.ratio(PLAIN, kind)
        assert share.value is not None
        is_kept = share.value >= least
        missed += not is_kept
        print(
            f"  {kind:<12} {said(share, 'of it', 2)}  promised {least:g}: {'kept' if is_kept else 'MISSED'}", flush=True
        )
    return missed


@contextmanager
def _nat(kind: str) -> Iterator[Bench]:
    with bench(load_profile("eim-apdf" if kind == PLAIN else kind)) as made:
        if kind == PLAIN:
            with made.nat:
                load_text(MASQUERADE)
        yield made


# ---------------------------------------------------------------------------- subjects


def _packets(kind: str, scope: ExitStack) -> Callable[[], float]:
    """Datagrams of one flow, as fast as the kernel takes them."""
    made = scope.enter_context(_nat(kind))
    host, remote = made.host(5000), made.remote(7000)
    assert made.send(host, remote.getsockname()) is not None
    host.connect(remote.getsockname())
    burst = _Burst([PAYLOAD] * AT_ONCE)

    def run() -> float:
        before = _arrived(made)
        start = time.perf_counter_ns()
        for _ in range(PACKETS // AT_ONCE):
            burst.send(host)
        took = time.perf_counter_ns() - start
        assert _arrived(made) - before == PACKETS, f"{kind}: packets were lost"
        return took / 1e6

    return run


def _flows(kind: str, scope: ExitStack) -> Callable[[], float]:
    """Datagrams each of which is a new flow, for a NAT that is new each time."""
    del scope

    def run() -> float:
        with _nat(kind) as made, ExitStack() as scope:
            made.send(made.host(1999), made.remote(7000).getsockname())  # so that the neighbours are known
            with made.inside:
                raw = scope.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            raw.bind(("eth0", 0))
            bursts = [
                _Burst([_frame(number) for number in range(first, first + AT_ONCE)])
                for first in range(0, FLOWS, AT_ONCE)
            ]
            before = _arrived(made)
            start = time.perf_counter_ns()
            for burst in bursts:
                burst.send(raw)
            took = time.perf_counter_ns() - start
            assert _arrived(made) - before == FLOWS, f"{kind}: packets were lost"
            return took / 1e6

    return run


def _stream(kind: str, scope: ExitStack) -> Callable[[], float]:
    """One connection that carries so many bytes."""
    made = scope.enter_context(_nat(kind))
    listener = made.tcp(made.outside, (REMOTES[0], 8000))
    listener.listen()
    sink = os.fork()
    if sink == 0:
        _sink(listener)
    scope.callback(os.waitpid, sink, 0)
    client = scope.enter_context(made.tcp(made.inside, (HOSTS[0], 6000)))
    client.connect((REMOTES[0], 8000))
    block = bytes(1 << 20)

    def run() -> float:
        start = time.perf_counter_ns()
        for _ in range(STREAM // len(block)):
            client.sendall(block)
        client.recv(1)
        return (time.perf_counter_ns() - start) / 1e6

    return run


def _sink(listener: socket.socket) -> None:
    """Read all, and say so after each `STREAM` bytes."""
    try:
        accepted, _ = listener.accept()
        buffer, left = bytearray(1 << 20), STREAM
        while count := accepted.recv_into(buffer, min(left, len(buffer))):
            left -= count
            if not left:
                accepted.send(b".")
                left = STREAM
    finally:
        os._exit(0)


# ---------------------------------------------------------------------------- packets


class _Burst:
    """Messages that one sendmmsg(2) sends, any number of times."""

    def __init__(self, payloads: list[bytes]) -> None:
        self._buffers = [ctypes.create_string_buffer(payload, len(payload)) for payload in payloads]
        vectors = b"".join(_VECTOR.pack(ctypes.addressof(buffer), len(buffer)) for buffer in self._buffers)
        self._vectors = ctypes.create_string_buffer(vectors, len(vectors))
        at = ctypes.addressof(self._vectors)
        messages = b"".join(_MESSAGE.pack(0, 0, at + n * _VECTOR.size, 1, 0, 0, 0, 0) for n in range(len(payloads)))
        self._messages = ctypes.create_string_buffer(messages, len(messages))

    def send(self, sock: socket.socket) -> None:
        sent: int = libc.sendmmsg(sock.fileno(), self._messages, len(self._buffers), 0)
        assert sent == len(self._buffers), os.strerror(ctypes.get_errno())


def _frame(number: int) -> bytes:
    """A datagram from a port that no other one has."""
    source, target = socket.inet_aton(HOSTS[0]), socket.inet_aton(REMOTES[0])
    udp = struct.pack("!HHHH", 2000 + number, 7000, 8 + len(PAYLOAD), 0) + PAYLOAD
    pseudo = source + target + struct.pack("!BBH", 0, 17, len(udp))
    udp = udp[:6] + struct.pack("!H", _checksum(pseudo + udp)) + udp[8:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), number, 0, 64, 17, 0) + source + target
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    return _MAC["lan0"] + _MAC["eth0"] + b"\x08\x00" + head + udp


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _arrived(made: Bench) -> int:
    """Packets that the outside has received."""
    with made.outside, open("/proc/thread-self/net/dev") as file:
        line = next(line for line in file if line.strip().startswith("eth0:"))
    return int(line.split(":")[1].split()[1])


if __name__ == "__main__":
    sys.exit(main())
