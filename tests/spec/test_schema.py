"""The JSON Schemas say what `check` says, as far as a grammar can."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from testbed.errors import SpecError
from testbed.spec.load import kind_of
from testbed.spec.places import FileKind, read
from testbed.spec.schema import schema
from tests.spec.corpus import BROKEN, MISTAKES, ROOT, SHIPPED
from tools.write_docs import generated

ONLY_CHECK_KNOWS: Mapping[str, tuple[str, ...]] = {
    "what depends on another key of the file": (
        "nat_profiles/block",
        "nat_profiles/blocks",
        "nat_profiles/blocks_for_good",
        "nat_profiles/own_timers",
        "nat_profiles/firewall",
        "nat_profiles/pooling",
        "nat_profiles/step",
        "scenarios/dotted_whole_and_part",
        "scenarios/expectation_bounds_again",
        "scenarios/expectation_of_no_cell",
        "scenarios/expectations",
        "scenarios/pairs_again",
        "scenarios/too_many_cells",
        "scenarios/value_twice",
        "topologies/below_a_peer",
        "topologies/correlated_pareto",
        "topologies/cycle",
        "topologies/dangling_uplink",
        "topologies/hidden_rendezvous",
        "topologies/links_and_uplinks",
        "topologies/multi_homed_nat",
        "topologies/no_effect",
        "topologies/own_uplink",
        "topologies/regions_differ",
        "topologies/role",
        "topologies/room",
        "topologies/uplink_twice",
    ),
    "what depends on another file, or on the file's own name": (
        "nat_profiles/eim-eif",
        "scenarios/dotted",
        "scenarios/dotted_together",
        "scenarios/dotted_values",
        "scenarios/event_places",
        "scenarios/population",
        "scenarios/population_missing",
        "scenarios/no_profile",
        "scenarios/nothing_varied",
        "scenarios/older_words",
        "scenarios/one_peer",
        "scenarios/pairs_needed",
        "scenarios/unknown_factor",
        "scenarios/unknown_kind",
        "scenarios/unknown_path",
        "scenarios/unknown_topology",
        "topologies/broken_profile",
        "topologies/firewall_on_a_nat",
        "topologies/unknown_profile",
    ),
    "what a pattern cannot tell of a value": (
        "nat_profiles/range",
        "nat_profiles/step_of_zero",
        "scenarios/no_time",
        "topologies/ipv6",
        "topologies/prefixes_of_no_use",
    ),
    "what is gone once YAML is data": ("topologies/duplicate_key", "topologies/duplicate_node"),
}
BEYOND_GRAMMAR = frozenset(name for names in ONLY_CHECK_KNOWS.values() for name in names)


def readable() -> Iterator[tuple[Path, FileKind, Any]]:
    """The broken files that are YAML, and of a kind."""
    for path in MISTAKES:
        try:
            source, _ = read(BROKEN / path)
            yield path, kind_of(BROKEN / path), source.tree.data
        except SpecError:
            continue


def validator(kind: FileKind) -> Any:
    return jsonschema.Draft202012Validator(schema(kind))


@pytest.mark.parametrize("kind", FileKind)
def test_a_schema_is_one(kind: FileKind) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(kind))


@pytest.mark.parametrize("kind", FileKind)
def test_every_key_says_what_it_means(kind: FileKind) -> None:
    whole = schema(kind)
    for model in (whole, *whole["$defs"].values()):
        assert model["description"]
        for name, field in model.get("properties", {}).items():
            refers = [field, *field.get("anyOf", ())]
            assert "description" in field or any("$ref" in part for part in refers), f"{kind}: {name}"


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_shipped_files_keep_to_it(path: Path) -> None:
    source, _ = read(ROOT / path)
    validator(kind_of(ROOT / path)).validate(source.tree.data)


def test_it_refuses_exactly_the_mistakes_of_grammar() -> None:
    validators = {kind: validator(kind) for kind in FileKind}
    accepted = {str(path.with_suffix("")) for path, kind, data in readable() if validators[kind].is_valid(data)}
    assert accepted == BEYOND_GRAMMAR


DEFAULTS = [
    (FileKind.TOPOLOGY, ("$defs", "WrittenLink", "properties", "delay"), "0s"),
    (FileKind.TOPOLOGY, ("$defs", "GilbertElliott", "properties", "bad_loss"), "100%"),
    (FileKind.NAT_PROFILE, ("properties", "udp_timeout"), "180s"),
    (FileKind.NAT_PROFILE, ("$defs", "Ports", "properties", "range"), "1024-65535"),
    (FileKind.NAT_PROFILE, ("$defs", "Ports", "properties", "block"), "none"),
    (FileKind.SCENARIO, ("properties", "deadline"), "10s"),
    (FileKind.SCENARIO, ("properties", "trials"), 30),
]


@pytest.mark.parametrize(("kind", "path", "default"), DEFAULTS, ids=[row[1][-1] for row in DEFAULTS])
def test_defaults_are_given_as_one_would_write_them(kind: FileKind, path: tuple[str, ...], default: object) -> None:
    part = schema(kind)
    for step in path:
        part = part[step]
    assert part["default"] == default


GENERATED = generated()
"""Once: it takes a second."""


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_docs_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == GENERATED[path], "run `make docs`"


def test_schemas_of_docs_are_those_of_the_command() -> None:
    for kind in FileKind:
        assert json.loads((ROOT / "docs" / "schema" / f"{kind.value}.json").read_text()) == schema(kind)
