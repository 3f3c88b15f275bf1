"""What a NAT lets in, and what it does with the rest: filtering, hairpins, ICMP errors, TCP's simultaneous open.

Rule 1: whether a packet was let in is seen where it would have arrived, never by what the NAT says of itself.
Rule 2: an error is told from a reset by a raw socket: to a TCP socket both are a refused connection.
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from testbed.certify import judgement
from testbed.certify.judgement import Reaction
from testbed.certify.rows import CLASH, CONNECTS, ERRORS_COME_IN, NO_TRACE, Seen
from testbed.certify.stage import STUN_PORTS, Stage, heard
from testbed.certify.subject import HOSTS, SERVER
from testbed.datagram import Endpoint
from testbed.lab import packets
from testbed.plan.engines import refusals
from testbed.spec.profile import Dependence
from testbed.spec.topology import INTERNET
from testbed.traversal.stun_attributes import Change

PORT = 5000
CLOSED = 4321
"""A port that nothing is behind, on either side."""
_SEQUENCE = 1000


def filtering(stage: Stage) -> dict[str, Seen]:
    """RFC 5780 §4.4: who may answer to the external endpoint that one server was told."""
    stage.start()
    silent = Endpoint(*stage.host(_own_port(stage), 1).getsockname())
    if stage.profile.mapping is Dependence.NONE and stage.admits(stage.remote(PORT), silent):
        return {"filtering": Seen(Dependence.NONE.value, "a datagram to a host that has sent none")}
    host, server = stage.host(_own_port(stage)), Endpoint(stage.servers[0], STUN_PORTS[0])
    first = stage.ask(host, server) is not None
    new_port = stage.ask(host, server, Change.PORT) is not None
    new_address = stage.ask(host, server, Change.ADDRESS | Change.PORT) is not None
    how = "STUN answers from another port and another address (CHANGE-REQUEST)"
    return {"filtering": Seen(judgement.filtering_of(first, new_port, new_address), how)}


def unsolicited(stage: Stage) -> dict[str, Seen]:
    """What a datagram and a SYN meet, where there is no mapping, and where there is one of somebody else's."""
    stage.start()
    errors = stage.raw(SERVER, socket.IPPROTO_ICMP)
    target = _never_used(stage)
    datagram = None if stage.profile.udp_blocked else _datagram_meets(stage, errors, target)
    segment = _segment_meets(stage, errors, target)
    observed = judgement.unsolicited_of(datagram, segment)
    how = "a datagram and a SYN to an endpoint that nobody has"
    if not stage.profile.udp_blocked and stage.profile.filtering is not Dependence.ENDPOINT_INDEPENDENT:
        external = stage.out(stage.host(_own_port(stage)), stage.remote(PORT, 1))
        if external is not None and (again := _datagram_meets(stage, errors, external)) is not datagram:
            observed += f", but {again} where somebody else has a mapping"
        how += "; a datagram to one that was mapped for another address"
    return {"unsolicited": Seen(observed, how)}


def blocked(stage: Stage) -> dict[str, Seen]:
    """Whether the network forwards UDP at all; ping goes on (RFC 9308 §2)."""
    stage.start()
    out = stage.send(stage.host(_own_port(stage)), stage.remote(PORT).getsockname()) is not None
    return {"udp_blocked": Seen(str(not out).lower(), "a datagram to the outside; a ping that follows gets through")}


def mapping_of_connections(stage: Stage) -> dict[str, Seen]:
    """RFC 5382 REQ-1, where there is no UDP: how connections of one port are seen from two addresses, two ports."""
    stage.start()
    own = Endpoint(str(stage.inside[0]), _own_port(stage) + 2)
    seen: list[Endpoint | None] = []
    with ExitStack() as connections:
        for host, port in ((0, PORT), (0, PORT + 1), (1, PORT)):
            there = Endpoint(stage.servers[host], port)
            listener = connections.enter_context(stage.tcp(SERVER, there))
            client = connections.enter_context(stage.tcp(HOSTS[0], own))
            listener.listen()
            client.connect(there)
            connection, source = listener.accept()
            connections.enter_context(connection)
            seen.append(Endpoint(*source))
    observed = judgement.mapping_of(own, [*seen, seen[0]])
    return {"mapping": Seen(observed, "TCP connections from one port to two addresses and two ports; UDP is blocked")}


