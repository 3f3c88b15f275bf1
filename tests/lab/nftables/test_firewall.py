"""Routers that filter and do not translate, and the kernel's own masquerade, asked of the real kernel."""

from __future__ import annotations

import pytest

from testbed.plan.engines import refusals
from testbed.spec.profile import Dependence, Engine, NatProfile, Ports, Refresh, Unsolicited
from tests.lab.nftables.bench import EXTERNAL, HOSTS, bench

pytestmark = pytest.mark.lab

EI, AD, APD, NONE = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT_DEPENDENT,
    Dependence.NONE,
)


def firewall(**fields: object) -> NatProfile:
    profile = NatProfile.model_validate({"mapping": NONE, **fields})
    assert list(refusals(profile)) == []
    return profile


ADMITTED = [
    # filtering, then: a stranger before we send; afterwards our remote, its other port, another address
    (NONE, True, (True, True, True)),
    (EI, False, (True, True, True)),
    (AD, False, (True, True, False)),
    (APD, False, (True, False, False)),
]


@pytest.mark.parametrize(("filtering", "before", "after"), ADMITTED)
def test_filtering(filtering: Dependence, before: bool, after: tuple[bool, bool, bool]) -> None:
    """Addresses stay as they are; who may send in depends on whom we wrote to."""
    with bench(firewall(filtering=filtering)) as b:
        host = b.host(5000)
        assert b.admits(b.remote(7000), host.getsockname()) is before
        assert b.out(host, b.remote(7000)) == (HOSTS[0], 5000)
        asked = (b.remote(7000), b.remote(7001), b.remote(7000, 1))
        assert tuple(b.admits(remote, host.getsockname()) for remote in asked) == after
        refused = [before, *after].count(False)
        assert b.dropped() == ({"no-permission": refused} if refused else {})


REFRESHED = [(Refresh.OUTBOUND, (True, False)), (Refresh.INBOUND, (False, True)), (Refresh.BOTH, (True, True))]


@pytest.mark.parametrize(("refresh", "renewed"), REFRESHED)
def test_refresh(refresh: Refresh, renewed: tuple[bool, bool]) -> None:
    with bench(firewall(refresh=refresh)) as b:
        host, remote = b.host(5000), b.remote(7000)
        b.out(host, remote)
        found = []
        for sender, target in ((host, remote), (remote, host)):
            b.age("permitted_udp", 5000)
            assert b.send(sender, target.getsockname())
            found.append(max(b.lifetimes("permitted_udp")) > 100_000)
        assert tuple(found) == renewed


def test_permission_ends() -> None:
    with bench(firewall()) as b:
        host, remote = b.host(5000), b.remote(7000)
        b.out(host, remote)
        b.age("permitted_udp", 1)
        while any(b.lifetimes("permitted_udp")):
            pass
        assert not b.admits(remote, host.getsockname())


def test_refused_by_icmp() -> None:
    with bench(firewall(unsolicited=Unsolicited.ICMP_UNREACHABLE)) as b:
        host, remote = b.host(5000), b.remote(7000)
        remote.connect(host.getsockname())
        assert not b.admits(remote, host.getsockname())
        assert b.refused == [remote.getsockname()]


def test_connection_through_a_firewall() -> None:
    """TCP outward is open, inward is reset or dropped; UDP may be blocked without TCP."""
    with bench(firewall(unsolicited=Unsolicited.TCP_RESET, udp_blocked=True)) as b:
        server = b.tcp(b.outside, ("12.0.0.1", 80))
        server.listen()
        client = b.tcp(b.inside, (HOSTS[0], 5000))
        client.connect(("12.0.0.1", 80))
        there, _ = server.accept()
        there.close()
        with pytest.raises(ConnectionRefusedError):
            b.tcp(b.outside, ("12.0.0.1", 6000)).connect((HOSTS[0], 5001))
        assert b.send(b.host(5000), b.remote(7000).getsockname()) is None
        assert b.dropped() == {"no-permission": 1, "udp-blocked": 1}


# ---------------------------------------------------------------------------- masquerade

MASQUERADE = NatProfile(engine=Engine.NATIVE, ports=Ports(overload=True))
RANDOM = NatProfile(engine=Engine.NATIVE, mapping=APD, ports=Ports(preserve=False, overload=True))


def test_masquerade_keeps_the_port_and_admits_answers_only() -> None:
    with bench(MASQUERADE) as b:
        host = b.host(5000)
        external = b.out(host, b.remote(7000))
        assert external == b.out(host, b.remote(7000, 1)) == (str(EXTERNAL), 5000)
        assert b.admits(b.remote(7000), external)
        assert not b.admits(b.remote(7001), external)
        assert b.dropped() == {"no-mapping": 1}


def test_masquerade_shares_an_endpoint() -> None:
    """Two hosts, one port, different remotes: one external endpoint, as on a real Linux router."""
    with bench(MASQUERADE) as b:
        assert b.out(b.host(5000), b.remote(7000)) == b.out(b.host(5000, 1), b.remote(7001))
        assert b.out(b.host(5000, 1), b.remote(7000)).port != 5000


def test_random_masquerade_takes_a_port_for_each_remote() -> None:
    with bench(RANDOM) as b:
        ports = {b.out(b.host(5000), b.remote(7000 + n)).port for n in range(8)}
        assert len(ports) > 6
        assert 5000 not in ports


def test_masquerade_within_a_range() -> None:
    profile = MASQUERADE.model_copy(update={"ports": Ports(overload=True, range=(40000, 40999))})
    with bench(profile) as b:
        assert 40000 <= b.out(b.host(5000), b.remote(7000)).port <= 40999


def test_masquerade_answers_what_is_refused() -> None:
    for behaviour, refused in ((Unsolicited.DROP, False), (Unsolicited.ICMP_UNREACHABLE, True)):
        with bench(MASQUERADE.model_copy(update={"unsolicited": behaviour})) as b:
            remote = b.remote(7000)
            remote.connect((str(EXTERNAL), 5000))
            assert not b.admits(remote, (str(EXTERNAL), 5000))
            assert bool(b.refused) is refused


def test_masquerade_with_udp_blocked() -> None:
    with bench(MASQUERADE.model_copy(update={"udp_blocked": True})) as b:
        assert b.send(b.host(5000), b.remote(7000).getsockname()) is None
        assert not b.admits(b.remote(7000), (str(EXTERNAL), 5000))
        assert b.dropped() == {"udp-blocked": 2}
