"""`testbed exec`: a command in a node of a held lab."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from testbed.errors import TestbedError, UsageError

FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
"""What this command itself returns where it cannot run the other, as env(1) and others do."""

EXAMPLES = """\b
Examples:
  sudo testbed exec alice -- ip address
  sudo testbed exec nat_a -- nft list ruleset
  sudo testbed exec --lab two_homes-4711 bob -- python3 my_peer.py
"""


class Exec(click.Command):
    """A command whose own mistakes cannot be taken for those of the command that it runs."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Mistakes of the command line are failures of ours, too."""
        try:
            return super().make_context(*arguments, **more)
        except click.UsageError as error:
            error.show()
            raise click.exceptions.Exit(FAILED) from error


@click.command(
    cls=Exec, epilog=EXAMPLES, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--lab", metavar="ID", help="Which lab, where several are held (see `testbed ls`).")
@click.argument("node")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def command(lab: str | None, node: str, arguments: tuple[str, ...]) -> int:
    """Run CMD in NODE of a lab that `testbed up` holds. Its exit status is ours; our own are 125 to 127."""
    from testbed.lab.registry import enter_node, held_lab

    if arguments[0] == "--":  # click leaves it in place, since NODE comes before it
        arguments = arguments[1:]
    try:
        if not arguments:
            raise UsageError(f"say what to run in {node}: testbed exec {node} -- ip address")
        enter_node(held_lab(lab), node)
    except TestbedError as error:
        click.echo(f"testbed: {error}", err=True)
        return FAILED
    sys.stdout.flush()
    try:
        os.execvp(arguments[0], arguments)
    except FileNotFoundError:
        click.echo(f"testbed: there is no command {arguments[0]!r}", err=True)
        return NOT_FOUND
    except OSError as error:
        click.echo(f"testbed: {arguments[0]}: {error.strerror}", err=True)
        return NOT_EXECUTABLE
