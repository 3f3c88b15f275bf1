"""What is wrong in a file, in our words and with its place.

Rule 1: a problem says what is wrong and, where a spelling is near, what was meant.
Rule 2: all problems of a file are told at once; reading goes on as long as there is something to read.
Rule 3: the words of the validation library never reach a person. Each of its error types that our models can
        raise has a sentence here (`_SENTENCES`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from testbed.errors import Problem, SpecError
from testbed.spec.model import CONTEXT_FILE, describe
from testbed.spec.yaml_text import Path, Tree

M = TypeVar("M", bound=BaseModel)

MOST_LISTED = 16
"""So many alternatives are listed; more would bury the message."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?`, or else the list of what there is; to end a message with."""
    known = list(known)
    near = get_close_matches(word, known, n=1, cutoff=0.6) or get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if near:
        return f", did you mean {near[0]!r}?"
    if not known or len(known) > MOST_LISTED:
        return ""
    return f" (one of {', '.join(known)})" if len(known) > 1 else f" (only {known[0]})"


def dotted(path: Path) -> str:
    """`nodes.alice.link.loss`."""
    return ".".join(map(str, path))


@dataclass(slots=True)
class Source:
    """A file that is being read, and what has been found wrong with it so far."""

    file: str
    tree: Tree
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.problems += self.tree.problems

    def add(self, path: Path, message: str, *, key: bool = False) -> None:
        """A problem at the value at `path`, or at its key. Steps that a person did not write are left out."""
        path = _locate(self.tree.data, path)
        mark = self.tree.mark(path, key=key)
        self.problems.append(Problem(self.file, mark.line, mark.column, dotted(path), message))

    def raise_problems(self) -> None:
        """SpecError where there are any."""
        if self.problems:
            raise SpecError(self.problems)

    def validate(self, model: type[M], data: Any, hidden: Iterable[str] = ()) -> M | None:
        """`data`, this file's own, as `model`; None where it is not one. `hidden` keys are never suggested."""
        try:
            return model.model_validate(data, context=CONTEXT_FILE)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._translate(model, data, frozenset(hidden), dict(detail))
            return None

    def _translate(self, model: type[BaseModel], data: Any, hidden: frozenset[str], detail: dict[str, Any]) -> None:
        path = _locate(data, detail["loc"])
        kind: str = detail["type"]
        if kind == "extra_forbidden":
            known = [name for name in _keys_at(model, path[:-1]) if name not in hidden]
            self.add(path, f"unknown key {path[-1]!r}{suggestion(str(path[-1]), known)}", key=True)
            return
        if kind == "missing":
            mark = self.tree.mark(path[:-1], key=len(path) > 1)
            self.problems.append(Problem(self.file, mark.line, mark.column, dotted(path), "is missing"))
            return
        if kind == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            return  # the library does not count entries that are wrong, of which it tells too
        sentence = _SENTENCES.get(kind)
        message = sentence(detail["input"], detail.get("ctx", {})) if sentence else str(detail["msg"])
        self.add(path, message)


def _locate(data: Any, loc: Iterable[str | int]) -> Path:
    """The path of a file that a validator's `loc` means: without the names of union members, and without
    the places in lists that a person did not write.
    """
    path: list[str | int] = []
    steps = list(loc)
    for index, step in enumerate(steps):
        is_last = index == len(steps) - 1
        if isinstance(data, dict) and (step in data or (is_last and isinstance(step, str))):
            data = data.get(step)
        elif isinstance(data, (list, tuple)) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            continue
        path.append(step)
    return tuple(path)


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that may stand at `path` of a file whose top is `model`."""
    here: list[Any] = [model]
    for step in path:
        here = [deeper for annotation in here for deeper in _descend(annotation, step)]
    models = [member for annotation in here for member in _members_or_entries(annotation) if _is_model(member)]
    return [name for found in models for name in found.model_fields]


def _members_or_entries(annotation: Any) -> Iterable[Any]:
    """The members of a union; of a list its entries, since a list of one may be written without its brackets."""
    for member in _members(annotation):
        yield from _members(get_args(member)[0]) if get_origin(member) is tuple else [member]


def _descend(annotation: Any, step: str | int) -> Iterable[Any]:
    for member in _members(annotation):
        if _is_model(member):
            if step in member.model_fields:
                yield member.model_fields[step].annotation
        elif get_origin(member) is dict and isinstance(step, str):
            yield get_args(member)[1]
        elif get_origin(member) is tuple:
            entry = get_args(member)[0]  # without brackets (see above), the step belongs to the entry
            yield from [entry] if isinstance(step, int) else _descend(entry, step)


def _members(annotation: Any) -> Iterable[Any]:
    """The members of a union, without their annotations; of anything else itself."""
    if hasattr(annotation, "__metadata__"):
        yield from _members(annotation.__origin__)
    elif get_origin(annotation) is not None and get_origin(annotation) not in (dict, tuple, list):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _choice(value: Any, context: Mapping[str, Any]) -> str:
    options = re.findall(r"'([^']*)'", str(context["expected"]))
    if not isinstance(value, str):
        return f"{describe(value)} where one of {', '.join(options)} is due"
    return f"{value!r} is not allowed{suggestion(value, options)}"


def _own_words(_: Any, context: Mapping[str, Any]) -> str:
    return str(context["error"])


def _count(value: Any, context: Mapping[str, Any]) -> str:
    due = context.get("min_length", context.get("max_length"))
    held = f"{len(value)} entries" if len(value) != 1 else "1 entry"
    if not value:
        return "an empty mapping" if isinstance(value, dict) else "an empty list"
    return f"{held} where {due} {'is' if due == 1 else 'are'} due"


def _due(what: str) -> Callable[[Any, Mapping[str, Any]], str]:
    return lambda value, _: f"{describe(value)} where {what} is due"


def _member(value: Any, context: Mapping[str, Any]) -> str:
    plain = "a name" if "agent" in context["discriminator"] else "text, a number, true, false"
    return f"{describe(value)} where {plain} or {{command: […]}} is due"


_whole = _due("a whole number")
_mapping = _due("a mapping of keys")

_SENTENCES: Mapping[str, Callable[[Any, Mapping[str, Any]], str]] = {
    "enum": _choice,
    "literal_error": _choice,
    "value_error": _own_words,
    "string_type": lambda value, _: (
        f"{describe(value)} where text is due" + ("; put it in quotes" if isinstance(value, (int, float, bool)) else "")
    ),
    "int_type": _whole,
    "int_from_float": _whole,
    "bool_type": _due("true or false"),
    "dict_type": _mapping,
    "model_type": _mapping,
    "model_attributes_type": _mapping,
    "tuple_type": _due("a list"),
    "too_short": _count,
    "too_long": _count,
    "union_tag_not_found": _member,
    "greater_than_equal": lambda value, context: f"{value} is less than {context['ge']}, the least allowed",
    "less_than_equal": lambda value, context: f"{value} is more than {context['le']}, the most allowed",
    "less_than": lambda value, context: f"{value} is more than {context['lt'] - 1}, the most allowed",
}
"""What each of the validation library's error types says here: (what was written, its context) -> message."""
