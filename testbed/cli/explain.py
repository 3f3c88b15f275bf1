"""`testbed explain`: why a trial of a run came out as it did."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

EXAMPLES = """\b
Examples:
  testbed explain results/first                      the first trial that is not direct
  testbed explain results/first cafe=apdm-apdf:3     trial 3 of the cell in which this factor is so
  testbed explain results/first 7                    trial 7 of a run that has one cell
  testbed explain results/first --json | jq -r .sentence
"""


@click.command(epilog=EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("trial", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
def command(run: Path, trial: str | None, as_json: bool) -> None:
    """Explain why TRIAL of RUN, a results folder, came out so: where each check died, by which rule, and what theory
    says of it.

    TRIAL is CELL:INDEX, or FACTOR=VALUE,...:INDEX with as many factors as are needed, or INDEX in a run of one cell.
    Without an index it is the first trial that is not direct. Packets are read from the run's captures; where none
    were kept, the model says where they would have ended.
    """
    from testbed.report.explanation import print_explanation
    from testbed.trial.explain import explain

    explanation = explain(run, trial)
    if as_json:
        sys.stdout.write(explanation.to_json().decode())
    else:
        print_explanation(explanation, sys.stdout, os.environ)
