"""What a box of a network is to a packet that gets there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from testbed.nat.nat import Nat
from testbed.plan.events import NatEvent
from testbed.plan.network import Box
from testbed.spec.event import Change
from testbed.spec.profile import Dependence


@dataclass(frozen=True, slots=True)
class Node:
    """A box: an end, a router, or a NAT with its state."""

    forwards: bool
    addresses: frozenset[str]
    nat: Nat | None
    external: frozenset[str]
    """Of its addresses those that it maps to."""
    wan: str

    def after(self, event: NatEvent) -> Node:
        """The box once this has happened to it."""
        assert self.nat is not None, "an event is about a box that has state (spec/event_rules.py)"
        match event.change:
            case Change.RESTART:
                self.nat.restart()
            case Change.FLUSH:
                self.nat.flush()
            case Change.CHANGE_ADDRESS:
                self.nat.change_address(event.external)
                external = frozenset(map(str, event.external))
                return replace(self, addresses=self.addresses - self.external | external, external=external)
        return self


def node_of(box: Box, seed: int) -> Node:
    """A box as it is planned. `seed`: of its NAT's dice."""
    addresses, translation = frozenset(map(str, box.addresses())), box.translation
    if translation is None:
        return Node(box.forwards, addresses, None, frozenset(), "")
    translates = translation.profile.mapping is not Dependence.NONE
    external = frozenset(map(str, translation.external)) if translates else frozenset()
    return Node(box.forwards, addresses, Nat(translation, seed), external, translation.wan)
