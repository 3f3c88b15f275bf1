"""A results folder: nothing lost, nothing half-written, continued only as the same run."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import MachineError, UsageError
from testbed.results import folder as folder_module
from testbed.results.disk import Owner, caller
from testbed.results.folder import RESULT, TORN, TRIALS, Folder, file_name, read_records, run_name
from testbed.results.inputs import Manifest
from testbed.results.record import Key
from tests.results.build import record
from tests.rights import IS_ROOT_OF_ALL_USERS

MANIFEST = Manifest(run="r", testbed="0.1.0", seed=1, settings={"links": "wire"})
ROOT = Path(__file__).parents[2]
INPUTS = {"scenarios/s.yaml": "topology: t\ntrials: 30\n", "topologies/t.yaml": "nodes: {}\n"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "results"


def test_a_new_folder_holds_what_the_run_is_made_of(out: Path) -> None:
    with Folder.create(out, MANIFEST, INPUTS) as made:
        assert list(made.records()) == []
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "inputs/run.json", "inputs/scenarios/s.yaml", "inputs/topologies/t.yaml", TRIALS,
    ]  # fmt: skip
    assert (out / "inputs/scenarios/s.yaml").read_text() == INPUTS["scenarios/s.yaml"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        pytest.param(lambda p: (p.mkdir(), (p / "x").touch()), "is not empty; --resume continues", id="not empty"),
        pytest.param(lambda p: p.touch(), "is a file; name a folder with --out DIR", id="a file"),
    ],
)
def test_a_place_that_is_taken_is_refused_and_left_alone(
    tmp_path: Path, prepare: Callable[[Path], Any], message: str
) -> None:
    prepare(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=message):
        Folder.create(tmp_path / "out", MANIFEST, INPUTS)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../x", "/x", "", "run.json"])
def test_inputs_stay_within_the_folder(out: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of an input"):
        Folder.create(out, MANIFEST, {name: ""})
    assert not out.parent.exists()


def test_records_are_there_as_soon_as_they_are_appended(out: Path) -> None:
    with Folder.create(out, MANIFEST, INPUTS) as made:
        for index in range(3):
            made.append(record(index=index))
            assert (out / TRIALS).stat().st_size == sum(len(record(index=i).to_line()) for i in range(index + 1))
        assert [r.index for r in made.records()] == [0, 1, 2]
    assert read_records(out)[0] == [record(index=i) for i in range(3)]


def test_a_line_that_was_cut_off_is_reported_and_gives_way(out: Path) -> None:
    with Folder.create(out, MANIFEST, INPUTS) as made:
        made.append(record(index=0))
    with (out / TRIALS).open("ab") as file:
        file.write(record(index=1).to_line()[:70])
    assert read_records(out) == ([record(index=0)], [TORN])
    with Folder.resume(out, MANIFEST, INPUTS) as again:
        assert again.notes == [TORN]
        assert set(again.finished()) == {Key("nat_a=eim-eif", 0, 1)}
        again.append(record(index=1))
    assert read_records(out) == ([record(index=0), record(index=1)], [])


def test_a_bad_line_in_the_middle_is_named(out: Path) -> None:
    with Folder.create(out, MANIFEST, INPUTS) as made:
        made.append(record())
    with (out / TRIALS).open("ab") as file:
        file.write(b'{"v": 7}\n' + record(index=1).to_line())
    with pytest.raises(UsageError, match=rf"{TRIALS}:2: trial records of version 7 cannot be read"):
        read_records(out)


def test_the_last_of_a_key_wins(out: Path) -> None:
    with Folder.create(out, MANIFEST, INPUTS) as made:
        made.append(record(outcome="failed"))
        made.append(record(outcome="direct"))
        made.append(record(outcome="relayed", attempt=2))
        assert [r.outcome for r in made.finished().values()] == ["direct", "relayed"]


def test_at_the_end_the_lines_are_in_the_order_of_the_plan(out: Path) -> None:
    with Folder.create(out, MANIFEST, INPUTS) as made:
        for cell, index, attempt in [("b", 1, 1), ("a", 10, 1), ("gone", 0, 1), ("b", 0, 1), ("a", 2, 2), ("a", 2, 1)]:
            made.append(record(cell, index, attempt=attempt))
        made.append(record("b", 1, "failed"))
        made.finish(b"{}\n", ["b", "a"])
        assert (out / RESULT).read_bytes() == b"{}\n"
        found = [(r.cell, r.index, r.attempt, r.outcome) for r in made.records()]
    assert found == [
        ("b", 0, 1, "direct"), ("b", 1, 1, "failed"), ("a", 2, 1, "direct"), ("a", 2, 2, "direct"),
        ("a", 10, 1, "direct"), ("gone", 0, 1, "direct"),
    ]  # fmt: skip
    assert not [p for p in out.rglob("*") if "draft" in p.name]


def test_a_result_that_is_no_longer_true_goes_away_with_the_first_new_trial(out: Path) -> None:
    with Folder.create(out, MANIFEST, INPUTS) as made:
        made.finish(b"{}\n", [])
    with Folder.resume(out, MANIFEST, INPUTS) as again:
        assert (out / RESULT).exists()
        again.append(record())
        assert not (out / RESULT).exists()


DIFFERENCES: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    ("the seed", {"seed": 2}, INPUTS, "seed: 1 then, 2 now"),
    ("the version", {"testbed": "0.2.0"}, INPUTS, "testbed: version 0.1.0 then, 0.2.0 now"),
    ("a setting", {"settings": {"links": "netem"}}, INPUTS, "links: wire then, netem now"),
    ("a setting that is new", {"settings": {"links": "wire", "agent": "udp"}}, INPUTS, "agent: not set then, udp now"),
    (
        "a line of a file",
        {},
        {**INPUTS, "scenarios/s.yaml": "topology: t\ntrials: 60\n"},
        "scenarios/s.yaml: line 2: 'trials: 30' then, 'trials: 60' now",
    ),
    (
        "a line more",
        {},
        {**INPUTS, "scenarios/s.yaml": "topology: t\ntrials: 30\nseed: 3\n"},
        "scenarios/s.yaml: line 3: no such line then, 'seed: 3' now",
    ),
    ("a file more", {}, {**INPUTS, "nat_profiles/x.yaml": ""}, "nat_profiles/x.yaml: not used then, used now"),
    ("a file less", {}, {"scenarios/s.yaml": INPUTS["scenarios/s.yaml"]}, "topologies/t.yaml: used then, not used now"),
    ("line ends", {}, {**INPUTS, "topologies/t.yaml": "nodes: {}\r\n"}, "topologies/t.yaml: other line ends"),
]


@pytest.mark.parametrize(("change", "inputs", "named"), [r[1:] for r in DIFFERENCES], ids=[r[0] for r in DIFFERENCES])
def test_another_run_is_not_continued_and_the_difference_is_named(
    out: Path, change: dict[str, Any], inputs: dict[str, str], named: str
) -> None:
    Folder.create(out, MANIFEST, INPUTS).close()
    with pytest.raises(UsageError) as refused:
        Folder.resume(out, MANIFEST.model_copy(update=change), inputs)
    assert str(refused.value).splitlines()[1:] == [f"  {named}"]


def test_the_same_run_under_another_name_is_continued_under_the_first(out: Path) -> None:
    Folder.create(out, MANIFEST, INPUTS).close()
    with Folder.resume(out, MANIFEST.model_copy(update={"run": "later"}), INPUTS) as again:
        assert again.manifest.run == "r"


def test_where_nothing_was_run_nothing_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run to resume"):
        Folder.resume(tmp_path / "nowhere", MANIFEST, INPUTS)


def test_two_runs_do_not_write_one_folder(out: Path) -> None:
    with Folder.create(out, MANIFEST, INPUTS):
        # A lock of a process does not bind the process itself: the second run has to be another one.
        second = subprocess.run(
            [sys.executable, "-c", RESUME, str(out)], capture_output=True, text=True, check=False, cwd=ROOT
        )
    assert second.returncode == 2
    assert "another run is writing" in second.stdout


RESUME = """
import sys
from pathlib import Path
from testbed.errors import TestbedError
from tests.results.test_folder import INPUTS, MANIFEST, Folder
try:
    Folder.resume(Path(sys.argv[1]), MANIFEST, INPUTS)
