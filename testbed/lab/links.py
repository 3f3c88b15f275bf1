"""What makes the impairments of a lab's links on this machine."""

from __future__ import annotations

from testbed.errors import MachineError
from testbed.lab.blueprint import Links
from testbed.lab.netlink_netem import netem_refusal
from testbed.spec import scenario as spec


def choose(asked: spec.Links) -> Links:
    """`auto` takes netem where the kernel has it, else our own wire. Raises MachineError where netem cannot be."""
    if asked is spec.Links.WIRE:
        return "wire"
    refusal = netem_refusal()
    if refusal is None:
        return "netem"
    if asked is spec.Links.NETEM:
        raise MachineError(
            f"links: netem is not possible here: {refusal}", mend="sudo modprobe sch_netem, or --links wire"
        )
    return "wire"
