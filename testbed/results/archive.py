"""A baseline as one file, for another machine or for CI to keep.

Rule 1: the same baseline makes the same bytes: names in order, no times, no owners.
Rule 2: an archive is somebody else's: nothing in it is believed. It may hold the files of one baseline and nothing
        else, by plain relative names; no links, no devices, no more than 4 GiB. It must be read as a baseline before it
        becomes one.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from testbed.errors import UsageError
from testbed.results.baselines import FACTS, Baselines, check_name, read_facts
from testbed.results.disk import Owner, write_whole
from testbed.results.folder import RESULT, TRIALS
from testbed.results.inputs import INPUTS
from testbed.results.side import read_side

MOST_BYTES = 4 << 30
_BLOCK = 1 << 20
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def export(baselines: Baselines, name: str, target: Path, owner: Owner | None, *, force: bool = False) -> None:
    """Write a baseline as a .tar.gz. Raises UsageError where it exists already, unless forced."""
    source = baselines.find(name)
    if target.exists() and not force:
        raise UsageError(f"{target} exists; --force replaces it, or name another file")
    write_whole(target, _packed(source, name), owner, option="another FILE")


def import_(baselines: Baselines, file: Path, name: str | None = None, *, force: bool = False) -> str:
    """Take in the baseline of an archive, under its own name or another; returns the name. Raises UsageError."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            members = [member for member in archive if not member.isdir()]
            root = _check(file, members)
            called = name or root
            check_name(called)
            with baselines.writing(called, force=force) as draft:
                for member in members:
                    data = archive.extractfile(member)
                    assert data is not None
                    baselines.put(draft.joinpath(*PurePosixPath(member.name).parts[1:]), _blocks(data))
                _verify(file, draft)
            return called
    except _BROKEN as error:
        raise UsageError(
            f"{file} is not an archive of a baseline: {error}; `testbed baseline export` makes one"
        ) from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if error.filename != str(file):
            raise
        raise UsageError(f"cannot read {file}: {error.strerror}") from None


def _packed(source: Path, name: str) -> Iterator[bytes]:
    """The archive, block by block."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(p for p in source.rglob("*") if p.is_file() and not p.is_symlink()):
                member = tarfile.TarInfo(f"{name}/{path.relative_to(source).as_posix()}")
                member.size, member.mode = path.stat().st_size, 0o644
                with path.open("rb") as data:
                    archive.addfile(member, data)
                yield _taken(out)
        yield _taken(out)
    yield _taken(out)


def _taken(out: io.BytesIO) -> bytes:
    found = out.getvalue()
    out.seek(0)
    out.truncate()
    return found


def _check(file: Path, members: list[tarfile.TarInfo]) -> str:
    """The name of the baseline in an archive. Raises UsageError for anything that is not a plain file of one."""
    roots, seen = set(), set()
    for member in members:
        path = PurePosixPath(member.name)
        inside = PurePosixPath(*path.parts[1:])
        is_input = len(inside.parts) > 1 and inside.parts[0] == INPUTS
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
            raise UsageError(f"{file}: {member.name!r} would leave the baseline's folder; nothing was taken in")
        if not member.isreg():
            raise UsageError(f"{file}: {member.name!r} is not a plain file; nothing was taken in")
        if (str(inside) not in (RESULT, TRIALS, FACTS) and not is_input) or inside in seen:
            raise UsageError(f"{file}: {member.name!r} is no file of a baseline, or there twice; nothing was taken in")
        roots.add(path.parts[0])
        seen.add(inside)
    if len(roots) != 1:
        raise UsageError(f"{file} holds {len(roots)} folders, not one baseline; `testbed baseline export` makes one")
    if sum(member.size for member in members) > MOST_BYTES:
        raise UsageError(f"{file} holds more than {MOST_BYTES >> 30} GiB; no baseline does")
    return str(roots.pop())


def _verify(file: Path, draft: Path) -> None:
    """Raises UsageError, in which the archive is named and not the draft."""
    try:
        facts, side = read_facts(draft), read_side(draft, str(file))
    except UsageError as error:
        raise UsageError(str(error).replace(str(draft), str(file))) from None
    if facts.run != side.document.run:
        raise UsageError(f"{file}: {FACTS} is of run {facts.run}, {RESULT} of run {side.document.run}")


def _blocks(data: IO[bytes]) -> Iterator[bytes]:
    while block := data.read(_BLOCK):
        yield block