except TestbedError as error:
    print(error)
    sys.exit(error.exit_status)
"""

FAULTS = [
    (errno.ENOSPC, "the disk is full\n  to mend it: free some space there"),
    (errno.EDQUOT, "the disk quota is used up\n  to mend it: free some space there"),
    (errno.EROFS, "the file system is read-only\n  to mend it: name a folder that can be written: --out DIR"),
    (errno.EACCES, "permission denied\n  to mend it: name a folder that can be written: --out DIR"),
    (errno.EMFILE, "Too many open files\n  to mend it: name a folder that can be written: --out DIR"),
]


@pytest.mark.parametrize(("code", "words"), FAULTS, ids=[errno.errorcode[code] for code, _ in FAULTS])
@pytest.mark.parametrize("survives", range(6))
def test_a_folder_that_cannot_be_made_whole_is_not_made(
    out: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str, survives: int
) -> None:
    # The fault strikes at each of the steps in turn: folders, then files.
    left = [survives]
    monkeypatch.setattr(Path, "mkdir", _striking(Path.mkdir, left, code))
    monkeypatch.setattr(Path, "replace", _striking(Path.replace, left, code))
    monkeypatch.setattr(folder_module, "_open", _striking(folder_module._open, [100 if survives < 5 else 0], code))
    with pytest.raises(MachineError) as refused:
        Folder.create(out, MANIFEST, INPUTS)
    assert str(refused.value).endswith(words)
    assert not out.parent.exists()


def _striking(real: Callable[..., Any], left: list[int], code: int) -> Callable[..., Any]:
    def step(*args: Any, **more: Any) -> Any:
        if left[0] == 0:
            raise OSError(code, os.strerror(code))
        left[0] -= 1
        return real(*args, **more)

    return step


@pytest.mark.parametrize("fits", [0, 1, 100], ids=lambda n: f"{n} bytes fit")
def test_a_disk_that_fills_up_leaves_no_part_of_a_record(out: Path, monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    with Folder.create(out, MANIFEST, INPUTS) as made:
        made.append(record(index=0))
        room, real = [fits], os.write

        def write(fd: int, data: bytes) -> int:
            if room[0] == 0:
                raise OSError(errno.ENOSPC, "")
            written = real(fd, data[: room[0]])
            room[0] -= written
            return written

        with monkeypatch.context() as full:
            full.setattr(os, "write", write)
            with pytest.raises(MachineError, match="the disk is full"):
                made.append(record(index=1))
        made.append(record(index=2))
    assert [r.index for r in read_records(out)[0]] == [0, 2]


def test_a_replacement_that_fails_leaves_the_old_file(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Folder.create(out, MANIFEST, INPUTS) as made:
        made.append(record(index=1))
        made.append(record(index=0))
        monkeypatch.setattr(os, "fsync", _striking(os.fsync, [0], errno.ENOSPC))
        with pytest.raises(MachineError, match="the disk is full"):
            made.finish(b"{}\n", [])
    assert [r.index for r in read_records(out)[0]] == [1, 0]
    assert sorted(p.name for p in out.iterdir()) == ["inputs", TRIALS]


@pytest.mark.skipif(not IS_ROOT_OF_ALL_USERS, reason="only root can give files away, not root in a user namespace")
def test_under_sudo_all_of_it_belongs_to_the_caller(tmp_path: Path, out: Path) -> None:
    owner = Owner(4321, 8765)
    with Folder.create(out, MANIFEST, INPUTS, owner) as made:
        made.append(record())
        made.capture_path(Key("c", 0, 1)).touch()
        made.adopt(made.capture_path(Key("c", 0, 1)))
        made.finish(b"{}\n", [])
    for path in (out.parent, *out.parent.rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (4321, 8765), path
    assert tmp_path.stat().st_uid == 0


@pytest.mark.parametrize(
    ("environ", "euid", "owner"),
    [
        pytest.param({"SUDO_UID": "1000", "SUDO_GID": "100"}, 0, Owner(1000, 100), id="sudo"),
        pytest.param({}, 0, None, id="root itself"),
        pytest.param({"SUDO_UID": "1000", "SUDO_GID": "100"}, 1000, None, id="a variable that means nothing here"),
        pytest.param({"SUDO_UID": "x", "SUDO_GID": "100"}, 0, None, id="not a number"),
    ],
)
def test_who_called(environ: dict[str, str], euid: int, owner: Owner | None) -> None:
    assert caller(environ, euid) == owner


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("nat_a=eim-eif,strategy=x", "nat_a=eim-eif,strategy=x", id="a cell is a name"),
        pytest.param("", "_-########", id="nothing"),
        pytest.param("../a b", "_a_b-########", id="no way out, no blanks"),
        pytest.param("x" * 200, "x" * 120 + "-########", id="not too long"),
    ],
)
def test_names_of_files(text: str, name: str) -> None:
    assert re.fullmatch(re.escape(name).replace(r"\#", "[0-9a-f]"), file_name(text))


def test_names_of_files_are_not_confused() -> None:
    assert len({file_name(text) for text in ("a b", "a/b", "a_b", "x" * 130, "x" * 131)}) == 5


def test_names_of_captures_and_runs(out: Path) -> None:
    assert run_name("symmetric_nat", 1, 1795435200_000000000) == "20261123T120000Z-symmetric_nat-1"
    with Folder.create(out, MANIFEST, INPUTS) as made:
        assert made.capture_path(Key("a=b", 7, 1)).relative_to(out).as_posix() == "captures/a=b-7.pcapng"
        assert made.capture_path(Key("a=b", 7, 2)).relative_to(out).as_posix() == "captures/a=b-7-attempt2.pcapng"


KILLED = """
import sys
from pathlib import Path
from tests.results.test_folder import INPUTS, MANIFEST, Folder, record
with Folder.create(Path(sys.argv[1]), MANIFEST, INPUTS) as made:
    for index in range(10**9):
        made.append(record(index=index))
        print(index, flush=True)