def early_packet(stage: Stage) -> dict[str, Seen]:
    """What a datagram that comes too early does to the mapping that is made afterwards."""
    stage.start()
    port, remote = _own_port(stage), stage.remote(PORT)
    if stage.profile.ports.preserve:
        expected: set[Endpoint] = {Endpoint(host, port) for host in stage.external}
    else:
        made = stage.out(stage.host(port), stage.remote(PORT, 1))
        expected = {made} if made is not None else set()
    for target in expected:
        stage.send(remote, target)
    external = stage.out(stage.host(port), remote)
    if external is None:
        observed = judgement.NOTHING
    elif external not in expected:
        observed = CLASH
    else:
        observed = NO_TRACE if stage.admits(remote, external) else "closes the way in"
    return {"early inbound packet": Seen(observed, "a remote sends before the host does")}


def hairpin(stage: Stage) -> dict[str, Seen]:
    """RFC 4787 §6: whether a host reaches another by its external endpoint, and whom it then seems to be."""
    stage.start()
    how = "a host sends to the external endpoint of another"
    open_copy = stage.made.model_copy(update={"filtering": Dependence.ENDPOINT_INDEPENDENT})
    if open_copy != stage.made and not any(refusals(open_copy)):
        stage.start(open_copy)
        how += ", in a copy of the profile that filters nothing"
    port = _own_port(stage)
    one, other = stage.host(port, 0), stage.host(port + stage.block(1)[0] - stage.block(0)[0] + 2, 1)
    first, second = stage.out(one, stage.remote(PORT)), stage.out(other, stage.remote(PORT))
    if first is None or second is None:
        return {"hairpinning": Seen(judgement.NOTHING, how)}
    stage.send(other, first)  # now its filter knows the first one
    arrival = stage.send(one, second)
    source = arrival.source if arrival is not None else None
    own = Endpoint(*one.getsockname())
    return {"hairpinning": Seen(judgement.hairpinning_of(source, own, stage.external), how)}


def session_reply(stage: Stage) -> dict[str, Seen]:
    """Whether the answer to a stranger who was admitted leaves by the mapping that he came in on."""
    stage.start()
    host = stage.host(_own_port(stage))
    known, stranger = stage.remote(PORT), stage.remote(PORT + 1)
    if stage.profile.filtering is Dependence.ENDPOINT_INDEPENDENT:
        stranger = stage.remote(PORT, 1)
    external = stage.out(host, known)
    how = "a remote that has no mapping writes to one, and is answered"
    if not stage.admits(stranger, external):
        return {"session_reply": Seen("the stranger is not admitted", how)}
    return {"session_reply": Seen(str(stage.out(host, stranger) == external).lower(), how)}


def icmp_errors(stage: Stage) -> dict[str, Seen]:
    """RFC 5508 REQ-4: the error of a router on the way, about a packet of ours, and about one that nobody sent."""
    stage.start()
    host, remote = stage.host(_own_port(stage)), stage.remote(PORT)
    own, there = Endpoint(*host.getsockname()), Endpoint(*remote.getsockname())
    external = stage.out(host, remote)
    how = "a crafted time-exceeded about a datagram of ours, then about one of an endpoint that nobody has"
    if external is None:
        return {"icmp errors inward": Seen(judgement.NOTHING, how)}
    ears, mouth = stage.raw(HOSTS[0], socket.IPPROTO_ICMP), stage.raw_sender(INTERNET)
    stage.send_raw(mouth, [packets.time_exceeded(stage.router, external, there)])
    came = [error for packet in heard(ears) if (error := packets.read_icmp_error(packet)) is not None]
    strange = Endpoint(external.host, _never_used(stage).port)
    stage.send_raw(mouth, [packets.time_exceeded(stage.router, strange, there)])
    stray = [error for packet in heard(ears) if (error := packets.read_icmp_error(packet)) is not None]
    about = [(error.source, error.destination) for error in came]
    if about != [(own, there)]:
        observed = "do not come in" if not about else f"say that {about[0][0]} sent it"
    else:
        observed = ERRORS_COME_IN if not stray or stage.is_firewall else "reach their host, and so do others"
    return {"icmp errors inward": Seen(observed, how)}


