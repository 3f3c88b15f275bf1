"""From journeys to what a person asks for: which checks went where, and what became of them.

Rule 1: a packet is a check where its sender said so in an event, or where it is a STUN Binding request to the other
        end. The rest are answers and application bytes.
Rule 2: a flow is what one end sent to one candidate of the other; ports that were guessed are one flow an address.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from testbed.datagram import Endpoint
from testbed.plan.trials import CellPlan
from testbed.results.explanation import Ending, Flow
from testbed.traversal.candidates import CandidateType
from testbed.traversal.events import CandidateFound, Check, Event
from testbed.trial.explain_events import Happened
from testbed.trial.explain_journeys import Journey

MOST_ADDRESSES = 8
"""Of one flow that are named."""
_SLACK = 1_000_000
"""Nanoseconds by which a packet may seem to leave before its event: the clocks of both are compared but once."""

Events = Mapping[str, Sequence[Event]]


@dataclass(frozen=True, slots=True)
class Told:
    """A candidate that an end told the other."""

    owner: str
    type: CandidateType
    t: int
    """When its owner learnt it."""


def told_by(said: Events) -> dict[Endpoint, Told]:
    """Whose candidate an address is; relayed ones left out."""
    return {
        event.address: Told(name, event.type, event.t)
        for name, events in said.items()
        for event in events
        if isinstance(event, CandidateFound) and event.type is not CandidateType.RELAYED
    }


class Traffic:
    """All journeys of a trial, and the checks among them."""

    def __init__(
        self, plan: CellPlan, said: Events, journeys: Sequence[Journey], happened: Sequence[Happened] = ()
    ) -> None:
        self.plan, self.told, self._said = plan, told_by(said), said
        self.happened = tuple(happened)
        self.journeys = tuple(journeys)
        self._of_check: dict[int, list[Journey]] = {}
        self._checks: set[int] = set()
        for name, events in said.items():
            self._claim([event for event in events if isinstance(event, Check)], self.direct(name))
        self._checks.update(id(j) for name in plan.ends for j in self.direct(name) if j.is_request)

    def other(self, name: str) -> str:
        """The end that `name` wants to reach."""
        one, other = self.plan.ends
        return other if name == one else one

    def direct(self, name: str) -> list[Journey]:
        """What an end sent that was not for the rendezvous."""
        return [j for j in self.journeys if j.sender == name and j.remote.host not in self.plan.servers]

    def checks(self, name: str) -> list[Journey]:
        """The checks among them."""
        return [journey for journey in self.direct(name) if id(journey) in self._checks]

    def beside_checks(self) -> list[Journey]:
        """Everything else, of the rendezvous too."""
        return [journey for journey in self.journeys if id(journey) not in self._checks]

    def to_servers(self, name: str) -> list[Journey]:
        """What an end sent to the rendezvous."""
        return [j for j in self.journeys if j.sender == name and j.remote.host in self.plan.servers]

    def of_check(self, check: Check) -> Sequence[Journey]:
        """The packets of a check, or of a burst of them."""
        return self._of_check.get(id(check), ())

    def flows(self) -> tuple[Flow, ...]:
        """Of both ends."""
        return tuple(flow for name in self.plan.ends for flow in self._flows(name))

    def _claim(self, checks: Iterable[Check], journeys: Sequence[Journey]) -> None:
        """Give each check its packets: the first of its addresses that left at its time or later."""
        by_path: dict[object, deque[Journey]] = {}
        for journey in journeys:
            by_path.setdefault((journey.local, journey.remote), deque()).append(journey)
            by_path.setdefault((None, journey.remote), deque()).append(journey)
            by_path.setdefault((journey.local.host, journey.remote.host), deque()).append(journey)
        for check in checks:
            if check.count is not None and check.local is not None:
                waiting = by_path.get((check.local.host, check.remote.host), deque())
            else:
                waiting = by_path.get((check.local, check.remote), deque())
            left = 1 if check.count is None else check.count
            while waiting and left:
                journey = waiting.popleft()
                is_earlier = journey.at is not None and journey.at < check.t - _SLACK
                if is_earlier or id(journey) in self._checks:
                    continue
                self._checks.add(id(journey))
                self._of_check.setdefault(id(check), []).append(journey)
                left -= 1

    def _flows(self, name: str) -> Iterable[Flow]:
        groups: dict[tuple[str, bool, Endpoint | None], list[Journey]] = {}
        for journey in self.direct(name):
            is_told = journey.remote in self.told
            groups.setdefault((journey.remote.host, is_told, journey.remote if is_told else None), []).append(journey)
        for group in groups.values():
            checks = [journey for journey in group if id(journey) in self._checks]
            told = self.told.get(group[0].remote)
            yield Flow(
                sender=name,
                receiver=self.other(name),
                remote=str(group[0].remote),
                type=told.type.value if told is not None else None,
                ports=len({journey.remote for journey in group}),
                left_by=tuple(map(str, externals(group)))[:MOST_ADDRESSES],
                addresses=len(externals(group)),
                checks=len(checks),
                others=len(group) - len(checks),
                endings=endings(checks or group),
            )


def externals(journeys: Iterable[Journey]) -> tuple[Endpoint, ...]:
    """The addresses that they came from outside of their sender's NATs, in order of appearance."""
    return tuple(dict.fromkeys(journey.external for journey in journeys if journey.external is not None))


def endings(journeys: Iterable[Journey]) -> tuple[Ending, ...]:
    """What became of them, the most frequent first."""
    counted = Counter((journey.where, journey.reason) for journey in journeys)
    return tuple(Ending(where=where, reason=reason, count=count) for (where, reason), count in counted.most_common())