"""


def test_what_was_said_to_be_kept_survives_a_kill(out: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        said = [int(run.stdout.readline()) for _ in range(200)]
        run.kill()
        said += [int(line) for line in run.stdout.read().splitlines() if line]
    with Folder.resume(out, MANIFEST, INPUTS) as again:
        kept = [r.index for r in again.records()]
    assert kept[: len(said)] == said
    assert len(kept) - len(said) <= 1


DISK = """
import sys
from pathlib import Path
from testbed.errors import MachineError
from tests.results.test_folder import INPUTS, MANIFEST, Folder, record
try:
    with Folder.create(Path(sys.argv[1]), MANIFEST, INPUTS) as made:
        for index in range(10000):
            made.append(record(index=index))
except MachineError as error:
    print(str(error).splitlines()[0].rpartition(": ")[2])
"""


@pytest.mark.lab
@pytest.mark.parametrize(
    ("options", "words", "kept"),
    [
        pytest.param("size=128k", "the disk is full", True, id="a disk that fills up"),
        pytest.param("size=128k,ro", "the file system is read-only", False, id="a disk that is read-only"),
    ],
)
def test_on_a_real_disk(tmp_path: Path, options: str, words: str, kept: bool) -> None:
    # The disk is in a mount namespace of its own, and goes away with it.
    script = (
        'mount -t tmpfs -o "$1" tmpfs "$2" && "$3" -c "$4" "$2/out" && '
        'if [ -e "$2/out" ]; then tail -c 1 "$2/out/trials.jsonl" | od -An -c; ls "$2/out"; fi'
    )
    mounts = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    done = subprocess.run(
        [*mounts, "sh", "-c", script, "sh", options, str(tmp_path), sys.executable, DISK],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.split() == [*words.split(), *(["\\n", "inputs", TRIALS] if kept else [])]  # each line is whole
