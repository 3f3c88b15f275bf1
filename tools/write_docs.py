"""Write the generated parts of README.md and docs/: schemas, both references, pictures, regions of other pages.

Rule 1: nothing here is said that the models do not say: a key's meaning is its docstring.
Rule 2: the same input gives the same bytes, so a test can tell whether docs/ is current.
Rule 3: a region stands between two comments of its page; everything else on that page is a person's.

What the pages show was measured: docs/evidence/ holds the documents of these runs. `make evidence` measures them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from testbed.cli.show import link_text
from testbed.results import comparison
from testbed.results.document import Document, json_schema
from testbed.spec.kinds import KINDS, kind
from testbed.spec.load import load_profile
from testbed.spec.places import FileKind, installed
from testbed.spec.presets import presets, resolve
from testbed.spec.scenario import ABOUT_STRATEGIES, AGENTS, STRATEGIES
from testbed.spec.schema import schema
from testbed.units import DURATION_UNITS, RATE_UNITS
from tools import certificates, commands, drawings, engines, grids, regions, simulation

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SHOWN_COMMAND = "sudo testbed run symmetric_nat"
EVIDENCE = DOCS / "evidence"

_INTRO = """\
# File reference

<!-- Written by `make docs` from the models in testbed/spec/; edits here are lost. -->

