"""`testbed predict`: what theory says of a scenario, before any network is made. Needs no root and no Linux."""

from __future__ import annotations

import gc
import sys

import click

from testbed.cli.choices import SAMPLE
from testbed.errors import UsageError

EXAMPLES = """\b
Examples:
  testbed predict grid                        which of 81 pairs of NATs let two peers meet
  testbed predict lossy --trials 1000         as often as you like: no time passes
  testbed predict population                  how often do two peers of a population meet
  testbed predict classic --json | jq '.cells[] | [.id, .success_rate.value]'
"""


@click.command(epilog=EXAMPLES)
@click.argument("scenario")
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Trials of a cell in which chance decides.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Seed of the run, instead of the file's.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help=SAMPLE)
@click.option("--only", multiple=True, metavar="FACTOR=VALUE", help="Only the cells that have it; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
def command(
    scenario: str, trials: int | None, seed: int | None, sample: int | None, only: tuple[str, ...], as_json: bool
) -> None:
    """Predict SCENARIO, a name or a file: how often and how fast will two peers connect?

    A cell that no die can change is played once, and its rate is exact. Of the others so many trials are played as
    the scenario says, with the seeds of its run, and the rate has an interval.
    """
    from testbed.cli import predicted
    from testbed.cli.spread import spread
    from testbed.plan import population
    from testbed.plan.trials import plan_cell, settings_of
    from testbed.spec.load import load_scenario

    if sample is not None and trials is not None:
        raise UsageError("--sample draws N trials in all, --trials gives every cell N: write one of them")
    gc.set_threshold(200_000)  # each trial makes cycles; to look for them every 700 objects takes a seventh of the time
    loaded = load_scenario(scenario, trials=trials, seed=seed, only=only)
    wanted = loaded.scenario
    conditions = population.conditions(wanted, loaded.cells)
    counts = population.trials_of(wanted, loaded.cells, conditions, sample)
    more = population.PLAYED if conditions and sample is None and trials is None else 1
    settings = settings_of(wanted)
    cells = spread(
        lambda spec: predicted.predict(plan_cell(spec), settings, wanted.seed, max(counts[spec.id], more)),
        [spec for spec in loaded.cells if spec.id in counts],
    )
    mix = predicted.Mixed(wanted, conditions, counts if sample is not None else None) if conditions else None
    if as_json:
        sys.stdout.write(predicted.document(wanted.name, wanted.seed, cells, mix))
    else:
        sys.stdout.writelines(f"{line}\n" for line in predicted.lines(wanted.name, wanted.seed, cells, mix))
