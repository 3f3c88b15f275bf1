"""`testbed list`: what there is to name.

Rule 1: what is listed is what a name finds from here: the current directory's folders first, then what is installed.
Rule 2: a file that cannot be read is listed with that fact; it does not hide the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from testbed.errors import SpecError
from testbed.spec.kinds import KINDS, kind
from testbed.spec.places import FileKind, available, read, tidy
from testbed.spec.scenario import AGENTS

EPILOG = """\b
Examples:
  testbed list scenarios
  testbed list --json | jq -r '.profiles[].name'
"""
FILES: Mapping[str, FileKind] = {
    "topologies": FileKind.TOPOLOGY,
    "profiles": FileKind.NAT_PROFILE,
    "scenarios": FileKind.SCENARIO,
}
BUILT_IN = "built in"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a name finds."""

    name: str
    description: str
    source: str
    """The path of its file, or `built in`."""


@click.command(epilog=EPILOG)
@click.argument("what", required=False, type=click.Choice([*FILES, "agents"]))
@click.option("--json", "as_json", is_flag=True, help="One JSON document: {kind: [{name, description, source}]}.")
def command(what: str | None, as_json: bool) -> None:
    """List the topologies, profiles, scenarios and agents there are."""
    found = {name: _entries(name) for name in ((what,) if what else (*FILES, "agents"))}
    if as_json:
        click.echo(json.dumps({name: [asdict(e) for e in entries] for name, entries in found.items()}, indent=1))
        return
    for index, (name, entries) in enumerate(found.items()):
        if what is None:
            click.echo(f"{'' if index == 0 else chr(10)}{name}:")
        width = max((len(entry.name) for entry in entries), default=0)
        for entry in entries:
            click.echo(f"{'' if what else '  '}{entry.name:<{width}}  {entry.description}".rstrip())


def _entries(what: str) -> list[Entry]:
    if what == "agents":
        return [Entry(name, description, BUILT_IN) for name, description in AGENTS.items()]
    files = [Entry(name, _description(path), tidy(path)) for name, path in available(FILES[what]).items()]
    return [*_kinds(), *files] if what == "profiles" else files


def _kinds() -> list[Entry]:
    return [Entry(name, made.description, BUILT_IN) for name in KINDS if (made := kind(name)) is not None]


def _description(path: Path) -> str:
    try:
        source, _ = read(path)
    except SpecError:
        return f"(cannot be read: see `testbed check {tidy(path)}`)"
    description = source.tree.data.get("description")
    return " ".join(description.split()) if isinstance(description, str) else ""


__all__ = ["command"]
