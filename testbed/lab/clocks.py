"""The kernel stamps packets by CLOCK_REALTIME; everything here counts CLOCK_MONOTONIC."""

from __future__ import annotations

import time


def monotonic_shift(readings: int = 1) -> int:
    """What to add to a CLOCK_REALTIME stamp of just now to have CLOCK_MONOTONIC, in nanoseconds.

    Of several readings the one that was disturbed least: a process that is put aside between two clocks is wrong by
    as long as it was away.
    """

    def reading() -> tuple[int, int]:
        before, there, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        return after - before, (before + after) // 2 - there

    return min(reading() for _ in range(readings))[1]
