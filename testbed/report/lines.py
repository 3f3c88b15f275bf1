"""Lines of text in columns.

Rule 1: a line is never cut: who lays out looks at the width first, and chooses what to show.
Rule 2: no line ends in blanks, so that what is piped can be compared.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal

from rich.text import Text

Row = Sequence[Text]
Justify = Literal["left", "right"]
GAP = 2


def widths(rows: Sequence[Row]) -> list[int]:
    """The width of each column."""
    return [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]


def total(columns: Sequence[int], gap: int = GAP) -> int:
    """The width of a line of these columns."""
    return sum(columns) + gap * (len(columns) - 1)


def align(row: Row, columns: Sequence[int], justify: Sequence[Justify], gap: int = GAP) -> Text:
    """One line."""
    line = Text()
    for i, (cell, width, side) in enumerate(zip(row, columns, justify, strict=True)):
        blank = " " * (width - cell.cell_len)
        line.append(" " * gap if i else "")
        line.append_text(Text.assemble(blank, cell) if side == "right" else Text.assemble(cell, blank))
    line.rstrip()
    return line


def hanging(mark: Text, text: Text, width: int) -> list[Text]:
    """`text` after a mark, its further lines indented under its first. Long words are left whole."""
    indent = mark.cell_len + 1
    ends = textwrap.wrap(text.plain, max(width - indent, 20), break_long_words=False, break_on_hyphens=False)
    lines, start = [], 0
    for i, end in enumerate(ends):
        start = text.plain.index(end, start)
        piece = text[start : start + len(end)]
        lines.append(Text.assemble(mark, " ", piece) if i == 0 else Text.assemble(" " * indent, piece))
        start += len(end)
    return lines
