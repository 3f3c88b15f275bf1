"""Parts of a person's page that are written by a program: between two comments of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
JSON_WIDTH = 220


def filled(name: str, bodies: Mapping[str, str]) -> str:
    """The page with what stands between the comments of each region replaced."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for region, body in bodies.items():
        first, last = f"<!-- {region}: written by `make docs` -->", f"<!-- end of {region} -->"
        if text.count(first) != 1 or text.count(last) != 1:
            raise ValueError(f"{name} has no region {region!r}")
        before, _, rest = text.partition(first)
        text = f"{before}{first}\n\n{body.rstrip()}\n\n{last}{rest.partition(last)[2]}"
    return text


def fenced(language: str, text: str) -> str:
    """A fenced block."""
    return f"```{language}\n{text.rstrip()}\n```"


def compact(value: Any, indent: int = 0) -> str:
    """JSON whose small parts stand on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= JSON_WIDTH or not isinstance(value, (dict, list)):
        return line
    first, last = "{}" if isinstance(value, dict) else "[]"
    parts = (
        [f"{json.dumps(key)}: {compact(item, indent + 1)}" for key, item in value.items()]
        if isinstance(value, dict)
        else [compact(item, indent + 1) for item in value]
    )
    inner = ",\n".join(" " * (indent + 1) + part for part in parts)
    return f"{first}\n{inner}\n{' ' * indent}{last}"
