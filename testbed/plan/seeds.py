"""Seeds: every die of a run is thrown from a seed that is a function of what it is for.

So any order of trials, any number of jobs and any shard give the same trial the same dice.
"""

from __future__ import annotations

from hashlib import blake2b


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for `purpose`, e.g. `derive(run_seed, cell_id, index)`, then `derive(trial, "link", name)`."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
