"""The results folder of a run: `result.json`, `trials.jsonl`, `inputs/`, `captures/`.

Rule 1: a finished trial is in `trials.jsonl` before anything else happens: one write(2) with O_APPEND a
        record, so that a killed run keeps every trial but the one whose line it was writing.
Rule 2: one writer at a time. It holds a lock of its process (fcntl), which dies with it and which its
        forked children do not inherit.
Rule 3: `inputs/` is all that the run was made of: the YAML as used, and `run.json` (seed, version,
        settings). A run is continued only when all of that is the same.
Rule 4: nothing is half-written. What cannot be made is unmade again; what is replaced is replaced whole.

fcntl locks are lost when *any* descriptor of the file is closed in this process: while a `Folder` is
open, `trials.jsonl` is read through its own descriptor only.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.errors import UsageError
from testbed.results.disk import DRAFT, Owner, explained, give, make_folder, write_whole
from testbed.results.inputs import INPUTS, Manifest, as_files, differences, read_inputs
from testbed.results.record import Key, Record
from testbed.units import NS_PER_SECOND

RESULT = "result.json"
TRIALS = "trials.jsonl"
CAPTURES = "captures"

TORN = f"the last line of {TRIALS} was cut off (the run was killed as it wrote it); that trial does not count"


def run_name(scenario: str, seed: int, now: int) -> str:
    """`20261123T120000Z-symmetric_nat-1`; `now` in nanoseconds since 1970."""
    return f"{datetime.fromtimestamp(now // NS_PER_SECOND, UTC):%Y%m%dT%H%M%SZ}-{file_name(scenario)}-{seed}"


def file_name(text: str) -> str:
    """`text` as the name of a file: itself where it can be one, else shortened and marked with its digest."""
    name = re.sub(r"[^A-Za-z0-9=,.@+_-]", "_", text)[:120].lstrip(".") or "_"
    return name if name == text else f"{name}-{blake2b(text.encode(), digest_size=4).hexdigest()}"


def capture_name(key: Key) -> str:
    """The file of a trial's packets, in `captures/`."""
    again = f"-attempt{key.attempt}" if key.attempt > 1 else ""
    return f"{file_name(key.cell)}-{key.index}{again}.pcapng"


