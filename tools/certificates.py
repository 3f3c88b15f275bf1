"""The table of certificates on docs/nat.md: what `testbed nat test --all` has observed, a line for each profile."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from testbed.spec.kinds import FILTERINGS, MAPPINGS

_SHORT = {
    **{value.value: name.upper() for name, value in MAPPINGS.items()},
    "none": "–",
}
_SHORT_FILTERS = {**{value.value: name.upper() for name, value in FILTERINGS.items()}, "none": "–"}
_COLUMNS = ("mapping", "filtering", "ports", "hairpinning", "udp_timeout", "refresh", "unsolicited")


def table(path: Path) -> Iterator[str]:
    """The lines of the table, from the document of `testbed nat test --all --json`."""
    profiles = json.loads(path.read_bytes())["profiles"]
    yield f"| profile | engine | {' | '.join(_COLUMNS)} | rows |"
    yield f"|---|---|{'---|' * len(_COLUMNS)}---|"
    for profile in profiles:
        rows = {row["name"]: row for row in profile["behaviours"]}
        cells = [_observed(rows, column) for column in _COLUMNS]
        yield f"| `{profile['profile']}` | {profile['engine']} | {' | '.join(cells)} | {_verdict(profile)} |"
    agreeing = sum(profile["agrees"] for profile in profiles)
    count = sum(len(profile["behaviours"]) for profile in profiles)
    yield ""
    yield f"{agreeing} of {len(profiles)} profiles are what they say, in {count} rows."


def _observed(rows: Mapping[str, Mapping[str, Any]], column: str) -> str:
    if column == "ports":
        words = ["kept" if _value(rows, "ports.preserve") == "true" else "", _value(rows, "ports.otherwise")]
        block = _value(rows, "ports.block")
        where = f", in blocks of {block}" if block not in ("", "none") else ""
        return (", else ".join(filter(None, words)) or "–") + where
    value = _value(rows, column)
    return {"mapping": _SHORT, "filtering": _SHORT_FILTERS}.get(column, {}).get(value, value) or "–"


def _value(rows: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return str(rows[name]["observed"]) if name in rows else ""


def _verdict(profile: Mapping[str, Any]) -> str:
    rows = profile["behaviours"]
    wrong = [row["name"] for row in rows if not row["agrees"]]
    return f"{len(rows)} agree" if not wrong else f"**not {', '.join(wrong)}**"
