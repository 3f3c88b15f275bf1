"""Packets of a whole namespace through one memory-mapped ring (AF_PACKET, TPACKET_V2).

Rule 1: one socket sees every device of the namespace in which it was opened; the kernel says of each packet which
        device it was on and whether it came in or went out. A socket for each device would cost more to make, and
        far more to close: the kernel waits for a grace period at each (packet_release, synchronize_net).
Rule 2: reading is memory access, no system call a packet. A slot is given back as soon as its bytes are copied.
Rule 3: a ring that overflowed says so (`drops`), for as long as it lives.

Layout: linux/if_packet.h, struct tpacket2_hdr; a sockaddr_ll follows it at the next multiple of 16.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from typing import NamedTuple

from testbed.lab.clocks import monotonic_shift
from testbed.lab.namespaces import libc

_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_PACKET_QDISC_BYPASS, _PACKET_IGNORE_OUTGOING = 20, 23
_TPACKET_V2 = 1
_EVERY_PROTOCOL = 3  # ETH_P_ALL
_STATUS_USER = 1
_HEADER = struct.Struct("=IIIHHII8xHHi HBB")
"""status, length, captured length, mac, net, seconds, nanoseconds, …, family, protocol, interface, …, packet type, …"""
_ADDRESS_AT = 32
_OVERHEAD = 128
"""More than what the kernel puts before a frame's first byte in its slot."""
_BLOCK = 1 << 16
OUTGOING = 4
"""Packet type of what this namespace sends (PACKET_OUTGOING)."""


class Packet(NamedTuple):
    """One packet as it crossed a device."""

    time: int
    """Nanoseconds of CLOCK_MONOTONIC."""
    interface: int
    """The device's index in the ring's namespace."""
    kind: int
    """How it was addressed: 0 to us, 1 broadcast, 2 multicast, 3 to somebody else, 4 outgoing (linux/if_packet.h)."""
    length: int
    """Bytes that it had on the device; more than `len(data)` where the slot was too small."""
    data: bytes


class Ring:
    """A ring of the namespace that the calling thread is in.

    `largest`: bytes of the largest frame that must fit; `slots`: how many packets may wait.
    """

    def __init__(self, *, largest: int = 1514, slots: int = 512, outgoing: bool = True) -> None:
        self._frame = 1 << (largest + _OVERHEAD - 1).bit_length()
        block = max(_BLOCK, self._frame)
        blocks = max(1, slots * self._frame // block)
        self._size = blocks * block
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            option = self.socket.setsockopt
            option(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            option(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, int(not outgoing))
            option(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
            slots_made = blocks * (block // self._frame)
            _set_ring(self.socket, struct.pack("=IIII", block, blocks, self._frame, slots_made))
            self.memory = mmap.mmap(self.socket.fileno(), self._size)
            self._at = 0
            self._drops = 0
            _bind_to_every_device(self.socket)
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Give everything back; the kernel may take some milliseconds."""
        self.memory.close()
        self.socket.close()

    def fileno(self) -> int:
        """Readable when a packet waits."""
        return self.socket.fileno()

    def read(self, most: int) -> list[Packet]:
        """Up to `most` packets that wait, the oldest first."""
        memory, at = self.memory, self._at
        if not memory[at] & _STATUS_USER:
            return []
        found, frame, size = [], self._frame, self._size
        unpack, shift = _HEADER.unpack_from, monotonic_shift()
        for _ in range(most):
            status, length, captured, mac, _, sec, nsec, _, _, interface, _, kind, _ = unpack(memory, at)
            if not status & _STATUS_USER:
                break
            start = at + mac
            found.append(
                Packet(sec * 1_000_000_000 + nsec + shift, interface, kind, length, memory[start : start + captured])
            )
            memory[at : at + 4] = _TO_KERNEL
            at += frame
            if at == size:
                at = 0
        self._at = at
        return found

    def drops(self) -> int:
        """Packets that found the ring full, since it was made (PACKET_STATISTICS, which resets itself)."""
        _, drops = struct.unpack("=II", self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._drops += drops
        return self._drops


_TO_KERNEL = bytes(4)


def _set_ring(sock: socket.socket, request: bytes) -> None:
    # The kernel waits for a grace period here (packet_set_ring, synchronize_net), 10 ms and more. The C library's
    # call, unlike Python's, lets other threads run meanwhile: several rings then wait for one and the same period.
    if libc.setsockopt(sock.fileno(), _SOL_PACKET, _PACKET_RX_RING, request, len(request)) != 0:
        raise OSError(ctypes.get_errno(), "ring of a packet socket")


def _bind_to_every_device(sock: socket.socket) -> None:
    # Python's bind wants a device's name; a socket that is born with its protocol hears every device, but then the
    # ring would be made while it is running. struct sockaddr_ll by the C library instead.
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(_EVERY_PROTOCOL), 0, 0, 0, 0)
    if libc.bind(sock.fileno(), address, len(address)) != 0:
        raise OSError(ctypes.get_errno(), "bind of a packet socket")
