"""Network devices, addresses and routes: the one door to pyroute2 and to the kernel's rtnetlink.

Rule 1: a message is *encoded* once, by pyroute2's message classes, and *sent* many times as bytes. Encoding costs
        100 µs or more a message, sending 5: a trial only sends what its parent has encoded before the fork.
Rule 2: many messages travel in one system call, and only the last asks to be acknowledged. The kernel works through
        them in order and answers for each one that it refuses; an error names its message.
Rule 3: what was set is read back in the same words (`addresses`, `routes`, …), so that it can be compared.

Kernel facts that the messages rest on: RTM_NEWLINK with IFLA_NET_NS_FD makes a device directly in its namespace, with
the name, index and address it is told; its veth peer likewise, but a peer cannot be up before the pair exists
(veth_open, ENOTCONN). `ETHTOOL_GLINK` makes the kernel finish what a carrier change began (linkwatch), which else
happens a moment later, and until then a device drops what it is given.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, Self

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from testbed.errors import BrokenError, MachineError
from testbed.plan.network import Neighbour, Route, SourceRule

_NEW_LINK, _GET_LINK, _SET_LINK = 16, 18, 19
_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _GET_ROUTE = 24, 26
_NEW_NEIGHBOUR, _GET_NEIGHBOUR = 28, 30
_NEW_RULE, _GET_RULE = 32, 34
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_IFF_UP = 1
_PERMANENT = 0x80  # NUD_PERMANENT, IFA_F_PERMANENT
_NO_PREFIX_ROUTE = 0x200
_NOARP = 0x40
_ON_MASTER = 0x04  # NTF_MASTER
_AF_BRIDGE = 7
_UNIVERSE, _LINK_SCOPE, _UNICAST, _STATIC = 0, 253, 1, 4
_ACT_TO_TABLE = 1
_HEADER = struct.Struct("=IHHII")
_SOL_NETLINK, _NETLINK_EXT_ACK, _NETLINK_CAP_ACK = 270, 11, 10
_SIOCETHTOOL, _ETHTOOL_GLINK, _ETHTOOL_STXCSUM = 0x8946, 0x0A, 0x17
_CHUNK = 1 << 15

LOOPBACK = 1
"""The index of `lo` in every namespace."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request, encoded, without its sequence number."""

    label: str
    """What a person calls it, for errors."""
    data: bytes


# ---------------------------------------------------------------------------- encoding


def _encode(label: str, message: Any, kind: int, flags: int) -> Message:
    header = message["header"]
    header["type"], header["flags"] = kind, flags | _REQUEST
    message.encode()
    return Message(label, bytes(message.data))


@dataclass(frozen=True, slots=True)
class End:
    """One device of a pair, and the namespace in which it is born (a descriptor number of the sender)."""

    name: str
    index: int
    mac: str
    namespace: int


def veth(label: str, first: End, second: End, *, mtu: int, up: bool) -> Message:
    """A veth pair in one request; the first end is up at once if `up` is set, the second never is."""

    def attributes(end: End) -> list[tuple[str, object]]:
        return [
            ("IFLA_IFNAME", end.name),
            ("IFLA_ADDRESS", end.mac),
            ("IFLA_MTU", mtu),
            ("IFLA_NET_NS_FD", end.namespace),
        ]

    message = ifinfmsg()
    message["index"] = first.index
    message["flags"] = message["change"] = _IFF_UP if up else 0
    peer = {"index": second.index, "attrs": attributes(second)}
    data = {"attrs": [("VETH_INFO_PEER", peer)]}
    kind = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
    message["attrs"] = [*attributes(first), ("IFLA_LINKINFO", kind)]
    return _encode(f"veth {label}", message, _NEW_LINK, _CREATE | _EXCLUSIVE)


def bridge(label: str, end: End, *, mtu: int) -> Message:
    """A bridge that forwards at once: no spanning tree, no snooping, nothing that depends on time."""
    message = ifinfmsg()
    message["index"] = end.index
    data = {"attrs": [("IFLA_BR_FORWARD_DELAY", 0), ("IFLA_BR_STP_STATE", 0), ("IFLA_BR_MCAST_SNOOPING", 0)]}
    message["attrs"] = [
        ("IFLA_IFNAME", end.name),
        ("IFLA_ADDRESS", end.mac),
        ("IFLA_MTU", mtu),
        ("IFLA_NET_NS_FD", end.namespace),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]}),
    ]
    return _encode(f"bridge {label}", message, _NEW_LINK, _CREATE | _EXCLUSIVE)


def up(label: str, index: int, *, master: int | None = None) -> Message:
    """Set a device up, first making it a port of the bridge `master`."""
    message = ifinfmsg()
    message["index"] = index
    message["flags"] = message["change"] = _IFF_UP
    message["attrs"] = [("IFLA_MASTER", master)] if master is not None else []
    return _encode(f"up {label}", message, _SET_LINK, 0)


