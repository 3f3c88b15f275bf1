"""What a cell will come out as: its success rate and its times, and how we know.

Rule 1: an outcome that no die can change is *exact*: one trial is played, and its rate is 0 or 1. Everything else is
        *simulated*: as many trials as the lab would run, with the lab's seeds, and an interval for that number.
Rule 2: no die can change an outcome if no link is random, if the strategy's rounds are plain ones, which never look at
        the number of a port, and if no NAT can run short of ports or let two ends meet on one. A NAT may still draw
        its ports at random: with other numbers the same packets pass. Its times are then exact to the few nanoseconds
        that a digit takes. Where something happens to the network at a time (events), what comes first is a matter of
        such times, and in a lab of more: the cell is simulated, all of its trials.
Rule 3: a trial in which the dice change nothing is not played again. Where links lose, duplicate, corrupt or reorder
        but do not jitter, one trial is played on the same links without that; the n-th frame of a line has the same
        fate whatever its time (link/model.py), so a seed whose dice let every frame of that trial pass would repeat it.
Rule 4: what cannot be played is not predicted: `can_play` says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.link.model import LINK_HEADER, Arrival, Direction
from testbed.nat.behaviour import is_native
from testbed.plan.network import Network
from testbed.plan.outcomes import Outcome
from testbed.plan.trials import CellPlan, TrialSettings, trial_seed
from testbed.sim.network import link_seed
from testbed.sim.routes import Routes
from testbed.sim.trial import Played, can_play, play
from testbed.spec.link import Impairment
from testbed.spec.profile import Dependence
from testbed.stats import CONFIDENCE, Proportion, Sample, wilson
from testbed.traversal.strategies import strategy
from testbed.units import seconds

Source = Literal["exact", "simulated"]

AMPLE = 1024
"""Endpoints and mappings that a NAT has to spare for two ends: with as many it never runs short of them."""
APART = 1 << 50
"""Nanoseconds between two frames, so that none waits for the other."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected of a cell."""

    source: Source
    success_rate: Proportion
    """Its `n` is how many trials stand behind it: one where it is exact, and then the interval is the value itself."""
    outcomes: Mapping[str, int]
    """How many trials came out in which way."""
    reason: str | None
    """Why most of those that are not direct are not; None where all are."""
    candidate_discovery_time: Sample
    time_to_traverse: Sample
    """Both in seconds, one value a trial, censored where it was not reached."""


def predict_cell(plan: CellPlan, settings: TrialSettings, seed: int, trials: int) -> Prediction:
    """The prediction for a cell of a run with this seed. `trials`: how many are played where chance decides.

    Raises UsageError where the cell cannot be played (`can_play`).
    """
    if is_certain(plan, settings):
        return _summary("exact", [play(plan, settings, trial_seed(seed, plan.id, 0))], settings)
    return _summary("simulated", list(_trials(plan, settings, seed, trials)), settings)


def is_certain(plan: CellPlan, settings: TrialSettings) -> bool:
    """Whether no die can change how a trial of the cell comes out (Rule 2)."""
    return (
        not plan.events
        and _is_blind(plan, settings)
        and not any(
            impairment.is_random for cable in plan.network.cables for impairment in (cable.link.up, cable.link.down)
        )
    )


def _is_blind(plan: CellPlan, settings: TrialSettings) -> bool:
    """Whether ports are but names in this cell."""
    return strategy(plan.strategy, settings.parameters).is_plain and all(
        _is_ample(plan.network, name, plan.ends) for name, box in plan.network.boxes.items() if box.translation
    )


def _is_ample(network: Network, name: str, ends: tuple[str, str]) -> bool:
    translation = network.boxes[name].translation
    if translation is None or translation.profile.mapping is Dependence.NONE:
        return True
    profile = translation.profile
    ports = min(profile.ports.most_of_host, profile.max_mappings)
    shares = profile.ports.overload or is_native(profile)
    below = sum(
        any(address in prefix for prefix in translation.inside for address in network.boxes[end].addresses())
        for end in ends
    )
    return ports >= AMPLE and (below < len(ends) or not shares)


def _trials(plan: CellPlan, settings: TrialSettings, seed: int, trials: int) -> Iterator[Played]:
    routes, seeds = Routes(plan.network), [trial_seed(seed, plan.id, index) for index in range(trials)]
    jitters = any(line.impairment.jitter for line in routes.lines)
    if jitters or plan.events or not _is_blind(plan, settings):
        yield from (play(plan, settings, one, routes=routes) for one in seeds)
        return
    undisturbed = play(plan, settings, seeds[0], routes=routes, certainty=_without_chance)
    for one in seeds:
        is_same = _lets_all_pass(routes, one, undisturbed.offered)
        yield undisturbed if is_same else play(plan, settings, one, routes=routes)


def _without_chance(impairment: Impairment) -> Impairment:
    if not impairment.is_random:
        return impairment
    return impairment.model_copy(update={"loss": 0, "duplicate": 0, "corrupt": 0, "reorder": 0})


def _lets_all_pass(routes: Routes, seed: int, offered: Sequence[int]) -> bool:
    """Whether the first so many frames of each line meet no chance in a trial with this seed."""
    for line, count in zip(routes.lines, offered, strict=True):
        if not line.impairment.is_random:
            continue
        direction = Direction(line.impairment, link_seed(line, seed))
        for number in range(count):
            match direction.offer(LINK_HEADER, number * APART):
                case (Arrival(flipped=None, early=False),):
                    pass
                case _:
                    return False
    return True


def _summary(source: Source, played: Sequence[Played], settings: TrialSettings) -> Prediction:
    outcomes = Counter(str(trial.verdict.outcome) for trial in played)
    direct, n = outcomes[Outcome.DIRECT], len(played)
    exact = Proportion(direct / n, direct / n, direct / n, CONFIDENCE, "exact", n)
    reasons = Counter(trial.verdict.reason for trial in played if trial.verdict.reason is not None)
    return Prediction(
        source,
        exact if source == "exact" else wilson(direct, n),
        dict(outcomes),
        reasons.most_common(1)[0][0] if reasons else None,
        _sample([trial.discovery for trial in played], settings.setup_deadline),
        _sample([trial.traversal for trial in played], settings.deadline),
    )


def _sample(times: Sequence[int | None], limit: int) -> Sample:
    known = tuple(seconds(time) for time in times if time is not None)
    return Sample(known, (seconds(limit),) * (len(times) - len(known)))


__all__ = ["Prediction", "can_play", "is_certain", "predict_cell"]
