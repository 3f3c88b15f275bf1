"""What README.md and docs/ hold that can be checked: blocks of code, links, headings, options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from testbed.cli import COMMANDS, group

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAID = re.compile(r"(?<![`\w])`([^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str | None:
        """The file that a YAML block is, where its first line says so."""
        found = re.match(r"# (\S+\.ya?ml)$", self.text.partition("\n")[0])
        return found[1] if found and self.language == "yaml" else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _blocks(page: str) -> Iterator[Block]:
    text = TEXTS[page]
    for match in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])


BLOCKS = tuple(block for page in PAGES for block in _blocks(page))


def of_language(*languages: str) -> list[Block]:
    """The blocks of these languages, on all pages."""
    return [block for block in BLOCKS if block.language in languages]


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a console block, and the lines that follow it there."""

    block: Block
    command: str
    output: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The command's words, without sudo."""
        return self.command.removeprefix("sudo ").split()


def steps(page: str) -> list[Step]:
    """The commands of a page, in order."""
    found: list[Step] = []
    for block in BLOCKS:
        if block.page != page or block.language != "console":
            continue
        command = ""
        output: list[str] = []
        for line in [*block.text.replace("\\\n", "").splitlines(), "$ "]:
            if line.startswith("$ "):
                if command:
                    found.append(Step(block, command, tuple(output)))
                command, output = line[2:], []
            else:
                output.append(line)
    return found


def code(page: str) -> Iterator[str]:
    """Everything that a page sets as code: words between backticks, lines of consoles and indented lines."""
    text = TEXTS[page]
    yield from (step.command for step in steps(page))
    yield from (match[1] for match in _SAID.finditer(_FENCE.sub("", text)))


def anchors(page: str) -> set[str]:
    """What may stand behind the # of a link to this page."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", TEXTS[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> Mapping[str, click.Command]:
    """Every command of the command line, by name."""
    context = click.Context(group)
    return {name: command for name in COMMANDS if (command := group.get_command(context, name)) is not None}


def options(command: click.Command) -> set[str]:
    """The long options of a command; of a group, those of its commands."""
    if isinstance(command, click.Group):
        return {option for below in command.commands.values() for option in options(below)}
    named = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    return named | {"--help"}
