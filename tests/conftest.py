"""Which tests may run here, and as whom.

Rule 1: a lab test that cannot run here is skipped with the reason and the mending command. Under `--require-lab` or
        REQUIRE_LAB (the gate) it fails instead: a silent skip is a lie.
Rule 2: without root the whole session runs in a user namespace, where labs may be built, with a network of its own.
        A process with threads cannot enter one, and test modules import libraries that start some: so it is done
        before the first of them is imported. `-m "not lab"` does without.
Rule 3: nothing is entered before children have tried it: half of a user namespace is worse than none.
Rule 4: no test is timed, by us or by hypothesis: how long an example takes says how busy the machine is.
"""

from __future__ import annotations

import getpass
import os
import signal

import hypothesis
import pytest

from testbed.lab import namespaces
from testbed.lab.probe import missing_for_a_lab

hypothesis.settings.register_profile("testbed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("testbed")

_MISSING = pytest.StashKey[tuple[str, ...]]()
"""Why no lab can be built here; absent until somebody had to know."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-lab", action="store_true", help="fail, not skip, lab tests that cannot run here")


def pytest_configure(config: pytest.Config) -> None:
    # A shell without job control starts what goes to the background with SIGINT ignored, and programs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if namespaces.can_make_namespaces() or config.getoption("markexpr") == "not lab":
        return
    config.stash[_MISSING] = missing_for_a_lab()
    if config.stash[_MISSING]:
        return
    try:
        # Inside we are called root; files for tests still belong below a folder named after us.
        os.environ.setdefault("LOGNAME", getpass.getuser())
    except (KeyError, OSError):  # a number without a name; OSError from Python 3.13 on
        os.environ["LOGNAME"] = f"user-{os.getuid()}"
    namespaces.enter_world()
    from testbed.lab.netlink import Batch, Netlink, up

    with Netlink() as netlink:
        netlink.send(Batch([up("lo", index=1)]))  # some tests talk over it


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("lab") is None:
        return
    if _MISSING not in item.config.stash:
        item.config.stash[_MISSING] = missing_for_a_lab()
    if missing := item.config.stash[_MISSING]:
        is_required = item.config.getoption("--require-lab") or os.environ.get("REQUIRE_LAB")
        (pytest.fail if is_required else pytest.skip)("; ".join(missing))
