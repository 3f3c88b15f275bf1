"""`testbed run`: a scenario from its file to its table."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Literal

import click

from testbed.cli.choices import CAPTURES, LINKS, PROGRESS, SAMPLE
from testbed.cli.heedless import heedless, silence
from testbed.errors import ExitStatus, MachineError, UsageError

EXAMPLES = """\b
Examples:
  sudo testbed run symmetric_nat                     the table, and a folder below results/
  testbed run classic --trials 5 --only nat_a=eim-eif
  testbed run my_scenario.yaml --json > result.json  one document on stdout
  testbed run population --sample 300                300 trials, drawn by how common each NAT is
  testbed run classic --out results/monday           stop it with Ctrl-C, and then:
  testbed run classic --out results/monday --resume
"""


@click.command(epilog=EXAMPLES)
@click.argument("scenario")
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Trials of each cell, instead of the file's.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Seed of the run, instead of the file's.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help=SAMPLE)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Trials at once; unless said, as many as keep the cores at 80 %.",
)
@click.option("--only", multiple=True, metavar="FACTOR=VALUE", help="Only the cells that have it; may be repeated.")
@click.option("--links", type=click.Choice(LINKS), help="What makes links, instead of the file's; auto takes netem.")
@click.option("--capture", type=click.Choice(CAPTURES), default="failed", show_default=True, help="Packets to keep.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Results folder; results/RUN unless said.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out DIR.")
@click.option("--no-nat-test", is_flag=True, help="Do not test the NATs before the first trial; the result says so.")
@click.option("--json", "as_json", is_flag=True, help="Print the result document on stdout, and nothing else.")
@click.option("--progress", type=click.Choice(PROGRESS), default="auto", show_default=True, help="On stderr.")
def command(
    scenario: str,
    trials: int | None,
    seed: int | None,
    sample: int | None,
    jobs: int | None,
    only: tuple[str, ...],
    links: str | None,
    capture: Literal["failed", "all", "none"],
    out: Path | None,
    resume: bool,
    no_nat_test: bool,
    as_json: bool,
    progress: Literal["auto", "live", "plain", "none"],
) -> int:
    """Run SCENARIO, a name or a file: how often and how fast do two peers connect?

    Exit status: 0 done, 1 an expectation missed, 2 a mistake in a file or on the command line, 3 this machine
    cannot, 4 trials broken, 130 interrupted (what is done is kept).
    """
    from testbed.plan.engines import refusals
    from testbed.report.page import print_report
    from testbed.report.progress import progress as show_progress
    from testbed.results.disk import caller
    from testbed.results.folder import Folder
    from testbed.spec.load import load_scenario
    from testbed.spec.scenario import Links
    from testbed.trial.campaign import Campaign, Choices
    from testbed.trial.interrupt import Interrupt, raise_for_all

    if resume and out is None:
        raise UsageError("--resume goes on with the run in a folder: name it with --out DIR")
    if sample is not None and trials is not None:
        raise UsageError("--sample draws N trials in all, --trials gives every cell N: write one of them")
    raise_for_all()
    loaded = load_scenario(scenario, refusals=refusals, trials=trials, seed=seed, only=only)
    owner = caller(os.environ, os.geteuid())
    choices = Choices(
        jobs=jobs,
        links=Links(links) if links is not None else None,
        keep=capture,
        nat_test=not no_nat_test,
        sample=sample,
    )
    campaign = Campaign(loaded, choices, time.time_ns())
    path = out or Path("results") / campaign.manifest.run
    opened = (Folder.resume if resume else Folder.create)(path, campaign.manifest, campaign.inputs, owner)
    status: int | None = None
    stderr = heedless(sys.stderr)
    with opened as folder, campaign.forecast() as forecast, Interrupt() as interrupt:
        try:
            with show_progress(progress, campaign.cells, time.monotonic_ns(), stderr, os.environ) as watcher:
                campaign.run(folder, watcher, interrupt)
            predictions = forecast.results()
        except KeyboardInterrupt:
            status, predictions = ExitStatus.INTERRUPTED, {}
        document = campaign.document(folder, predictions, [forecast.failure] if forecast.failure else [])
        folder.finish(document.to_json(), [cell.id for cell in campaign.cells])
    try:
        if as_json:
            sys.stdout.write(document.to_json().decode())
        else:
            print_report(document, sys.stdout, os.environ)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough; the run's status is still its own
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        raise MachineError(f"the result cannot be written to stdout: {error.strerror}; it is in {path}") from error
    print(f"\nresults: {path}", file=stderr, flush=True)
    return status if status is not None else document.exit_status()
