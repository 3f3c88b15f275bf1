"""The pictures of docs/: reports as a terminal shows them, and the packages in their layers.

Rule 1: a picture is a function of what it shows: a result document, pyproject.toml and the packages' own first lines.
Rule 2: a picture needs nothing from elsewhere, no font and no style sheet.
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from testbed.comparison.verdicts import Asked
from testbed.report import comparison as comparison_page
from testbed.report.page import page
from testbed.results.compare import compare
from testbed.results.document import Document
from testbed.results.side import read_side

ROOT = Path(__file__).parent.parent

WIDTH = 108
"""Columns of the terminal in the picture: as many as the table needs with everything in it."""
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def terminal(document: Document, command: str) -> str:
    """The report of a run as SVG, under the command that gave it."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print(Text.assemble(("$ ", "dim"), command))
    for line in page(document, WIDTH):
        console.print(line, soft_wrap=True)
    console.print()  # the picture's edge cuts off what hangs below its last line
    without_fonts = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = without_fonts.replace("Fira Code, monospace", _FONTS).replace("arial", "sans-serif")
    drawn = console.export_svg(title="testbed", code_format=form, unique_id="run")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def report(document: Document) -> str:
    """The same as plain text."""
    return "\n".join(line.plain for line in page(document, WIDTH))


def comparison() -> str:
    """The console of docs/comparing.md: its command, and what it prints."""
    base, new = (
        read_side(ROOT / "docs" / "evidence" / "comparing" / name, f"results/{name}") for name in ("before", "after")
    )
    shown = comparison_page.page(compare(base, new, Asked()), comparison_page.WIDEST)
    return "\n".join([f"$ testbed compare {base.name} {new.name}", *(line.plain for line in shown)])


# ---------------------------------------------------------------------------- the packages


@dataclass(frozen=True, slots=True)
class Package:
    """A package, or a module, directly below `testbed`."""

    name: str
    about: str
    """The first sentence of its docstring."""
    is_pure: bool
    doors: tuple[str, ...]
    """Outside libraries that only it may import."""
    imports: tuple[str, ...]
    """Which of the others it imports, in the order of the layers."""


@cache
def layers() -> tuple[tuple[Package, ...], ...]:
    """Who stands above whom, the highest first; packages on one layer never import each other."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    by_name = {contract["name"]: contract for contract in settings["contracts"]}
    order = next(c for c in settings["contracts"] if c["type"] == "layers")["layers"]
    pure = next(c["source_modules"] for name, c in by_name.items() if "pure" in name)
    doors = [match.groups() for name in by_name if (match := re.fullmatch(r"(\w+) only in (\w+)/.*", name))]
    names = [name.strip() for layer in order for name in layer.split("|")]
    return tuple(
        tuple(
            Package(
                name,
                _about(name),
                f"testbed.{name}" in pure,
                tuple(library for library, where in doors if where == name),
                tuple(other for other in names if other in _imports(name) and other != name),
            )
            for name in map(str.strip, layer.split("|"))
        )
        for layer in order
    )


def _about(name: str) -> str:
    path = ROOT / "testbed" / name
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    first = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
    return " ".join(first.split())


@cache
def _imports(name: str) -> frozenset[str]:
    path = ROOT / "testbed" / name
    found: set[str] = set()
    for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "testbed":
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("testbed."):
                found.add(node.module.split(".")[1])
    return frozenset(found)


_PAGE, _GAP, _LINE, _LETTER = 880, 12, 16, 6.4


def layers_picture() -> str:
    """The layers as SVG: each imports from below, never from beside or above."""
    rows = layers()
    parts: list[str] = []
    y = 34.0
    for row in rows:
        width = (_PAGE - _GAP * (len(row) + 1)) / len(row)
        texts = [textwrap.wrap(package.about, int((width - 20) / _LETTER)) for package in row]
        height = 34 + _LINE * max(map(len, texts)) + (_LINE if any(package.doors for package in row) else 0)
        for column, (package, lines) in enumerate(zip(row, texts, strict=True)):
            parts += _box(package, lines, _GAP + column * (width + _GAP), y, width, height)
        y += height + _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_PAGE} {y:g}" role="img" '
        'aria-label="The packages of testbed in layers">'
    )
    style = (
        "<style>text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328; } "
        ".name { font: 600 14px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; } "
        ".about { font-size: 12px; } .door { font-size: 12px; font-style: italic; fill: #59636e; }</style>"
    )
    back = f'<rect width="{_PAGE}" height="{y:g}" rx="8" fill="#ffffff"/>'
    legend = (
        '<text x="12" y="22" class="door">each layer imports from the layers below it only; '
        "green: pure (no I/O, no clock, no event loop)</text>"
    )
    return "\n".join([head, style, back, legend, *parts, "</svg>"]) + "\n"


def _box(package: Package, lines: list[str], x: float, y: float, width: float, height: float) -> Iterator[str]:
    fill, edge = ("#e6f4ea", "#7fb98f") if package.is_pure else ("#eef2f8", "#9db2d0")
    yield (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{edge}"/>'
        f'<text x="{x + 10:g}" y="{y + 21:g}" class="name">{package.name}</text>'
    )
    for number, line in enumerate(lines):
        yield f'<text x="{x + 10:g}" y="{y + 40 + _LINE * number:g}" class="about">{escape(line)}</text>'
    if package.doors:
        door = f"the one door to {', '.join(package.doors)}"
        yield f'<text x="{x + 10:g}" y="{y + 40 + _LINE * len(lines):g}" class="door">{escape(door)}</text>'
