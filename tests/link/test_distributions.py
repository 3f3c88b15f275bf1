"""Tables of jitter: netem's own values, to the last one."""

from __future__ import annotations

import struct
from hashlib import sha256
from pathlib import Path

import pytest

from testbed.link.distributions import SCALE, SIZE, table
from testbed.spec.link import Distribution

# sha256 of the 4 096 values that iproute2 6.1 sends, as little-endian 16-bit numbers
KNOWN = [
    (Distribution.NORMAL, "ea496767068d0be9eb46cb69ee90470105525b9090a6d479dadf04db0f3d44a5"),
    (Distribution.PARETO, "bb133e76721f7df4fd75dd647aad368fa8e9eaf9b9797fc8d208dde5f9ffbd2a"),
    (Distribution.PARETONORMAL, "ca372e5f4871aa11f38e71c82bd18e074e068f0704291e8a859ebd1aaee2f9f1"),
]
INSTALLED = [*Path("/usr/lib").glob("*/tc"), *Path("/usr/lib").glob("tc"), *Path("/usr/share").glob("iproute2/tc")]


@pytest.mark.parametrize(("shape", "digest"), KNOWN)
def test_a_table_has_the_values_that_tc_sends(shape: Distribution, digest: str) -> None:
    values = table(shape)
    assert values is not None
    assert len(values) == SIZE
    assert sha256(struct.pack(f"<{SIZE}h", *values)).hexdigest() == digest


@pytest.mark.parametrize("shape", [shape for shape, _ in KNOWN])
def test_a_table_equals_the_one_that_is_installed_here(shape: Distribution) -> None:
    found = [path for folder in INSTALLED if (path := folder / f"{shape.value}.dist").exists()]
    if not found:
        pytest.skip("iproute2 has no distribution tables here")
    lines = found[0].read_text().splitlines()
    assert table(shape) == tuple(int(number) for line in lines for number in line.split("#")[0].split())


def test_the_uniform_shape_needs_no_table() -> None:
    assert table(Distribution.UNIFORM) is None


@pytest.mark.parametrize("shape", [shape for shape, _ in KNOWN])
def test_values_rise_and_their_mean_is_nearly_the_delay(shape: Distribution) -> None:
    values = table(shape)
    assert values is not None
    assert list(values) == sorted(values)
    assert abs(sum(values) / SIZE) < 0.04 * SCALE  # the cut tail takes 3.3 % of a jitter from the Pareto's mean
