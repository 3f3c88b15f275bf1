"""What doctor says of a machine, and how each way of failing becomes a sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from testbed.cli import doctor, group
from testbed.errors import BrokenError, ExitStatus, MachineError
from testbed.lab import probe
from testbed.lab.probe import Capability

FINE = Capability("spades", "digging", True, detail="two of them")
NO_BUCKET = Capability("buckets", "water", True, "there is a hole in it", "sudo mend-it --with straw")
NO_BARROW = Capability("barrows", "more water", True, "there is a hole in it", "sudo mend-it --with straw")
NO_HOSE = Capability("hoses", "comfort", False, "none was bought")


@pytest.mark.parametrize(
    ("sentence", "found", "status", "verdict", "lines"),
    [
        (
            "all is there",
            (FINE,),
            ExitStatus.OK,
            "labs can be built here",
            ["ok       spades  digging (two of them)"],
        ),
        (
            "what is only nice to have is missing",
            (FINE, NO_HOSE),
            ExitStatus.OK,
            "labs can be built here",
            ["ok       spades  digging (two of them)", "none     hoses   comfort", "none was bought"],
        ),
        (
            "what is needed is missing: the reason and what mends it",
            (NO_BUCKET,),
            ExitStatus.MACHINE,
            "labs cannot be built here",
            ["missing  buckets  water", "there is a hole in it", "to mend it: sudo mend-it --with straw"],
        ),
        (
            "a reason is given once",
            (NO_BUCKET, NO_BARROW),
            ExitStatus.MACHINE,
            "labs cannot be built here",
            [
                "missing  buckets  water",
                "there is a hole in it",
                "to mend it: sudo mend-it --with straw",
                "missing  barrows  more water",
                "as buckets",
            ],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_the_table(
    sentence: str,
    found: tuple[Capability, ...],
    status: ExitStatus,
    verdict: str,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "capabilities", lambda: found)
    result = CliRunner().invoke(group, ["doctor"], standalone_mode=False)
    assert result.return_value == status
    assert [line.strip() for line in result.stdout.splitlines()] == lines
    assert result.stderr.strip() == verdict


def test_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "capabilities", lambda: (FINE, NO_BUCKET))
    result = CliRunner().invoke(group, ["doctor", "--json"], standalone_mode=False)
    assert result.return_value == ExitStatus.MACHINE
    document = json.loads(result.stdout)
    assert document["schema"] == "testbed.doctor/1"
    assert document["capabilities"][1] == {
        "name": "buckets", "status": "missing", "required": True, "purpose": "water", "detail": "",
        "reason": "there is a hole in it", "mend": "sudo mend-it --with straw",
    }  # fmt: skip


def raising(error: BaseException) -> Callable[[], str]:
    def attempt() -> str:
        raise error

    return attempt


ATTEMPTS: list[tuple[str, Callable[[], str], tuple[str, str | None, str | None]]] = [
    ("it works, and says which", lambda: "version 7", ("version 7", None, None)),
    (
        "this machine cannot, and knows what mends it",
        raising(MachineError("no such part", mend="buy one")),
        ("", "no such part", "buy one"),
    ),
    ("a part of ours is at fault", raising(BrokenError("it fell off")), ("", "it fell off", None)),
    (
        "the kernel says no",
        raising(PermissionError(1, "Operation not permitted")),
        ("", "Operation not permitted", None),
    ),
    ("a mistake in a probe is told, not hidden", raising(KeyError("x")), ("", "KeyError: 'x'", None)),
    ("even one that would end the process", raising(SystemExit(0)), ("", "SystemExit: 0", None)),
    ("the child dies", lambda: os._exit(0), ("", "the attempt died without a word", None)),
]


@pytest.mark.parametrize(("sentence", "attempt", "told"), ATTEMPTS, ids=[row[0] for row in ATTEMPTS])
def test_an_attempt(sentence: str, attempt: Callable[[], str], told: tuple[str, str | None, str | None]) -> None:
    assert probe._in_child(attempt) == told


def test_what_is_missing_for_a_lab_is_said_once_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, capability in (("_namespaces", NO_BUCKET), ("_settings", NO_BARROW), ("_capture", NO_HOSE)):
        monkeypatch.setattr(probe, name, lambda capability=capability: capability)
    for name in ("_libnftables", "_nat_statements"):
        monkeypatch.setattr(probe, name, lambda: FINE)
    assert probe.missing_for_a_lab() == (
        "there is a hole in it (to mend it: sudo mend-it --with straw)",
        "none was bought",
    )


@pytest.mark.lab
def test_where_labs_can_be_built_doctor_says_so_and_leaves_nothing() -> None:
    before = os.readlink("/proc/self/ns/net"), len(os.listdir("/proc/self/fd"))
    probe.ensure_basics()
    found = {capability.name: capability for capability in probe.capabilities()}
    assert [name for name, c in found.items() if c.is_required and c.missing is not None] == []
    assert (os.readlink("/proc/self/ns/net"), len(os.listdir("/proc/self/fd"))) == before
