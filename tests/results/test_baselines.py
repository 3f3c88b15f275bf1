"""Baselines: found by name, whole or not there, the caller's, and nothing believed of an archive."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import MachineError, UsageError
from testbed.results import archive, disk
from testbed.results.baselines import FACTS, VARIABLE, Baselines, check_name
from testbed.results.disk import Owner
from testbed.results.environment import environment
from testbed.results.folder import RESULT, TRIALS
from tests.results.test_compare import direct, failing, side, written
from tests.rights import IS_ROOT_OF_ALL_USERS

NOON = 1_795_521_600_000_000_000


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = written(tmp_path / "run", side())
    (folder / "inputs" / "scenarios").mkdir(parents=True)
    (folder / "inputs" / "run.json").write_text('{"v": 1, "run": "r", "testbed": "0.1.0", "seed": 1}')
    (folder / "inputs" / "scenarios" / "s.yaml").write_text("topology: t\n")
    (folder / "captures").mkdir()
    (folder / "captures" / "x.pcapng").write_bytes(b"packets")
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Baselines:
    return Baselines(tmp_path / "state" / "baselines")


def tree(path: Path) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and p.name != ".lock")


# ---------------------------------------------------------------------------- where they are


@pytest.mark.parametrize(
    ("option", "environ", "path"),
    [
        # an option is stronger than the variable
        ("here", {VARIABLE: "/there"}, "here"),
        ("", {VARIABLE: "/there", "XDG_STATE_HOME": "/state"}, "/there"),
        ("", {"XDG_STATE_HOME": "/state", "HOME": "/home/a"}, "/state/testbed/baselines"),
        # the standard ignores a relative one
        ("", {"XDG_STATE_HOME": "state", "HOME": "/home/a"}, "/home/a/.local/state/testbed/baselines"),
        ("", {"HOME": "/home/a"}, "/home/a/.local/state/testbed/baselines"),
    ],
)
def test_where_they_are(option: str, environ: Mapping[str, str], path: str) -> None:
    assert Baselines.of(Path(option) if option else None, environ, 1000).path == Path(path)


def test_with_sudo_they_are_the_callers() -> None:
    """The home of root, which is what HOME says under sudo, is not where the caller looks."""
    found = Baselines.of(None, {"SUDO_UID": "0", "SUDO_GID": "0", "HOME": "/elsewhere"}, 0)
    assert found.owner == Owner(0, 0)
    assert not found.path.is_relative_to("/elsewhere")
    with pytest.raises(UsageError, match="no home folder to keep baselines in; name a folder with --baselines DIR"):
        Baselines.of(None, {"SUDO_UID": "4000000000", "SUDO_GID": "1"}, 0)


@pytest.mark.skipif(not IS_ROOT_OF_ALL_USERS, reason="gives files to another user")
def test_what_sudo_makes_belongs_to_the_caller(tmp_path: Path, results: Path) -> None:
    kept = Baselines(tmp_path / "state" / "baselines", Owner(1234, 1235))
    kept.save("main", results, NOON)
    made = list((tmp_path / "state").rglob("*"))
    assert {(p.stat().st_uid, p.stat().st_gid) for p in made} == {(1234, 1235)}


# ---------------------------------------------------------------------------- what they hold


def test_a_baseline_is_a_run_without_its_packets(kept: Baselines, results: Path) -> None:
    facts = kept.save("main", results, NOON)
    assert tree(kept.path / "main") == [FACTS, "inputs/run.json", "inputs/scenarios/s.yaml", RESULT, TRIALS]
    assert kept.side("main").document == side().document
    assert kept.facts("main") == facts
    assert (facts.saved, facts.scenario, facts.cells, facts.trials) == ("2026-11-24T12:00:00Z", "made_up", 2, 60)
    assert facts.machine is None  # it was measured on "a processor"


def test_facts_of_the_machine_are_kept_where_it_is_the_one_that_measured(tmp_path: Path, kept: Baselines) -> None:
    here = written(tmp_path / "here", side(environment=environment()))
    machine = kept.save("main", here, NOON).machine
    assert machine is not None
    assert set(machine) == {"os", "memory_bytes", "governor", "load"}


@pytest.mark.parametrize("name", ["main", "v1.2.3", "a", "feature_x", "x=1,y=2", "2026-11-24", "a" * 100])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../x", "-x", "a b", "ä", "a\n", "a\0", "a" * 101])
def test_names_that_are_none(name: str, kept: Baselines, results: Path) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a baseline"):
        kept.save(name, results, NOON)
    assert not kept.path.exists()


def test_what_is_there_is_replaced_only_by_force(kept: Baselines, tmp_path: Path, results: Path) -> None:
    kept.save("main", results, NOON)
    other = written(tmp_path / "other", side(failing(0.5)))
    with pytest.raises(UsageError, match="there is a baseline 'main' already; --force replaces it"):
        kept.save("main", other, NOON)
    assert kept.side("main").document == side().document
    kept.save("main", other, NOON, force=True)
    assert kept.side("main").document == side(failing(0.5)).document
    assert tree(kept.path / "main") == [FACTS, RESULT, TRIALS]
    assert kept.names() == ["main"]


def test_where_folders_cannot_be_exchanged_they_are_renamed(
    kept: Baselines, tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.save("main", results, NOON)
    monkeypatch.setattr(disk, "_EXCHANGE", 1 << 20)  # a flag that no kernel knows: EINVAL
    kept.save("main", written(tmp_path / "other", side(failing(0.5))), NOON, force=True)
    assert kept.side("main").document == side(failing(0.5)).document
    assert [p.name for p in kept.path.iterdir() if p.name != ".lock"] == ["main"]


def test_a_full_disk_leaves_the_old_one(
    kept: Baselines, tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.save("main", results, NOON)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="the disk is full"):
        kept.save("main", written(tmp_path / "other", side(failing(0.5))), NOON, force=True)
    monkeypatch.undo()
    assert kept.side("main").document == side().document
    assert [p.name for p in kept.path.iterdir() if p.name != ".lock"] == ["main"]


def test_a_place_that_cannot_be_written_is_told_with_the_option(tmp_path: Path, results: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="name a folder that can be written: --baselines DIR"):
        Baselines(tmp_path / "file" / "baselines").save("main", results, NOON)


def test_what_a_killed_writer_left_is_swept_away(kept: Baselines, results: Path) -> None:
    kept.save("main", results, NOON)
    (kept.path / ".other.draft").mkdir()
    (kept.path / ".other.draft" / RESULT).touch()
    assert kept.names() == ["main"]
    kept.save("next", results, NOON)
    assert sorted(p.name for p in kept.path.iterdir()) == [".lock", "main", "next"]


def test_rename_and_remove(kept: Baselines, results: Path) -> None:
    kept.save("main", results, NOON)
    kept.rename("main", "old")
    kept.save("main", results, NOON)
    with pytest.raises(UsageError, match="there is a baseline 'old' already"):
        kept.rename("main", "old")
    kept.remove("old")
    assert kept.names() == ["main"]
    assert sorted(p.name for p in kept.path.iterdir()) == [".lock", "main"]
    for act in (lambda: kept.remove("old"), lambda: kept.rename("mian", "x"), lambda: kept.facts("x")):
        with pytest.raises(UsageError, match="there is no baseline"):
            act()


# ---------------------------------------------------------------------------- what a word means


def test_a_word_is_a_baseline_else_a_folder(
    kept: Baselines, tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "main", side(direct(2.0)))
    assert kept.side("main").document == side(direct(2.0)).document
    kept.save("main", results, NOON)
    assert kept.side("main").document == side().document
    assert kept.side("./main").document == side(direct(2.0)).document


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("mian", "there is no folder 'mian', and no baseline of that name in .*; did you mean 'main'?"),
        ("results/x", "there is no folder results/x; `testbed run SCENARIO --out results/x` makes one"),
    ],
)
def test_a_word_that_means_nothing(kept: Baselines, results: Path, word: str, message: str) -> None:
    kept.save("main", results, NOON)
    with pytest.raises(UsageError, match=message):
        kept.side(word)


def test_without_any_the_next_command_is_told(kept: Baselines) -> None:
    with pytest.raises(UsageError, match="`testbed baseline save main RESULTS_FOLDER` makes it"):
        kept.find("main")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "environment.json: not the facts of a baseline"),
        (None, "is not a baseline: cannot read environment.json"),
    ],
)
def test_facts_that_are_none(kept: Baselines, results: Path, text: str | None, message: str) -> None:
    kept.save("main", results, NOON)
    path = kept.path / "main" / FACTS
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)):
        kept.facts("main")


# ---------------------------------------------------------------------------- archives


def test_there_and_back(kept: Baselines, tmp_path: Path, results: Path) -> None:
    kept.save("main", results, NOON)
    file = tmp_path / "main.tar.gz"
    archive.export(kept, "main", file, None)
    other = Baselines(tmp_path / "other")
    assert archive.import_(other, file) == "main"
    assert archive.import_(other, file, "again") == "again"
    assert tree(other.path / "main") == tree(other.path / "again") == tree(kept.path / "main")
    for name in tree(kept.path / "main"):
        assert (other.path / "main" / name).read_bytes() == (kept.path / "main" / name).read_bytes()
    with pytest.raises(UsageError, match="there is a baseline 'main' already"):
        archive.import_(other, file)
    archive.import_(other, file, force=True)


def test_the_same_baseline_makes_the_same_bytes(kept: Baselines, tmp_path: Path, results: Path) -> None:
    kept.save("main", results, NOON)
    archive.export(kept, "main", tmp_path / "a.tar.gz", None)
    kept.save("main", results, NOON, force=True)
    os.utime(kept.path / "main" / RESULT, (1, 1))
    archive.export(kept, "main", tmp_path / "b.tar.gz", None)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    with pytest.raises(UsageError, match="exists; --force replaces it"):
        archive.export(kept, "main", tmp_path / "a.tar.gz", None)


def packed(files: Mapping[str, bytes], **odd: Any) -> bytes:
    """An archive of these files; `odd` are attributes of the last one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for i, (name, data) in enumerate(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if i == len(files) - 1:
                for key, value in odd.items():
                    setattr(member, key, value)
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()


GOOD = {"main/result.json": b"{}", "main/trials.jsonl": b"", "main/environment.json": b"{}"}

HOSTILE: list[tuple[bytes, str]] = [
    (packed({**GOOD, "main/../../escaped": b"x"}), "'main/../../escaped' would leave the baseline's folder"),
    (packed({**GOOD, "/etc/escaped": b"x"}), "'/etc/escaped' would leave the baseline's folder"),
    (packed({**GOOD, "main/inputs/x": b""}, type=tarfile.SYMTYPE, linkname="/etc"), "is not a plain file"),
    (packed({**GOOD, "main/inputs/x": b""}, type=tarfile.LNKTYPE, linkname="main/result.json"), "is not a plain file"),
    (packed({**GOOD, "main/inputs/x": b""}, type=tarfile.CHRTYPE), "is not a plain file"),
    (packed({**GOOD, "main/run.sh": b"x"}), "'main/run.sh' is no file of a baseline"),
    (packed({**GOOD, "main/inputs": b"x"}), "'main/inputs' is no file of a baseline"),
    (packed({**GOOD, "other/result.json": b"{}"}), "is no file of a baseline, or there twice"),
    (packed({"a/result.json": b"{}", "b/trials.jsonl": b""}), "holds 2 folders, not one baseline"),
    (packed({}), "holds 0 folders, not one baseline"),
    (packed({".x/result.json": b"{}"}), "'.x' cannot be the name of a baseline"),
    (packed(GOOD), "environment.json: not the facts of a baseline (testbed.baseline/1)"),
    (packed(GOOD)[:-30], "is not an archive of a baseline"),
    (b"no archive", "is not an archive of a baseline"),
    (gzip.compress(b"no archive"), "is not an archive of a baseline"),
]


@pytest.mark.parametrize(("data", "message"), HOSTILE)
def test_an_archive_that_is_refused_leaves_nothing(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "x.tar.gz"
    file.write_bytes(data)
    kept = Baselines(tmp_path / "deep" / "baselines")
    with pytest.raises(UsageError) as refused:
        archive.import_(kept, file)
    assert message in str(refused.value)
    assert "draft" not in str(refused.value)
    assert tree(tmp_path) == ["x.tar.gz"]


def test_an_archive_of_another_run_is_refused(tmp_path: Path, kept: Baselines, results: Path) -> None:
    kept.save("main", results, NOON)
    path = kept.path / "main" / FACTS
    path.write_text(path.read_text().replace(side().document.run, "another"))
    archive.export(kept, "main", tmp_path / "x.tar.gz", None)
    with pytest.raises(UsageError, match=r"environment\.json is of run another"):
        archive.import_(kept, tmp_path / "x.tar.gz", "other")


def test_an_archive_too_large_is_refused(tmp_path: Path, kept: Baselines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1)
    (tmp_path / "x.tar.gz").write_bytes(packed(GOOD))
    with pytest.raises(UsageError, match="no baseline does"):
        archive.import_(kept, tmp_path / "x.tar.gz")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()], ids=["nothing there", "a folder"])
def test_an_archive_that_cannot_be_read(tmp_path: Path, kept: Baselines, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x.tar.gz")
    with pytest.raises(UsageError, match="cannot read"):
        archive.import_(kept, tmp_path / "x.tar.gz")
