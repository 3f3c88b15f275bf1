"""When the parts of a machine wait for something at the same time."""

from __future__ import annotations

from collections.abc import Iterable


def earliest(times: Iterable[int | None]) -> int | None:
    """The first of these moments, in nanoseconds; None where nothing is waited for."""
    known = [time for time in times if time is not None]
    return min(known) if known else None