Three kinds of YAML files: [topologies](#topology), [NAT profiles](#nat-profile) and [scenarios](#scenario).
`testbed check FILE` reads one as a run would, and tells every mistake with its line and column. For an editor that
knows JSON Schema, `testbed schema topology` prints the grammar; the files that come with the program show the modeline.

* A name (of a topology, of a profile) is looked for beside the file that says it or in its sister folder, then in the
  current directory's `topologies/`, `nat_profiles/` or `scenarios/`, then among what is installed. A word with a slash
  or `.yaml` is a path.
* YAML is version 1.2's: `off` is a word and `010` is ten. Duplicate keys, unknown keys and `<<` are refused.
"""


_EVIDENCE = """\
Any field but the first three may be written as `{value: …, source: "…"}`, which keeps its evidence beside it;
`{value: unknown, source: "…"}` says that no source tells: the default stands in, and a run says so.
"""
_QUANTITIES: Mapping[str, str] = {"20ms": "time", "10mbit": "rate", "0.1%": "share"}
"""By the example that its schema gives."""


def main() -> None:
    """Write every generated file."""
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def generated() -> dict[Path, str]:
    """Path -> text of every generated file."""
    schemas = {DOCS / "schema" / f"{kind.value}.json": _json(schema(kind)) for kind in FileKind}
    run, grid, by_session = (
        Document.from_json((EVIDENCE / f"{name}.json").read_bytes())
        for name in ("symmetric_nat", "grid", "grid_session_reply")
    )
    return {
        **schemas,
        DOCS / "schema" / "result.json": _json(json_schema()),
        DOCS / "schema" / "comparison.json": _json(comparison.json_schema()),
        DOCS / "commands.md": "\n".join(commands.page()).rstrip() + "\n",
        DOCS / "reference.md": "\n".join(_reference()) + "\n",
        DOCS / "images" / "symmetric_nat.svg": drawings.terminal(run, SHOWN_COMMAND),
        DOCS / "images" / "layers.svg": drawings.layers_picture(),
        DOCS / "images" / "grid.svg": grids.picture(grid, by_session),
        ROOT / "README.md": regions.filled("README.md", {"report": regions.fenced("text", drawings.report(run))}),
        DOCS / "nat.md": regions.filled(
            "docs/nat.md",
            {
                "engines": "\n".join(engines.table()),
                "certificates": "\n".join(certificates.table(EVIDENCE / "certificates.json")),
            },
        ),
        DOCS / "comparing.md": regions.filled(
            "docs/comparing.md",
            {"example": regions.fenced("console", drawings.comparison()), "alarms": "\n".join(simulation.table())},
        ),
        DOCS / "design.md": regions.filled(
            "docs/design.md",
            {"packages": "\n".join(_packages()), "result": regions.fenced("json", regions.compact(_first_cell(run)))},
        ),
    }


def _first_cell(run: Document) -> Any:
    return json.loads(run.model_copy(update={"cells": run.cells[:1]}).to_json())


def _packages() -> Iterator[str]:
    rows = [
        (f"`{package.name}`", package.about, ", ".join(f"`{other}`" for other in package.imports) or "nothing")
        for layer in drawings.layers()
        for package in layer
    ]
    yield from _table(("package", "holds", "imports"), rows)


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _reference() -> Iterator[str]:
    yield _INTRO
    yield from _quantities()
    yield from _kind_of_file(
        FileKind.TOPOLOGY, "Topology", ("WrittenNode", "WrittenLink", "Impairment", "GilbertElliott")
    )
    yield from _presets()
    yield from _kind_of_file(FileKind.NAT_PROFILE, "NAT profile", ("Ports", "TcpTimeout"))
    yield from _profiles()
    yield from _kind_of_file(
        FileKind.SCENARIO,
        "Scenario",
        ("Event", "WrittenChange", "Published", "Expectation", "Bound", "Command", "LabChoice"),
    )
    yield from _names("Agents", "`agent: NAME`, or `agent: {command: [...]}` for a program of your own.", AGENTS)
    yield from _strategies()


def _quantities() -> Iterator[str]:
    yield "## Quantities\n"
    yield "A number and a unit, as text; a bare number is refused, and so is what cannot be said exactly.\n"
    yield from _table(
        ("quantity", "units", "example"),
        [
            ("time", ", ".join(f"`{unit}`" for unit in DURATION_UNITS), "`20ms`"),
            ("rate", ", ".join(f"`{unit}`" for unit in RATE_UNITS) + " (per second)", "`10mbit`"),
            ("share", "`%`, down to 0.0001%", "`0.1%`"),
        ],
    )


def _kind_of_file(kind: FileKind, title: str, parts: Iterable[str]) -> Iterator[str]:
    whole = schema(kind)
    yield f"## {title}\n"
    yield f"{whole['description']}\n"
    if kind is FileKind.NAT_PROFILE:
        yield _EVIDENCE
    yield from _keys(whole, whole["$defs"])
    for name in parts:
        yield f"### {_heading(name)}\n"
        yield f"{whole['$defs'][name]['description']}\n"
        yield from _keys(whole["$defs"][name], whole["$defs"])


def _keys(model: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[str]:
    required = model.get("required", ())
    rows = []
    for name, field in model["properties"].items():
        default = "**required**" if name in required else _default(field)
        rows.append((f"`{name}`", _type(field, defs), default, _meaning(field, defs)))
    yield from _table(("key", "value", "default", "meaning"), rows)


def _default(field: Mapping[str, Any]) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def _meaning(field: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if "description" in field:
        return str(field["description"])
    for member in (field, *field.get("anyOf", ())):
        if "$ref" in member:
            return str(_target(member, defs)["description"])
    return ""


def _type(part: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    match part:
        case {"$ref": _} if "enum" in _target(part, defs):
            return _type(_target(part, defs), defs)
        case {"$ref": ref}:
            name = _heading(ref.rpartition("/")[2])
            return f"[{name}](#{name.replace(' ', '-')})"
        case {"anyOf": members} if {"type": "number"} in members:
            return "value"
        case {"anyOf": members}:
            kept = [m for m in members if m != {"type": "null"} and "source" not in m.get("properties", ())]
            return " or ".join(dict.fromkeys(_type(member, defs) for member in kept))
        case {"enum": _, "description": "A preset's name."}:
            return "[preset](#link-presets)"
        case {"enum": choices}:
            return ", ".join(f"`{choice}`" for choice in choices)
        case {"const": value}:
            return f"`{value}`"
        case {"type": "string", "pattern": _, "examples": [example, *_]}:
            quantity = _QUANTITIES.get(example)
            return f"[{quantity}](#quantities)" if quantity else f"text such as `{example}`"
        case {"type": "string"}:
            return "text"
        case {"type": "integer"}:
            return "whole number" + _bounds(part)
        case {"type": "number"}:
            return "number"
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "array", "prefixItems": items}:
            return f"list of {len(items)} × {_type(items[0], defs)}"
        case {"type": "array", "items": items}:
            inner = _type(items, defs)
            return f"list of ({inner})" if " or " in inner else f"list of {inner}"
        case {"type": "object", "properties": known}:
            return "mapping of " + ", ".join(f"`{name}`" for name in known)
        case {"type": "object", "additionalProperties": values}:
            return f"mapping of names to {_type(values, defs)}"
        case _:
            raise ValueError(f"no words for {part}")


def _bounds(part: Mapping[str, Any]) -> str:
    if "minimum" not in part:
        return ""
    most = part["maximum"] if "maximum" in part else part["exclusiveMaximum"] - 1
    shown = f"2^{most.bit_length()} - 1" if most >= 2**32 else str(most)
    return f", {part['minimum']} to {shown}"


def _target(part: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = defs[part["$ref"].rpartition("/")[2]]
    return found


def _heading(name: str) -> str:
    """`WrittenNode` -> `node`, `GilbertElliott` -> `gilbert elliott`."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name.removeprefix("Written"))
    return words.strip()


def _presets() -> Iterator[str]:
    yield "### Link presets\n"
    yield "A link by name: `link: fibre`, or `link: {preset: fibre, loss: 1%}`.\n"
    yield from _table(
        ("preset", "is", "link", "source"),
        [(f"`{name}`", p.description, link_text(resolve(p.link)), p.source) for name, p in presets().items()],
    )


def _profiles() -> Iterator[str]:
    yield "### The nine kinds\n"
    yield "Mapping and filtering by name. A suffix `-preserve`, `-sequential` or `-random` says how ports are chosen; a"
    yield "last one, `-session-reply`, that answers leave by the mapping that their session came in by.\n"
    made = [profile for name in KINDS if (profile := kind(name)) is not None]
    yield from _table(
        ("name", "mapping", "filtering", "ports"),
        [(f"`{p.name}`", p.mapping, p.filtering, "preserved" if p.ports.preserve else "random") for p in made],
    )
    yield "### Profiles that come with the program\n"
    shipped = [load_profile(str(path)) for path in sorted(installed(FileKind.NAT_PROFILE).glob("*.yaml"))]
    yield from _table(
        ("name", "is", "engine", "sources"),
        [(f"`{p.name}`", p.description, p.engine, "; ".join(p.sources)) for p in shipped],
    )


def _names(title: str, about: str, names: Mapping[str, str]) -> Iterator[str]:
    yield f"### {title}\n"
    yield f"{about}\n"
    yield from _table(("name", "is"), [(f"`{name}`", text) for name, text in names.items()])


def _strategies() -> Iterator[str]:
    yield "### Strategies\n"
    yield "How a direct path is looked for; a factor of the matrix. `parameters:` sets what a strategy knows.\n"
    yield from _table(("name", "is"), [(f"`{name}`", text) for name, text in ABOUT_STRATEGIES.items()])
    rows = [
        (f"`{name}`", f"`{key}`", f"{known.least} to {known.most}", str(known.default), known.about)
        for name, parameters in STRATEGIES.items()
        for key, known in parameters.items()
    ]
    yield from _table(("strategy", "parameter", "whole number", "default", "means"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


if __name__ == "__main__":
    main()
