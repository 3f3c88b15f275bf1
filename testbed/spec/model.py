"""What every model of a user's file has in common.

Rule 1: a model is the value that the program runs on *and* the grammar of the file: one definition,
        from which the JSON Schema and the reference are generated.
Rule 2: text is read as units only when it comes from a file (`CONTEXT_FILE`): there a bare number is
        refused. In Python, a quantity is an integer of its type already.
Rule 3: nothing about this machine is looked at here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    SerializationInfo,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from testbed import units

CONTEXT_FILE = {"from_file": True}
"""The validation context that says: these values were read from a file."""

CONTEXT_WRITTEN = {"written": True}
"""The serialization context that asks for quantities as a person writes them."""


class Model(BaseModel):
    """A frozen value; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def from_file(info: ValidationInfo) -> bool:
    """Whether the value being validated was read from a file."""
    return bool(info.context and info.context.get("from_file"))


def _reader(parse: Callable[[str], int], example: str) -> BeforeValidator:
    def read(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            return parse(value)
        if not from_file(info):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return parse(str(value))
        raise ValueError(f"{describe(value)} where a number and a unit is due, such as {example}")

    return BeforeValidator(read)


def _writer(write: Callable[[int], str]) -> PlainSerializer:
    def serialize(value: int, info: SerializationInfo) -> int | str:
        return write(value) if info.context and info.context.get("written") else value

    return PlainSerializer(serialize)


def describe(value: Any) -> str:
    """A value of a file as a message names it: what was written, or what kind of thing it is."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str():
            return repr(value)
        case _:
            return str(value)


DURATION_SCHEMA: JsonSchemaValue = {
    "type": "string",
    "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ns|us|µs|ms|s|min|h)\s*$",
    "examples": ["20ms"],
}
Duration = Annotated[
    int,
    _reader(units.parse_duration, "20ms"),
    _writer(units.format_duration),
    WithJsonSchema(DURATION_SCHEMA),
]
Rate = Annotated[
    int,
    _reader(units.parse_rate, "10mbit"),
    _writer(units.format_rate),
    WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*[kmg]?bit\s*$", "examples": ["10mbit"]}),
]
Probability = Annotated[
    int,
    _reader(units.parse_probability, "0.1%"),
    _writer(units.format_probability),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\s*0*(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,4}0*)?)\s*%\s*$", "examples": ["0.1%"]}
    ),
]
Whole = Annotated[int, Strict()]
"""A whole number: neither `true` nor the text `5` is one."""
Flag = Annotated[bool, Strict()]
"""`true` or `false`, and nothing that resembles them."""


@dataclass(frozen=True, eq=False)
class Shorthand:
    """An annotation: a shorter way to write a value, and what it stands for."""

    expand: Callable[[Any], Any]
    """From what a person wrote to the long form; what is long already comes back as it is."""
    schema: JsonSchemaValue
    """Of the short form."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [self.schema, handler(schema)]}


@dataclass(frozen=True)
class OneOrMore:
    """An annotation: a list that may be written without brackets where it has one entry."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_as_list, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        whole = handler(schema)
        return {"anyOf": [whole["items"], whole]}


def _as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]
