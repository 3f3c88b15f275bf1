"""`testbed compare`: has it become worse?"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from testbed.cli.choices import BASELINES, RULES
from testbed.errors import UsageError

EXAMPLES = """\b
Examples:
  testbed compare main results/after              a baseline, and the folder of a run
  testbed compare results/before results/after --all
  testbed compare main results/after --threshold 10% --markdown >> "$GITHUB_STEP_SUMMARY"
  testbed compare main results/after --json | jq -r '.cells[].metrics[] | select(.verdict == "regressed").metric'
"""
POINT = (
    "`tested` (an adjusted test, an interval and the threshold), or `point`: the threshold alone. Where nothing has "
    "changed, `point` cries wolf in up to four of ten comparisons; it says how often at these numbers of trials."
)


@click.command(epilog=EXAMPLES)
@click.argument("base")
@click.argument("new")
@click.option(
    "--threshold",
    default="5%",
    show_default=True,
    metavar="SHARE",
    help="The smallest change that matters: of a time's ratio, or in percentage points of a rate.",
)
@click.option("--rule", type=click.Choice(RULES), default="tested", show_default=True, help=POINT)
@click.option("--allow-different-machine", is_flag=True, help="Compare what was measured on unlike machines.")
@click.option("--all", "every", is_flag=True, help="List every cell, not only those that changed.")
@click.option("--baselines", type=click.Path(path_type=Path), metavar="DIR", help=BASELINES)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Tables for a pull request.")
def command(
    base: str,
    new: str,
    threshold: str,
    rule: str,
    allow_different_machine: bool,
    every: bool,
    baselines: Path | None,
    as_json: bool,
    as_markdown: bool,
) -> int:
    """Compare NEW with BASE: has it become worse, metric by metric and cell by cell?

    Each is a baseline's name (`testbed baseline list`), or a results folder. Exit status: 1 where anything has
    regressed, 0 where not (`inconclusive` too: it says how many trials would tell), 2 what cannot be compared.
    """
    from testbed.comparison.verdicts import Asked, Rule
    from testbed.report.comparison import print_comparison
    from testbed.report.markdown import markdown
    from testbed.results.baselines import Baselines
    from testbed.results.compare import compare

    if as_json and as_markdown:
        raise UsageError("--json and --markdown are two documents: write one of them")
    if every and (as_json or as_markdown):
        raise UsageError("--all is for the page; --json and --markdown have every cell: leave it out")
    asked = Asked(_share(threshold), Rule(rule))
    kept = Baselines.of(baselines, os.environ, os.geteuid())
    document = compare(kept.side(base), kept.side(new), asked, allow_different_machine=allow_different_machine)
    if as_json:
        sys.stdout.write(document.to_json().decode())
    elif as_markdown:
        sys.stdout.write(markdown(document))
    else:
        print_comparison(document, sys.stdout, os.environ, every=every)
    return document.exit_status()


def _share(text: str) -> float:
    from testbed.units import PPM, parse_probability

    try:
        ppm = parse_probability(text)
    except ValueError as error:
        raise UsageError(f"--threshold: {error}") from None
    if ppm == 0:
        raise UsageError("--threshold: no number of trials tells a change of 0% from none; write for example 1%")
    return ppm / PPM
