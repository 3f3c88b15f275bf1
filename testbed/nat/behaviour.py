"""What a profile means for a NAT's tables: how much of the remote each of them can see.

Rule 1: a behaviour is a key, not a class. Mapping and filtering (RFC 4787 §4.1, §5), and whose an external endpoint
        is where it is shared (§4.2.1), are three dependences; with `remote_key` they make every kind of NAT.
Rule 2: Linux's own masquerade is a NAT of this kind too. It keeps one entry for each connection, so all three see
        address and port; what makes it look endpoint-independent is how it chooses the port (`reuses_newest`):
        that of the newest connection of the same inside endpoint, unless it is taken towards this remote
        (find_appropriate_src in nf_nat_core.c).
Rule 3: a firewall is a NAT whose external endpoint is the internal one (`translates` is false).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from testbed.datagram import Endpoint
from testbed.nat.packet import Transport
from testbed.nat.tcp import CLOSING, State
from testbed.plan.engines import engine_of
from testbed.spec.profile import Dependence, Engine, Hairpinning, NatProfile, Refresh, TcpTimeout, Unsolicited

RemoteKey: TypeAlias = "tuple[()] | tuple[str] | tuple[str, int]"

_INDEPENDENT = Dependence.ENDPOINT_INDEPENDENT
_STRICTEST = Dependence.ADDRESS_AND_PORT_DEPENDENT


def remote_key(dependence: Dependence, remote: Endpoint) -> RemoteKey:
    """The part of *remote* that a behaviour of this dependence can see."""
    match dependence:
        case Dependence.ADDRESS_AND_PORT_DEPENDENT:
            return (remote.host, remote.port)
        case Dependence.ADDRESS_DEPENDENT:
            return (remote.host,)
        case _:  # endpoint-independent; and none, of a firewall or a filter that lets everything in
            return ()


def is_native(profile: NatProfile) -> bool:
    """Whether the profile is Linux's own masquerade."""
    return profile.mapping is not Dependence.NONE and engine_of(profile) is Engine.NATIVE


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A profile, read for the tables."""

    translates: bool
    admits_all: bool
    """A firewall without a filter."""
    mapping: Dependence
    filtering: Dependence
    owner: Dependence
    """What of the remote, with the external endpoint, says whose a packet from outside is."""
    reuses_newest: bool
    takes_over: bool
    """Whether a new mapping may take an endpoint from another one: overloading without a remote to tell them by."""
    answers_by_session: bool
    has_own_stack: bool
    """Whether an inside host that asks for an external endpoint gets the NAT itself: masquerade's hairpinning."""
    hairpinning: Hairpinning
    unsolicited: Unsolicited
    renews_outward: bool
    renews_inward: bool
    udp_timeout: int
    tcp_timeouts: Mapping[State, int]
    most: int | None
    """Mappings at once, of each transport."""
    blocks_udp: bool

    def lifetime(self, transport: Transport, state: State) -> int:
        """How long an idle session lives, in nanoseconds (RFC 4787 §4.3, RFC 5382 REQ-5, RFC 7857 §2)."""
        return self.udp_timeout if transport is Transport.UDP else self.tcp_timeouts[state]


def behaviour(profile: NatProfile) -> Behaviour:
    """What `profile` means."""
    native, translates = is_native(profile), profile.mapping is not Dependence.NONE
    overloads = translates and profile.ports.overload
    mapping = _STRICTEST if native else profile.mapping
    return Behaviour(
        translates=translates,
        admits_all=not translates and profile.filtering is Dependence.NONE,
        mapping=mapping,
        filtering=_STRICTEST if native else profile.filtering,
        owner=_STRICTEST if native else profile.mapping if overloads else _INDEPENDENT,
        reuses_newest=native and profile.ports.preserve,
        takes_over=overloads and mapping is _INDEPENDENT,
        answers_by_session=profile.session_reply and mapping is not _INDEPENDENT,
        has_own_stack=native,
        hairpinning=profile.hairpinning,
        unsolicited=profile.unsolicited,
        renews_outward=profile.refresh is not Refresh.INBOUND,
        renews_inward=profile.refresh is not Refresh.OUTBOUND,
        udp_timeout=profile.udp_timeout,
        tcp_timeouts=_by_state(profile.tcp_timeout),
        most=profile.max_mappings if translates and not native else None,
        blocks_udp=profile.udp_blocked,
    )


def _by_state(timers: TcpTimeout) -> Mapping[State, int]:
    """The timer of each state; of a connection of the NAT's own (NONE), nothing finer is known than transitory."""
    own = timers.own
    partially_open = own.get("partially_open", timers.transitory)
    return {
        State.NONE: timers.transitory,
        State.SYN_SENT: partially_open,
        State.SYN_BOTH: partially_open,
        State.SYN_RECEIVED: partially_open,
        State.PICKED_UP: partially_open,
        State.ESTABLISHED: timers.established,
        **dict.fromkeys(CLOSING, own.get("closing", timers.transitory)),
        State.CLOSED: own.get("reset", timers.transitory),
        State.REFUSED: own.get("reset", timers.transitory),
    }
