"""Which external endpoints a NAT assigns: mapping, ports, addresses, and how many.

Rule 1: a port that may be preserved is asked for inside the range; the order of the others is seen where it may not:
        because the NAT preserves none, because another host has it, or because it lies outside.
Rule 2: what would take thousands of packets is asked of a copy of the profile with few ports or few mappings, and `how`
        says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed.certify import judgement
from testbed.certify.rows import FEWEST_PORTS, Seen
from testbed.certify.stage import STUN_PORTS, Arrival, Stage
from testbed.certify.subject import HOSTS
from testbed.datagram import Endpoint
from testbed.lab import packets
from testbed.spec.profile import PORT_MAX, PORT_MIN, Dependence, NatProfile, Otherwise, Pooling

PORT = 5000
"""Of the server: of no meaning."""
SMALL = (40000, 40003)
"""The range of a copy that has few ports."""
FEW = 8
"""The mappings of a copy that has few."""
DIRECT = 256
"""So many mappings are made one by one; of a larger limit a copy is asked."""
_DRAWN = 64
_AT_ONCE = 128
_LARGE = 512


def mapping(stage: Stage) -> dict[str, Seen]:
    """RFC 5780 §4.3: how one socket is seen from two addresses and two ports."""
    stage.start()
    one = _mapping_of(stage, stage.block(0)[0] + 1)
    if stage.profile.ports.most_of_host < FEWEST_PORTS:  # two sockets could need more ports than there are
        return {"mapping": Seen(one, "STUN from one socket to two addresses and two ports")}
    other = _mapping_of(stage, stage.block(0)[0] + 2)
    how = "STUN from two sockets, each to two addresses and two ports"
    return {"mapping": Seen(judgement.stricter(one, other), how)}


def _mapping_of(stage: Stage, port: int) -> str:
    """What one socket shows."""
    own, ports = Endpoint(str(stage.inside[0]), port), stage.profile.ports
    first, new_port, new_address = _servers(stage)
    if stage.profile.mapping is not Dependence.ENDPOINT_INDEPENDENT and ports.preserve and ports.overload:
        # Every remote would see the preserved port, whatever the mapping: so somebody else has it, towards one of them.
        stage.ask(stage.host(port, 1), first)
    seen = [stage.ask(stage.host(port), server) for server in (first, new_port, new_address, first)]
    return judgement.mapping_of(own, seen)


def preservation(stage: Stage) -> dict[str, Seen]:
    """Ports that are free outside, and lie in the range."""
    stage.start()
    inside = [stage.block(0)[0] + 7 * number for number in range(4)]
    pairs = _pairs(stage, inside)
    return {"ports.preserve": Seen(judgement.preserved(pairs), f"{len(inside)} free ports within the range")}


def order(stage: Stage) -> dict[str, Seen]:
    """How the port is chosen that is not the host's own: the order, the range, the parity."""
    stage.start(_with_large_blocks(_with_one_address(stage.made)))
    count = min(_DRAWN, stage.profile.ports.most_of_host // 2)
    inside, why = _not_preserved(stage, count)
    if stage.profile.ports.is_dynamic:
        why += f", of a copy that has blocks of {_LARGE}"
    pairs = _pairs(stage, inside)
    externals = [external for _, external in pairs]
    if len(pairs) < count:
        nothing = Seen(f"{len(pairs)} of {count} packets get out", why)
        return dict.fromkeys(("ports.otherwise", "ports.step", "ports.range", "ports.parity"), nothing)
    even = externals[: count // 2]  # of even ports; see _mixed
    step = judgement.step_of(even)
    if step is None and stage.profile.ports.parity and judgement.alternating(even, stage.profile.ports.step):
        step = stage.profile.ports.step
    kind = Otherwise.RANDOM if step is None else Otherwise.SEQUENTIAL
    how = f"{count} mappings, {why}"
    return {
        "ports.otherwise": Seen(kind.value, how),
        "ports.step": Seen("none" if step is None else str(step), how),
        "ports.range": _range(stage, externals, how),
        "ports.parity": Seen(judgement.parity(pairs), how),
    }


def overloading(stage: Stage) -> dict[str, Seen]:
    """RFC 4787 §4.2.1: whether two hosts may have one external endpoint."""
    if stage.profile.ports.preserve:
        stage.start(_with_one_address(stage.made))
        port = stage.block(0)[0] + 77
        one = stage.out(stage.host(port, 0), stage.remote(PORT, 0))
        other = stage.out(stage.host(port, 1), stage.remote(PORT, 1))
        shared = one is not None and one == other
        return {"ports.overload": Seen(str(shared).lower(), "two hosts with one source port, to different remotes")}
    stage.start(_small(stage.made))
    size = SMALL[1] - SMALL[0] + 1
    taken = [stage.out(stage.host(6000 + number), stage.remote(PORT)) for number in range(size)]
    more = stage.out(stage.host(7000, 1), stage.remote(PORT, 1))
    how = f"a copy of the profile that has {size} ports: they are taken, then another host talks to another remote"
    return {"ports.overload": Seen(str(more in taken).lower() if None not in taken else judgement.NOTHING, how)}


def blocks(stage: Stage) -> dict[str, Seen]:
    """How many ports a host has, in how many blocks, and that they are nobody else's."""
    ports = stage.made.ports.model_copy(
        update={"preserve": False, "parity": False, "otherwise": Otherwise.SEQUENTIAL, "step": 1}
    )
    stage.start(stage.made.model_copy(update={"ports": ports, "max_mappings": PORT_MAX}))
    size = stage.profile.ports.block or 0
    wanted = stage.profile.ports.most_of_host + (size if stage.profile.ports.is_dynamic else 8)
    mine = set(_many(stage, 0, wanted))
    others = set(_many(stage, 1, wanted))
    how = f"two hosts ask for {wanted} ports each, of a copy that assigns in sequence"
    seen, number = judgement.blocks_of(mine, others, stage.profile.ports.range[0], size)
    return {"ports.block": Seen(seen, how), "ports.blocks_per_host": Seen(number, how)}


def addresses(stage: Stage) -> dict[str, Seen]:
    """RFC 4787 REQ-2: how many external addresses there are, and whether a host keeps to one."""
    stage.start()
    remote = stage.remote(PORT)
    prefix = int(stage.inside[0]) & ~0xFF
    senders = [
        Endpoint(f"{prefix >> 24}.{prefix >> 16 & 255}.{prefix >> 8 & 255}.{last}", 6000) for last in range(5, 255)
    ]
    found = {arrival.source.host for arrival in _send_from(stage, senders, Endpoint(*remote.getsockname()))}
    count = stage.profile.external_addresses
    agrees = len(found) == count or (count > 16 and count // 2 <= len(found) <= count)
    seen = {
        "external_addresses": Seen(
            str(count) if agrees else str(len(found)), f"the packets of {len(senders)} inside addresses"
        )
    }
    stage.start()
    used = []
    for number in range(len(HOSTS)):
        first = stage.block(number)[0] + 100
        seen_at = [stage.out(stage.host(first + port, number), stage.remote(PORT)) for port in range(16)]
        used.append({endpoint.host for endpoint in seen_at if endpoint is not None})
    paired = all(len(hosts) == 1 for hosts in used)
    pooling = Pooling.PAIRED if paired else Pooling.ARBITRARY
    return seen | {"pooling": Seen(pooling.value, f"16 mappings of each of {len(HOSTS)} hosts")}


def table_limit(stage: Stage) -> dict[str, Seen]:
    """How many mappings there may be: that many packets pass, and one more does not."""
    declared = stage.profile.max_mappings
    if declared <= DIRECT:
        stage.start(stage.made)
        passed = len(_many(stage, 0, declared + 8))
        return {"max_mappings": Seen(str(passed), f"{declared + 8} mappings are asked for")}
    stage.start(stage.made)
    passed = len(_many(stage, 0, DIRECT))
    stage.start(stage.made.model_copy(update={"max_mappings": FEW}))
    few = len(_many(stage, 0, 2 * FEW))
    observed = str(declared) if (passed, few) == (DIRECT, FEW) else f"{passed}, in a copy with {FEW}: {few}"
    return {"max_mappings": Seen(observed, f"{DIRECT} mappings are made; a copy of the profile with {FEW} has no more")}


# ---------------------------------------------------------------------------- packets


def _servers(stage: Stage) -> tuple[Endpoint, Endpoint, Endpoint]:
    """The first server, a new port of it, a new address."""
    (one, other), (port, next_port) = stage.servers, STUN_PORTS
    return Endpoint(one, port), Endpoint(one, next_port), Endpoint(other, port)


def _pairs(stage: Stage, inside: Sequence[int]) -> list[tuple[int, int]]:
    """(inside port, external port) of mappings of the first host, in the order in which they are made."""
    pairs = []
    for port in inside:
        external = stage.out(stage.host(port), stage.remote(PORT))
        if external is not None:
            pairs.append((port, external.port))
    return pairs


def _not_preserved(stage: Stage, count: int) -> tuple[list[int], str]:
    """Inside ports, the first half even, that this NAT cannot preserve; and why not."""
    ports, (first, last) = stage.profile.ports, stage.block(0)
    if not ports.preserve:
        return _mixed(count, 20000), "none of them of a port that could be preserved"
    if ports.block is not None and not ports.is_dynamic:
        start = 20000 if last < 20000 or first > 20000 + 2 * count else 40000
        return _mixed(count, start), "of ports outside the block"
    shares = ports.overload and stage.profile.mapping is Dependence.ENDPOINT_INDEPENDENT and stage.has_own_table
    if shares:
        return _mixed(
            min(count, ports.range[0] - 1), max(0, ports.range[0] - 2 * count - 2)
        ), "of ports below the range"
    inside = _mixed(count, min(first + 1000, last - 2 * count))
    for port in inside:
        stage.out(stage.host(port, 1), stage.remote(PORT))
    return inside, "of ports that another host has"


def _mixed(count: int, start: int) -> list[int]:
    """So many ports: even ones, then odd ones."""
    start += start % 2
    half = count // 2
    return [start + 2 * number for number in range(half)] + [start + 1 + 2 * number for number in range(count - half)]


def _range(stage: Stage, externals: Sequence[int], how: str) -> Seen:
    """Whether ports lie in the range, and reach through it where they are drawn from all of it."""
    first, last = stage.profile.ports.range
    low, high = min(externals), max(externals)
    is_within = first <= low and high <= last
    margin = (last - first) // 5
    spreads = stage.profile.ports.otherwise is Otherwise.RANDOM and stage.profile.ports.block is None
    if is_within and (not spreads or len(externals) < _DRAWN or (low <= first + margin and high >= last - margin)):
        return Seen(f"{first}-{last}", f"{how}: all between {low} and {high}")
    return Seen(f"{low}-{high}", how)


def _small(made: NatProfile) -> NatProfile:
    """A copy with few ports."""
    ports = made.ports.model_copy(update={"range": SMALL, "step": 1, "parity": False, "otherwise": Otherwise.RANDOM})
    return _with_one_address(made.model_copy(update={"ports": ports}))


def _with_one_address(made: NatProfile) -> NatProfile:
    """A copy in which ports tell everything, and no limit of the table is met."""
    return made.model_copy(update={"external_addresses": 1, "pooling": Pooling.PAIRED, "max_mappings": PORT_MAX})


def _with_large_blocks(made: NatProfile) -> NatProfile:
    """A copy in which an order is not broken off by the end of a block, where blocks come one after the other."""
    if not made.ports.is_dynamic:
        return made
    ports = made.ports.model_copy(update={"block": _LARGE, "range": (PORT_MIN, PORT_MAX)})
    return made.model_copy(update={"ports": ports})


def _many(stage: Stage, number: int, count: int) -> list[Endpoint]:
    """The external endpoints of so many mappings of a host."""
    remote = Endpoint(*stage.remote(PORT).getsockname())
    senders = [Endpoint(str(stage.inside[number]), 2000 + port) for port in range(count)]
    return [arrival.source for arrival in _send_from(stage, senders, remote)]


def _send_from(stage: Stage, senders: Sequence[Endpoint], remote: Endpoint) -> list[Arrival]:
    """Where a datagram of each sender, all of the first host's kind, comes out; in their order."""
    found: list[Arrival] = []
    raw = stage.raw_sender(HOSTS[0])
    for start in range(0, len(senders), _AT_ONCE):
        stage.send_raw(raw, packets.datagrams(senders[start : start + _AT_ONCE], remote, b"x"))
        found += stage.arrivals()
    return found
