"""The kernel stamps packets by CLOCK_REALTIME; everything here counts CLOCK_MONOTONIC."""

from __future__ import annotations

import time


def monotonic_shift(readings: int = 1) -> int:
    """What to add to a CLOCK_REALTIME stamp of just now to have CLOCK_MONOTONIC, in nanoseconds.

    Of several readings the one that was disturbed least: a process that is put aside between two clocks is wrong by
    as long as it was away.
    """
    found = least = None
    for _ in range(readings):
        before, there, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if least is None or after - before < least:
            found, least = (before + after) // 2 - there, after - before
    assert found is not None
    return found
