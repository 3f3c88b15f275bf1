"""YAML 1.2 scalars, positions, and what is refused before any model sees it."""

from __future__ import annotations

import math

import pytest

from testbed.errors import SpecError
from testbed.spec.yaml_text import MAX_NODES, Mark, parse

SCALARS = [
    # (as written, what it is, why it is worth a row)
    ("off", "off", "YAML 1.1 reads false"),
    ("yes", "yes", "YAML 1.1 reads true"),
    ("n", "n", "YAML 1.1 reads false"),
    ("1:30", "1:30", "YAML 1.1 reads 90"),
    ("010", 10, "YAML 1.1 reads 8"),
    ("0o10", 8, "octal, as 1.2 writes it"),
    ("0x1F", 31, "hexadecimal"),
    ("1_000", "1_000", "YAML 1.1 reads 1000"),
    ("2001-01-01", "2001-01-01", "YAML 1.1 reads a date"),
    ("true", True, "the core schema's own word"),
    ("TRUE", True, "and its other spellings"),
    ("tRue", "tRue", "but not all"),
    ("null", None, "nothing"),
    ("~", None, "nothing, shorter"),
    ("", None, "nothing, shortest"),
    ("'null'", "null", "in quotes it is text"),
    ('"5"', "5", "in quotes it is text"),
    ("!!str 5", "5", "a tag that says text"),
    ("-5", -5, "a number"),
    ("+5", 5, "a number"),
    ("5.", 5.0, "a number with a bare point"),
    (".5", 0.5, "a number without its zero"),
    ("1e3", 1000.0, "a number with an exponent"),
    ("1e999", "1e999", "too large for a float: kept as text, so that no infinity comes out of a file"),
    (".inf", ".inf", "no quantity is infinite"),
    (".nan", ".nan", "nor undefined"),
    ("9" * 41, "9" * 41, "more digits than any number here: kept as text, which no model takes for a number"),
    ("20ms", "20ms", "a quantity is text"),
    ("=", "=", "YAML 1.1 has a type for this"),
]


@pytest.mark.parametrize(("written", "value", "why"), SCALARS, ids=[row[0][:12] or "empty" for row in SCALARS])
def test_scalars_are_those_of_yaml_1_2(written: str, value: object, why: str) -> None:
    data = parse("x.yaml", f"key: {written}\n").data
    assert data == {"key": value}, why
    assert type(data["key"]) is type(value), why
    assert not isinstance(value, float) or math.isfinite(value)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert parse("x.yaml", "null: 1\n5: 2\ntrue: 3\n'': 4\n").data == {"null": 1, "5": 2, "true": 3, "": 4}


def test_every_key_and_value_has_its_place() -> None:
    tree = parse("x.yaml", "a: 1\nb:\n  - {c: 2}\n")
    assert tree.mark(("b", 0, "c")) == Mark(3, 9)
    assert tree.mark(("b", 0, "c"), key=True) == Mark(3, 6)
    assert tree.mark(("b", 0, "nothing", "here")) == Mark(3, 5), "the nearest thing around what is not there"
    assert tree.mark(("nothing",)) == Mark(1, 1)


def test_all_duplicate_keys_are_told_and_the_first_one_counts() -> None:
    tree = parse("x.yaml", "a: 1\na: 2\nb: {c: 1, c: 2}\na: 3\n")
    assert tree.data == {"a": 1, "b": {"c": 1}}
    assert [str(problem) for problem in tree.problems] == [
        "x.yaml:2:1: duplicate key 'a' (first at line 1)",
        "x.yaml:3:11: duplicate key 'c' (first at line 3)",
        "x.yaml:4:1: duplicate key 'a' (first at line 1)",
    ]


def test_an_alias_is_the_value_and_stands_where_it_is_used() -> None:
    tree = parse("x.yaml", "a: &a {x: 1}\nb: *a\n")
    assert tree.data == {"a": {"x": 1}, "b": {"x": 1}}
    assert tree.mark(("b",)) == Mark(2, 4)


def test_aliases_count_as_often_as_they_are_used() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    with pytest.raises(SpecError, match=f"more than {MAX_NODES} values"):
        parse("x.yaml", "\n".join(lines))


def test_a_long_file_is_refused_before_all_of_it_is_read() -> None:
    with pytest.raises(SpecError, match=f"more than {MAX_NODES} values"):
        parse("x.yaml", "- 1\n" * (MAX_NODES + 1) + "- [")


def test_a_byte_order_mark_and_windows_line_ends_are_nothing_special() -> None:
    assert parse("x.yaml", "a: 1\r\nb: 2\r\n").data == {"a": 1, "b": 2}
