"""What happens to a NAT while it runs, in the model and in the kernel: the same random packets, and restarts, flushes
and new addresses between them. What dropped packets were counted must survive all of it.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from random import Random

import pytest

from testbed.datagram import Endpoint
from testbed.errors import BrokenError
from testbed.lab import netlink
from testbed.lab.netlink import Batch, Netlink
from testbed.lab.nftables.prepare import prepare
from testbed.lab.nftables.running import RunningRules
from testbed.plan.network import Translation
from testbed.spec.event import Change
from testbed.spec.profile import Dependence, NatProfile, Ports
from tests.lab.nftables.bench import EXTERNAL, WAN, Bench, bench
from tests.nat.test_differential import OTHERS, TWENTY_SEVEN
from tests.nat.test_kernel import PROFILES as MASQUERADES
from tests.nat.test_kernel import Both

pytestmark = pytest.mark.lab

STEPS = 90
ADDRESSES = tuple(EXTERNAL + 20 + number for number in range(STEPS))
PROFILES = TWENTY_SEVEN | OTHERS | MASQUERADES
BLOCKS = {"blocks": NatProfile(mapping=Dependence.ENDPOINT_INDEPENDENT, ports=Ports(block=64, range=(1024, 20000)))}


class Happening(Both):
    """Both, and what happens to them."""

    def __init__(self, kernel: Bench, seed: int) -> None:
        super().__init__(kernel, seed)
        self.addresses = iter(ADDRESSES)
        self.external = kernel.translation.external
        later = [prepare(replace(kernel.translation, external=(address,))) for address in ADDRESSES]
        self.rules = RunningRules(prepare(kernel.translation), later, seed)

    def close(self) -> None:
        self.rules.close()

    def happen(self, change: Change) -> None:
        with self.kernel.nat:
            match change:
                case Change.RESTART:
                    self.nat.restart()
                    self.rules.restart()
                case Change.FLUSH:
                    self.nat.flush()
                    self.rules.flush()
                case Change.CHANGE_ADDRESS:
                    self.change_address((next(self.addresses),))
        self.seen.clear()
        self.names.clear()

    def change_address(self, external: tuple[IPv4Address, ...]) -> None:
        self.nat.change_address(external)
        with Netlink() as link:
            link.send(Batch([netlink.address("wan", 11, IPv4Interface(external[0]))]))
            self.rules.change_address(external)
            link.send(Batch([netlink.address_gone("wan", 11, IPv4Interface(self.external[0]))]))
            # masquerade takes the first address of the device: the bench's own one must come last
            bench_own = IPv4Interface(WAN)
            link.send(Batch([netlink.address_gone("wan", 11, bench_own), netlink.address("wan", 11, bench_own)]))
        self.external = external


CASES = {
    name: profile
    for name, profile in {**PROFILES, **BLOCKS}.items()
    if profile is not None and not profile.udp_blocked and profile.mapping is not Dependence.NONE
}


@pytest.mark.parametrize("profile", CASES.values(), ids=CASES.keys())
def test_model_and_kernel_agree_whatever_happens(profile: NatProfile) -> None:
    random, seed = Random(profile.model_dump_json()), 7
    changes = [c for c in Change if c is not Change.CHANGE_ADDRESS or profile.external_addresses == 1]
    with bench(profile, seed) as kernel, closing(Happening(kernel, seed)) as both:
        dropped = Counter[str]()
        before: Endpoint | None = None
        for step in range(STEPS):
            host = kernel.host(random.choice((5000, 5001, 5002)), random.randrange(3))
            remote = kernel.remote(random.choice((7000, 7001)), random.randrange(3))
            if step % 15 == 14:
                before = random.choice(both.seen) if both.seen else None
                both.happen(random.choice(changes))
            if random.random() < 0.6:
                said, done = both.send(host, Endpoint(*remote.getsockname()), is_inside=True)
            else:
                old = [before] if before is not None and before.host in map(str, both.external) else []
                target = random.choice([*both.seen, *old, Endpoint(str(both.external[0]), 9)])
                said, done = both.send(remote, target, is_inside=False)
            if isinstance(said, tuple) and len(said) == 1:
                dropped[str(said[0])] += 1
            assert done == said, f"step {step}"
        assert kernel.dropped() == dropped, "what was counted before an event still counts"


def test_an_address_that_nobody_prepared_is_refused() -> None:
    with bench(NatProfile()) as kernel, kernel.nat:
        rules = RunningRules(prepare(kernel.translation), (), 1)
        with closing(rules), pytest.raises(BrokenError, match=r"no rules were prepared for the address 11\.0\.0\.9"):
            rules.change_address([IPv4Address("11.0.0.9")])


def test_rules_for_another_profile_are_not_taken_for_the_same_nat() -> None:
    with bench(NatProfile()) as kernel, kernel.nat:
        other = Translation(
            NatProfile(filtering=Dependence.ENDPOINT_INDEPENDENT), (EXTERNAL + 9,), kernel.translation.inside
        )
        rules = RunningRules(prepare(kernel.translation), (prepare(other),), 1)
        with closing(rules), pytest.raises(BrokenError, match="are not those for the old one"):
            rules.change_address(other.external)
