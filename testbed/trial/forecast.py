"""What the model says of every cell of a run, found out beside the run.

Rule 1: a process of its own, of the lowest priority: it takes what the trials leave.
Rule 2: a run never fails for want of a prediction; what could not be predicted has none.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from testbed.lab.processes import die_with_parent
from testbed.plan.trials import CellPlan, TrialSettings
from testbed.results.document import Prediction
from testbed.sim.prediction import can_play, predict_cell
from testbed.trial.interrupt import leave_to_parent

MOST_TRIALS = 200
"""Of a cell in which chance decides: enough to be ten times as sure as most runs are."""
_LOWEST = 19


class Forecast:
    """The predictions of a run. A context: left early, its process is ended."""

    def __init__(self, plans: Sequence[CellPlan], settings: TrialSettings, seed: int, trials: int) -> None:
        """Begins at once. `trials`: how many each cell of the run has."""
        source, sink = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(source)
            _be_forecaster(plans, settings, seed, min(trials, MOST_TRIALS), sink, parent)
        os.close(sink)
        self._source: int | None = source
        self.failure: str | None = None
        """Why there are no predictions at all, once `results` was called."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._source is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._read()

    def results(self) -> Mapping[str, Prediction]:
        """By cell; waits for what is not done yet."""
        found = pickle.loads(self._read() or pickle.dumps("its process died"))
        if isinstance(found, str):
            self.failure = f"nothing was predicted: {found}"
            return {}
        predictions: Mapping[str, Prediction] = found
        return predictions

    def _read(self) -> bytes:
        source, self._source = self._source, None
        if source is None:
            return b""
        with open(source, "rb") as file:
            data = file.read()
        os.waitpid(self._pid, 0)
        return data


def _be_forecaster(
    plans: Sequence[CellPlan], settings: TrialSettings, seed: int, trials: int, sink: int, parent: int
) -> None:
    try:
        die_with_parent(parent)
        leave_to_parent()
        os.setpriority(os.PRIO_PROCESS, 0, _LOWEST)
        try:
            found: object = {
                plan.id: _predict(plan, settings, seed, trials) for plan in plans if can_play(plan) is None
            }
        except Exception as error:  # a mistake in the model must not spoil a run of real trials; the run says so
            found = f"{type(error).__name__}: {error}"
        with open(sink, "wb") as file:
            pickle.dump(found, file)
    finally:
        os._exit(0)


def _predict(plan: CellPlan, settings: TrialSettings, seed: int, trials: int) -> Prediction:
    found = predict_cell(plan, settings, seed, trials)
    rate, median = found.success_rate, found.time_to_traverse.percentile(0.5).value
    assert rate.value is not None
    return Prediction(
        success_rate=round(rate.value, 6),
        low=round(rate.low, 6),
        high=round(rate.high, 6),
        method=found.source,
        n=rate.n,
        time_to_traverse=None if median is None else round(median, 9),
    )
