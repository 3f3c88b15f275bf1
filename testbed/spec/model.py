"""What every model of a user's file has in common.

Rule 1: a model is the value that the program runs on *and* the grammar of the file: one definition,
        from which the JSON Schema and the reference are generated.
Rule 2: text is read as units only when it comes from a file (`CONTEXT_FILE`): there a bare number is
        refused. In Python, a quantity is an integer of its type already.
Rule 3: nothing about this machine is looked at here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, WithJsonSchema

from testbed import units

CONTEXT_FILE = {"from_file": True}
"""The validation context that says: these values were read from a file."""


class Model(BaseModel):
    """A frozen value; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def from_file(info: ValidationInfo) -> bool:
    """Whether the value being validated was read from a file."""
    return bool(info.context and info.context.get("from_file"))


def _reader(parse: Callable[[str], int]) -> Callable[[Any, ValidationInfo], Any]:
    def read(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            return parse(value)
        if from_file(info):
            return parse(str(value)) if isinstance(value, (int, float)) else parse(f"{value!r}")
        return value

    return read


Duration = Annotated[
    int,
    BeforeValidator(_reader(units.parse_duration)),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+\s*(ns|us|ms|s|min|h)$", "examples": ["20ms"]}),
]
Rate = Annotated[
    int,
    BeforeValidator(_reader(units.parse_rate)),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+\s*[kmg]?bit$", "examples": ["10mbit"]}),
]
Probability = Annotated[
    int,
    BeforeValidator(_reader(units.parse_probability)),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+\s*%$", "examples": ["0.1%"]}),
]
