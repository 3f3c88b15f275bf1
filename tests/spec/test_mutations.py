"""Whatever a file's bytes are: a value, or messages with positions; never another exception.

Each example is a shipped file with a few random changes: lines, words, values and bytes.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import Problem, SpecError
from testbed.spec.load import load_any
from testbed.spec.places import FileKind, read
from testbed.spec.schema import schema
from testbed.spec.yaml_text import parse
from tests.spec.corpus import ROOT, SHIPPED

TEXTS = {path: (ROOT / path).read_bytes() for path in SHIPPED}
VALIDATORS = {kind.folder: jsonschema.Draft202012Validator(schema(kind)) for kind in FileKind}
WITHOUT_PLACE = ("is empty",)

WORDS_OF_FILES = """
nat_a alice internet nodes kind uplink link profile matrix eim-eif apdm-apdf linux-masquerade fibre unknown none 20ms
5% 10mbit 10mbps -1 0 7.5 1e400 true null ~ off [] {} [[a,b]] {value:1} *x &x !!str !!binary | > - : ? # ' " <<
{value:unknown,source:x} {preset:dsl} nodes.alice.link.loss regions pairs
"""
WORDS = st.sampled_from(WORDS_OF_FILES.split())
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=4,
)
Change = Callable[[bytes], bytes]


@st.composite
def changes_of_lines(draw: st.DrawFn) -> Change:
    kind, one, other = (
        draw(st.sampled_from(["delete", "duplicate", "swap"])),
        draw(st.integers(0, 99)),
        draw(st.integers(0, 99)),
    )

    def change(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True) or [b""]
        a, b = one % len(lines), other % len(lines)
        match kind:
            case "delete":
                del lines[a]
            case "duplicate":
                lines.insert(b, lines[a])
            case _:
                lines[a], lines[b] = lines[b], lines[a]
        return b"".join(lines)

    return change


@st.composite
def changes_of_words(draw: st.DrawFn) -> Change:
    word, place = draw(WORDS).encode(), draw(st.integers(0, 999))

    def change(content: bytes) -> bytes:
        spans = [match.span() for match in re.finditer(rb"[^\s{}\[\],:]+|[{}\[\],:]", content)]
        if not spans:
            return word
        start, end = spans[place % len(spans)]
        return content[:start] + word + content[end:]

    return change


@st.composite
def changes_of_bytes(draw: st.DrawFn) -> Change:
    place, cut, put = draw(st.integers(0, 9999)), draw(st.integers(0, 3)), draw(st.binary(max_size=3))

    def change(content: bytes) -> bytes:
        at = place % (len(content) + 1)
        return content[:at] + put + content[at + cut :]

    return change


@st.composite
def changes_of_values(draw: st.DrawFn) -> Change:
    """Of the file as data: a key renamed or taken away, a value put in its place. Written as JSON, which YAML reads."""
    kind, place = draw(st.sampled_from(["delete", "rename", "replace"])), draw(st.integers(0, 999))
    word, value = draw(WORDS), draw(VALUES)

    def change(content: bytes) -> bytes:
        try:
            tree = parse("x.yaml", content.decode())
        except (SpecError, UnicodeDecodeError):
            return content
        paths = [path for path in tree.values if path]
        if not paths:
            return content
        *above, last = paths[place % len(paths)]
        data = tree.data
        holder = data
        for step in above:
            holder = holder[step]
        match kind:
            case "replace":
                holder[last] = value
            case "rename" if isinstance(holder, dict):
                holder[word] = holder.pop(last)
            case _:
                del holder[last]
        return json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")

    return change


MUTATED = st.tuples(
    st.sampled_from(SHIPPED),
    st.lists(
        changes_of_lines() | changes_of_words() | changes_of_bytes() | changes_of_values(), min_size=1, max_size=3
    ),
)


def outcome(path: Path, content: bytes) -> tuple[Problem, ...]:
    """The problems of a file of these bytes in a folder of this kind; none where it loads."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path
        file.parent.mkdir()
        file.write_bytes(content)
        try:
            load_any(file)
        except SpecError as error:
            return error.problems
        source, _ = read(file)
        VALIDATORS[path.parent.name].validate(source.tree.data)
        return ()


@given(mutated=MUTATED)
@settings(max_examples=300)
def test_a_changed_file_loads_and_keeps_to_the_schema_or_is_told_with_a_place(
    mutated: tuple[Path, list[Change]],
) -> None:
    path, changes = mutated
    content = TEXTS[path]
    for change in changes:
        content = change(content)
    for problem in outcome(path, content):
        assert problem.message
        assert problem.line >= 1 or problem.message in WITHOUT_PLACE, str(problem)
        assert problem.column >= 1 or problem.line == 0
        assert "pydantic" not in problem.message


@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
@settings(max_examples=200)
def test_any_bytes_are_told_with_a_place(content: bytes) -> None:
    for problem in outcome(Path("topologies/x.yaml"), content):
        assert problem.line >= 1 or problem.message in WITHOUT_PLACE, str(problem)
