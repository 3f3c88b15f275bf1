"""What a run was made of: `inputs/` of its folder, and how two such sets differ.

Rule 1: every file that had a say is here as it was used, and what the command line said is in `run.json`.
Rule 2: a difference is named, down to the line of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, JsonValue, ValidationError

from testbed.errors import UsageError
from testbed.spec.model import Model

INPUTS = "inputs"
MANIFEST = "run.json"


class Manifest(Model):
    """What a run was made of, beside its YAML files. All of it must be the same for a run to be continued."""

    v: Literal[1] = 1
    run: str
    """The name of the run; the one thing that a later attempt need not share."""
    testbed: str
    """The version of this program."""
    seed: int
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Choices of the command line that change what a trial is. Not the number of trials: a run may grow."""


def as_files(manifest: Manifest, inputs: Mapping[str, str]) -> dict[str, str]:
    """Every file of `inputs/`, by relative name; the manifest last, so that a folder that has one is complete."""
    for name in inputs:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or name == MANIFEST:
            raise ValueError(f"{name!r} cannot be the name of an input")
    return {**inputs, MANIFEST: manifest.model_dump_json(indent=1) + "\n"}


def read_inputs(path: Path) -> tuple[Manifest, dict[str, str]]:
    """The manifest and the files of the results folder `path`. Raises UsageError."""
    root = path / INPUTS
    try:
        manifest = Manifest.model_validate_json((root / MANIFEST).read_bytes())
        files = {
            file.relative_to(root).as_posix(): file.read_bytes().decode()
            for file in sorted(root.rglob("*"))
            if file.is_file() and file != root / MANIFEST
        }
    except FileNotFoundError:
        cut_off = f"; if a start was cut off there, remove the folder {path}" if path.exists() else ""
        raise UsageError(f"there is no run to resume in {path}: start one without --resume{cut_off}") from None
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError(f"{root} cannot be read: {str(error).splitlines()[0]}") from None
    return manifest, files


def differences(then: Manifest, now: Manifest, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """One line for each thing that is not the same. The names of the runs may differ."""
    if then.testbed != now.testbed:
        yield f"testbed: version {then.testbed} then, {now.testbed} now"
    if then.seed != now.seed:
        yield f"seed: {then.seed} then, {now.seed} now"
    for name in sorted(then.settings.keys() | now.settings.keys()):
        if then.settings.get(name) != now.settings.get(name):
            yield f"{name}: {_said(then.settings.get(name))} then, {_said(now.settings.get(name))} now"
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{name}: not used then, used now"
        elif name not in new:
            yield f"{name}: used then, not used now"
        elif old[name] != new[name]:
            yield f"{name}: {_first_difference(old[name], new[name])}"


def _said(value: JsonValue) -> str:
    return "not set" if value is None else str(value)


def _first_difference(old: str, new: str) -> str:
    for number, (a, b) in enumerate(zip_longest(old.splitlines(), new.splitlines()), start=1):
        if a != b:
            then = "no such line" if a is None else repr(a.strip())
            return f"line {number}: {then} then, {'no such line' if b is None else repr(b.strip())} now"
    return "other line ends"
