"""The lab in which a NAT is measured: three hosts inside, a server with two addresses outside, nothing impaired.

Rule 1: nothing is waited for that does not come. A packet crosses bare links in the softirq of the CPU that sent it,
        in order; so when a ping that was sent after it, all the way out and back, has returned, the packet has arrived
        or was dropped, and so has what was answered to it on the way (`settle`). The process stays on one CPU.
Rule 2: every measurement begins with a NAT that has just been started (`start`), with the rules of trials
        (`prepare`): one lab serves them all, and copies of the profile as well, which are loaded from their text.
Rule 3: what is loaded is `made`; what it should be is `profile`. They are the same but for those who test certificates.
Rule 4: a socket belongs to this process and is opened in its box.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import count
from types import TracebackType
from typing import NamedTuple, Self

from testbed.certify.subject import HOSTS, NAT, SERVER, Subject, topology
from testbed.datagram import Datagram, Endpoint
from testbed.errors import BrokenError
from testbed.lab import sysctl
from testbed.lab.blueprint import draw
from testbed.lab.lab import RECEIVE_BUFFER, Lab, build
from testbed.lab.nftables import upkeep
from testbed.lab.nftables.prepare import load_text, prepare, text
from testbed.plan.addressing import plan_network, server_addresses
from testbed.plan.engines import engine_of
from testbed.plan.network import Translation
from testbed.plan.seeds import derive
from testbed.spec.profile import PORT_MAX, Dependence, Engine, NatProfile
from testbed.spec.topology import INTERNET
from testbed.traversal import stun
from testbed.traversal.stun import Kind, Method
from testbed.traversal.stun_attributes import Attribute, Change, StunFormatError, Value
from testbed.traversal.stun_server import StunServer

STUN_PORTS = (3478, 3479)
PATIENCE = 5.0
"""Seconds after which something that must come has not come."""
ROOM = 1024
"""Mappings that no measurement but that of the limit needs."""
_TOKEN = struct.Struct("=8sQ")
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_NO_RESETS = "table ip quiet { chain out { type filter hook output priority 0; tcp flags & rst == rst drop; }; }"


class Arrival(NamedTuple):
    """Where a packet came out, and from whom it says it is."""

    at: Endpoint
    source: Endpoint


class Stage:
    """A lab with one NAT, ready to be measured. Leave it as a context."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self.profile = subject.profile
        self.made = subject.made or subject.profile
        room = {"max_mappings": PORT_MAX} if self.made.max_mappings < ROOM else {}
        self._usual = self.made.model_copy(update=room)
        self.engine = engine_of(self.made)
        self._seed = derive(seed, "nat", NAT)
        self._scope = ExitStack()
        network = plan_network(topology(self.made), {NAT: self.made})
        box = network.boxes[NAT]
        assert box.translation is not None
        self._translation: Translation = box.translation
        self.inside = [network.boxes[name].addresses()[0] for name in HOSTS]
        self.servers = tuple(map(str, server_addresses(network, SERVER)))
        self.router = next(str(a) for a in network.boxes[INTERNET].addresses())
        self.lab: Lab = self._scope.enter_context(build(draw(network, "netem"), seed, capture=False))
        self._played = self.lab.userspace.nat(NAT) if self.lab.userspace is not None else None
        try:
            self._open()
            if subject.more_rules:
                with self.lab.boxes[NAT]:
                    load_text(subject.more_rules)
        except BaseException:
            self._scope.close()
            raise

    def _open(self) -> None:
        self._tokens, self._echoes = count(1), count(1)
        self._sockets: dict[Endpoint, socket.socket] = {}
        for box in self.lab.boxes.values():
            with box:
                sysctl.write({"ipv4/icmp_ratelimit": "0"})  # here each error is asked for
        self._pinger = self.raw(HOSTS[0], socket.IPPROTO_ICMP)
        self._pinger.settimeout(PATIENCE)
        self._stun = StunServer(self.servers, STUN_PORTS)
        self._stun_sockets: dict[Endpoint, socket.socket] = {}
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._scope.close()

    # ---- the NAT

    @property
    def external(self) -> tuple[str, ...]:
        """The addresses that a host may be seen at."""
        return tuple(map(str, self._translation.external))

    def start(self, made: NatProfile | None = None) -> None:
        """Start the NAT anew, with all its state gone; as a copy that `made` says, or as it was made.

        A small table would be met by measurements that are not about it: unless said, the limit is left out.
        """
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        profile = made or self._usual
        if self._played is not None:  # a copy may be one that rules could do; it is not made by them
            profile = profile.model_copy(update={"engine": Engine.USERSPACE})
        external = self._translation.external[: profile.external_addresses]
        translation = replace(self._translation, profile=profile, external=external)
        if self._played is not None:
            self._played.become(translation, self._seed)
            return
        rules = prepare(translation) if profile is self._usual else None  # a copy is not worth a recording
        with self.lab.boxes[NAT]:
            upkeep.forget()
            if rules is not None:
                rules.load(self._seed)
            else:
                load_text(text(translation, self._seed))

    def time_left(self, protocol: str) -> list[int]:
        """Nanoseconds that mappings have left."""
        if self._played is not None:
            return self._played.time_left(protocol)
        with self.lab.boxes[NAT]:
            return upkeep.time_left(self.made, protocol)

    @property
    def timer(self) -> str:
        """Whose timer `time_left` reads."""
        return "the kernel's timer" if self._played is None else "the engine's timer"

    @property
    def anew(self) -> str:
        """What `start` does."""
        if self._played is None:
            return "rules and connections are removed, and the same rules come again"
        return "the engine forgets all of it, as after a loss of power"

    @property
    def is_firewall(self) -> bool:
        """Whether it translates nothing."""
        return self.made.mapping is Dependence.NONE

    @property
    def has_own_table(self) -> bool:
        """Whether it is a NAT that keeps mappings of its own, not those of connection tracking."""
        return not self.is_firewall and self.engine is not Engine.NATIVE

    def block(self, number: int) -> tuple[int, int]:
        """First and last port of what a host may get: its own block, or the whole range."""
        first, last = self.profile.ports.range
        size = self.profile.ports.block
        if size is None or self.profile.ports.is_dynamic:
            return first, last
        index = int(self.inside[number]) - int(self._translation.inside[0].network_address)
        start = first + index * size
        return start, start + size - 1

    # ---- who sends and receives

    def host(self, port: int, number: int = 0) -> socket.socket:
        """The UDP socket of an inside host."""
        return self._socket(HOSTS[number], Endpoint(str(self.inside[number]), port))

    def remote(self, port: int, number: int = 0) -> socket.socket:
        """The UDP socket of somebody outside."""
        return self._socket(SERVER, Endpoint(self.servers[number], port))

    def tcp(self, box: str, local: Endpoint) -> socket.socket:
        """A bound TCP socket in a box, to be closed by the caller."""
        with self.lab.boxes[box]:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(PATIENCE)
        sock.bind(local)
        return sock

    def raw(self, box: str, protocol: int) -> socket.socket:
        """A raw socket in a box, which hears all of a protocol; non-blocking, closed with the stage."""
        with self.lab.boxes[box]:
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._scope.callback(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setblocking(False)
        return sock

    def raw_sender(self, box: str) -> socket.socket:
        """A raw socket in a box that sends packets with their IP header, from whatever address they say."""
        return self.raw(box, socket.IPPROTO_RAW)

    def silence_resets(self) -> None:
        """Let the server's kernel keep quiet about TCP that it does not know: we speak for it."""
        with self.lab.boxes[SERVER]:
            load_text(_NO_RESETS)

    def _socket(self, box: str, local: Endpoint) -> socket.socket:
        if local not in self._sockets:
            self._sockets[local] = self._bind(box, local)
        return self._sockets[local]

    def _bind(self, box: str, local: Endpoint) -> socket.socket:
        sock = self.lab.open_socket(box, local)
        self._scope.callback(sock.close)
        return sock

    # ---- packets

    def settle(self) -> None:
        """Return when every packet sent so far, and what came of it, has arrived or been dropped."""
        number = next(self._echoes) & 0xFFFF
        words = (_ECHO_REQUEST << 8) + number
        checksum = ~(words + (words >> 16)) & 0xFFFF
        self._pinger.sendto(struct.pack("!BBHHH", _ECHO_REQUEST, 0, checksum, 0, number), (self.servers[0], 0))
        while True:
            try:
                data = self._pinger.recv(2048)
            except TimeoutError:
                raise BrokenError("a ping from inside the NAT to the outside was not answered") from None
            if data[20] == _ECHO_REPLY and int.from_bytes(data[26:28], "big") == number:
                return

    def send(self, sender: socket.socket, target: tuple[str, int]) -> Arrival | None:
        """Send one datagram; where it came out, None where nowhere."""
        token = _TOKEN.pack(b"token...", next(self._tokens))
        sender.sendto(token, target)
        self.settle()
        return next((arrival for data, arrival in self._arrivals() if data == token), None)

    def send_raw(self, sender: socket.socket, packets: Sequence[bytes]) -> None:
        """Send packets that bring their IP header along; all of them have arrived, or been dropped, afterwards."""
        for packet in packets:
            sender.sendto(packet, (str(IPv4Address(packet[16:20])), 0))
        self.settle()

    def arrivals(self) -> list[Arrival]:
        """What waits at all UDP sockets."""
        return [arrival for _, arrival in self._arrivals()]

    def out(self, host: socket.socket, remote: socket.socket) -> Endpoint | None:
        """Send from inside to outside; the external endpoint that is seen there."""
        arrival = self.send(host, remote.getsockname())
        return arrival.source if arrival is not None and arrival.at == remote.getsockname() else None

    def admits(self, remote: socket.socket, external: Endpoint | None) -> bool:
        """Whether a datagram from outside reaches an inside host through an external endpoint."""
        return external is not None and self.send(remote, external) is not None

    def ask(self, host: socket.socket, server: Endpoint, change: Change = Change.NOTHING) -> Endpoint | None:
        """Ask a STUN server from inside (RFC 5780); the external endpoint that its answer says, if one comes."""
        if not self._stun_sockets:
            self._stun_sockets = {local: self._bind(SERVER, local) for local in self._stun.locals}
        transaction = struct.pack("!IQ", 0, next(self._tokens))
        changed: list[tuple[Attribute, Value]] = [(Attribute.CHANGE_REQUEST, int(change))] if change else []
        host.sendto(stun.encode(stun.request(Method.BINDING, transaction, *changed)), server)
        self.settle()
        for local, sock in self._stun_sockets.items():
            for data, source in _waiting(sock):
                self._stun.receive(Datagram(source, local, data), 0)
        for answer in self._stun.datagrams_to_send(0):
            self._stun_sockets[answer.source].sendto(answer.data, answer.destination)
        self.settle()
        for data, _ in _waiting(host):
            try:
                message = stun.decode(data)
            except StunFormatError:
                continue
            if message.kind is Kind.SUCCESS and message.transaction_id == transaction:
                return message.endpoint(Attribute.XOR_MAPPED_ADDRESS)
        return None

    def _arrivals(self) -> Iterator[tuple[bytes, Arrival]]:
        for local, sock in self._sockets.items():
            for data, source in _waiting(sock):
                yield data, Arrival(local, source)


def _waiting(sock: socket.socket) -> Iterator[tuple[bytes, Endpoint]]:
    """The datagrams that wait at a socket."""
    while True:
        try:
            data, source = sock.recvfrom(2048)
        except BlockingIOError:
            return
        yield data, Endpoint(*source)


def heard(sock: socket.socket) -> Iterator[bytes]:
    """The packets that wait at a raw socket, from the IP header on."""
    return (data for data, _ in _waiting(sock))


def stay_on_one_cpu(number: int) -> None:
    """Keep this process, and so the packets it sends, on one CPU (Rule 1)."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[number % len(allowed)]})
