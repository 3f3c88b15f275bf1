"""JSON Schemas of the three kinds of files, made from the models that read them.

Rule 1: a schema accepts every file that `check` accepts, and refuses every mistake of grammar: unknown keys, wrong
        shapes, words that are not choices, numbers without units. What depends on other parts of a file, or on
        other files, only `check` knows.
Rule 2: each key carries its docstring and its default, both as a person writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from testbed.spec.kinds import KINDS
from testbed.spec.model import CONTEXT_WRITTEN
from testbed.spec.places import FileKind
from testbed.spec.presets import presets
from testbed.spec.profile import NatProfile
from testbed.spec.profile_rules import NOT_WRITTEN, PROSE, UNKNOWN
from testbed.spec.scenario import Scenario
from testbed.spec.written import PRESET_NAME, WrittenChange, WrittenTopology

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS: Mapping[FileKind, type[BaseModel]] = {
    FileKind.TOPOLOGY: WrittenTopology,
    FileKind.NAT_PROFILE: NatProfile,
    FileKind.SCENARIO: Scenario,
}
_NESTED_PROFILE_MODELS = ("Ports", "TcpTimeout")
"""Those of a profile whose fields may each carry evidence too."""


def schema(kind: FileKind) -> JsonSchemaValue:
    """The JSON Schema of a kind of file."""
    made: JsonSchemaValue = MODELS[kind].model_json_schema(schema_generator=_Generator)
    if kind is FileKind.NAT_PROFILE:
        _allow_evidence(made, except_for=PROSE)
        for name in _NESTED_PROFILE_MODELS:
            _allow_evidence(made["$defs"][name], except_for=())
    elif kind is FileKind.TOPOLOGY:
        made["$defs"]["WrittenNode"]["properties"]["profile"]["examples"] = list(KINDS)
    tidied: JsonSchemaValue = _tidy(made)
    return {"$schema": DIALECT, "title": f"{kind.value.replace('-', ' ')} of testbed", **tidied}


class _Generator(GenerateJsonSchema):
    """Leaves out what is not written in a file, and gives defaults as they would be written."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Without the default, which the library would write as the number it is inside."""
        return self.generate_inner(schema["schema"])

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """With the defaults of plain values; what a nested model holds by default, it says itself."""
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        defaults = model.model_construct().model_dump(mode="json", context=CONTEXT_WRITTEN)
        hidden = NOT_WRITTEN if model is NatProfile else ("name",) if model is Scenario else ()
        for name in hidden:
            del made["properties"][name]
        if model is WrittenChange:  # what it does not say stays as it is
            defaults = {}
        for name, written in made["properties"].items():
            default = defaults.get(name)
            if isinstance(default, (str, int)) and default != "":
                written["default"] = default
        return made


def _allow_evidence(model: JsonSchemaValue, except_for: tuple[str, ...]) -> None:
    """Let each field be `{value: …, source: …}` too, its value `unknown` where no source says it."""
    for name, plain in model["properties"].items():
        if name in except_for:
            continue
        about = {key: plain.pop(key) for key in ("description", "default") if key in plain}
        with_evidence = {
            "type": "object",
            "description": "The value, or `unknown`, and its source.",
            "properties": {
                "value": {"anyOf": [plain, {"const": UNKNOWN}]},
                "source": {"type": "string", "minLength": 1},
            },
            "required": ["value", "source"],
            "additionalProperties": False,
        }
        model["properties"][name] = {**about, "anyOf": [plain, with_evidence]}


def _tidy(part: Any) -> Any:
    """Without titles, which repeat the keys; with the names of presets; and with unions that may overlap.

    The library writes `oneOf` for a union with a discriminator, but 5 is both an integer and a number.
    """
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    if {key: part.get(key) for key in PRESET_NAME} == PRESET_NAME:
        return {**PRESET_NAME, "enum": list(presets())}
    tidied: dict[str, Any] = {}
    for key, value in part.items():
        match key:
            case "title":
                pass
            case "properties" | "$defs":
                tidied[key] = {name: _tidy(inner) for name, inner in value.items()}
            case "description":
                tidied[key] = " ".join(value.split())
            case _:
                tidied["anyOf" if key == "oneOf" else key] = _tidy(value)
    return tidied
