"""Which factors vary, which are the same in every cell, and which of them are NATs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import JsonValue

from testbed.results.summary import label

NOT_NODES = frozenset({"strategy", "agent", "pair", "topology"})
"""Factors whose key is a bare word and not the name of a node (see the grammar of scenarios)."""


class HasFactors(Protocol):
    """A cell of any document."""

    @property
    def factors(self) -> Mapping[str, JsonValue]:
        """Name -> value."""


def values(cells: Sequence[HasFactors], factor: str) -> list[str]:
    """The values of a factor, in order of appearance; `-` where a cell does not have it."""
    return list(dict.fromkeys(value(cell, factor) for cell in cells))


def value(cell: HasFactors, factor: str) -> str:
    """The value of a factor in one cell, as text."""
    return label(cell.factors[factor]) if factor in cell.factors else "-"


def split(cells: Sequence[HasFactors]) -> tuple[list[str], dict[str, str]]:
    """The factors that vary, in order; and the others with their one value."""
    names = list(dict.fromkeys(name for cell in cells for name in cell.factors))
    found = {name: values(cells, name) for name in names}
    constant = {name: texts[0] for name, texts in found.items() if len(texts) == 1}
    return [name for name in names if name not in constant], constant


def nats(factors: Sequence[str]) -> list[str]:
    """Those that put a NAT profile on a node: a bare name that is no other word of the grammar."""
    return [name for name in factors if "." not in name and name not in NOT_NODES]
