"""A peer as pure state machines: STUN, TURN, signalling, candidates, rounds of checks, strategies.

Every machine speaks one contract, with time as an argument in integer nanoseconds:

    receive(datagram, now) · next_timeout() -> int | None · handle_timeout(now)
    datagrams_to_send(now) -> list[Datagram] · events() -> list

A datagram's `source` says which socket it leaves by; its `destination`, which socket it came in on.
`agents/` drives these machines over sockets, `sim/` in virtual time.
"""
