"""What every chain of the explicit-state engine knows: the profile, and the two sides in nft's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.lab.nftables.dice import Words
from testbed.lab.nftables.table import Table, any_of
from testbed.lab.nftables.timers import Timer, timers
from testbed.plan.network import Translation
from testbed.spec.profile import Dependence, Hairpinning, NatProfile, Refresh

MADE = {"udp": 0x8000_0011, "tcp": 0x8000_0006}
"""The mark of a packet for which a mapping has just been made. (Marks end with the namespace: skb_scrub_packet.)"""
HAIRPIN_ZONE = 65001
"""One past the zones that mappings are given."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One NAT to be compiled."""

    translation: Translation
    words: Words

    @property
    def profile(self) -> NatProfile:
        """What it behaves like."""
        return self.translation.profile

    @property
    def mapping(self) -> Dependence:
        """What of the remote stands in a mapping's key."""
        return self.profile.mapping

    @property
    def filtering(self) -> Dependence:
        """What of the remote stands in a permission's key."""
        return self.profile.filtering

    @property
    def owner(self) -> Dependence:
        """What of the remote, with the external endpoint, says whose a packet from outside is.

        Nothing, unless external endpoints are shared by mappings to different remotes (RFC 4787 §4.2.1).
        """
        return self.mapping if self.profile.ports.overload else Dependence.ENDPOINT_INDEPENDENT

    @property
    def shares_endpoints(self) -> bool:
        """Whether a new mapping may take an endpoint from another one: overloading without a remote to tell them by."""
        return self.profile.ports.overload and self.mapping is Dependence.ENDPOINT_INDEPENDENT

    @property
    def filters(self) -> bool:
        """Whether there are permissions; where everything may come in, a mapping is permission enough."""
        return self.filtering is not Dependence.ENDPOINT_INDEPENDENT

    @property
    def admission(self) -> Dependence:
        """What of the remote stands beside the external endpoint in the key of what may come in: filter and owner."""
        return self.filtering if self.filters else self.owner

    @property
    def zones_by_endpoint(self) -> bool:
        """Whether an external endpoint must lead to its zone without the remote, which the filter wants to know.

        So it is where an endpoint may change hands, and where inside hosts come by it unfiltered.
        """
        return self.filters and (self.shares_endpoints or (self.hairpins and not self.hairpins_translated))

    @property
    def zone_in(self) -> str:
        """The map that leads from an external endpoint to its zone; where there is no filter, that is `permit`."""
        return "zone_in" if self.filters else "permit"

    @property
    def answers_by_session(self) -> bool:
        """Whether an answer leaves by the mapping that the question came in on, although its own would be another."""
        return self.profile.session_reply and self.mapping is not Dependence.ENDPOINT_INDEPENDENT

    @property
    def permission_names_mapping(self) -> bool:
        """Whether a remote that may send in through a mapping is one that the mapping was made for."""
        return self.filtering.sees_as_much_as(self.mapping)

    @property
    def renew(self) -> str:
        """The verb for what an outbound packet does to an entry: `add` leaves the timer of an old one alone."""
        return "add" if self.profile.refresh is Refresh.INBOUND else "update"

    @property
    def renews_inward(self) -> bool:
        """Whether a packet from outside keeps a mapping alive."""
        return self.profile.refresh is not Refresh.OUTBOUND

    @property
    def hairpins(self) -> bool:
        """Whether inside hosts reach each other by external endpoints."""
        return self.profile.hairpinning is not Hairpinning.NONE

    @property
    def hairpins_translated(self) -> bool:
        """Whether they then see each other's external endpoints."""
        return self.profile.hairpinning is Hairpinning.EXTERNAL_SOURCE

    @property
    def has_hairpin_zone(self) -> bool:
        """Whether hairpinned flows share one zone, so that an answer meets the flow that it answers.

        Only where both hosts have one mapping each: else an answer leaves by another mapping, as to any remote.
        """
        return self.hairpins_translated and self.mapping is Dependence.ENDPOINT_INDEPENDENT

    @property
    def inside(self) -> str:
        """The inside prefixes."""
        return any_of(self.translation.inside)

    @property
    def external(self) -> str:
        """The external addresses."""
        return any_of(self.translation.external)

    def came(self, side: str) -> str:
        """Match what came in by `wan` or `lan`."""
        return f'iifname "{self._device(side)}"'

    def leaves(self, side: str) -> str:
        """Match what goes out by `wan` or `lan`."""
        return f'oifname "{self._device(side)}"'

    def _device(self, side: str) -> str:
        return self.translation.wan if side == "wan" else self.translation.lan

    def timers(self, protocol: str) -> tuple[Timer, ...]:
        """The timers of a protocol."""
        return timers(self.profile, protocol)


def write(verb: str, name: str, key: str, data: str = "", lifetime: str = "") -> str:
    """`update @out_udp { KEY timeout 5s : DATA }`."""
    return f"{verb} @{name} {{ {key}{lifetime}{' : ' + data if data else ''} }}"


def add_timed(
    table: Table,
    engine: Engine,
    name: str,
    protocol: str,
    rules: Callable[[str], list[str]],
    *,
    first: Sequence[str] = (),
) -> None:
    """A chain of `rules(lifetime)`; where a protocol has two timers, a second chain that the first one goes to."""
    *long, usual = engine.timers(protocol)
    for timer in long:
        table.chain(f"{name}_established", rules(timer.lifetime))
    leave = [f"{timer.when}goto {name}_established" for timer in long]
    table.chain(name, [*first, *leave, *rules(usual.lifetime)])


def dispatch(fields: str) -> str:
    """Go to the chain of the packet's protocol."""
    return f"meta l4proto vmap {{ udp : goto {fields}_udp, tcp : goto {fields}_tcp }}"
