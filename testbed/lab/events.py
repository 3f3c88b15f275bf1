"""How a lab lets something happen to its network while a trial runs.

Rule 1: this is the one place where an event of the plan meets the kernel. It is done when `apply` returns.
Rule 2: what makes a nat says how it restarts, forgets and changes its address: it is a `NatBox`, and has the words of
        the model (nat/nat.py). The addresses of its interfaces are the lab's affair, whatever makes the nat.
Rule 3: a link's frames that are under way keep their time, whatever carries them (link/model.py, Rule 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, Protocol

from testbed.lab import netlink
from testbed.lab.netlink import Batch, Netlink
from testbed.lab.netlink_netem import change_qdisc, check_changes, compare_qdisc
from testbed.link.model import seeds_of_directions
from testbed.plan.events import LinkEvent, NatEvent, PlannedEvent
from testbed.plan.network import Network
from testbed.plan.seeds import derive
from testbed.spec.event import Change
from testbed.spec.link import Link

if TYPE_CHECKING:
    from testbed.lab.blueprint import BoxPlan, Links, Qdisc
    from testbed.lab.lab import Lab


class NatBox(Protocol):
    """A running nat or firewall. Each method is called with the thread in its box's namespace, and is done when it
    returns; raises BrokenError or MachineError.
    """

    def restart(self) -> None:
        """All state is lost, and the streams of ports begin anew, from the same seed."""

    def flush(self) -> None:
        """All mappings and permissions are lost; the streams of ports go on."""

    def change_address(self, external: Sequence[IPv4Address]) -> None:
        """It maps to these from now on, as many as before; all mappings are lost; the streams go on.

        The interface has both the old and the new ones meanwhile.
        """


def check(network: Network, events: Sequence[PlannedEvent], links: Links) -> None:
    """Refuse, as a MachineError, what this kind of links cannot do while it runs."""
    if links == "wire":
        return
    for cable in network.cables:
        states = [cable.link, *(e.link for e in events if isinstance(e, LinkEvent) and e.cable == cable.name)]
        check_changes(f"{cable.name} up", [link.up for link in states])
        check_changes(f"{cable.name} down", [link.down for link in states])


def apply(lab: Lab, event: PlannedEvent) -> None:
    """Let an event happen. Raises BrokenError, MachineError."""
    if isinstance(event, LinkEvent):
        _change_link(lab, event.cable, event.link)
        return
    nat = lab.nats[event.node]
    with lab.boxes[event.node]:
        match event.change:
            case Change.RESTART:
                nat.restart()
            case Change.FLUSH:
                nat.flush()
            case Change.CHANGE_ADDRESS:
                _change_address(lab, event, nat)


# ---------------------------------------------------------------------------- addresses


def _change_address(lab: Lab, event: NatEvent, nat: NatBox) -> None:
    """The new one first: a device that loses its last address loses its routes too (fib_disable_ip)."""
    plan = next(plan for plan in lab.blueprint.boxes if plan.box.name == event.node)
    translation = plan.box.translation
    assert translation is not None
    if plan.userspace is not None:  # the kernel of such a box has no address, whatever the NAT's is
        nat.change_address(event.external)
        return
    index, label = plan.indexes[translation.wan], f"{event.node} {translation.wan}"
    with Netlink() as link:
        had = [address for device, address in link.addresses() if device == index]
        new = [IPv4Interface((address, 32)) for address in event.external]
        link.send(Batch(netlink.address(label, index, address) for address in new))
        nat.change_address(event.external)
        link.send(Batch(netlink.address_gone(label, index, address) for address in had))


# ---------------------------------------------------------------------------- links


def _change_link(lab: Lab, cable: str, after: Link) -> None:
    lab.changes[cable] = number = lab.changes.get(cable, 0) + 1
    if lab.wire is not None and any(ends.name == cable for ends in lab.blueprint.wires):
        lab.wire.change(cable, after)
        return
    for plan, entry in _qdiscs(lab.blueprint.boxes, cable):
        impairment = after.up if entry.direction == "up" else after.down
        with lab.boxes[plan.box.name], Netlink() as link:
            # netem seeds its dice anew with every change; the same ones would repeat the fates of the first frames
            die = derive(netem_seed(entry, lab.seed), "change", number)
            link.send(Batch([change_qdisc(entry.label, entry.index, impairment, die)]))
            compare_qdisc(entry.index, impairment, die)


def netem_seed(entry: Qdisc, seed: int) -> int:
    """The seed of one direction of a link under netem, in a lab with this seed."""
    up, down = seeds_of_directions(link_seed(entry.link, seed, entry.cable))
    return up if entry.direction == "up" else down


def link_seed(link: Link, seed: int, cable: str) -> int:
    """A link's own seed where the topology gives one; else one for this lab and this cable."""
    return link.seed if link.seed is not None else derive(seed, "link", cable)


def _qdiscs(boxes: Sequence[BoxPlan], cable: str) -> Iterator[tuple[BoxPlan, Qdisc]]:
    return ((plan, entry) for plan in boxes for entry in plan.qdiscs if entry.cable == cable)


__all__ = ["NatBox", "apply", "check", "link_seed", "netem_seed"]
