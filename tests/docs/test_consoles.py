"""The consoles on the pages are played: the same commands, in the same order, beside the YAML files of the page.

Rule 1: what is compared is the structure of the output: the words of each line that is shown, in order. Numbers differ
        from machine to machine; `…` alone on a line stands for lines that are not shown.
Rule 2: every run is made with one trial a cell, whatever the page says: it is the page that is tested.
Rule 3: `make`, `git` and `vagrant` are not run here; `make test` runs inside of the first.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import BLOCKS, PAGES, ROOT, Step, steps

PURE = ("check", "list", "schema", "compare", "baseline")
"""Commands of testbed that build nothing."""
NOT_RUN = ("make", "git", "vagrant", "cd")
COMPARES = "docs/comparing.md"
"""The page that finds two runs in results/."""
PATIENCE = 240
PLAYED = [page for page in PAGES if steps(page)]


def is_pure(step: Step) -> bool:
    """Whether a step needs no lab, and nothing that another step has made."""
    return step.words[0] == "testbed" and step.words[1] in PURE


@pytest.mark.parametrize("page", PLAYED)
def test_what_needs_no_lab(page: str, tmp_path: Path) -> None:
    environment = _furnish(page, tmp_path)
    for step in filter(is_pure, steps(page)):
        _play(step, tmp_path, environment)


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PLAYED if not all(map(is_pure, steps(page)))])
def test_what_needs_a_lab(page: str, tmp_path: Path) -> None:
    environment = _furnish(page, tmp_path)
    with ExitStack() as held:
        for step in steps(page):
            if is_pure(step) or step.words[0] in NOT_RUN or not _tools_are_there(step):
                continue
            if step.words[:2] == ["testbed", "up"]:
                held.enter_context(_held(step, tmp_path, environment))
            else:
                _play(step, tmp_path, environment)


def _furnish(page: str, folder: Path) -> dict[str, str]:
    """The page's files, and an environment in which `sudo` and `testbed` are what the page means."""
    for block in BLOCKS:
        if block.page == page and block.name is not None and "/" not in block.name:
            (folder / block.name).write_text(block.text)
    shutil.copy(ROOT / "examples" / "punch.py", folder)
    if page == COMPARES:
        shutil.copytree(ROOT / "docs" / "evidence" / "comparing", folder / "results")
    programs = folder / ".bin"
    programs.mkdir()
    for name, text in (("sudo", 'exec "$@"'), ("testbed", f'exec {shlex.quote(sys.executable)} -m testbed "$@"')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    search = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    state = {"TESTBED_BASELINES": str(folder / ".baselines")}
    return {**os.environ, **state, "PATH": search, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}


def _tools_are_there(step: Step) -> bool:
    """Whether a program that is not ours, and that a page uses, is installed; the tests of CI have all but tshark."""
    words = step.command.partition(" -- ")[2].split() or step.words
    return words[0] == "testbed" or shutil.which(words[0]) is not None


def _play(step: Step, folder: Path, environment: dict[str, str]) -> None:
    command = step.command
    if step.words[:2] == ["testbed", "run"]:
        command = re.sub(r" --trials \d+", "", command) + " --trials 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    told = f"{step.block}: $ {command}\n{done.stdout}{done.stderr}"
    assert done.returncode in _statuses(step), told
    _compare(step, done.stdout + done.stderr, told)


def _statuses(step: Step) -> set[int]:
    """What a command may return: a gate may be missed with one trial; a file with mistakes is refused."""
    if any(re.match(r"\S+\.yaml:\d+:\d+: ", line) for line in step.output):
        return {2}
    if step.words[:2] == ["testbed", "compare"]:
        return {1 if any(": regressed" in line for line in step.output) else 0}
    return {0, 1} if step.words[:2] == ["testbed", "run"] else {0}


@contextmanager
def _held(step: Step, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """`testbed up`, until it is interrupted as a person would."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {step.command}"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        shown = []
        for line in process.stdout:
            shown.append(line)
            if line.startswith("in another terminal"):
                break
        _compare(step, "".join(shown), f"{step.block}: $ {step.command}")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        process.stdout.close()


def _compare(step: Step, output: str, told: str) -> None:
    """Every line that the page shows is there, as far as its words go, and in this order."""
    lines = iter([_words(step, line) for line in output.splitlines()])
    for shown in step.output:
        wanted = _words(step, shown)
        if wanted:
            assert any(wanted == line for line in lines), f"not there: {shown}\n{told}"


_VERDICT = re.compile(r"^([✓✗?]) (.*): (?:met|missed|inconclusive),.*$")


_SINGULAR = {"trials": "trial", "trials:": "trial:"}


def _words(step: Step, line: str) -> list[str]:
    """The words of a line, without what depends on the machine or on the number of trials."""
    line = _VERDICT.sub(r"\2", line).replace("netem links", "wire links").replace("; … not bounded", "")
    if step.words[1:2] == ["doctor"]:
        line = "" if line.startswith(" ") else re.sub(r"\(.*\)$", "", line[9:])
    return [_SINGULAR.get(word, word) for word in re.findall(r"[A-Za-z_][A-Za-z_/.:-]*", line)]