def simultaneous_open(stage: Stage) -> dict[str, Seen]:
    """RFC 5382 REQ-2: both sides send a SYN, and a connection comes of it. The server's side is crafted."""
    stage.start()
    stage.silence_resets()
    ears, mouth = stage.raw(SERVER, socket.IPPROTO_TCP), stage.raw_sender(SERVER)
    there = Endpoint(stage.servers[1], CLOSED)
    how = "a crafted SYN crosses that of a socket inside, and is answered"

    def answer() -> packets.Segment | None:
        said = [segment for packet in heard(ears) if (segment := packets.read_segment(packet)) is not None]
        return next((segment for segment in said if segment.destination == there), None)

    with stage.tcp(HOSTS[0], Endpoint(str(stage.inside[0]), _own_port(stage))) as client:
        client.setblocking(False)
        client.connect_ex(there)
        stage.settle()
        syn = answer()
        if syn is None:
            return {"tcp simultaneous open": Seen("no SYN gets out", how)}
        stage.send_raw(mouth, [packets.segment(there, syn.source, packets.SYN, _SEQUENCE)])
        both = answer()
        if both is None or both.flags != packets.SYN_ACK or both.acknowledged != _SEQUENCE + 1:
            return {"tcp simultaneous open": Seen("the SYN from outside gets no answer", how)}
        own_next = syn.sequence + 1
        stage.send_raw(mouth, [packets.segment(there, syn.source, packets.ACK, _SEQUENCE + 1, own_next)])
        refused = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        is_open = refused == 0 and _is_connected(client)
        return {"tcp simultaneous open": Seen(CONNECTS if is_open else "does not end in a connection", how)}


# ---------------------------------------------------------------------------- details


def _own_port(stage: Stage) -> int:
    """A port of the first host that its NAT may preserve."""
    return stage.block(0)[0] + 33


def _never_used(stage: Stage) -> Endpoint:
    """An endpoint that belongs to nobody: outside, or of a host behind a firewall."""
    host = str(stage.inside[0]) if stage.is_firewall else stage.external[0]
    return Endpoint(host, CLOSED)


def _datagram_meets(stage: Stage, errors: socket.socket, target: Endpoint) -> Reaction:
    list(heard(errors))
    if stage.admits(stage.remote(PORT), target):
        return Reaction.ARRIVES
    return Reaction.ICMP if _is_told(errors, target) else Reaction.SILENCE


def _segment_meets(stage: Stage, errors: socket.socket, target: Endpoint) -> Reaction:
    list(heard(errors))
    with stage.tcp(SERVER, Endpoint(stage.servers[0], PORT)) as client:
        client.setblocking(False)
        if client.connect_ex(target) not in (errno.EINPROGRESS, errno.ECONNREFUSED):
            return Reaction.ARRIVES
        stage.settle()
        refused = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if _is_told(errors, target):
        return Reaction.ICMP
    return Reaction.RESET if refused == errno.ECONNREFUSED else Reaction.SILENCE


def _is_told(errors: socket.socket, target: Endpoint) -> bool:
    """Whether an ICMP error about a packet to this target has come."""
    found = [packets.read_icmp_error(packet) for packet in heard(errors)]
    return any(error is not None and error.destination == target for error in found)


def _is_connected(client: socket.socket) -> bool:
    try:
        client.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return False
    return True
