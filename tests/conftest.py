"""Which tests may run here.

A lab test needs namespaces and the nftables library. Where this machine has none, it is skipped with
the reason and the mending command; under `--require-lab` (the gate) it fails instead: a silent skip is a lie.
"""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-lab", action="store_true", help="fail, not skip, lab tests that cannot run here")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lab = [item for item in items if item.get_closest_marker("lab")]
    if not lab or config.getoption("--require-lab") or os.environ.get("REQUIRE_LAB"):
        return
    from testbed.lab.probe import missing_for_a_lab

    if missing := missing_for_a_lab():
        skip = pytest.mark.skip(reason="; ".join(missing))
        for item in lab:
            item.add_marker(skip)
