"""The shapes of jitter as netem has them: tables of 4 096 values in units of 1/8192 of the jitter.

Rule 1: a table is made by the formula that iproute2 makes its own by (netem/normal.c, pareto.c, paretonormal.c), so a
        kernel's netem and our own link draw from the very same values.
Rule 2: an entry is a signed 16-bit number; index i is the quantile i/4096.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from statistics import NormalDist

from testbed.spec.link import Distribution

SCALE = 8192
"""Table units in one jitter (NETEM_DIST_SCALE)."""
SIZE = 4096
_FINE = 4 * SIZE
_STEP = 0.00005
_LEFT_EDGE = -10.0
_LEAST, _MOST = -32768, 32767
_PARETO_SHAPE = 3.0


def table(distribution: Distribution) -> tuple[int, ...] | None:
    """The table of a shape; None for the uniform one, which needs none."""
    make = _MAKERS.get(distribution)
    return make() if make is not None else None


@cache
def _normal() -> tuple[int, ...]:
    return _clipped(_normal_values())


@cache
def _pareto() -> tuple[int, ...]:
    return _clipped(_pareto_values())


@cache
def _paretonormal() -> tuple[int, ...]:
    """A quarter normal, three quarters Pareto, whose tail is cut before they are mixed and the normal's is not."""
    pareto = (min(value, _MOST) for value in _pareto_values())
    return _clipped(int((a + 3 * b) / 4) for a, b in zip(_normal_values(), pareto, strict=True))


def _normal_values() -> Iterator[int]:
    """Standard normal quantiles.

    iproute2 walks x in steps of 0.00005 and keeps the last x that falls to each of 16 384 quantiles; every fourth is
    written down.
    """
    inverse = NormalDist().inv_cdf
    for quantile in range(0, _FINE, 4):
        edge = inverse((quantile + 0.5) / _FINE)
        yield round((_LEFT_EDGE + math.floor((edge - _LEFT_EDGE) / _STEP) * _STEP) * SCALE)


def _pareto_values() -> Iterator[int]:
    """Pareto of shape 3, moved and stretched to mean 0 and deviation 1; its far tail does not fit 16 bits."""
    for i in range(65536, 0, -16):
        yield round(((65536 / i) ** (1 / _PARETO_SHAPE) - 1.5) * (4 / 3) * SCALE)


def _clipped(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(max(_LEAST, min(_MOST, value)) for value in values)


_MAKERS: Mapping[Distribution, Callable[[], tuple[int, ...]]] = {
    Distribution.NORMAL: _normal,
    Distribution.PARETO: _pareto,
    Distribution.PARETONORMAL: _paretonormal,
}
