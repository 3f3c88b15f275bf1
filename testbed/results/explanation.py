"""Why a trial came out so: the document `testbed.explanation/1`, as `testbed explain --json` prints it.

Rule 1: this file is the format. Keys may be added within a version; none changes its meaning or goes away.
Rule 2: where a packet ended is told by who saw it: the capture's points and the NAT's own word. `told_by` says whether
        that is the lab, or, where no packets were kept, the model alone.
Rule 3: a packet has one ending. Its words are `ENDINGS`, and the reasons of NATs (docs/concepts.md).

`trial/explain.py` makes these values, `report/explanation.py` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AllowInfNan, ConfigDict, Field, JsonValue, NonNegativeInt, PositiveInt

from testbed.plan.outcomes import Outcome
from testbed.spec.model import Model

ARRIVED, LATE, UNDER_WAY = "arrived", "late", "under-way"
LOSS, QUEUE_FULL, CORRUPT, TOO_BIG = "loss", "queue-full", "corrupt", "too-big"
NO_ROUTE, OWN_STACK, CLOSED, UNEXPLAINED = "no-route", "own-stack", "closed", "unexplained"

ENDINGS: Mapping[str, tuple[str, str]] = {
    ARRIVED: ("arrived at {}", "arrived at {}"),
    LATE: ("arrived at {} after it had given up", "arrived at {} after it had given up"),
    UNDER_WAY: ("was under way when the trial ended", "were under way when the trial ended"),
    LOSS: ("was lost on the link {}", "were lost on the link {}"),
    QUEUE_FULL: ("found the queue of the link {} full", "found the queue of the link {} full"),
    CORRUPT: ("was corrupted on the link {}", "were corrupted on the link {}"),
    TOO_BIG: ("was too big for the link {}", "were too big for the link {}"),
    NO_ROUTE: ("found no route at {}", "found no route at {}"),
    OWN_STACK: ("was taken by {}'s own stack", "were taken by {}'s own stack"),
    CLOSED: ("found no socket at {}", "found no socket at {}"),
    UNEXPLAINED: ("went no further than {}, which does not say why", "went no further than {}, which does not say why"),
}
"""Word -> what became of one packet, and of several. Every other word is a NAT's reason for dropping it."""

HAPPENS = "happens"
"""What a timeline calls an event of the scenario."""

ON_LINKS = frozenset({LOSS, QUEUE_FULL, CORRUPT, TOO_BIG})
"""Those whose place is a link."""

Seconds = Annotated[float, AllowInfNan(False)]


class Ending(Model):
    """Where packets ended, and how."""

    where: str
    """A node; of a loss the link, or the links that may have lost it, joined by `or`."""
    reason: str
    count: PositiveInt = 1

    @property
    def arrived(self) -> bool:
        """Whether they reached who they were for, in time."""
        return self.reason == ARRIVED

    def phrase(self, several: bool) -> str:
        """`died at nat_b (no-permission)`: what follows their number, or `each of them`."""
        if self.reason in ENDINGS:
            return ENDINGS[self.reason][several].format(self.where)
        return f"died at {self.where} ({self.reason})"


class Entry(Model):
    """One line of the timeline: something that happened, or a burst of the same."""

    t: Seconds
    """Since the first end started."""
    who: str
    """An end; of what was lost beside checks, and of an event of the scenario, the NAT or the link."""
    event: str
    """A word of the agents' vocabulary, `lost`, or `happens`."""
    text: str
    endings: tuple[Ending, ...] = ()
    """Of checks: what became of them, where the packets were kept."""


class Flow(Model):
    """What one end sent to one address of the other, or to many ports of it that were guessed."""

    sender: str
    receiver: str
    remote: str
    """`HOST:PORT`; of guessed ports the first."""
    type: str | None = None
    """Of the candidate that `remote` is; null where the receiver told no such candidate."""
    ports: PositiveInt = 1
    """How many ports of that address were tried."""
    left_by: tuple[str, ...] = ()
    """The addresses that they came from outside of all NATs of the sender, as far as they got there; eight at most."""
    addresses: NonNegativeInt = 0
    """How many those are in all."""
    checks: NonNegativeInt
    others: NonNegativeInt
    """Answers to checks of the other end, and application bytes."""
    endings: tuple[Ending, ...]
    """Of the checks; of the others where there are no checks."""


class Theory(Model):
    """The same trial in the model, with the same seed."""

    outcome: Outcome
    reason: str | None
    agrees: bool
    """Whether it came out in the same way."""
    differs: str | None
    """The first thing that is not the same, apart from times and numbers of packets; null where all is."""
    flows: tuple[Flow, ...]


class Explanation(Model):
    """One trial, explained."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["testbed.explanation/1"] = Field(default="testbed.explanation/1", alias="schema")
    run: str
    cell: str
    index: NonNegativeInt
    attempt: PositiveInt
    seed: NonNegativeInt
    factors: dict[str, JsonValue]
    outcome: Outcome
    reason: str | None
    sentence: str
    """All of it in one sentence."""
    told_by: Literal["capture", "model", "record"]
    """Who says where packets ended: `record` where nobody does."""
    timeline: tuple[Entry, ...]
    flows: tuple[Flow, ...]
    nats: dict[str, dict[str, NonNegativeInt]]
    """What each NAT dropped, by its own counters: of all packets, also those between ends and rendezvous."""
    theory: Theory | None
    notes: tuple[str, ...]
    """What a reader should know before believing it."""

    def to_json(self) -> bytes:
        """The document as text, with its newline."""
        return self.model_dump_json(indent=1).encode() + b"\n"
