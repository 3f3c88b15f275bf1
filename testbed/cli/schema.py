"""`testbed schema`: the JSON Schema of a kind of file, for editors and other programs."""

from __future__ import annotations

import json

import click

from testbed.spec.places import FileKind
from testbed.spec.schema import schema

EPILOG = """\b
Examples:
  testbed schema topology > topology.json
  then, as the first line of a topology's file:
  # yaml-language-server: $schema=topology.json
"""


@click.command(epilog=EPILOG)
@click.argument("kind", type=click.Choice([kind.value for kind in FileKind]))
def command(kind: str) -> None:
    """Print the JSON Schema of a kind of file, for editors."""
    click.echo(json.dumps(schema(FileKind(kind)), indent=2, ensure_ascii=False))


__all__ = ["command"]