def address(label: str, index: int, interface: IPv4Interface) -> Message:
    """An address; its connected route is a route of the plan, not the kernel's own."""
    message = ifaddrmsg()
    message["family"], message["prefixlen"], message["index"] = socket.AF_INET, interface.network.prefixlen, index
    message["attrs"] = [
        ("IFA_LOCAL", str(interface.ip)),
        ("IFA_ADDRESS", str(interface.ip)),
        ("IFA_FLAGS", _PERMANENT | _NO_PREFIX_ROUTE),
    ]
    return _encode(f"address {interface} on {label}", message, _NEW_ADDRESS, _CREATE | _EXCLUSIVE)


def address_gone(label: str, index: int, interface: IPv4Interface) -> Message:
    """An address is taken away. Others of the same prefix that came after it would go with it: give new ones a /32."""
    message = ifaddrmsg()
    message["family"], message["prefixlen"], message["index"] = socket.AF_INET, interface.network.prefixlen, index
    message["attrs"] = [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip))]
    return _encode(f"no address {interface} on {label}", message, _DELETE_ADDRESS, 0)


def route(label: str, index: int, planned: Route) -> Message:
    """A route of the plan."""
    message = rtmsg()
    message["family"], message["dst_len"] = socket.AF_INET, planned.destination.prefixlen
    message["table"] = planned.table if planned.table < 256 else 0
    message["proto"], message["type"] = _STATIC, _UNICAST
    message["scope"] = _UNIVERSE if planned.via is not None else _LINK_SCOPE
    attributes: list[tuple[str, object]] = [("RTA_TABLE", planned.table), ("RTA_OIF", index)]
    if planned.destination.prefixlen:
        attributes.append(("RTA_DST", str(planned.destination.network_address)))
    if planned.via is not None:
        attributes.append(("RTA_GATEWAY", str(planned.via)))
    message["attrs"] = attributes
    return _encode(f"route {planned.destination} in {label}", message, _NEW_ROUTE, _CREATE | _EXCLUSIVE)


def source_rule(label: str, planned: SourceRule, *, priority: int) -> Message:
    """A rule that chooses a routing table by the source address."""
    message = fibmsg()
    message["family"], message["src_len"], message["action"] = socket.AF_INET, 32, _ACT_TO_TABLE
    message["table"] = planned.table if planned.table < 256 else 0
    message["attrs"] = [
        ("FRA_SRC", str(planned.source)),
        ("FRA_TABLE", planned.table),
        ("FRA_PRIORITY", priority),
    ]
    return _encode(f"rule from {planned.source} in {label}", message, _NEW_RULE, _CREATE | _EXCLUSIVE)


def neighbour(label: str, index: int, planned: Neighbour) -> Message:
    """A permanent neighbour entry."""
    message = ndmsg()
    message["family"], message["ifindex"], message["state"] = socket.AF_INET, index, _PERMANENT
    message["attrs"] = [("NDA_DST", str(planned.address)), ("NDA_LLADDR", planned.mac)]
    return _encode(f"neighbour {planned.address} in {label}", message, _NEW_NEIGHBOUR, _CREATE | _EXCLUSIVE)


def forwarding_entry(label: str, port: int, mac: str) -> Message:
    """What a bridge would learn from the first frame, known beforehand: a flood would reach other hosts' links."""
    message = ndmsg()
    message["family"], message["ifindex"], message["state"] = _AF_BRIDGE, port, _NOARP
    message["flags"] = _ON_MASTER
    message["attrs"] = [("NDA_LLADDR", mac)]
    return _encode(f"forwarding entry {mac} in {label}", message, _NEW_NEIGHBOUR, _CREATE | _EXCLUSIVE)


# ---------------------------------------------------------------------------- batches


class Batch:
    """Messages as the bytes of a few system calls, numbered and ready to be sent any number of times."""

    __slots__ = ("chunks", "labels")

    def __init__(self, messages: Iterable[Message]) -> None:
        self.labels: list[str] = []
        self.chunks: list[tuple[bytes, int]] = []
        """Bytes, and the sequence number of the last message in them, which asks for an acknowledgement."""
        pending: list[Message] = []
        size = 0
        for message in messages:
            pending.append(message)
            size += len(message.data)
            if size >= _CHUNK:
                self._close(pending)
                pending, size = [], 0
        if pending:
            self._close(pending)

    def _close(self, messages: Sequence[Message]) -> None:
        parts = []
        for position, message in enumerate(messages, 1):
            self.labels.append(message.label)
            length, kind, flags, _, _ = _HEADER.unpack_from(message.data)
            flags |= _ACK if position == len(messages) else 0
            header = _HEADER.pack(length, kind, flags, len(self.labels), 0)
            parts.append(header + message.data[_HEADER.size :] + bytes(-length % 4))
        self.chunks.append((b"".join(parts), len(self.labels)))


