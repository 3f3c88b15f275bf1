"""What is installed, in which versions, and for which Pythons: the files that say so agree with each other."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from testbed.spec.places import FileKind
from testbed.spec.yaml_text import parse

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
NEEDED = [
    Requirement(text)
    for text in (
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["dev"],
        *PYPROJECT["build-system"]["requires"],
    )
]
SCRIPTS = sorted(
    path for path in (*(ROOT / "tools").iterdir(), *(ROOT / ".ci").iterdir())
    if path.is_file() and path.suffix == ""
)  # fmt: skip
MAKEFILE = (ROOT / "Makefile").read_text()
IN_WHEEL: dict[str, str] = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
"""Folder of the checkout -> folder of the wheel."""


def name_of(requirement: Requirement) -> str:
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


@pytest.mark.parametrize("needed", NEEDED, ids=str)
def test_what_is_needed_is_pinned_to_a_version_that_will_do(needed: Requirement) -> None:
    pins = [pin for pin in PINS if name_of(pin) == name_of(needed)]
    assert pins, "has no line in constraints.txt"
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert exact.version in needed.specifier


def test_pins_are_in_order_and_one_a_python() -> None:
    names = [name_of(pin) for pin in PINS]
    assert names == sorted(names)
    for python in ("3.11", "3.12", "3.13", "3.14"):
        environment = {"python_version": python, "python_full_version": f"{python}.0"}
        chosen = [name_of(pin) for pin in PINS if pin.marker is None or pin.marker.evaluate(environment)]
        assert len(chosen) == len(set(chosen)), python


def test_the_pythons_that_are_promised_are_the_ones_that_are_tried() -> None:
    workflow: Any = parse("ci.yml", (ROOT / ".github/workflows/ci.yml").read_text()).data
    tried = [str(python) for python in workflow["jobs"]["pure"]["strategy"]["matrix"]["python"]]
    prefix = "Programming Language :: Python :: "
    assert [text.removeprefix(prefix) for text in PROJECT["classifiers"] if text.startswith(prefix)] == tried
    promised = SpecifierSet(PROJECT["requires-python"])
    first = Version(tried[0])
    assert f"{first}" in promised
    assert f"{first.major}.{first.minor - 1}" not in promised
    assert PYPROJECT["tool"]["mypy"]["python_version"] == tried[0]
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + tried[0].replace(".", "")


@pytest.mark.parametrize("kind", FileKind)
def test_the_wheel_holds_every_folder_of_files_where_the_program_looks(kind: FileKind) -> None:
    assert IN_WHEEL[kind.folder] == f"testbed/data/{kind.folder}"


@pytest.mark.parametrize("kind", FileKind)
def test_the_first_line_of_a_file_names_its_schema_in_the_wheel_too(kind: FileKind) -> None:
    wheel = {
        PurePosixPath(inside, path.relative_to(ROOT / outside).as_posix()): path
        for outside, inside in IN_WHEEL.items()
        for path in (ROOT / outside).rglob("*")
    }
    files = [path for path in wheel if path.match(f"{kind.folder}/*.yaml")]
    assert files
    for path in files:
        first = wheel[path].read_text().partition("\n")[0]
        named = os.path.normpath(path.parent / first.partition("$schema=")[2])
        assert wheel[PurePosixPath(named)] == ROOT / "docs/schema" / f"{kind}.json"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_run_and_says_what_for(path: Path) -> None:
    first, second, *_ = path.read_text().splitlines()
    assert first == "#!/bin/sh"
    assert second.startswith("# ")
    assert os.access(path, os.X_OK)


def test_make_says_what_there_is_and_others_call_what_there_is() -> None:
    targets = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    told = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE))
    assert targets == told | {"venv", "dev"}, "the two that others rest on need no words"
    for name in (".ci/run", ".github/workflows/ci.yml", "Vagrantfile"):
        called = set(re.findall(r"\bmake ([a-z]+)\b(?! [A-Z]*=)", (ROOT / name).read_text()))
        assert called <= targets | {"vagrant"}, name


def test_ci_and_vagrant_prepare_their_machine_by_the_same_script() -> None:
    line = "tools/install-system checks tests"
    assert line in (ROOT / ".ci/run").read_text()
    assert line in (ROOT / "Vagrantfile").read_text()
