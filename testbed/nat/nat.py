"""The NAT: what becomes of each packet that comes from one of its sides.

Rule 1: state changes with packets only, in their order; `now` does not go back. The same packets at the same times
        and the same seed give the same decisions.
Rule 2: outbound, a mapping is looked up or made, and permits the remote (RFC 4787 §4, §5). Inbound, nothing is made:
        a packet finds a mapping that permits it, or it is unsolicited and leaves no trace. The exception is the
        defect `accept`: the NAT's own stack takes it and from then on holds that endpoint, towards that remote.
Rule 3: what is refused changes nothing: no timer, no mapping. A candidate port that was looked at is spent.
Rule 4: ICMP errors follow the session of the packet that they carry, and keep nothing alive (RFC 5508 REQ-4, REQ-5;
        RFC 4787 REQ-10).
Rule 5: pings have mappings of their own kind (queries.py), whatever the profile says of UDP and TCP. A ping to an
        external address is answered by the NAT itself.

`session_reply` is the one behaviour beyond the RFCs: what an inside host sends to a remote that has opened a session
leaves by the mapping that the remote's packets come by, even if there is a mapping made for that remote. (If that one
went first, who of two ends sends first would decide whether they meet.)

Not here: fragments, application gateways, translation of IPv6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from testbed.datagram import Endpoint
from testbed.nat.behaviour import behaviour
from testbed.nat.mappings import Mapping, Mappings
from testbed.nat.packet import (
    AnyPacket,
    Decision,
    Delivered,
    Dropped,
    Echo,
    Forwarded,
    Hairpinned,
    IcmpError,
    Packet,
    Reason,
    Transport,
    reset,
    unreachable,
)
from testbed.nat.ports import Ports
from testbed.nat.queries import Pings
from testbed.nat.tcp import State
from testbed.plan.network import Translation
from testbed.spec.profile import Dependence, Hairpinning, Unsolicited

REMEMBERED = 4096
"""Addresses of which it is remembered on which side they are."""


class Nat:
    """A NAT, or a firewall, between two sides."""

    def __init__(self, translation: Translation, seed: int) -> None:
        self._translation, self._seed = translation, seed
        self._behaviour = behaviour(translation.profile)
        self.restart()

    def restart(self) -> None:
        """Power off and on: all state is lost, and the streams of ports begin anew."""
        self._external = frozenset(map(str, self._translation.external))
        self._inside: dict[str, bool] = {}
        self._ports = Ports(self._translation, self._seed)
        self.flush()

    def flush(self) -> None:
        """Lose all mappings; the streams of ports go on."""
        self._ports.forget()
        self._mappings = Mappings(self._behaviour, self._ports.ended)
        self._pings = Pings(self._behaviour, self._ports, self._is_inside)

    def change_address(self, external: Sequence[IPv4Address]) -> None:
        """Have these external addresses from now on; mappings to the old ones are lost.

        As many as before. Raises ValueError where they are not.
        """
        if len(external) != len(self._translation.external):
            raise ValueError(f"{len(external)} addresses cannot stand for {len(self._translation.external)}")
        self._translation = replace(self._translation, external=tuple(external))
        self._external = frozenset(map(str, external))
        self._ports.change_address(external)
        self.flush()

    def mappings(self, now: int) -> tuple[Mapping, ...]:
        """Those that are alive, for a person to look at; UDP's and TCP's, oldest first."""
        return self._mappings.live(now)

    # ---- time

    def next_timeout(self) -> int | None:
        """When `handle_timeout` has something to forget, in nanoseconds; decisions do not depend on its call."""
        return self._mappings.next_timeout()

    def handle_timeout(self, now: int) -> None:
        """Forget what has timed out."""
        self._mappings.expire(now)

    # ---- from inside

    def outbound(self, packet: AnyPacket, now: int) -> Decision:
        """A packet from inside that is to be forwarded, or is for an external address."""
        self._mappings.expire(now)
        if isinstance(packet, IcmpError):
            return self._error_outbound(packet, now)
        if isinstance(packet, Echo):
            return self._pings.outbound(packet, self._external, now)
        if self._is_inside(packet.destination.host):
            return Forwarded(packet)
        if self._behaviour.translates and not self._is_inside(packet.source.host):
            return Dropped(Reason.NOT_TRANSLATED)
        if self._behaviour.blocks_udp and packet.transport is Transport.UDP:
            return Dropped(Reason.UDP_BLOCKED)
        if self._behaviour.admits_all:
            return Forwarded(packet)
        if self._behaviour.translates and packet.destination.host in self._external:
            return self._hairpin(packet, now)
        found = self._leave(packet, now)
        return Dropped(found) if isinstance(found, Reason) else Forwarded(packet.sent_from(found.external))

    def _leave(self, packet: Packet, now: int) -> Mapping | Reason:
        """The mapping that the packet leaves by, or why it does not."""
        transport, internal, remote = packet.transport, packet.source, packet.destination
        mapping = None
        if self._behaviour.answers_by_session:
            mapping = self._mappings.answering(transport, internal, remote, now)
        if mapping is None:
            mapping = self._mappings.outward(transport, internal, remote, now)
        state = self._mappings.state_after(mapping, remote, packet, now, outbound=True)
        if state is None:
            return Reason.NOT_TRANSLATED
        if mapping is None:
            external = self._choose(transport, internal, remote, now)
            if isinstance(external, Reason):
                return external
            mapping = self._mappings.add(transport, internal, external, remote)
            if self._behaviour.translates:
                self._ports.assigned(internal.host, external)
        self._mappings.touch(mapping, remote, state, now, outbound=True, flags=packet.flags)
        return mapping

    def _choose(self, transport: Transport, internal: Endpoint, remote: Endpoint, now: int) -> Endpoint | Reason:
        """An external endpoint for a new mapping (RFC 4787 §4.2)."""
        if not self._behaviour.translates:
            return internal
        if self._behaviour.reuses_newest:
            newest = self._mappings.newest(transport, internal, now)
            if newest is not None and self._mappings.inward(transport, newest.external, remote, now) is None:
                return newest.external
        host = self._ports.address(transport, internal.host)
        if host is None:
            return Reason.PORT_EXHAUSTED
        for port in self._ports.candidates(transport, internal):
            external = Endpoint(host, port)
            if self._behaviour.takes_over or self._mappings.inward(transport, external, remote, now) is None:
                return Reason.TABLE_FULL if self._mappings.is_full(transport) else external
        return Reason.PORT_EXHAUSTED

    def _hairpin(self, packet: Packet, now: int) -> Decision:
        """From inside to an external endpoint of this NAT (RFC 4787 §6)."""
        if self._behaviour.has_own_stack:
            return _taken(packet)
        if self._behaviour.hairpinning is Hairpinning.NONE:
            return Dropped(Reason.HAIRPIN_REFUSED)
        target = self._mappings.inward(packet.transport, packet.destination, packet.source, now)
        if target is None or target.internal is None:
            return Dropped(Reason.NO_MAPPING)
        if self._behaviour.hairpinning is Hairpinning.INTERNAL_SOURCE:
            return Hairpinned(packet.sent_to(target.internal))
        own = self._leave(packet, now)
        if isinstance(own, Reason):  # a segment of no connection finds nobody, as one from outside would
            return Dropped(Reason.NO_MAPPING if own is Reason.NOT_TRANSLATED else own)
        if not self._admits(target, own.external, now):
            return Dropped(Reason.NO_PERMISSION)
        state = self._mappings.state_after(target, own.external, packet, now, outbound=False)
        if state is None:
            return Dropped(Reason.NO_MAPPING)
        self._mappings.touch(target, own.external, state, now, outbound=False, flags=packet.flags)
        return Hairpinned(packet.sent_from(own.external).sent_to(target.internal))

    def _error_outbound(self, error: IcmpError, now: int) -> Decision:
        """The packet in it came by a mapping a short while ago, to whom tells of it."""
        if not self._behaviour.translates:
            return Forwarded(error)
        inner = error.inner
        if isinstance(inner, Echo):
            return Dropped(Reason.NOT_TRANSLATED)  # no ping of the outside has come this far
        mapping = self._mappings.came_by(inner.transport, inner.destination, inner.source, now)
        if mapping is None or error.source != inner.destination.host:
            return Dropped(Reason.NOT_TRANSLATED)
        return Forwarded(replace(error, source=mapping.external.host, inner=inner.sent_to(mapping.external)))

    # ---- from outside

    def inbound(self, packet: AnyPacket, now: int) -> Decision:
        """A packet from outside, for an external address or to be forwarded."""
        self._mappings.expire(now)
        if isinstance(packet, IcmpError):
            return self._error_inbound(packet, now)
        if isinstance(packet, Echo):
            return self._pings.inbound(packet, self._external, now)
        if self._behaviour.translates and packet.destination.host not in self._external:
            return Dropped(Reason.NO_MAPPING)
        if self._behaviour.blocks_udp and packet.transport is Transport.UDP:
            return Dropped(Reason.UDP_BLOCKED)
        if self._behaviour.admits_all:
            return Forwarded(packet)
        return self._come(packet, now)

    def _come(self, packet: Packet, now: int) -> Decision:
        nothing = Reason.NO_MAPPING if self._behaviour.translates else Reason.NO_PERMISSION
        mapping = self._mappings.inward(packet.transport, packet.destination, packet.source, now)
        if mapping is None:
            return self._unsolicited(packet, nothing, now)
        if mapping.internal is None:
            self._mappings.touch(mapping, packet.source, State.NONE, now, outbound=False)
            return _taken(packet)
        if not self._admits(mapping, packet.source, now):
            return self._unsolicited(packet, Reason.NO_PERMISSION, now)
        state = self._mappings.state_after(mapping, packet.source, packet, now, outbound=False)
        if state is None:
            return Dropped(nothing)
        self._mappings.touch(mapping, packet.source, state, now, outbound=False, flags=packet.flags)
        return Forwarded(packet.sent_to(mapping.internal))

    def _admits(self, mapping: Mapping, remote: Endpoint, now: int) -> bool:
        match self._behaviour.filtering:
            case Dependence.ADDRESS_DEPENDENT | Dependence.ADDRESS_AND_PORT_DEPENDENT:
                return self._mappings.permits(mapping, remote, now)
            case _:
                return True

    def _unsolicited(self, packet: Packet, reason: Reason, now: int) -> Decision:
        match self._behaviour.unsolicited:
            case Unsolicited.ICMP_UNREACHABLE:
                return Dropped(reason, unreachable(packet))
            case Unsolicited.TCP_RESET if packet.transport is Transport.TCP:
                return Dropped(reason, reset(packet))
            case Unsolicited.ACCEPT if self._behaviour.translates:
                if self._mappings.inward(packet.transport, packet.destination, packet.source, now) is None:
                    own = self._mappings.add(packet.transport, None, packet.destination, packet.source)
                    self._mappings.touch(own, packet.source, State.NONE, now, outbound=False)
                return _taken(packet)
            case _:
                return Dropped(reason)

    def _error_inbound(self, error: IcmpError, now: int) -> Decision:
        """The packet in it left by a mapping."""
        inner = error.inner
        if isinstance(inner, Echo):
            return self._pings.error(error, inner, now)
        mapping = self._mappings.inward(inner.transport, inner.source, inner.destination, now)
        session = mapping.session(inner.destination, now) if mapping is not None else None
        if self._behaviour.admits_all:
            return Forwarded(error)
        is_over = session is None or session.state is State.REFUSED
        if mapping is None or is_over or mapping.internal is None or error.destination != inner.source.host:
            return Dropped(Reason.NO_MAPPING if self._behaviour.translates else Reason.NO_PERMISSION)
        inner = inner.sent_from(mapping.internal)
        return Forwarded(replace(error, destination=mapping.internal.host, inner=inner))

    # ---- addresses

    def _is_inside(self, host: str) -> bool:
        found = self._inside.get(host)
        if found is None:
            if len(self._inside) >= REMEMBERED:
                self._inside.clear()
            address = IPv4Address(host)
            found = self._inside[host] = any(address in prefix for prefix in self._translation.inside)
        return found


def _taken(packet: Packet) -> Delivered:
    """By the NAT's own stack, where nobody listens."""
    return Delivered(unreachable(packet) if packet.transport is Transport.UDP else reset(packet))
