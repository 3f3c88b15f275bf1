"""Baselines: runs that are kept under a name, to compare later ones with.

Rule 1: a baseline is a folder like that of a run (`result.json`, `trials.jsonl`, `inputs/`) without its packets, and
        `environment.json`: when, on what, of what. Whoever can read a run can read a baseline.
Rule 2: a baseline is the old one or the new one, never a part: it is made beside its place and renamed.
Rule 3: what is replaced or removed, is so because somebody said so: --force, or the name.
Rule 4: one writer at a time; it holds a lock, and sweeps away what an earlier one, killed, has left.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, Field, JsonValue, NonNegativeInt, ValidationError

from testbed.errors import UsageError
from testbed.results import environment
from testbed.results.disk import DRAFT, Owner, caller, explained, give, make_folder, put_folder, write_whole
from testbed.results.document import Document, Lab
from testbed.results.folder import RESULT, TRIALS
from testbed.results.inputs import INPUTS
from testbed.results.side import Side, read_side
from testbed.spec.model import Model
from testbed.units import NS_PER_SECOND

SCHEMA: Literal["testbed.baseline/1"] = "testbed.baseline/1"
FACTS = "environment.json"
VARIABLE = "TESTBED_BASELINES"
OPTION = "--baselines DIR"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,@+-]{0,99}")
_BLOCK = 1 << 20


class Facts(Model):
    """`environment.json`: what a baseline is, beside its numbers."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["testbed.baseline/1"] = Field(alias="schema")
    saved: str
    """The date and time, ISO 8601, UTC."""
    run: str
    scenario: str
    seed: NonNegativeInt
    cells: NonNegativeInt
    trials: NonNegativeInt
    lab: Lab
    environment: dict[str, JsonValue]
    """Of the run: processor, kernel, cores, versions. What must be alike for runs to be compared."""
    machine: dict[str, JsonValue] | None
    """Operating system, memory, governor and load when it was saved; null where it was not measured on that machine."""


