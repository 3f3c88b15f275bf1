"""The table of a NAT: mappings by both of their ends, with their permissions and sessions, each with its time to die.

Rule 1: whatever is asked for at its time of death or later is not there; nobody need have called `expire`.
Rule 2: a mapping lives as long as the longest of its sessions. So one inside endpoint may close one TCP connection
        and keep another (RFC 5382 REQ-5), and UDP has the one timer of RFC 4787 §4.3. Every packet that passes keeps
        the mapping; one that is out of place in its TCP connection does not keep that.
Rule 3: a session is a mapping and one remote; a permission, what the filter can see of the remotes. The NAT's own
        conversations (`internal` is None) stand in the table too: they take endpoints from the hosts inside.
Rule 4: a direction that does not refresh makes what is missing and leaves the time of the rest alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from testbed.datagram import Endpoint
from testbed.nat.behaviour import Behaviour, RemoteKey, remote_key
from testbed.nat.packet import NO_FLAGS, Flag, Packet, Transport
from testbed.nat.tcp import BEGINNING, OVER, State, keeps_alive, next_state

ERROR_LIFE = 30_000_000_000
"""Nanoseconds after a packet from outside in which its receiver may still answer with an ICMP error."""


@dataclass(slots=True)
class Session:
    """What passes between a mapping and one remote."""

    expires: int
    is_outbound: bool
    """Whether the inside opened it."""
    state: State = State.NONE
    """Of TCP."""
    is_answered: bool = False
    """Whether the other end has sent anything."""

    def is_renewed(self, flags: Flag, state: State, *, outbound: bool) -> bool:
        """Whether a segment that leads to a state keeps the connection alive."""
        is_ours = self.is_outbound is outbound
        return keeps_alive(self.state, flags, state, is_ours=is_ours, is_answered=self.is_answered)

    def go_on(self, state: State, *, outbound: bool) -> None:
        """A packet has passed, after which it is in this state."""
        if state is not State.NONE and (self.state in BEGINNING or (state is State.SYN_SENT and self.state in OVER)):
            self.is_outbound, self.is_answered = outbound, False
        self.is_answered |= self.is_outbound is not outbound
        self.state = state


@dataclass(slots=True, eq=False)
class Mapping:
    """An internal endpoint <-> an external endpoint, for the remotes that `key` stands for."""

    transport: Transport
    internal: Endpoint | None
    external: Endpoint
    key: RemoteKey
    """What the mapping sees of the remote that it was made for."""
    owned: RemoteKey
    """What tells it from others that share its external endpoint."""
    expires: int = 0
    looked_at: int = 0
    """When it is next looked whether this mapping is dead: at the latest when it is; 0 for one that has no time."""
    permits: dict[RemoteKey, int] = field(default_factory=dict)
    """What the filter sees of a remote that may send in -> until when."""
    sessions: dict[Endpoint, Session] = field(default_factory=dict)
    sweep_at: int = 16
    """At so many sessions the dead ones are looked for."""

    def session(self, remote: Endpoint, now: int) -> Session | None:
        """The live session with *remote*."""
        session = self.sessions.get(remote)
        return session if session is not None and now < session.expires else None


class Mappings:
    """All of them."""

    def __init__(self, behaviour: Behaviour, on_end: Callable[[Endpoint], object]) -> None:
        """`on_end` hears of the external endpoint of each mapping of an inside host that has ended."""
        self._behaviour, self._on_end = behaviour, on_end
        self._out: dict[tuple[Transport, Endpoint, RemoteKey], Mapping] = {}
        self._back: dict[tuple[Transport, Endpoint, RemoteKey], Mapping] = {}
        self._of_host: dict[tuple[Transport, Endpoint], list[Mapping]] = {}
        self._came: dict[tuple[Transport, Endpoint, Endpoint], tuple[Mapping, int]] = {}
        """The first of the mappings by which a remote's packets came a short while ago, and when the last one came."""
        self._opened: dict[tuple[Transport, Endpoint, Endpoint], Mapping] = {}
        self._counts: Counter[Transport] = Counter()
        self._deaths: list[tuple[int, int, Mapping]] = []
        self._looks = 0

    # ---- to find one

    def outward(self, transport: Transport, internal: Endpoint, remote: Endpoint, now: int) -> Mapping | None:
        """The mapping that a packet from inside leaves by."""
        found = self._out.get((transport, internal, remote_key(self._behaviour.mapping, remote)))
        return found if found is not None and now < found.expires else None

    def inward(self, transport: Transport, external: Endpoint, remote: Endpoint, now: int) -> Mapping | None:
        """The mapping that a packet from outside is for, if it may come in."""
        found = self._back.get((transport, external, remote_key(self._behaviour.owner, remote)))
        return found if found is not None and now < found.expires else None

    def came_by(self, transport: Transport, internal: Endpoint, remote: Endpoint, now: int) -> Mapping | None:
        """The mapping by which packets of *remote* came to *internal* a short while ago: the first, if several did.

        An error that an inside host sends does not say by which.
        """
        mapping, last = self._came.get((transport, internal, remote), (None, 0))
        if mapping is None or now - last >= ERROR_LIFE or _live(mapping, remote, now) is None:
            return None
        return mapping if mapping.sessions[remote].state is not State.REFUSED else None

    def answering(self, transport: Transport, internal: Endpoint, remote: Endpoint, now: int) -> Mapping | None:
        """The mapping by which *remote* has opened a session with *internal*, the last one if there are several."""
        return _live(self._opened.get((transport, internal, remote)), remote, now)

    def newest(self, transport: Transport, internal: Endpoint, now: int) -> Mapping | None:
        """The mapping that was made last for an inside endpoint."""
        made = self._of_host.get((transport, internal), ())
        return next((mapping for mapping in reversed(made) if now < mapping.expires), None)

    def is_full(self, transport: Transport) -> bool:
        """Whether there is no room for one more."""
        return self._behaviour.most is not None and self._counts[transport] >= self._behaviour.most

    def live(self, now: int) -> tuple[Mapping, ...]:
        """Every mapping of an inside host, oldest first."""
        return tuple(mapping for mapping in self._out.values() if now < mapping.expires)

    # ---- to change one

    def add(self, transport: Transport, internal: Endpoint | None, external: Endpoint, remote: Endpoint) -> Mapping:
        """Make a mapping that has not begun to live; `touch` it. It takes the endpoint from whoever has it."""
        key, owned = remote_key(self._behaviour.mapping, remote), remote_key(self._behaviour.owner, remote)
        made = Mapping(transport, internal, external, key, owned)
        self._back[transport, external, owned] = made
        if internal is not None:
            self._out[transport, internal, key] = made
            self._of_host.setdefault((transport, internal), []).append(made)
            self._counts[transport] += 1
        return made

    def permits(self, mapping: Mapping, remote: Endpoint, now: int) -> bool:
        """Whether the mapping's filter lets *remote* in (RFC 4787 §5)."""
        return now < mapping.permits.get(remote_key(self._behaviour.filtering, remote), 0)

    def state_after(
        self, mapping: Mapping | None, remote: Endpoint, packet: Packet, now: int, *, outbound: bool
    ) -> State | None:
        """Of the connection to *remote*; None where the packet is none of it. UDP has no states."""
        if packet.transport is Transport.UDP:
            return State.NONE
        session = mapping.session(remote, now) if mapping is not None else None
        if session is None or session.state in BEGINNING:
            return next_state(State.NONE, packet.flags, is_ours=True, is_answered=False)
        is_ours = session.is_outbound is outbound
        return next_state(session.state, packet.flags, is_ours=is_ours, is_answered=session.is_answered)

    def touch(
        self, mapping: Mapping, remote: Endpoint, state: State, now: int, *, outbound: bool, flags: Flag = NO_FLAGS
    ) -> None:
        """A packet with these flags passes, after which the connection is in *state*."""
        behaviour, session = self._behaviour, mapping.session(remote, now)
        renews = behaviour.renews_outward if outbound else behaviour.renews_inward
        dies = now + behaviour.lifetime(mapping.transport, state)
        if session is None:
            self._sweep(mapping, now)
            session = mapping.sessions[remote] = Session(dies, outbound)
        elif renews and (mapping.transport is Transport.UDP or session.is_renewed(flags, state, outbound=outbound)):
            session.expires = dies
        session.go_on(state, outbound=outbound)
        if outbound and behaviour.takes_over:
            # the newest owner may be gone; who is still there inherits what comes in
            self._back.setdefault((mapping.transport, mapping.external, mapping.owned), mapping)
        if not outbound and mapping.internal is not None:
            came = (mapping.transport, mapping.internal, remote)
            first, last = self._came.get(came, (mapping, now))
            self._came[came] = (first if now - last < ERROR_LIFE else mapping, now)
            if not session.is_outbound:
                self._opened[mapping.transport, mapping.internal, remote] = mapping
        self._permit(mapping, remote, now, dies, renews=renews, outbound=outbound)
        if mapping.expires == 0 or renews:
            mapping.expires = self._latest(mapping, dies)
            if not mapping.looked_at or mapping.expires < mapping.looked_at:
                self._look_at(mapping)

    def _permit(self, mapping: Mapping, remote: Endpoint, now: int, dies: int, *, renews: bool, outbound: bool) -> None:
        filtering = self._behaviour.filtering
        key = remote_key(filtering, remote)
        is_alive = now < mapping.permits.get(key, 0)
        if not (renews if is_alive else outbound):
            return
        if mapping.transport is Transport.UDP:
            mapping.permits[key] = dies
        else:
            alike = (s for r, s in mapping.sessions.items() if remote_key(filtering, r) == key)
            mapping.permits[key] = max(dies, *(session.expires for session in alike))

    @staticmethod
    def _latest(mapping: Mapping, dies: int) -> int:
        if mapping.transport is Transport.UDP:
            return dies
        return max(dies, *(session.expires for session in mapping.sessions.values()))

    def _sweep(self, mapping: Mapping, now: int) -> None:
        """Forget dead sessions and permissions of a mapping that lives on, so that it does not grow for ever."""
        if len(mapping.sessions) < mapping.sweep_at:
            return
        for remote, session in list(mapping.sessions.items()):
            if session.expires <= now:
                self._forget(mapping, remote)
        mapping.permits = {key: dies for key, dies in mapping.permits.items() if now < dies}
        mapping.sweep_at = 2 * len(mapping.sessions) + 16

    # ---- to lose one

    def next_timeout(self) -> int | None:
        """When `expire` has something to do: never later than the next death."""
        return self._deaths[0][0] if self._deaths else None

    def expire(self, now: int) -> None:
        """Forget what is dead."""
        while self._deaths and self._deaths[0][0] <= now:
            time, _, mapping = heappop(self._deaths)
            if time != mapping.looked_at:
                continue  # it came to die earlier than this once said
            if now < mapping.expires:
                self._look_at(mapping)
            else:
                self._remove(mapping)

    def _look_at(self, mapping: Mapping) -> None:
        mapping.looked_at = mapping.expires
        self._looks += 1
        heappush(self._deaths, (mapping.expires, self._looks, mapping))

    def _remove(self, mapping: Mapping) -> None:
        mapping.looked_at = 0
        transport, internal = mapping.transport, mapping.internal
        if self._back.get((transport, mapping.external, mapping.owned)) is mapping:
            del self._back[transport, mapping.external, mapping.owned]
        for remote in list(mapping.sessions):
            self._forget(mapping, remote)
        if internal is not None:
            del self._out[transport, internal, mapping.key]
            self._counts[transport] -= 1
            alike = self._of_host[transport, internal]
            alike.remove(mapping)
            if not alike:
                del self._of_host[transport, internal]
            self._on_end(mapping.external)

    def _forget(self, mapping: Mapping, remote: Endpoint) -> None:
        del mapping.sessions[remote]
        if mapping.internal is not None:
            key = (mapping.transport, mapping.internal, remote)
            if self._opened.get(key) is mapping:
                del self._opened[key]
            if self._came.get(key, (None, 0))[0] is mapping:
                del self._came[key]


def _live(mapping: Mapping | None, remote: Endpoint, now: int) -> Mapping | None:
    """The mapping, if it lives and has a live session with *remote*."""
    if mapping is None or mapping.expires <= now or mapping.session(remote, now) is None:
        return None
    return mapping
