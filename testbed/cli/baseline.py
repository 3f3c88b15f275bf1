"""`testbed baseline`: runs that are kept under a name.

Rule 1: what `compare` calls a baseline is what `list` shows.
Rule 2: the name of what was written is on stdout, so that a script can go on with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from testbed.cli.choices import BASELINES

if TYPE_CHECKING:  # they bring pydantic's models along, which `--help` does without
    from testbed.results.baselines import Baselines, Facts

EPILOG = """\b
Examples:
  testbed baseline save main results/today       keep a run as `main`
  testbed compare main results/tomorrow          and see later whether it became worse
  testbed baseline export main                   main.tar.gz, for another checkout or for CI
  testbed baseline import main.tar.gz
"""
LIST_SCHEMA = "testbed.baselines/1"
FORCE = "Replace what is there."
Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(epilog=EPILOG)
def command() -> None:
    """Baselines: save a run under a name, to compare later ones with.

    They are kept in $TESTBED_BASELINES, else in testbed/baselines below $XDG_STATE_HOME or ~/.local/state; with sudo
    in the folder of the user who called.
    """


def _somewhere(function: Command) -> Command:
    """The option that every command of the group has."""
    return click.option("--baselines", type=click.Path(path_type=Path), metavar="DIR", help=BASELINES)(function)


@command.command("save")
@click.argument("name")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help=FORCE)
@_somewhere
def save_command(name: str, run: Path, force: bool, baselines: Path | None) -> None:
    """Keep the run in the results folder RUN under NAME: its trials, result and inputs, not its packets."""
    _kept(baselines).save(name, run, time.time_ns(), force=force)
    click.echo(name)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@_somewhere
def list_command(as_json: bool, baselines: Path | None) -> None:
    """List the baselines: when each was saved, of which scenario, how many trials, on which machine."""
    kept = _kept(baselines)
    found = {name: kept.facts(name) for name in kept.names()}
    if as_json:
        entries = [{"name": name, **_plain(facts)} for name, facts in found.items()]
        click.echo(json.dumps({"schema": LIST_SCHEMA, "folder": str(kept.path), "baselines": entries}, indent=1))
        return
    if not found:
        click.echo(f"no baselines in {kept.path}; `testbed baseline save NAME RESULTS_FOLDER` makes one", err=True)
        return
    rows = [("name", "saved", "scenario", "trials", "links", "processor"), *map(_listed, found, found.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout: environment.json.")
@_somewhere
def show_command(name: str, as_json: bool, baselines: Path | None) -> None:
    """Show NAME: what was run, when, and on which machine."""
    kept = _kept(baselines)
    facts = kept.facts(name)
    if as_json:
        click.echo(json.dumps({"name": name, **_plain(facts)}, indent=1))
        return
    click.echo("\n".join([name, *(f"  {line}" for line in _shown(facts)), f"  folder: {kept.find(name)}"]))


@command.command("rename")
@click.argument("old")
@click.argument("new")
@_somewhere
def rename_command(old: str, new: str, baselines: Path | None) -> None:
    """Give the baseline OLD the name NEW."""
    _kept(baselines).rename(old, new)
    click.echo(new)


@command.command("remove")
@click.argument("name")
@_somewhere
def remove_command(name: str, baselines: Path | None) -> None:
    """Take the baseline NAME away."""
    _kept(baselines).remove(name)


@command.command("export")
@click.argument("name")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help=FORCE)
@_somewhere
def export_command(name: str, file: Path | None, force: bool, baselines: Path | None) -> None:
    """Write the baseline NAME to FILE, NAME.tar.gz unless said. The same baseline gives the same bytes."""
    from testbed.results.archive import export

    kept = _kept(baselines)
    target = file or Path(f"{name}.tar.gz")
    export(kept, name, target, kept.owner, force=force)
    click.echo(target)


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="Another name than its own.")
@click.option("--force", is_flag=True, help=FORCE)
@_somewhere
def import_command(file: Path, name: str | None, force: bool, baselines: Path | None) -> None:
    """Take in the baseline that `export` wrote to FILE."""
    from testbed.results.archive import import_

    click.echo(import_(_kept(baselines), file, name, force=force))


def _kept(baselines: Path | None) -> Baselines:
    from testbed.results.baselines import Baselines

    return Baselines.of(baselines, os.environ, os.geteuid())


def _plain(facts: Facts) -> dict[str, Any]:
    return facts.model_dump(mode="json", by_alias=True)


def _listed(name: str, facts: Facts) -> tuple[str, ...]:
    trials = f"{facts.trials} in {facts.cells} {'cell' if facts.cells == 1 else 'cells'}"
    return name, facts.saved, facts.scenario, trials, facts.lab.links, str(facts.environment.get("cpu_model", ""))


def _shown(facts: Facts) -> Iterator[str]:
    yield f"saved: {facts.saved}"
    yield f"run: {facts.run}"
    yield f"scenario: {facts.scenario}, seed {facts.seed}, {facts.trials} trials in {facts.cells} cells"
    yield f"lab: {facts.lab.links} links, {facts.lab.kernel} kernel, {facts.lab.time} time"
    yield from (f"{name}: {value}" for name, value in facts.environment.items())
    if facts.machine is None:
        yield "machine: it was measured elsewhere than it was saved"
        return
    for name, value in facts.machine.items():
        said = ", ".join(map(str, value)) if isinstance(value, list) else value
        yield f"{name}: {'not known' if said is None else said}"
