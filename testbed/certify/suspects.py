"""Which cells of a run stand on a NAT that is not what it says.

Rule 1: every distinct profile of the run is tested once, in the short form, whatever the number of its nodes and cells.
Rule 2: two profiles are the same if all that they say of behaviour is; names and sources are no behaviour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from testbed.certify.certificate import quick
from testbed.plan.trials import CellPlan
from testbed.spec.profile import NatProfile

_PROSE = {"name", "description", "sources", "observed_on", "unknowns", "evidence"}


def refuted(plans: Iterable[CellPlan]) -> dict[str, str]:
    """Cell -> why its NATs are not what they say; cells that are sound are not in it.

    Raises MachineError, BrokenError: where a test could not be made, nothing is known.
    """
    plans = tuple(plans)
    distinct = {_behaviour(profile): profile for plan in plans for profile in _profiles(plan)}
    found = dict(zip(distinct, quick(list(distinct.values())), strict=True))
    reasons: dict[str, str] = {}
    for plan in plans:
        for profile in _profiles(plan):
            rows = found[_behaviour(profile)].disagreements
            if rows:
                said = f"profile {profile.name} is not what it says: {'; '.join(map(str, rows))}"
                reasons.setdefault(plan.id, said)
    return reasons


def _profiles(plan: CellPlan) -> Iterator[NatProfile]:
    for box in plan.network.boxes.values():
        if box.translation is not None:
            yield box.translation.profile


def _behaviour(profile: NatProfile) -> str:
    return profile.model_dump_json(exclude=_PROSE)
