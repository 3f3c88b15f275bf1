"""The pictures of the two grids: what real kernels gave for 81 ordered pairs of NATs, beside what the model says.

Rule 1: a square is what was measured; where the model says otherwise, the square has a red edge and the legend says so.
Rule 2: both grids are one picture: a pair that connects only if answers leave by their session's mapping has its own
        colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from testbed.results.document import Cell, Document
from testbed.spec.kinds import KINDS, SESSION_REPLY

_LEFT, _TOP, _SQUARE = 96, 78, 64
_ALWAYS, _BY_SESSION, _NEVER, _WRONG = "#7fb98f", "#d9e7a6", "#e6e8eb", "#c9372c"
_STYLE = (
    "<style>text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328; font-size: 12px; } "
    ".kind { font: 600 12px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; } "
    ".count { font-size: 13px; text-anchor: middle; } .more { font-size: 11px; text-anchor: middle; fill: #59636e; }"
    "</style>"
)


def picture(strict: Document, by_session: Document) -> str:
    """Both grids as one SVG."""
    size = len(KINDS) * _SQUARE
    width, height = _LEFT + size + 16, _TOP + size + 66
    cells, others = _by_kinds(strict), _by_kinds(by_session)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Which of 81 pairs of NATs can be punched">',
        _STYLE,
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="24">direct / trials on Linux; rows: nat_a, columns: nat_b '
        "(mapping-filtering, RFC 4787)</text>",
    ]
    for number, kind in enumerate(KINDS):
        middle = number * _SQUARE + _SQUARE / 2
        mapping, filtering = kind.split("-")
        lines.append(f'<text x="{_LEFT - 10}" y="{_TOP + middle + 4:g}" text-anchor="end" class="kind">{kind}</text>')
        for row, word in enumerate((mapping, filtering)):
            at = f'x="{_LEFT + middle:g}" y="{_TOP - 26 + 15 * row}"'
            lines.append(f'<text {at} text-anchor="middle" class="kind">{word}</text>')
    for row, one in enumerate(KINDS):
        for column, other in enumerate(KINDS):
            lines += _square(cells[one, other], others[one, other], row, column)
    lines += _legend(cells, others, _TOP + size + 22)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _by_kinds(document: Document) -> Mapping[tuple[str, str], Cell]:
    def plain(cell: Cell, node: str) -> str:
        return str(cell.factors[node]).removesuffix(SESSION_REPLY)

    return {(plain(cell, "nat_a"), plain(cell, "nat_b")): cell for cell in document.cells}


def _connects(cell: Cell) -> bool:
    return cell.outcomes.direct > cell.trials / 2


def _square(cell: Cell, other: Cell, row: int, column: int) -> Iterator[str]:
    x, y = _LEFT + column * _SQUARE, _TOP + row * _SQUARE
    fill = _ALWAYS if _connects(cell) else _BY_SESSION if _connects(other) else _NEVER
    edge = f' stroke="{_WRONG}" stroke-width="3"' if not (cell.agrees and other.agrees) else ""
    yield f'<rect x="{x + 1}" y="{y + 1}" width="{_SQUARE - 2}" height="{_SQUARE - 2}" rx="4" fill="{fill}"{edge}/>'
    middle = f'x="{x + _SQUARE / 2:g}"'
    differs = _connects(cell) is not _connects(other)
    yield f'<text {middle} y="{y + (30 if differs else 37)}" class="count">{_count(cell)}</text>'
    if differs:
        yield f'<text {middle} y="{y + 47}" class="more">→ {_count(other)}</text>'


def _count(cell: Cell) -> str:
    return f"{cell.outcomes.direct}/{cell.trials}"


def _legend(cells: Mapping[tuple[str, str], Cell], others: Mapping[tuple[str, str], Cell], y: int) -> Iterator[str]:
    connecting = sum(map(_connects, cells.values()))
    more = sum(map(_connects, others.values())) - connecting
    agreeing = sum(bool(cell.agrees) for grid in (cells, others) for cell in grid.values())
    x: float = _LEFT
    for fill, text in (
        (_ALWAYS, f"connect: {connecting}"),
        (_BY_SESSION, f"only if answers leave by their session's mapping: {more} (→)"),
        (_NEVER, f"do not: {len(cells) - connecting - more}"),
    ):
        yield f'<rect x="{x:g}" y="{y - 11}" width="14" height="14" rx="3" fill="{fill}"/>'
        yield f'<text x="{x + 20:g}" y="{y}">{text}</text>'
        x += 44 + 6.4 * len(text)
    total = len(cells) + len(others)
    told = f"{agreeing} of {total} cells are as the model predicts" + ("" if agreeing == total else "; red edges: not")
    yield f'<text x="{_LEFT}" y="{y + 26}">{told}</text>'
