"""Where files are: a name -> a path, and a path -> its text.

Rule 1: a name is looked for beside the file that says it (or in that file's sister folder), then in the
        current directory's folder, then among what is installed. The first hit counts.
Rule 2: a word with a slash or `.yaml` is a path, from the file that says it or else from the current directory.
Rule 3: nothing about the machine is looked at beyond these files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from testbed.errors import Problem, SpecError
from testbed.spec.kinds import OLDER_NAMES
from testbed.spec.problems import Source, suggestion
from testbed.spec.yaml_text import parse

MAX_BYTES = 1 << 20
SUFFIXES = (".yaml", ".yml")


class FileKind(StrEnum):
    """The three kinds of files that people write."""

    TOPOLOGY = "topology"
    NAT_PROFILE = "nat-profile"
    SCENARIO = "scenario"

    @property
    def folder(self) -> str:
        """What a folder of such files is called."""
        return {"topology": "topologies", "nat-profile": "nat_profiles", "scenario": "scenarios"}[self.value]

    @classmethod
    def of_folder(cls, name: str) -> FileKind | None:
        """The kind of the files in a folder of this name."""
        return next((kind for kind in cls if kind.folder == name), None)


def installed(kind: FileKind) -> Path:
    """The folder that came with the program: inside the package, or the checkout's own."""
    package = Path(__file__).parent.parent
    inside = package / "data" / kind.folder
    return inside if inside.is_dir() else package.parent / kind.folder


def is_path(word: str) -> bool:
    """Whether a word means a file rather than a name."""
    return "/" in word or os.sep in word or word.endswith(SUFFIXES)


def find(kind: FileKind, word: str, beside: Path | None = None) -> Path | None:
    """The file that `word` means; `beside` is the file that says it."""
    if is_path(word):
        roots = [beside.parent] if beside is not None else []
        return next((path for root in [*roots, Path()] if _is_file(path := root / word)), None)
    for folder in _folders(kind, beside):
        for suffix in SUFFIXES:
            path = folder / f"{word}{suffix}"
            if _is_file(path) and not (beside is not None and path.samefile(beside)):
                return path
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for any file, or one with a zero byte
        return False


def available(kind: FileKind, beside: Path | None = None) -> dict[str, Path]:
    """Every file of a kind that a name would find, by name, in the alphabet's order."""
    found: dict[str, Path] = {}
    for folder in _folders(kind, beside):
        if not folder.is_dir():
            continue
        for path in folder.iterdir():
            if path.suffix in SUFFIXES and not (beside is not None and path == beside):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def not_found(kind: FileKind, word: str, beside: Path | None = None, more: tuple[str, ...] = ()) -> str:
    """What to say where `find` finds nothing. `more`: further names that would do."""
    if is_path(word):
        from_where = "" if beside is None else f", neither from {beside.parent.as_posix()} nor from here"
        path = Path(word)
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = suggestion(path.name, near) if near else ""
        return f"no such file: {word}{from_where}{hint if 'did you mean' in hint else ''}"
    if kind is FileKind.NAT_PROFILE and (meant := OLDER_NAMES.get(word.lower().replace("_", "-"))):
        return f"there is no nat profile {word!r}: what older texts call so is {meant}"
    hint = suggestion(word, [*available(kind, beside), *more])
    looked = "" if hint else f" (looked in ./{kind.folder} and among what is installed; `testbed list` shows all)"
    return f"there is no {kind.value.replace('-', ' ')} {word!r}{hint}{looked}"


def read(path: Path) -> tuple[Source, bytes]:
    """A file as data with marks, and its bytes. Raises SpecError where that cannot be had."""
    shown = tidy(path)
    try:
        if path.is_dir():
            raise SpecError([Problem(shown, 0, 0, "", "is a folder; name a file in it")])
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, ValueError):  # ValueError: a zero byte in the name
        raise SpecError([Problem(shown, 0, 0, "", "no such file")]) from None
    except OSError as error:
        raise SpecError([Problem(shown, 0, 0, "", f"cannot be read: {error.strerror or error}")]) from None
    if len(content) > MAX_BYTES:
        raise SpecError([Problem(shown, 0, 0, "", f"is larger than {MAX_BYTES >> 20} MiB")])
    source = Source(shown, parse(shown, _decode(shown, content)))
    if source.tree.data is None:
        raise SpecError([Problem(shown, 0, 0, "", "is empty")])
    if not isinstance(source.tree.data, dict):
        source.add((), "holds no mapping: a file starts with keys such as `description:`")
        source.raise_problems()
    return source, content


def tidy(path: Path) -> str:
    """A path as messages and results name it: from the current directory where it is below it."""
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix() if path.is_absolute() else path.as_posix()
    except ValueError:
        return path.as_posix()


def _folders(kind: FileKind, beside: Path | None) -> Iterator[Path]:
    if beside is not None:
        home = FileKind.of_folder(beside.absolute().parent.name)
        if home is None or home is kind:
            yield beside.parent
        if home is not None and home is not kind:
            yield Path(os.path.normpath(beside.parent / ".." / kind.folder))
    yield Path(kind.folder)
    yield installed(kind)


def _decode(shown: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        message = f"the byte 0x{content[error.start]:02x} is not UTF-8"
        raise SpecError([Problem(shown, line, column, "", message)]) from None
