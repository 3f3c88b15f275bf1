"""The kernel's netfilter netlink, in bytes: attributes, dumps, and batches that are one transaction.

Rule 1: nothing here knows what a rule means; attributes are numbers (linux/netfilter/nf_tables.h) and bytes.
Rule 2: a batch travels in one system call: the kernel carries out what is between its begin and its end as one
        transaction (nfnetlink.c), and a second call would be a second one.
Rule 3: the kernel answers while we send; when the call returns, every answer is there. So nothing waits.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from testbed.errors import BrokenError, MachineError

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NETLINK_NETFILTER = 12
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_BEGIN, _END = 0x10, 0x11
_NFTABLES = 10
_TYPE_MASK = 0x3FFF
"""The upper bits of an attribute's number say that it is nested, or in network byte order."""
NESTED = 0x8000
GENERIC = 4
"""Bytes of struct nfgenmsg, before the attributes."""
FAMILY_IPV4 = 2


class Attribute(NamedTuple):
    """One attribute of a message."""

    kind: int
    value: bytes


def attributes(data: bytes) -> Iterator[Attribute]:
    """The attributes that `data` consists of."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            raise BrokenError("a netlink attribute without a length")
        yield Attribute(kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length])
        at += length + -length % 4


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def text(value: str) -> bytes:
    """A string as the kernel has it."""
    return value.encode() + b"\0"


class Request(NamedTuple):
    """One message of a batch: which command, with what flags, and its attributes."""

    command: int
    flags: int
    body: bytes


def batch(requests: Iterable[Request]) -> bytes:
    """The bytes of a transaction on nf_tables. The last request is acknowledged, which means that all is done."""
    listed = list(requests)
    marker = struct.pack(">BBH", 0, 0, _NFTABLES)
    parts = [HEADER.pack(HEADER.size + len(marker), _BEGIN, _REQUEST, 0, 0) + marker]
    generic = struct.pack(">BBH", FAMILY_IPV4, 0, 0)
    for number, request in enumerate(listed, 1):
        flags = request.flags | _REQUEST | (_ACK if number == len(listed) else 0)
        length = HEADER.size + len(generic) + len(request.body)
        parts.append(HEADER.pack(length, _NFTABLES << 8 | request.command, flags, number, 0) + generic + request.body)
    parts.append(HEADER.pack(HEADER.size + len(marker), _END, _REQUEST, len(listed) + 1, 0) + marker)
    return b"".join(parts)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence number, body) of each message in what was received or will be sent."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, at)
        yield kind, sequence, data[at + HEADER.size : at + length]
        at += length + -length % 4


class Netfilter:
    """A netlink socket to netfilter of the namespace that the thread is in now."""

    def __init__(self) -> None:
        try:
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        except OSError as error:
            raise MachineError(
                f"the kernel has no netfilter netlink ({error.strerror})", mend="sudo modprobe nfnetlink"
            ) from error
        self.socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self.socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def send(self, data: bytes | bytearray) -> None:
        """Carry out a batch. Raises MachineError or BrokenError with the kernel's reason; then nothing is changed."""
        self._make_room(len(data))
        self.socket.sendto(data, (0, 0))
        acknowledged = 0
        for kind, sequence, body in self._answers():
            if kind != _ERROR:
                continue
            if number := -struct.unpack_from("=i", body)[0]:
                raise _refusal(number, _words(body), data, sequence)
            acknowledged += 1
        if not acknowledged:
            raise BrokenError("the kernel did not acknowledge the rules")

    def ask(self, subsystem: int, command: int, body: bytes, *, family: int = 0, resource: int = 0) -> None:
        """Carry out one command of another subsystem. Raises MachineError or BrokenError."""
        generic = struct.pack(">BBH", family, 0, resource)
        length = HEADER.size + len(generic) + len(body)
        header = HEADER.pack(length, subsystem << 8 | command, _REQUEST | _ACK, 1, 0)
        self.socket.sendto(header + generic + body, (0, 0))
        for kind, _, answer in self._answers():
            if kind == _ERROR and (number := -struct.unpack_from("=i", answer)[0]):
                raise _refusal(number, _words(answer), header, 0)

    def dump(self, command: int, body: bytes = b"", *, subsystem: int = _NFTABLES) -> Iterator[bytes]:
        """Every object that a command lists, of nf_tables unless said, as its attributes."""
        length = HEADER.size + GENERIC + len(body)
        generic = struct.pack(">BBH", FAMILY_IPV4, 0, 0)
        header = HEADER.pack(length, subsystem << 8 | command, _REQUEST | _DUMP, 1, 0)
        self.socket.sendto(header + generic + body, (0, 0))
        while True:
            for kind, _, answer in messages(self.socket.recv(1 << 17)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise _refusal(-struct.unpack_from("=i", answer)[0], _words(answer), header, 0)
                yield answer[GENERIC:]

    def make_room_for_answers(self, size: int) -> None:
        """Let so many bytes wait to be read, or as many as the machine allows (net.core.rmem_max)."""
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except PermissionError:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def _make_room(self, size: int) -> None:
        """A message must fit into the socket's buffer (netlink_sendmsg); the kernel shows twice what is set."""
        if size > self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2:
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size + (1 << 16))
            except PermissionError:  # in a user namespace; net.core.wmem_max then bounds it
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size + (1 << 16))

    def _answers(self) -> Iterator[tuple[int, int, bytes]]:
        while True:
            try:
                data = self.socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            yield from messages(data)


def _words(body: bytes) -> str:
    """The kernel's own words in an error message (NLMSGERR_ATTR_MSG), if it gives any."""
    found = (a.value for a in attributes(body[4 + HEADER.size :]) if a.kind == 1)
    return next(found, b"").rstrip(b"\0").decode(errors="replace")


def _refusal(number: int, words: str, data: bytes | bytearray, sequence: int) -> BrokenError | MachineError:
    what = os.strerror(number) + (f" ({words})" if words else "")
    if number == errno.EPERM:
        return MachineError(f"the kernel forbids rules here: {what}", mend="run it with sudo")
    if number in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
        return MachineError(
            f"the kernel lacks a part that NATs need: {what}", mend="sudo modprobe -a nf_tables nft_nat"
        )
    names = [
        a.value.rstrip(b"\0").decode(errors="replace")
        for kind, its_number, body in messages(bytes(data))
        if its_number == sequence and kind >> 8 == _NFTABLES
        for a in attributes(body[GENERIC:])
        if a.kind in (1, 2, 3) and a.value.rstrip(b"\0").isascii()
    ]
    return BrokenError(f"the kernel refuses message {sequence} of the rules {' '.join(names[:3])!r}: {what}")
