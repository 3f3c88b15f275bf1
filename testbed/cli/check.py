"""`testbed check`: is what I wrote what I meant?

Rule 1: every problem of every file is told, on stderr, and makes the exit status 2; a good file has its `OK` line.
Rule 2: a file is checked with all that it names: a scenario with its topology and profiles.
"""

from __future__ import annotations

from pathlib import Path

import click

from testbed.cli import show
from testbed.errors import Problem, SpecError
from testbed.plan.engines import refusals
from testbed.spec.kinds import kind
from testbed.spec.load import Loaded, load_any
from testbed.spec.places import FileKind, find, is_path, not_found

EPILOG = """\b
Examples:
  testbed check my_topology.yaml
  testbed check topologies/*.yaml scenarios/*.yaml
  testbed check two_homes --show          a name; and what was understood
"""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--show", "shown", is_flag=True, help="Print what was understood: the tree, the fields, the cells.")
def command(files: tuple[str, ...], shown: bool) -> None:
    """Check topologies, NAT profiles and scenarios; say all that is wrong.

    A FILE's kind is told by its folder (topologies, nat_profiles, scenarios), else by its keys. What has no such
    file is looked for by name, as `testbed list` shows it.
    """
    problems: list[Problem] = []
    for word in dict.fromkeys(files):
        try:
            for path in _meant(word):
                loaded = load_any(path, refusals=refusals)
                click.echo(_told(path, loaded, shown))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)


def _meant(word: str) -> list[Path]:
    """The files that a word of the command line means. Raises SpecError."""
    if is_path(word) or Path(word).is_file():
        return [Path(word)]
    found = [path for file_kind in FileKind if (path := find(file_kind, word)) is not None]
    if not found and kind(word) is not None:
        raise SpecError([Problem("", 0, 0, "", f"{word!r} is one of the built-in kinds of NAT, and no file")])
    if not found:
        told = [not_found(file_kind, word) for file_kind in FileKind]
        best = next((message for message in told if "did you mean" in message), f"no such file or name: {word}")
        raise SpecError([Problem("", 0, 0, "", best)])
    return found


def _told(path: Path, loaded: Loaded, shown: bool) -> str:
    line = f"{path.as_posix()}: OK, {show.summary(loaded)}"
    return "\n".join([line, *(f"  {text}" for text in show.lines(loaded))]) if shown else line


__all__ = ["command"]
