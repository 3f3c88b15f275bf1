"""Every packet of a namespace, through one packet socket: what captures and wires are made of.

Rule 1: one socket sees every device of the namespace in which it was opened; the kernel says of each packet which
        device it was on, whether it came in or went out, and when. A socket for each device would cost more to make,
        and far more to close: the kernel waits for a grace period, 16 ms, at each (packet_release, synchronize_net).
Rule 2: no memory-mapped ring, which costs a grace period when it is made and one more when it goes, and megabytes
        that the kernel must clear. Packets are read up to `AT_ONCE` in one system call (recvmmsg) instead.
Rule 3: what found no room says so (`drops`), for as long as the tap lives.

Layouts: recvmmsg(2), linux/if_packet.h (struct sockaddr_ll), cmsg(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from testbed.lab.clocks import monotonic_shift
from testbed.lab.namespaces import libc

AT_ONCE = 64
ROOM = 4 << 20
"""Bytes of packets that may wait to be read, with what the kernel needs around each (0.8 KB for a small one, 2.3 KB for
one of 1,200 bytes); without root the kernel gives a tenth (net.core.rmem_max)."""
OUTGOING = 4
"""Packet type of what this namespace sends (PACKET_OUTGOING)."""
_SOL_PACKET = 263
_PACKET_STATISTICS, _PACKET_QDISC_BYPASS, _PACKET_IGNORE_OUTGOING = 6, 20, 23
_SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 35, 33
_EVERY_PROTOCOL = 3  # ETH_P_ALL
_MESSAGE = struct.Struct("@PIxxxxPNPNixxxxIxxxx")
"""struct mmsghdr: address, its length, vector, its length, ancillary data, its length, flags; bytes received."""
_RECEIVED_AT = _MESSAGE.size - 8
_VECTOR = struct.Struct("@PN")
_ADDRESS = struct.Struct("=HHiHBB8x")
_ANCILLARY = 64
_STAMP = struct.Struct("@NiiLL")
"""struct cmsghdr (length, level, type) and struct timespec."""


class Packet(NamedTuple):
    """One packet as it crossed a device."""

    time: int
    """Nanoseconds of CLOCK_MONOTONIC."""
    interface: int
    """The device's index in the tap's namespace."""
    kind: int
    """How it was addressed: 0 to us, 1 broadcast, 2 multicast, 3 to somebody else, 4 outgoing (linux/if_packet.h)."""
    length: int
    """Bytes that it had on the device; more than `len(data)` where it is larger than what the tap reads."""
    data: bytes


class Tap:
    """A tap on the namespace that the calling thread is in; it can also send.

    `largest`: bytes of the largest frame that is read whole. `outgoing`: whether what the namespace sends is seen too.
    `past_qdisc`: whether what it sends itself goes past the device's qdisc, and with it past other taps.
    """

    def __init__(
        self, *, largest: int = 1514, room: int = ROOM, outgoing: bool = True, past_qdisc: bool = True
    ) -> None:
        self._largest = largest
        self._drops = 0
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            option = self.socket.setsockopt
            option(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, int(not outgoing))
            option(_SOL_PACKET, _PACKET_QDISC_BYPASS, int(past_qdisc))
            option(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            option(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            with suppress(PermissionError):
                option(socket.SOL_SOCKET, _SO_RCVBUFFORCE, room)
            self._make_messages()
            _bind_to_every_device(self.socket)
        except BaseException:
            self.socket.close()
            raise

    def _make_messages(self) -> None:
        """Where the kernel writes: a header, an address, ancillary data and a frame for each packet of a call."""
        self._frames = ctypes.create_string_buffer(AT_ONCE * self._largest)
        self._addresses = ctypes.create_string_buffer(AT_ONCE * _ADDRESS.size)
        self._ancillary = ctypes.create_string_buffer(AT_ONCE * _ANCILLARY)
        frames, addresses, ancillary = map(ctypes.addressof, (self._frames, self._addresses, self._ancillary))
        vectors = (_VECTOR.pack(frames + n * self._largest, self._largest) for n in range(AT_ONCE))
        self._vectors = ctypes.create_string_buffer(b"".join(vectors))
        at = ctypes.addressof(self._vectors)
        self._fresh = b"".join(
            _MESSAGE.pack(
                addresses + n * _ADDRESS.size,
                _ADDRESS.size,
                at + n * _VECTOR.size,
                1,
                ancillary + n * _ANCILLARY,
                _ANCILLARY,
                0,
                0,
            )
            for n in range(AT_ONCE)
        )
        self._messages = ctypes.create_string_buffer(self._fresh, len(self._fresh))
        self._view = memoryview(self._frames).cast("B")

    def close(self) -> None:
        """Give it back; the kernel waits for a grace period. Twice does nothing."""
        self.socket.close()

    def fileno(self) -> int:
        """Readable when a packet waits."""
        return self.socket.fileno()

    def read(self, most: int = AT_ONCE) -> list[Packet]:
        """Up to `most` packets that wait, the oldest first; never more than `AT_ONCE`. Raises OSError."""
        ctypes.memmove(self._messages, self._fresh, len(self._fresh))
        count = _recvmmsg(self.fileno(), ctypes.addressof(self._messages), min(most, AT_ONCE), socket.MSG_TRUNC, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(number, f"reading packets: {os.strerror(number)}")
        found, view, largest, shift = [], self._view, self._largest, monotonic_shift()
        for n in range(count):
            (length,) = _LENGTH.unpack_from(self._messages, n * _MESSAGE.size + _RECEIVED_AT)
            _, _, interface, _, kind, _ = _ADDRESS.unpack_from(self._addresses, n * _ADDRESS.size)
            _, _, _, seconds, nanoseconds = _STAMP.unpack_from(self._ancillary, n * _ANCILLARY)
            start = n * largest
            data = bytes(view[start : start + min(length, largest)])
            found.append(Packet(seconds * 1_000_000_000 + nanoseconds + shift, interface, kind, length, data))
        return found

    def send(self, address: bytes, frame: bytes) -> int:
        """Send a frame by the device of an `address_of`; 0, or the number of the kernel's error."""
        if _sendto(self.fileno(), frame, len(frame), 0, address, _ADDRESS.size) < 0:
            return ctypes.get_errno()
        return 0

    def drops(self) -> int:
        """Packets that found no room, since it was made (PACKET_STATISTICS, which resets itself)."""
        _, drops = struct.unpack("=II", self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._drops += drops
        return self._drops


def address_of(device: int) -> bytes:
    """Where a frame goes that is to leave by a device, which need not exist yet."""
    return _ADDRESS.pack(socket.AF_PACKET, 0, device, 0, 0, 0)


_LENGTH = struct.Struct("@I")
_sendto = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
    use_errno=True,
)(("sendto", libc))
_recvmmsg = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, use_errno=True
)(("recvmmsg", libc))


def _bind_to_every_device(sock: socket.socket) -> None:
    # Python's bind wants a device's name; a socket that is born with its protocol hears every device, but then also
    # what comes before its options are set. struct sockaddr_ll by the C library instead.
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(_EVERY_PROTOCOL), 0, 0, 0, 0)
    if libc.bind(sock.fileno(), address, len(address)) != 0:
        raise OSError(ctypes.get_errno(), "bind of a packet socket")
