"""A script played before several NATs at once, and what they disagree about, as a table."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from socket import inet_aton
from typing import TypeAlias

from testbed.datagram import Endpoint
from testbed.lab.userspace import headers
from testbed.nat.packet import Flag, Transport
from testbed.spec.profile import SECOND
from tests.nat.differential.nats import Outcome, SomeNat, said
from tests.nat.differential.script import ROUTER, Error, Pause, Send, Step, shrunk

MODEL = "model"
Done: TypeAlias = Sequence[tuple[str, Mapping[str, Outcome]]]
"""Each step in words, and what became of it."""
_APART = 1_000_000
"""Nanoseconds from one step to the next."""


class Play:
    """One script before one set of NATs, which begin anew; the model's word says which endpoints there are."""

    def __init__(self, nats: Mapping[str, SomeNat], seed: int) -> None:
        self._nats, self._now = nats, 1000 * SECOND
        self._seen: list[Endpoint] = []
        self._left: list[bytes] = []
        self._came: list[bytes] = []
        for nat in nats.values():
            nat.start(seed)

    def run(self, script: Sequence[Step]) -> Done:
        """What each step was, in words, and what became of it; to the first about which they disagree."""
        done: list[tuple[str, Mapping[str, Outcome]]] = []
        for step in script:
            self._now += _APART
            if isinstance(step, Pause):
                self._now += step.duration
                for nat in self._nats.values():
                    nat.pause(step.duration)
                done.append((f"{step.duration // SECOND} s pass", {}))
                continue
            ip = self._packet(step)
            if ip is None:
                continue
            outcomes = {
                name: nat.send(ip, is_outbound=step.is_outbound, now=self._now) for name, nat in self._nats.items()
            }
            self._note(step, ip, outcomes[MODEL])
            done.append((f"{'in' if not step.is_outbound else 'out'}: {described(ip)}", outcomes))
            if len(set(outcomes.values())) > 1:
                break
        return done

    def _packet(self, step: Send | Error) -> bytes | None:
        if isinstance(step, Send):
            target = step.target
            if isinstance(target, int):
                if not self._seen:
                    return None
                target = self._seen[target % len(self._seen)]
            return packet(step.source, target, step.flags)
        about = self._came if step.is_outbound else self._left
        if isinstance(step.about, Endpoint):
            inner = packet(step.about, Endpoint("12.0.0.1", 7000), None)
        elif about:
            inner = about[-1 - step.about % len(about)]
        else:
            return None
        teller = headers.destination_of(inner) if step.is_outbound else ROUTER
        return headers.icmp_error(teller, headers.source_of(inner), step.kind, inner)

    def _note(self, step: Send | Error, ip: bytes, outcome: Outcome) -> None:
        """Remember what a packet was on the other side, from the model's words."""
        if isinstance(step, Error) or outcome.reason is not None or len(outcome.packets) != 1:
            return
        kind, source, _, destination, *_ = outcome.packets[0].split(" ")
        if kind not in tuple(Transport):
            return  # an error about it
        there = Endpoint.parse(source), Endpoint.parse(destination)
        if there[1].host == headers.source_of(ip):
            return  # a RST
        forwarded = packet(*there, step.flags)
        if not step.is_outbound:
            self._came = [*self._came, forwarded][-4:]
        elif not there[1].host.startswith("192.168."):
            self._left = [*self._left, forwarded][-4:]
            if there[0] not in self._seen:
                self._seen.append(there[0])


def packet(source: Endpoint, destination: Endpoint, flags: Flag | None) -> bytes:
    """A datagram of four bytes, or a segment of none; every segment of both ends has the same numbers."""
    addresses = inet_aton(source.host) + inet_aton(destination.host)
    if flags is None:
        body, protocol, at = bytearray(struct.pack("!HHHH", source.port, destination.port, 12, 0) + b"data"), 17, 6
    else:
        fields = (source.port, destination.port, 1000, 1000 if Flag.ACK in flags else 0, 5 << 4, flags, 8192, 0, 0)
        body, protocol, at = bytearray(struct.pack("!HHIIBBHHH", *fields)), 6, 16
    total = int.from_bytes(addresses + bytes((0, protocol)) + struct.pack("!H", len(body)) + body, "big") % 0xFFFF
    struct.pack_into("!H", body, at, (0xFFFF - total) % 0xFFFF or 0xFFFF)
    head = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0) + addresses)
    struct.pack_into("!H", head, 10, (0xFFFF - int.from_bytes(head, "big") % 0xFFFF) % 0xFFFF)
    return bytes(head + body)


def described(ip: bytes) -> str:
    """A packet in words."""
    read = headers.read(ip)
    assert read is not None
    return said(read)


def disagreement(nats: Mapping[str, SomeNat], seed: int, script: Sequence[Step]) -> str | None:
    """The shortest way to a disagreement, as a table; None where there is none."""

    def ends_apart(steps: Sequence[Step]) -> bool:
        done = Play(nats, seed).run(steps)
        return bool(done) and len(set(done[-1][1].values())) > 1

    done = Play(nats, seed).run(script)
    if not done or len(set(done[-1][1].values())) <= 1:
        return None
    least = shrunk(script, ends_apart)
    return table(Play(nats, seed).run(least), list(nats))


def table(done: Done, names: Sequence[str]) -> str:
    """Step, who sends what to whom, and what each NAT does."""
    rows = [("step", "packet", *names)]
    rows += [
        (str(n), what, *(str(outcomes.get(name, "")) for name in names)) for n, (what, outcomes) in enumerate(done)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