@dataclass(frozen=True)
class Baselines:
    """The folder of all baselines."""

    path: Path
    owner: Owner | None = None

    @classmethod
    def of(cls, option: Path | None, environ: Mapping[str, str], euid: int) -> Self:
        """Where the caller keeps them: the option, else the variable, else the state folder of who called (sudo)."""
        owner = caller(environ, euid)
        if option is not None or environ.get(VARIABLE):
            return cls(option or Path(environ[VARIABLE]), owner)
        state = Path(environ.get("XDG_STATE_HOME", ""))
        if not state.is_absolute():
            state = _home(owner, environ) / ".local" / "state"
        return cls(state / "testbed" / "baselines", owner)

    def names(self) -> list[str]:
        """In order."""
        try:
            return sorted(p.name for p in self.path.iterdir() if _NAME.fullmatch(p.name) and p.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UsageError(f"cannot read {self.path}: {error.strerror}; name another folder with {OPTION}") from None

    def find(self, name: str) -> Path:
        """The folder of a baseline. Raises UsageError."""
        known = self.names()
        if name in known:
            return self.path / name
        raise UsageError(f"there is no baseline {name!r} in {self.path}{_next(name, known)}")

    def side(self, word: str) -> Side:
        """What a word of the command line means: a baseline's name, else a results folder. Raises UsageError."""
        path = Path(word)
        if "/" not in word and word in (known := self.names()):
            return read_side(self.path / word, word)
        if path.exists():
            return read_side(path, word)
        if "/" in word:
            raise UsageError(f"there is no folder {word}; `testbed run SCENARIO --out {word}` makes one")
        raise UsageError(
            f"there is no folder {word!r}, and no baseline of that name in {self.path}{_next(word, known)}"
        )

    def facts(self, name: str) -> Facts:
        """What is known of a baseline. Raises UsageError."""
        return read_facts(self.find(name))

    def save(self, name: str, run: Path, now: int, *, force: bool = False) -> Facts:
        """Keep the run in the folder `run` under a name; `now` in nanoseconds since 1970. Raises UsageError."""
        check_name(name)
        side = read_side(run, str(run))
        folder = run if run.is_dir() else run.parent
        facts = _facts(side, now)
        files = {RESULT: folder / RESULT, TRIALS: folder / TRIALS}
        inputs = folder / INPUTS
        for file in sorted(inputs.rglob("*")) if inputs.is_dir() else ():
            if file.is_file():
                files[file.relative_to(folder).as_posix()] = file
        with self.writing(name, force=force) as draft:
            for relative, source in files.items():
                self.put(draft / relative, _blocks(source))
            self.put(draft / FACTS, [facts.model_dump_json(indent=1).encode() + b"\n"])
        return facts

    def rename(self, old: str, new: str) -> None:
        """Give a baseline another name, which nobody has yet. Raises UsageError."""
        check_name(new)
        source = self.find(old)
        with self._locked():
            if (self.path / new).exists():
                raise UsageError(f"there is a baseline {new!r} already; `testbed baseline remove {new}` takes it away")
            with explained(self.path / new, OPTION):
                source.rename(self.path / new)

    def remove(self, name: str) -> None:
        """Take a baseline away; it is gone at once, and its files then."""
        source = self.find(name)
        with self._locked(), explained(source, OPTION):
            gone = self.path / f".{name}{DRAFT}"
            source.rename(gone)
            shutil.rmtree(gone)

    @contextmanager
    def writing(self, name: str, *, force: bool) -> Iterator[Path]:
        """A new folder, which becomes the baseline `name` where the block ends without an error."""
        with self._locked():
            target = self.path / name
            if target.exists() and not force:
                raise UsageError(f"there is a baseline {name!r} already; --force replaces it")
            draft = self.path / f".{name}{DRAFT}"
            try:
                with explained(target, OPTION):
                    make_folder(draft, self.owner, lambda _: None)
                yield draft
                with explained(target, OPTION):
                    put_folder(draft, target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    def put(self, path: Path, blocks: Iterator[bytes] | list[bytes]) -> None:
        """Write one file of a draft, and the folders that it lacks."""
        with explained(path, OPTION):
            make_folder(path.parent, self.owner, lambda _: None)
        write_whole(path, blocks, self.owner, option=OPTION)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with explained(self.path, OPTION):
            make_folder(self.path, self.owner, lambda _: None)
            lock = self.path / ".lock"
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            with explained(self.path, OPTION):
                give(lock, self.owner)
                fcntl.flock(fd, fcntl.LOCK_EX)
                for left in self.path.glob(f".*{DRAFT}*"):
                    shutil.rmtree(left)
            yield
        finally:
            os.close(fd)


def check_name(name: str) -> None:
    """Raises UsageError where a name could not be that of a folder in every shell and archive."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a baseline: letters, digits and . _ = , @ + - make one, "
            "beginning with a letter or a digit, 100 at most"
        )


def read_facts(folder: Path) -> Facts:
    """The facts of the baseline in this folder. Raises UsageError."""
    path = folder / FACTS
    try:
        return Facts.model_validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise UsageError(f"{folder} is not a baseline: cannot read {FACTS}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise UsageError(f"{path}: not the facts of a baseline ({SCHEMA}): {where}: {first['msg']}") from None


def _facts(side: Side, now: int) -> Facts:
    document = side.document
    return Facts(
        schema_=SCHEMA,
        saved=f"{datetime.fromtimestamp(now // NS_PER_SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}",
        run=document.run,
        scenario=document.scenario,
        seed=document.seed,
        cells=len(document.cells),
        trials=sum(cell.trials for cell in document.cells),
        lab=document.lab,
        environment=document.environment,
        machine=environment.passing_facts() if _is_of_this_machine(document) else None,
    )


def _is_of_this_machine(document: Document) -> bool:
    here = environment.environment()
    return all(document.environment.get(name) == here[name] for name in ("kernel_release", "cpu_model", "machine"))


def _home(owner: Owner | None, environ: Mapping[str, str]) -> Path:
    if owner is None and environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(owner.uid if owner is not None else os.getuid()).pw_dir)
    except KeyError:
        raise UsageError(f"there is no home folder to keep baselines in; name a folder with {OPTION}") from None


def _next(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    if known:
        return f" (there are {', '.join(known[:5])}{', …' if len(known) > 5 else ''})"
    return f"; `testbed baseline save {name} RESULTS_FOLDER` makes it"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
