"""The model, the userspace engine and the kernel's rules, shown the same packets: one fate, one source, one reason.

Random scripts: three inside hosts whose ports collide, eight remotes, TCP in every order, ICMP errors both ways, pauses
beyond the timers. All of the twenty-seven, and what else rules can do; then what only the userspace engine can.

Where rules are known to differ (docs/limitations.md), a profile is chosen in which that does not show:

* where a mapping serves several connections, rules keep it as long as the last segment's state says, not the longest
  one: so TCP has one timer there;
* a packet from a remote that the mapping was not made for does not keep the host's own way out: so pauses outlast
  everything where the filter admits such remotes;
* who inherits an endpoint whose newest owner has gone, rules forget: so there, too, pauses outlast everything;
* an error from outside about a packet of a shared endpoint finds one of its owners, whoever sent the packet: so there
  are no such errors where endpoints are shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from testbed.plan.engines import engine_of
from testbed.spec.kinds import KINDS, PORTS, kind
from testbed.spec.profile import (
    SECOND,
    BlockAllocation,
    Dependence,
    Engine,
    Hairpinning,
    NatProfile,
    Otherwise,
    Pooling,
    Ports,
    Refresh,
    TcpTimeout,
    Unsolicited,
)
from tests.nat.differential.nats import Kernel, Model, SomeNat, Userspace, stay_on_one_cpu
from tests.nat.differential.play import MODEL, disagreement
from tests.nat.differential.script import FOREVER, LONG, SHORT, Pause, Send, Step, draw, shrunk

EI, AD, APD, _ = Dependence
OF_KINDS, OF_OTHERS = 700, 300
"""Steps of each script: more than 20 000 in all."""
DYNAMIC = BlockAllocation.DYNAMIC
COUNTED_DOWN = Ports(preserve=False, block=64, range=(1024, 3583), otherwise=Otherwise.SEQUENTIAL, step=-3)
TWENTY_SEVEN = {f"{name}-{suffix}": kind(f"{name}-{suffix}") for name in KINDS for suffix in PORTS}
OTHERS = {
    "hairpins, external source": NatProfile(filtering=EI, hairpinning=Hairpinning.EXTERNAL_SOURCE),
    "hairpins, filtered": NatProfile(hairpinning=Hairpinning.EXTERNAL_SOURCE),
    "hairpins, many mappings": NatProfile(mapping=APD, filtering=AD, hairpinning=Hairpinning.EXTERNAL_SOURCE),
    "hairpins, internal source": NatProfile(mapping=AD, filtering=EI, hairpinning=Hairpinning.INTERNAL_SOURCE),
    "overloading, newest owner": NatProfile(filtering=EI, ports=Ports(overload=True)),
    "overloading by remote": NatProfile(mapping=APD, ports=Ports(overload=True)),
    "addresses, arbitrary": NatProfile(mapping=APD, external_addresses=4, pooling=Pooling.ARBITRARY),
    "addresses, paired": NatProfile(mapping=AD, external_addresses=4),
    "parity": NatProfile(mapping=APD, ports=Ports(parity=True, preserve=False)),
    "few ports": NatProfile(mapping=APD, ports=Ports(range=(40000, 40009), preserve=False)),
    "few mappings": NatProfile(mapping=APD, max_mappings=5),
    "blocks, counted down": NatProfile(mapping=APD, ports=COUNTED_DOWN),
    "unsolicited, icmp": NatProfile(unsolicited=Unsolicited.ICMP_UNREACHABLE),
    "unsolicited, reset": NatProfile(filtering=AD, unsolicited=Unsolicited.TCP_RESET),
    "no udp": NatProfile(udp_blocked=True),
    "answers by session": NatProfile(mapping=APD, filtering=EI, session_reply=True),
    "refreshed from inside": NatProfile(filtering=AD, refresh=Refresh.OUTBOUND),
    "refreshed from outside": NatProfile(mapping=APD, refresh=Refresh.INBOUND),
}
ONLY_OURS = {
    "blocks that come and go": NatProfile(
        mapping=APD,
        ports=Ports(preserve=False, range=(2000, 2063), block=8, block_allocation=DYNAMIC, blocks_per_host=3),
    ),
    "blocks that come and go, ports kept": NatProfile(
        ports=Ports(range=(4800, 5119), block=16, block_allocation=DYNAMIC, blocks_per_host=2, parity=True)
    ),
    "finer timers": NatProfile(
        filtering=AD, tcp_timeout=TcpTimeout(partially_open=30 * SECOND, closing=60 * SECOND, reset=5 * SECOND)
    ),
    "the port clash": NatProfile(unsolicited=Unsolicited.ACCEPT),
    "small blocks": NatProfile(ports=Ports(preserve=False, range=(2000, 4047), block=8)),
}


def fair(profile: NatProfile) -> NatProfile:
    """The same, where it would show what rules cannot tell apart."""
    if profile.mapping is APD and not profile.session_reply and profile.hairpinning is Hairpinning.NONE:
        return profile  # one mapping a connection
    return profile.model_copy(update={"tcp_timeout": TcpTimeout(established=240 * SECOND, transitory=240 * SECOND)})


def pauses(profile: NatProfile) -> tuple[int, int]:
    strangers_come_in = not profile.filtering.sees_as_much_as(profile.mapping)
    changes_owners = profile.ports.overload and profile.mapping is EI
    return (FOREVER, FOREVER) if strangers_come_in or changes_owners else (SHORT, LONG)


@pytest.mark.lab
@pytest.mark.parametrize("name", [*TWENTY_SEVEN, *OTHERS])
def test_all_three_agree(name: str) -> None:
    profile = (TWENTY_SEVEN | OTHERS)[name]
    assert profile is not None
    profile = fair(profile).model_copy(update={"engine": Engine.EXPLICIT})
    count, errors = OF_KINDS if name in TWENTY_SEVEN else OF_OTHERS, not profile.ports.overload
    script = draw(name, count, pauses=pauses(profile), errors=errors)
    ours = profile.model_copy(update={"engine": Engine.USERSPACE})
    with ExitStack() as scope:
        stay_on_one_cpu(scope)
        nats: Mapping[str, SomeNat] = {
            MODEL: Model(profile),
            "explicit": Kernel(profile, scope),
            "userspace": Userspace(ours),
        }
        found = disagreement(nats, 7, script)
    assert found is None, f"\n{found}"


@pytest.mark.parametrize("name", ONLY_OURS)
def test_what_only_we_can_agrees_too(name: str) -> None:
    profile = ONLY_OURS[name]
    assert engine_of(profile) is Engine.USERSPACE
    nats: Mapping[str, SomeNat] = {MODEL: Model(profile), "userspace": Userspace(profile)}
    found = disagreement(nats, 7, draw(name, OF_KINDS))
    assert found is None, f"\n{found}"


def test_there_are_enough_steps() -> None:
    assert OF_KINDS * len(TWENTY_SEVEN) + OF_OTHERS * len(OTHERS) >= 20_000


def test_a_lie_is_found_shrunk_and_shown() -> None:
    """One NAT filters by address, the other by port: two packets show it."""
    honest, liar = NatProfile(filtering=AD), NatProfile(filtering=APD)
    found = disagreement({MODEL: Model(honest), "liar": Userspace(liar)}, 7, draw("a lie", 200))
    assert found is not None
    head, *rows = found.splitlines()
    assert head.split() == ["step", "packet", "model", "liar"]
    assert len(rows) == 2
    assert rows[0].split()[:2] == ["0", "out:"]
    assert rows[1].split()[:2] == ["1", "in:"]
    assert rows[1].endswith("dropped: no-permission")


def test_shrinking_leaves_what_is_needed_and_nothing_else() -> None:
    steps: list[Step] = [Pause(number) for number in range(100)]

    def fails(script: object) -> bool:
        assert isinstance(script, list)
        return {Pause(3), Pause(50), Pause(98)} <= set(script)

    assert shrunk(steps, fails) == [Pause(3), Pause(50), Pause(98)]


def test_a_script_is_a_function_of_its_seed_and_has_everything_in_it() -> None:
    script = draw("seed", OF_KINDS)
    assert script == draw("seed", OF_KINDS) != draw("another", OF_KINDS)
    sends = [step for step in script if isinstance(step, Send)]
    assert len({step.flags for step in sends}) == 6, "datagrams, and segments of five kinds"
    assert len({type(step) for step in script}) == 3
    assert len({step.source for step in sends if step.is_outbound}) == 6
