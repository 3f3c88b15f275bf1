"""The model beside the kernel's own masquerade: the same random packets, and the same fate, source and reason for each.

Ports that masquerade draws cannot be seeded: the model's name for a port is translated into the kernel's from its first
use on, and what must agree is everything else: when two packets show the same port. (The other engines, whose ports are
the model's, meet it in test_differential.py.)
"""

from __future__ import annotations

import socket
from random import Random

import pytest

from testbed.datagram import Endpoint
from testbed.nat.behaviour import is_native
from testbed.nat.nat import Nat
from testbed.nat.packet import Decision, Dropped, Forwarded, Hairpinned, Packet, Transport
from testbed.spec.profile import (
    Dependence,
    Engine,
    NatProfile,
    Ports,
    Unsolicited,
)
from tests.lab.nftables.bench import EXTERNAL, Bench, bench

pytestmark = pytest.mark.lab

EI, AD, APD, _ = Dependence
STEPS = 80
PROFILES = {
    "masquerade": NatProfile(ports=Ports(overload=True), engine=Engine.NATIVE),
    "masquerade, random": NatProfile(mapping=APD, ports=Ports(preserve=False, overload=True), engine=Engine.NATIVE),
    "masquerade, port clash": NatProfile(ports=Ports(overload=True), unsolicited=Unsolicited.ACCEPT),
}


class Both:
    """The model and the kernel, sent the same packets."""

    def __init__(self, kernel: Bench, seed: int) -> None:
        self.kernel, self.nat = kernel, Nat(kernel.translation, seed)
        self.now = 1_000_000_000
        self.seen: list[Endpoint] = []
        """External endpoints, by the model's names."""
        self.names: dict[Endpoint, Endpoint] = {}
        """The model's name of an external endpoint -> the kernel's, where they differ."""
        self.are_alike = False
        """Whether the kernel drew one port twice: then it is one name for two endpoints of the model."""
        self.counted: dict[str, int] = {}

    def send(self, sock: socket.socket, destination: Endpoint, *, is_inside: bool) -> tuple[object, object]:
        """What the model says, and what the kernel does."""
        source = Endpoint(*sock.getsockname())
        self.now += 1_000_000
        decide = self.nat.outbound if is_inside else self.nat.inbound
        decision = decide(Packet(Transport.UDP, source, destination), self.now)
        arrival = self.kernel.send(sock, self.names.get(destination, destination))
        counted, self.counted = self.counted, dict(self.kernel.dropped())
        reasons = [name for name, count in self.counted.items() if count != counted.get(name, 0)]
        found = (arrival.at, arrival.source) if arrival is not None else (*reasons,)
        if is_inside and isinstance(decision, Forwarded) and isinstance(decision.packet, Packet):
            external = decision.packet.source
            if external not in self.seen:
                self.seen.append(external)
                if arrival is not None and is_native(self.kernel.translation.profile):
                    self.are_alike |= arrival.source in self.names.values()
                    self.names[external] = arrival.source
        return self.expected(decision), found

    def expected(self, decision: Decision) -> tuple[object, ...]:
        match decision:
            case Forwarded(Packet() as packet) | Hairpinned(packet):
                return packet.destination, self.names.get(packet.source, packet.source)
            case Dropped(reason):
                return (str(reason),)
            case _:
                return ()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_model_and_kernel_agree(profile: NatProfile) -> None:
    random, seed = Random(profile.model_dump_json()), 7
    with bench(profile, seed) as kernel:
        both = Both(kernel, seed)
        for step in range(STEPS):
            host = kernel.host(random.choice((5000, 5001)), random.randrange(3))
            remote = kernel.remote(random.choice((7000, 7001)), random.randrange(3))
            stray = Endpoint(str(EXTERNAL), random.randrange(1024, 65536))
            chance = random.random()
            if chance < 0.5:
                said, done = both.send(host, Endpoint(*remote.getsockname()), is_inside=True)
            elif chance < 0.9:
                said, done = both.send(remote, random.choice([*both.seen, stray]), is_inside=False)
            else:
                said, done = both.send(host, random.choice([*both.seen, stray]), is_inside=True)
            if both.are_alike:
                return
            assert said == done, f"step {step}: the model says {said}, the kernel does {done}"