class Netlink:
    """An rtnetlink socket of the namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, batch: Batch) -> None:
        """Send all of it and wait until it is done. Raises MachineError or BrokenError for the first refusal."""
        for data, last in batch.chunks:
            self._socket.send(data)
            self._await(batch, last)

    def _await(self, batch: Batch, last: int) -> None:
        refused: TestbedErrors | None = None
        while True:
            for kind, _, sequence, body in _split(self._socket.recv(1 << 16)):
                if kind != _ERROR:
                    continue
                if (number := -struct.unpack_from("=i", body)[0]) and refused is None:
                    refused = _refusal(batch.labels[sequence - 1], number, _reason(body))
                if sequence == last:
                    if refused is not None:
                        raise refused
                    return

    def dump(self, kind: int, message: Any, family: int = 0) -> Iterator[Any]:
        """Every object of a kind, decoded by the message class."""
        body = bytes([family]) + bytes(15)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0) + body)
        while True:
            data = self._socket.recv(1 << 17)
            at = 0
            while at < len(data):
                length, answer, _, _, _ = _HEADER.unpack_from(data, at)
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    number = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                    raise BrokenError(f"netlink dump {kind}: {os.strerror(number)}")
                decoded = message(data[at : at + length])
                decoded.decode()
                yield decoded
                at += length + -length % 4

    # ---- devices

    def finish_carrier(self, name: str) -> bool:
        """Let the kernel finish what a carrier change of this device began; whether there is a carrier now."""
        return self._ethtool(name, _ETHTOOL_GLINK, 0) == 1

    def switch_offloads_off(self, name: str) -> None:
        """No checksum offload, and with it neither scatter nor segmentation: frames leave finished."""
        self._ethtool(name, _ETHTOOL_STXCSUM, 0)

    def _ethtool(self, name: str, command: int, value: int) -> int:
        block = array.array("I", [command, value])
        at, _ = block.buffer_info()
        fcntl.ioctl(self._socket, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), at))
        return block[1]

    # ---- reading back

    def links(self) -> dict[str, Any]:
        """Every device by name, as pyroute2 decodes it."""
        return {message.get_attr("IFLA_IFNAME"): message for message in self.dump(_GET_LINK, ifinfmsg)}

    def addresses(self) -> set[tuple[int, IPv4Interface]]:
        """Every IPv4 address, with its device's index."""
        return {
            (message["index"], IPv4Interface((message.get_attr("IFA_LOCAL"), message["prefixlen"])))
            for message in self.dump(_GET_ADDRESS, ifaddrmsg, socket.AF_INET)
        }

    def routes(self) -> set[tuple[IPv4Network, IPv4Address | None, int, int]]:
        """Every IPv4 unicast route: destination, via, device's index, table."""
        found = set()
        for message in self.dump(_GET_ROUTE, rtmsg, socket.AF_INET):
            if message["type"] != _UNICAST:
                continue
            via = message.get_attr("RTA_GATEWAY")
            prefix = IPv4Network((message.get_attr("RTA_DST") or "0.0.0.0", message["dst_len"]))
            table = message.get_attr("RTA_TABLE") or message["table"]
            found.add((prefix, IPv4Address(via) if via else None, message.get_attr("RTA_OIF"), table))
        return found

    def source_rules(self) -> set[SourceRule]:
        """Every rule that looks at the source address alone."""
        return {
            SourceRule(IPv4Address(message.get_attr("FRA_SRC")), message.get_attr("FRA_TABLE"))
            for message in self.dump(_GET_RULE, fibmsg, socket.AF_INET)
            if message["src_len"] == 32
        }

    def neighbours(self) -> set[tuple[int, IPv4Address, str]]:
        """Every permanent IPv4 neighbour: device's index, address, MAC."""
        return {
            (message["ifindex"], IPv4Address(message.get_attr("NDA_DST")), message.get_attr("NDA_LLADDR"))
            for message in self.dump(_GET_NEIGHBOUR, ndmsg, socket.AF_INET)
            if message["state"] & _PERMANENT
        }


TestbedErrors = MachineError | BrokenError


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, body) of each message in what was received."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += length + -length % 4


def _reason(body: bytes) -> str:
    """The kernel's own words in an error message (NLMSGERR_ATTR_MSG), if it gives any."""
    at = 4 + _HEADER.size
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        if kind & 0x3FFF == 1:
            return body[at + 4 : at + length].rstrip(b"\0").decode(errors="replace")
        at += length + -length % 4
    return ""


def _refusal(label: str, number: int, words: str) -> TestbedErrors:
    text = f"{label}: {os.strerror(number)}" + (f" ({words})" if words else "")
    if number == errno.EOPNOTSUPP:
        return MachineError(f"the kernel cannot do this: {text}")
    if number == errno.EPERM:
        return MachineError(f"the kernel forbids this: {text}", mend="run it with sudo")
    return BrokenError(text)
