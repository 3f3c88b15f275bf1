"""Writing to a disk that may be full, read-only or somebody else's.

Rule 1: every OSError of writing becomes a MachineError that says what could not be written, and why.
Rule 2: a file is either the old one or the new one, never a part. It is written without a name (O_TMPFILE) and gets
        one when it is whole: a process that is killed leaves nothing. Some file systems (NFS, overlays before Linux
        6.6) have no such files; there it is written beside its place and renamed, and a kill may leave a draft.
Rule 3: what a run under sudo makes belongs to the person who called sudo.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import MachineError

_WORDS: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the disk reports an error",
}
DRAFT = ".draft"
_AT_FDCWD, _EXCHANGE = -100, 2
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Owner:
    """A user and a group, by number."""

    uid: int
    gid: int


def caller(environ: Mapping[str, str], euid: int) -> Owner | None:
    """Who called sudo; None when nobody did, or when we are not root anyway."""
    uid, gid = environ.get("SUDO_UID", ""), environ.get("SUDO_GID", "")
    if euid != 0 or not uid.isdecimal() or not gid.isdecimal():
        return None
    return Owner(int(uid), int(gid))


def give(path: Path, owner: Owner | None) -> None:
    """Make `path` the owner's; a link itself, not what it points to."""
    if owner is not None:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


@contextmanager
def explained(path: Path, option: str = "--out DIR") -> Iterator[None]:
    """Turn an OSError of writing `path` into a MachineError with the mending words; `option` names another place."""
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        words = _WORDS.get(code) or (os.strerror(code) if code else str(error))
        mend = "free some space there" if code in _FULL else f"name a folder that can be written: {option}"
        raise MachineError(f"cannot write {path}: {words}", mend=mend) from error


def make_folder(path: Path, owner: Owner | None, made: Callable[[Path], None]) -> None:
    """Make `path` and the parents it lacks, the owner's all; calls `made` with each new one, outermost first."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir()
        made(folder)
        give(folder, owner)


def write_whole(
    path: Path, blocks: Iterable[bytes], owner: Owner | None, *, synced: bool = True, option: str = "--out DIR"
) -> None:
    """Put `blocks` in the place of `path` in one step; on failure nothing of it remains. Raises MachineError.

    `synced`: wait for the disk, so that not even a power cut leaves a part.
    """
    draft = path.with_name(f".{path.name}{DRAFT}")
    with explained(path, option):
        try:
            with os.fdopen(_open_draft(draft), "wb") as file:
                file.writelines(blocks)
                file.flush()
                if synced:
                    os.fsync(file.fileno())
                if owner is not None:
                    os.fchown(file.fileno(), owner.uid, owner.gid)
                if not os.fstat(file.fileno()).st_nlink:
                    _name(file.fileno(), draft)
            draft.replace(path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise


def put_folder(draft: Path, path: Path) -> None:
    """Put the folder `draft` in the place of `path`, whatever is there, in one step (renameat2 with RENAME_EXCHANGE).

    Where the file system cannot do that (some network ones), there is no `path` for a moment. Raises OSError.
    """
    if not path.exists():
        draft.rename(path)
        return
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # a C library may lack it
    if exchange is not None:
        if exchange(_AT_FDCWD, bytes(draft), _AT_FDCWD, bytes(path), _EXCHANGE) == 0:
            shutil.rmtree(draft)
            return
        if (code := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(code, os.strerror(code))
    aside = draft.with_name(f"{draft.name}-old")
    path.rename(aside)
    draft.rename(path)
    shutil.rmtree(aside)


def _open_draft(draft: Path) -> int:
    try:
        return os.open(draft.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    return os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o666)


def _name(fd: int, path: Path) -> None:
    """Give a file without a name one. The descriptor of the folder makes Python call linkat(2), not link(2)."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=folder)  # of a process that was killed between naming and renaming
        os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)
