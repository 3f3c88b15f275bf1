"""YAML text -> plain data, with the line and column of every key and value.

Rule 1: scalars are those of YAML 1.2's core schema. PyYAML's own reading is YAML 1.1, which turns `off`
        into false, `1:30` into 90 and `010` into 8, and lets the last of two equal keys win in silence.
Rule 2: a text of any size costs at most `MAX_NODES` steps: aliases are counted as often as they are used.
Rule 3: what is wrong is a Problem with a position, never an exception of the YAML library.

Only the events of PyYAML are used, and its pure Python parser: the C one words its errors differently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import yaml
from yaml.reader import ReaderError

from testbed.errors import Problem, SpecError

Path = tuple[str | int, ...]
"""From the top of a file to one of its values: keys, and places in lists."""

MAX_NODES = 50_000
MAX_DEPTH = 24

_INTEGER = re.compile(r"[-+]?[0-9]{1,40}")
_BASED = re.compile(r"0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TAGS: Mapping[type, tuple[str | None, ...]] = {
    yaml.ScalarEvent: (None, "!", "tag:yaml.org,2002:str"),
    yaml.SequenceStartEvent: (None, "!", "tag:yaml.org,2002:seq"),
    yaml.MappingStartEvent: (None, "!", "tag:yaml.org,2002:map"),
}
"""Tags that say what is so anyway. All else would need code, or a type that no model has."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; both count from 1, as editors do."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A file's data, and where each part of it stands."""

    data: Any
    values: Mapping[Path, Mark]
    keys: Mapping[Path, Mark]
    problems: tuple[Problem, ...] = ()
    """What is wrong but does not keep the rest from being read: duplicate keys."""

    def mark(self, path: Path, *, key: bool = False) -> Mark:
        """Where the value (or the key) at `path` stands, or else the nearest thing around it."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, Mark(1, 1))


def parse(file: str, text: str) -> Tree:
    """The data of `text`. Raises SpecError where it is not YAML, or not one document of a sensible size."""
    loader: Any = None
    try:
        loader = yaml.BaseLoader(text)
        root = _compose(file, _events(loader))
    except ReaderError as error:
        before = text[: error.position]
        mark = Mark(before.count("\n") + 1, error.position - before.rfind("\n"))
        raise _refusal(file, mark, f"not YAML: the character {chr(_code(error))!r} is not allowed") from None
    except yaml.MarkedYAMLError as error:
        raise _refusal(file, _mark(error.problem_mark or error.context_mark), _words(error)) from None
    except (ValueError, OverflowError):  # the library trips over an escape such as "\UFFFFFFFF"
        raise _refusal(file, _mark(loader.get_mark()), "not YAML: an escape that stands for no character") from None
    if root is None:
        return Tree(None, {}, {})
    return _Flattening(file).flatten(root)


def _events(loader: Any) -> Iterator[Any]:
    while loader.check_event():
        yield loader.get_event()


@dataclass(slots=True)
class _Node:
    mark: Mark
    content: Any
    """A scalar, a list of nodes, or a list of (key's mark, key, node)."""
    kind: type


def _compose(file: str, events: Iterator[Any]) -> _Node | None:
    """The nodes of the one document; None where there is none."""
    anchors: dict[str | None, _Node | None] = {}
    made_so_far = count(1)

    def node(event: Any, depth: int) -> _Node:
        mark = _mark(event.start_mark)
        if next(made_so_far) > MAX_NODES:
            raise _refusal(file, mark, f"more than {MAX_NODES} values")
        if isinstance(event, yaml.AliasEvent):
            known = anchors.get(event.anchor)
            if known is None:
                state = "holds itself" if event.anchor in anchors else "is not defined above"
                raise _refusal(file, mark, f"alias '*{event.anchor}' {state}")
            return _Node(mark, known.content, known.kind)
        if depth > MAX_DEPTH:
            raise _refusal(file, mark, f"nested more than {MAX_DEPTH} deep")
        if event.anchor is not None:
            anchors[event.anchor] = None
        if event.tag not in _TAGS[type(event)]:
            raise _refusal(file, mark, f"tag {event.tag!r} is not understood; leave it out")
        if isinstance(event, yaml.ScalarEvent):
            made = _Node(mark, _scalar(file, mark, event), object)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := next(events), yaml.SequenceEndEvent):
                items.append(node(inner, depth + 1))
            made = _Node(mark, items, list)
        else:
            pairs = []
            while not isinstance(inner := next(events), yaml.MappingEndEvent):
                key = _key(file, inner)
                pairs.append((_mark(inner.start_mark), key, node(next(events), depth + 1)))
            made = _Node(mark, pairs, dict)
        if event.anchor is not None:
            anchors[event.anchor] = made
        return made

    root: _Node | None = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if root is not None:
                raise _refusal(file, _mark(event.start_mark), "a second document starts here; a file holds one")
        elif isinstance(event, yaml.NodeEvent):
            root = node(event, 0)
    return root


