"""The rendezvous as one machine: STUN on two addresses × two ports, a TURN relay, signalling.

Rule 1: which part a datagram is for follows from where it came in and from its first byte (RFC 9443).
Rule 2: relay and STUN share the first address and port, as they do with most servers in the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from testbed.datagram import Datagram, Endpoint
from testbed.traversal import stun
from testbed.traversal.demultiplex import Protocol, classify
from testbed.traversal.signalling_server import SignallingServer
from testbed.traversal.stun_attributes import StunFormatError
from testbed.traversal.stun_server import StunServer
from testbed.traversal.timeouts import earliest
from testbed.traversal.turn import Credentials
from testbed.traversal.turn_server import RelayEvent, TurnServer

STUN_PORTS = (3478, 3479)
SIGNALLING_PORT = 3480
REALM = "testbed"


@dataclass(frozen=True, slots=True)
class ServerAddresses:
    """Where the rendezvous is, as an end is told."""

    stun: tuple[Endpoint, ...]
    """One of each address of the server: an end asks all of them."""
    turn: Endpoint | None
    """None where there is no relay at all."""
    credentials: Credentials
    """For the relay."""
    realm: str
    signalling: Endpoint


class Rendezvous:
    """Everything that two ends need to find each other."""

    def __init__(
        self,
        hosts: Sequence[str],
        rng: Random,
        *,
        ports: tuple[int, int] = STUN_PORTS,
        signalling_port: int = SIGNALLING_PORT,
        loopback_peers: bool = False,
    ) -> None:
        """`hosts`: one address, or two for behaviour discovery. `loopback_peers`: see TurnServer."""
        credentials = Credentials("peer", rng.randbytes(8).hex())
        first = Endpoint(hosts[0], ports[0])
        passwords = {credentials.username: credentials.password}
        self._stun = StunServer(hosts, ports)
        self._turn = TurnServer(first, REALM, passwords, rng, loopback_peers=loopback_peers)
        self._signalling = SignallingServer(Endpoint(hosts[0], signalling_port))
        self.servers = ServerAddresses(
            tuple(Endpoint(host, ports[0]) for host in hosts),
            first,
            credentials,
            REALM,
            Endpoint(hosts[0], signalling_port),
        )

    @property
    def locals(self) -> tuple[Endpoint, ...]:
        """Where it listens from the start; relayed addresses come and go by events."""
        return (*self._stun.locals, self.servers.signalling)

    def receive(self, datagram: Datagram, now: int) -> None:
        """Hand the datagram to its part; what is for none is dropped."""
        if datagram.destination == self.servers.signalling:
            self._signalling.receive(datagram, now)
        elif datagram.destination in self._stun.locals and classify(datagram.data) is Protocol.STUN:
            try:
                message = stun.decode(datagram.data)
            except StunFormatError:
                return
            if not self._stun.receive_message(message, datagram, now):
                self._turn.receive_message(message, datagram, now)
        else:
            self._turn.receive(datagram, now)

    def next_timeout(self) -> int | None:
        """The earliest of its parts."""
        times = (self._turn.next_timeout(), self._signalling.next_timeout())
        return earliest(times)

    def handle_timeout(self, now: int) -> None:
        """Pass the time on."""
        self._turn.handle_timeout(now)
        self._signalling.handle_timeout(now)

    def datagrams_to_send(self, now: int) -> list[Datagram]:
        """Of all parts."""
        return [part for m in (self._stun, self._turn, self._signalling) for part in m.datagrams_to_send(now)]

    def events(self) -> list[RelayEvent]:
        """Which relayed addresses are to be opened and closed."""
        return self._turn.events()

    def relay_opened(self, endpoint: Endpoint, now: int) -> None:
        """See TurnServer."""
        self._turn.relay_opened(endpoint, now)

    def relay_refused(self, endpoint: Endpoint, now: int) -> None:
        """See TurnServer."""
        self._turn.relay_refused(endpoint, now)
