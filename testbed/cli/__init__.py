"""The door: one file per command, imported only when called.

Rule 1: this file imports click, `errors` and what stands beside it, nothing else; `testbed --help` must feel instant.
Rule 2: only here does an error become an exit status, and only here is one printed.
Rule 3: stdout is for results, stderr for everything else.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any, NoReturn

import click

from testbed import __version__
from testbed.cli.heedless import silence
from testbed.errors import ExitStatus, TestbedError

COMMANDS = {
    "run": ("testbed.cli.run", "Run a scenario: how often and how fast do two peers connect?"),
    "explain": ("testbed.cli.explain", "Explain a trial: why did it come out so, and what does theory say?"),
    "compare": ("testbed.cli.compare", "Compare two runs: has it become worse?"),
    "baseline": ("testbed.cli.baseline", "Baselines: keep runs under a name, to compare later ones with."),
    "predict": ("testbed.cli.predict", "Predict a scenario: what does theory say, before any network is made?"),
    "check": ("testbed.cli.check", "Check topologies, NAT profiles and scenarios; say all that is wrong."),
    "list": ("testbed.cli.list_", "List the topologies, profiles, scenarios and agents there are."),
    "nat": ("testbed.cli.nat", "NATs: list them, show one, test whether each is what it says."),
    "up": ("testbed.cli.up", "Hold a lab until Ctrl-C, for a person to work in."),
    "exec": ("testbed.cli.exec_", "Run a command in a node of a lab that `up` holds."),
    "ls": ("testbed.cli.ls", "List the labs that `up` holds on this machine."),
    "doctor": ("testbed.cli.doctor", "Say what this machine can do, and how to mend the rest."),
    "schema": ("testbed.cli.schema", "Print the JSON Schema of a kind of file, for editors."),
}

EXAMPLES = """\b
Examples:
  sudo testbed run symmetric_nat           table of success rates, with intervals
  testbed run classic --trials 5 --json    one JSON document on stdout
  testbed predict grid                     the same by theory: no root, no waiting
  testbed compare main results/today       has it become worse? (see testbed baseline)
  testbed check my_topology.yaml           every mistake at once, as file:line:column
  sudo testbed up two_homes                hold a lab; then, elsewhere:
  sudo testbed exec alice -- ip address    look around in it
"""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's file now."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Where the reader of our output went away (`testbed list | head -1`), that is its right."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            silence(sys.stdout)
            return ExitStatus.OK

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown command with the nearest spelling."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table above, so that `--help` imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXAMPLES,
)
@click.version_option(__version__, prog_name="testbed")
def group() -> None:
    """Through which NATs do two peers connect, how often, how fast, and why not?"""


def main() -> NoReturn:
    """Run the command line and exit with its status (the first that applies of 130, 2, 3, 4, 1, 0)."""
    _open_standard_streams()
    sys.exit(_status())


def _open_standard_streams() -> None:
    """Let what our caller has closed lead nowhere, so that no file of ours takes its number."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is fd
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", closefd=False))  # noqa: SIM115


def _status() -> int:
    try:
        result = group.main(prog_name="testbed", standalone_mode=False)
    except TestbedError as error:
        click.echo(f"testbed: {error}" if "\n" not in str(error) else str(error), err=True)
        return error.exit_status
    except click.ClickException as error:
        error.show()
        return ExitStatus.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("testbed: interrupted", err=True)
        return ExitStatus.INTERRUPTED
    except Exception:  # a status of 1, which Python would choose, says that an expectation was missed
        traceback.print_exc()
        click.echo("testbed: this is a mistake in testbed itself; please report it with the lines above", err=True)
        return ExitStatus.BROKEN
    return result if isinstance(result, int) else ExitStatus.OK
