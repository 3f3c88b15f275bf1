"""Events: what happens to the network while a trial runs.

A nat restarts, forgets its mappings or gets another address; a link changes. In a scenario:

    events:
      - {at: 2s, node: nat_a, do: restart}
      - {at: 1s, link: nat_a, set: {loss: 100%}}

Time counts from the start of both agents; events of one time happen in the order of the file.
"""

from __future__ import annotations

from enum import StrEnum

from testbed.spec.model import Duration, Model
from testbed.spec.written import ChangeOrPreset


class Change(StrEnum):
    """What can happen to a nat or a firewall. One word for each in every layer down to the kernel's rules."""

    RESTART = "restart"
    """Off and on: all state is lost, and its choice of ports begins anew."""
    FLUSH = "flush"
    """All mappings and permissions are lost, and nothing else."""
    CHANGE_ADDRESS = "change-address"
    """It has another external address from then on; mappings to the old one are lost."""


class Event(Model):
    """One event: `node` and `do`, or `link` and `set`."""

    at: Duration
    """When, from the start of both agents."""
    node: str | None = None
    """A nat, or a router that is a firewall."""
    do: Change | None = None
    """What happens to it."""
    link: str | None = None
    """A link, by the node below it; `NODE.1` is the second one of a node that has several."""
    set: ChangeOrPreset | None = None
    """What the link does from then on; what is not said stays as it is."""
