"""Whether this machine's libnftables and kernel can make the NATs of this package: they are made once."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from testbed.lab.nftables.prepare import prepare
from testbed.plan.network import Translation
from testbed.spec.kinds import kind
from testbed.spec.profile import Dependence, Engine, NatProfile, Ports


def try_statements() -> None:
    """Make one NAT of each engine in a scratch namespace. Raises MachineError or BrokenError with the first reason."""
    explicit = kind("apdm-apdf")
    assert explicit is not None
    native = NatProfile(
        mapping=Dependence.ENDPOINT_INDEPENDENT,
        filtering=Dependence.ADDRESS_AND_PORT_DEPENDENT,
        ports=Ports(overload=True),
        engine=Engine.NATIVE,
    )
    for profile in (explicit, native):
        prepare(Translation(profile, (IPv4Address("11.0.0.2"),), (IPv4Network("192.168.1.0/24"),)))