class Folder:
    """An open results folder. Make one with `create` or `resume`; close it, or use it as a context."""

    def __init__(self, path: Path, manifest: Manifest, owner: Owner | None, fd: int) -> None:
        self.path = path
        self.manifest = manifest
        self.notes: list[str] = []
        """What a reader should know of how the folder was found."""
        self._owner = owner
        self._fd = fd
        self._stale = (path / RESULT).exists()

    @classmethod
    def create(cls, path: Path, manifest: Manifest, inputs: Mapping[str, str], owner: Owner | None = None) -> Self:
        """A new folder; `inputs` are texts by relative name.

        Raises UsageError where something is there already, MachineError where it cannot be written; then
        nothing of it remains.
        """
        with explained(path):
            if path.exists() and not path.is_dir():
                raise UsageError(f"{path} is a file; name a folder with --out DIR")
            if path.exists() and any(path.iterdir()):
                raise UsageError(f"{path} is not empty; --resume continues its run, --out DIR names another folder")
        made: list[Path] = []
        try:
            with explained(path):
                make_folder(path, owner, made.append)
                for name, text in as_files(manifest, inputs).items():
                    target = path / INPUTS / name
                    make_folder(target.parent, owner, made.append)
                    made.append(target)
                    write_whole(target, [text.encode()], owner)
                made.append(path / TRIALS)
                fd = _open(path, os.O_CREAT | os.O_EXCL)
                give(path / TRIALS, owner)
        except BaseException:
            for target in reversed(made):
                with suppress(OSError):
                    target.rmdir() if target.is_dir() else target.unlink()
            raise
        return cls(path, manifest, owner, fd)

    @classmethod
    def resume(cls, path: Path, manifest: Manifest, inputs: Mapping[str, str], owner: Owner | None = None) -> Self:
        """The folder of an earlier run of the same things. Raises UsageError, which names each difference."""
        then, files = read_inputs(path)
        different = list(differences(then, manifest, files, inputs))
        if different:
            listed = "\n".join(f"  {line}" for line in different)
            raise UsageError(f"{path} holds a run of other things; it cannot be resumed:\n{listed}")
        with explained(path / TRIALS):
            folder = cls(path, then, owner, _open(path, os.O_CREAT))
            give(path / TRIALS, owner)
            folder._drop_torn_line()
            for draft in (*path.glob(f".*{DRAFT}"), *(path / CAPTURES).glob(f".*{DRAFT}")):
                draft.unlink()  # of a run that was killed
        return folder

    def append(self, record: Record) -> None:
        """Keep one finished trial. Raises MachineError, and then the file is as it was."""
        line = record.to_line()
        with explained(self.path / TRIALS):
            if self._stale:
                (self.path / RESULT).unlink(missing_ok=True)  # it would not be about these trials
                self._stale = False
            size = os.fstat(self._fd).st_size
            try:
                written = os.write(self._fd, line)
                if written < len(line):  # a disk that fills up takes what fits; the rest says why
                    os.write(self._fd, line[written:])
            finally:
                if os.fstat(self._fd).st_size != size + len(line):
                    os.ftruncate(self._fd, size)

    def records(self) -> Iterator[Record]:
        """Every record as it stands in the file, superseded ones too. Raises UsageError with the line's number."""
        return _parse(self.path, _lines(self._fd))

    def finished(self) -> dict[Key, Record]:
        """By key, the last record of each."""
        return {record.key: record for record in self.records()}

    def finish(self, result: bytes, cells: Sequence[str]) -> None:
        """Put `trials.jsonl` into the order of the plan's `cells`, one line a key, and write `result.json`."""
        rank = {cell: i for i, cell in enumerate(cells)}
        last = {r.key: line for r, line in zip(self.records(), _lines(self._fd), strict=True)}
        ordered = sorted(last, key=lambda key: (rank.get(key.cell, len(rank)), key))
        write_whole(self.path / TRIALS, (last[key] for key in ordered), self._owner)
        os.close(self._fd)
        with explained(self.path / TRIALS):
            self._fd = _open(self.path, 0)
        write_whole(self.path / RESULT, [result], self._owner)
        with suppress(OSError):
            (self.path / CAPTURES).rmdir()  # where none was kept
        self._stale = True

    def capture_path(self, key: Key) -> Path:
        """Where the packets of a trial go; its folder exists then. Call `adopt` on it once it is written."""
        folder = self.path / CAPTURES
        with explained(folder):
            make_folder(folder, self._owner, lambda _: None)
        return folder / capture_name(key)

    def adopt(self, path: Path) -> None:
        """Give a file that another process wrote here to the folder's owner."""
        with explained(path):
            give(path, self._owner)

    def close(self) -> None:
        """Let go of the lock; the folder stays as it is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _drop_torn_line(self) -> None:
        whole = 0
        for line in _lines(self._fd, torn_too=True):
            if not line.endswith(b"\n"):
                os.ftruncate(self._fd, whole)
                self.notes.append(TORN)
            whole += len(line)


def read_records(path: Path, keep: Callable[[Record], Record] = lambda r: r) -> tuple[list[Record], list[str]]:
    """The records of a folder that nobody has open here, and what a reader should know. Raises UsageError.

    `keep`: what of a record is kept in memory.
    """
    try:
        fd = os.open(path / TRIALS, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path} is not a results folder: cannot read {TRIALS}: {error.strerror}") from None
    try:
        torn = any(not line.endswith(b"\n") for line in _lines(fd, torn_too=True))
        return list(map(keep, _parse(path, _lines(fd)))), [TORN] if torn else []
    finally:
        os.close(fd)


def _open(path: Path, flags: int) -> int:
    fd = os.open(path / TRIALS, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o644)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(fd)
        raise UsageError(f"another run is writing {path}; wait for it, or name another folder with --out DIR") from None
    except OSError:
        pass  # a shared folder without locks; two runs in one folder are then the caller's to avoid
    return fd


def _lines(fd: int, *, torn_too: bool = False) -> Iterator[bytes]:
    """The lines of the file from its start, whatever the position of the descriptor."""
    rest, offset = b"", 0
    while chunk := os.pread(fd, 1 << 20, offset):
        offset += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest and torn_too:
        yield rest


def _parse(path: Path, lines: Iterator[bytes]) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        try:
            yield Record.from_line(line)
        except UsageError as error:
            raise UsageError(f"{path / TRIALS}:{number}: {error}") from None
