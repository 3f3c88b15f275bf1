"""The closed form of a birthday, on the kernel's NATs: that one of N random probes meets one of k open ports.

The model is held to the same form with more trials in tests/traversal/test_strategies.py. Here probes are paced so that
a busy machine keeps up, and the deadline leaves room for that.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.stats import clopper_pearson
from tests.run.command import call

PORTS, TRIALS = 256, 50
PROBES = (78, 174, 256, 533, 1024, 2048)
SCENARIO = """
topology: two_homes
agent: udp
matrix: {{nat_a: [apdm-apdf], nat_b: [eim-apdf], strategy: [birthday]}}
parameters: {{ports: {ports}, probes: {probes}, rate: 256}}
trials: {trials}
deadline: 30s
"""


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("probes", PROBES)
def test_birthday_by_its_closed_form(probes: int, tmp_path: Path) -> None:
    """95 % for all points together."""
    (tmp_path / "own.yaml").write_text(SCENARIO.format(ports=PORTS, probes=probes, trials=TRIALS))
    ran = call("run", "own.yaml", "--json", "--out", "out", "--capture", "none", "--no-nat-test", at=tmp_path)
    assert ran.status == 0, ran.err
    (cell,) = ran.document.cells
    assert cell.success_rate.n == TRIALS
    rate = clopper_pearson(cell.outcomes.direct, TRIALS, 1 - 0.05 / len(PROBES))
    assert rate.low <= 1 - (1 - PORTS / 65535) ** probes <= rate.high