@dataclass(slots=True)
class _Flattening:
    file: str
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def flatten(self, root: _Node) -> Tree:
        return Tree(self._data(root, ()), self.values, self.keys, tuple(self.problems))

    def _data(self, node: _Node, path: Path) -> Any:
        self.values[path] = node.mark
        if len(self.values) > MAX_NODES:
            raise _refusal(self.file, node.mark, f"more than {MAX_NODES} values, aliases counted as often as used")
        if node.kind is list:
            return [self._data(item, (*path, index)) for index, item in enumerate(node.content)]
        if node.kind is not dict:
            return node.content
        data: dict[str, Any] = {}
        for mark, key, value in node.content:
            here = (*path, key)
            if key in data:
                message = f"duplicate key {key!r} (first at line {self.keys[here].line})"
                self.problems.append(Problem(self.file, mark.line, mark.column, "", message))
                continue
            self.keys[here] = mark
            data[key] = self._data(value, here)
        return data


def _scalar(file: str, mark: Mark, event: Any) -> Any:
    text: str = event.value
    _refuse_surrogates(file, mark, text)
    if event.tag is not None or event.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text[2:], {"o": 8, "x": 16}[text[1]])
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def _key(file: str, event: Any) -> str:
    """Keys are text, whatever they look like: a node may be called `null`."""
    mark = _mark(event.start_mark)
    if not isinstance(event, yaml.ScalarEvent):
        raise _refusal(file, mark, "a key must be a word")
    if event.value == "" and event.style is None:
        raise _refusal(file, mark, "a key is missing before ':'")
    if event.value == "<<" and event.style is None:
        raise _refusal(file, mark, "merging with '<<' is not in YAML 1.2; write the keys again")
    _refuse_surrogates(file, mark, event.value)
    return str(event.value)


def _refuse_surrogates(file: str, mark: Mark, text: str) -> None:
    """An escape can write half of a pair, which no encoding can write back."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _refusal(file, mark, "half of a surrogate pair is no character")


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)


def _code(error: ReaderError) -> int:
    character: int | str | bytes = error.character
    return character if isinstance(character, int) else ord(character)


def _words(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or error.context or "it cannot be read").replace("'<stream end>'", "the end of the file")
    if problem == "expected <block end>, but found ':'":
        return "a key is missing before ':'"
    if problem.startswith("expected <block end>"):
        problem = "the indentation does not fit here"
    since = error.context_mark
    if error.context and since is not None and error.problem_mark is not None and since.line != error.problem_mark.line:
        return f"not YAML: {problem} ({error.context} from line {since.line + 1})"
    return f"not YAML: {problem} ({error.context})" if error.context and error.problem else f"not YAML: {problem}"


def _refusal(file: str, mark: Mark, message: str) -> SpecError:
    return SpecError([Problem(file, mark.line, mark.column, "", message)])
