"""Frames to push into a middlebox, made by scapy, and what comes out, read by it: not by the code under test."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether

from testbed.datagram import Endpoint
from testbed.lab.userspace.middlebox import Description, Device, Middlebox, Outgoing
from testbed.plan.addressing import plan_network
from testbed.plan.network import Translation
from testbed.spec.link import Link
from testbed.spec.profile import Dependence, NatProfile
from testbed.spec.topology import INTERNET, Attachment, Node, NodeKind, Topology

WAN, LAN = 10, 11
SERVER, NAT = "server", "nat"


def topology(profile: NatProfile, mtu: int = 1500) -> Topology:
    kind = NodeKind.ROUTER if profile.mapping is Dependence.NONE else NodeKind.NAT
    narrow = Link(mtu=mtu)
    return Topology(
        nodes={
            SERVER: Node(kind=NodeKind.RENDEZVOUS, attachments=(Attachment(uplink=INTERNET),)),
            NAT: Node(kind=kind, attachments=(Attachment(uplink=INTERNET, link=narrow),)),
            "one": Node(kind=NodeKind.HOST, attachments=(Attachment(uplink=NAT),)),
            "two": Node(kind=NodeKind.HOST, attachments=(Attachment(uplink=NAT),)),
        }
    )


class Bench:
    """A middlebox between two hosts and a server."""

    def __init__(self, profile: NatProfile, *, mtu: int = 1500, seed: int = 1) -> None:
        network = plan_network(topology(profile, mtu), {NAT: profile})
        box = network.boxes[NAT]
        assert isinstance(box.translation, Translation)
        self.translation = box.translation
        numbers = {"wan0": (WAN, mtu), "lan0": (LAN, 1500)}
        devices = {}
        for interface in box.interfaces:
            index, size = numbers[interface.name]
            mac = bytes.fromhex(interface.mac.replace(":", ""))
            devices[index] = Device(index, interface.name, mac, size, str(interface.addresses[0].ip))
        self.box = Middlebox(Description(box, box.translation, devices), seed)
        self.devices = devices
        self.macs = {str(n.address): n.mac for n in box.neighbours}
        self.now = 1_000_000_000
        self.one, self.two, self.server = (str(network.boxes[name].addresses()[0]) for name in ("one", "two", SERVER))
        self.external = str(box.translation.external[0])
        self.gateway = devices[LAN].address
        self.upstream = next(str(n.address) for n in box.neighbours if n.interface == "wan0")

    def push(self, device: int, packet: Any) -> list[Any]:
        """What comes out, as scapy reads it."""
        return [Ether(out.frame) for out in self.pushed(device, bytes(packet))]

    def pushed(self, device: int, ip: bytes) -> list[Outgoing]:
        self.now += 1_000_000
        frame = self.devices[device].mac + bytes.fromhex("02ffffffffff") + b"\x08\x00" + ip
        return list(self.box.receive(device, frame.ljust(60, b"\0"), self.now))

    def out(self, packet: Any) -> Any:
        """From inside: the one packet that comes out."""
        (found,) = self.push(LAN, packet)
        return found

    def come(self, packet: Any) -> Any:
        """From outside."""
        (found,) = self.push(WAN, packet)
        return found


def udp(source: Endpoint, destination: Endpoint, data: bytes = b"data", **fields: Any) -> Any:
    return IP(src=source.host, dst=destination.host, **fields) / UDP(sport=source.port, dport=destination.port) / data


def tcp(source: Endpoint, destination: Endpoint, flags: str, data: bytes = b"", **fields: Any) -> Any:
    ends = {"sport": source.port, "dport": destination.port}
    return IP(src=source.host, dst=destination.host) / TCP(**ends, flags=flags, **fields) / data


def ping(source: str, destination: str, identifier: int = 7, kind: int = 8, **fields: Any) -> Any:
    return IP(src=source, dst=destination, **fields) / ICMP(type=kind, id=identifier, seq=1) / b"ping"


def error(source: str, about: Any, kind: int = 11, code: int = 0) -> Any:
    return IP(src=source, dst=about[IP].src) / ICMP(type=kind, code=code) / bytes(about[IP])


def is_whole(packet: Any) -> bool:
    """Whether every checksum is what scapy would have computed."""
    ip = packet[IP] if packet.haslayer(IP) else packet
    again = ip.copy()
    for layer in (IP, UDP, TCP, ICMP):
        if layer in again:
            del again[layer].chksum
    return bytes(again) == bytes(ip)


def ends(packet: Any) -> tuple[Endpoint, Endpoint]:
    ip = packet[IP]
    return Endpoint(ip.src, ip.payload.sport), Endpoint(ip.dst, ip.payload.dport)
