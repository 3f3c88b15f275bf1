"""Where a TCP connection stands, as far as a middlebox can see from flags.

Rule 1: transitions are data. What the table does not have is no segment of that connection: a NAT drops it.
Rule 2: timers hang on the state: one of an established connection, one of all others (RFC 5382 REQ-5); or one each
        of those that open, that close, and that were reset (RFC 7857 §2).
Rule 3: SYNs of both ends may cross (simultaneous open, RFC 5382 REQ-2).
Rule 4: a connection whose beginning was not seen may go on: an ACK opens one (as nf_conntrack_tcp_loose lets it), or
        a NAT that was restarted would cut all its connections. With that one segment it counts as opening: nobody
        should hold a mapping for hours by a single ACK.

The table is that of nf_conntrack_proto_tcp.c; a segment that leaves the state as it is may be one that it ignores.
Sequence numbers are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum, auto

from testbed.nat.packet import Flag


class Segment(Enum):
    """What a segment's flags mean; the first of RST, SYN, FIN, ACK decides, as in nf_conntrack_proto_tcp.c."""

    SYN = auto()
    SYN_ACK = auto()
    ACK = auto()
    FIN = auto()
    RST = auto()


class State(StrEnum):
    """Of a connection. `ours` in the table below are segments of the end that opened it, `theirs` of the other."""

    NONE = "none"
    SYN_SENT = "syn-sent"
    SYN_BOTH = "syn-both"
    SYN_RECEIVED = "syn-received"
    PICKED_UP = "picked-up"
    """One segment of it was seen, in the middle."""
    ESTABLISHED = "established"
    FIN_WAIT = "fin-wait"
    CLOSE_WAIT = "close-wait"
    LAST_ACK = "last-ack"
    TIME_WAIT = "time-wait"
    CLOSED = "closed"
    REFUSED = "refused"
    """Reset before an answer was seen: whoever sends next begins a connection, as if this one had not been."""


BEGINNING = (State.NONE, State.REFUSED)
"""States in which whoever sends opens a connection."""
CLOSING = (State.FIN_WAIT, State.CLOSE_WAIT, State.LAST_ACK, State.TIME_WAIT)
"""After the first FIN. Only when both have gone and been acknowledged may either end open the connection again."""
OVER = (State.TIME_WAIT, State.CLOSED)
"""States that a SYN may leave."""
_S = State
_FIN = {
    _S.SYN_RECEIVED: _S.FIN_WAIT,
    _S.PICKED_UP: _S.FIN_WAIT,
    _S.ESTABLISHED: _S.FIN_WAIT,
    _S.FIN_WAIT: _S.LAST_ACK,
    _S.CLOSE_WAIT: _S.LAST_ACK,
    _S.LAST_ACK: _S.LAST_ACK,
    _S.TIME_WAIT: _S.TIME_WAIT,
    _S.CLOSED: _S.CLOSED,
}
_RST = {state: _S.CLOSED for state in _S if state not in BEGINNING}
_ACK = {
    _S.SYN_RECEIVED: _S.ESTABLISHED,
    _S.PICKED_UP: _S.ESTABLISHED,
    _S.ESTABLISHED: _S.ESTABLISHED,
    _S.FIN_WAIT: _S.CLOSE_WAIT,
    _S.CLOSE_WAIT: _S.CLOSE_WAIT,
    _S.LAST_ACK: _S.TIME_WAIT,
    _S.TIME_WAIT: _S.TIME_WAIT,
    _S.CLOSED: _S.CLOSED,
}
_OPEN = (_S.SYN_RECEIVED, _S.PICKED_UP, _S.ESTABLISHED, _S.FIN_WAIT, _S.CLOSE_WAIT, _S.LAST_ACK)
_OURS: Mapping[Segment, Mapping[State, State]] = {
    Segment.SYN: {
        _S.NONE: _S.SYN_SENT,
        _S.SYN_SENT: _S.SYN_SENT,
        _S.SYN_BOTH: _S.SYN_BOTH,
        **{state: state for state in _OPEN},
        _S.TIME_WAIT: _S.SYN_SENT,
        _S.CLOSED: _S.SYN_SENT,
    },
    Segment.SYN_ACK: {_S.SYN_RECEIVED: _S.SYN_RECEIVED, _S.SYN_BOTH: _S.SYN_RECEIVED},
    Segment.ACK: {_S.NONE: _S.PICKED_UP, **_ACK},
    Segment.FIN: _FIN,
    Segment.RST: _RST,
}
_THEIRS: Mapping[Segment, Mapping[State, State]] = {
    Segment.SYN: {_S.SYN_SENT: _S.SYN_BOTH, _S.SYN_BOTH: _S.SYN_BOTH, _S.TIME_WAIT: _S.SYN_SENT},
    Segment.SYN_ACK: {
        _S.SYN_SENT: _S.SYN_RECEIVED,
        _S.SYN_BOTH: _S.SYN_RECEIVED,
        **{state: state for state in (*_OPEN, _S.TIME_WAIT, _S.CLOSED)},
    },
    Segment.ACK: {**_ACK, _S.SYN_SENT: _S.SYN_SENT, _S.SYN_BOTH: _S.SYN_BOTH, _S.SYN_RECEIVED: _S.SYN_RECEIVED},
    Segment.FIN: _FIN,
    Segment.RST: _RST,
}


def segment(flags: Flag) -> Segment | None:
    """What kind of segment has these flags; None for one that no TCP sends."""
    if Flag.RST in flags:
        return Segment.RST
    if Flag.SYN in flags:
        return Segment.SYN_ACK if Flag.ACK in flags else Segment.SYN
    if Flag.FIN in flags:
        return Segment.FIN
    return Segment.ACK if Flag.ACK in flags else None


def next_state(state: State, flags: Flag, *, is_ours: bool, is_answered: bool) -> State | None:
    """The state after a segment; None where it is none of this connection.

    `is_ours`: sent by the end that opened the connection, which is whoever sends in a state that begins. `is_answered`:
    whether the other end has sent anything before.
    """
    kind = segment(flags)
    if kind is None:
        return None
    if kind is Segment.RST and not is_answered and state not in BEGINNING:
        return State.REFUSED
    return (_OURS if is_ours else _THEIRS)[kind].get(State.NONE if state in BEGINNING else state)


def keeps_alive(before: State, flags: Flag, after: State, *, is_ours: bool, is_answered: bool) -> bool:
    """Whether a segment keeps its connection alive. One that is out of place, and passes, does not; nor does a SYN that
    is sent again, by which an end that gets no answer could hold its place for ever.
    """
    kind = segment(flags)
    if before is not after:
        return True
    match kind:
        case Segment.SYN:
            return (is_ours and before is State.SYN_BOTH) or not is_ours or (before is State.SYN_SENT and is_answered)
        case Segment.SYN_ACK:
            return is_ours
        case Segment.ACK:
            return is_ours or before not in (State.SYN_SENT, State.SYN_BOTH)
        case _:
            return True
