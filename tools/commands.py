"""The page of the command line: docs/commands.md, from the commands themselves.

Rule 1: nothing is said here that `--help` does not say.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from testbed.cli import COMMANDS, group

INTRO = """\
# Command line

<!-- Written by `make docs` from the commands in testbed/cli/; edits here are lost. -->

`testbed --help` lists the commands, `testbed COMMAND --help` says what is on this page, `testbed --version` which
version it is. Results are on standard output, everything else on standard error. A SCENARIO, TOPOLOGY or FILE is a
name, as `testbed list` shows it, or a path.
"""


def page() -> Iterator[str]:
    """The lines of the page."""
    yield INTRO
    context = click.Context(group, info_name="testbed")
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        yield from _section(command, context, name, "##")


def _section(command: click.Command, parent: click.Context, name: str, level: str) -> Iterator[str]:
    """A command, and below it the commands of a group."""
    context = click.Context(command, parent, info_name=name)
    yield f"{level} {context.command_path}\n"
    yield f"    {command.get_usage(context).removeprefix('Usage: ')}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    yield from _options(command)
    yield from _examples(command.epilog or "")
    if isinstance(command, click.Group):
        for inner, below in command.commands.items():
            yield from _section(below, context, inner, f"{level}#")


def _options(command: click.Command) -> Iterator[str]:
    rows = [record for p in command.params if isinstance(p, click.Option) and (record := _option(command, p))]
    if rows:
        yield "| option | meaning |"
        yield "|---|---|"
        yield from rows
        yield ""


def _option(command: click.Command, option: click.Option) -> str:
    record = option.get_help_record(click.Context(command))
    if record is None:
        return ""
    name, meaning = (text.replace("|", "\\|") for text in record)
    return f"| `{name}` | {meaning.strip()} |"


def _examples(epilog: str) -> Iterator[str]:
    lines = [line for line in epilog.splitlines() if line.strip() not in ("\b", "Examples:", "")]
    if lines:
        shown = inspect.cleandoc("\n" + "\n".join(lines))
        yield f"```text\n{re.sub(r' +$', '', shown, flags=re.MULTILINE)}\n```\n"
