"""The table of behaviours × engines of the docs says what the refusals say, and nothing else."""

from __future__ import annotations

import pytest

from testbed.spec.profile import Engine
from tools.engines import BEHAVIOURS, CAN, ENGINES, answers_by_behaviour, table


def test_the_userspace_engine_does_what_the_others_together_do() -> None:
    """It is the last one that `auto` asks: what it refused, nothing would do."""
    for label, answers in answers_by_behaviour().items():
        assert CAN in answers.values(), label
        assert answers[Engine.USERSPACE] == CAN, label


@pytest.mark.parametrize(
    ("label", "explicit"),
    [
        ("`ports.block_allocation: dynamic`", "rules cannot take a block back when the last of its mappings ends"),
        (
            "`tcp_timeout.partially_open`, `.closing`, `.reset`",
            "rules see whether a connection is established, and nothing finer of its state",
        ),
        ("`mapping: address-dependent`", CAN),
    ],
)
def test_a_cell_is_the_reason_once_and_without_advice(label: str, explicit: str) -> None:
    assert answers_by_behaviour()[label][Engine.EXPLICIT] == explicit


def test_the_table_has_a_line_for_each_and_a_cell_for_each_engine() -> None:
    lines = list(table())
    assert len(lines) == 2 + len(BEHAVIOURS)
    assert {line.count(" | ") for line in lines if not line.startswith("|---")} == {len(ENGINES)}
