"""From what a person wrote to a NAT profile: evidence, unknowns, and what cannot be.

Rule 1: any field may be written as `{value: …, source: "…"}`; the source is kept beside it as evidence.
Rule 2: `{value: unknown, source: "…"}` is written down as unknown: the field's default stands in, and a run says so.
Rule 3: a field that is set but could have no effect is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from testbed.spec.kinds import kind
from testbed.spec.model import describe
from testbed.spec.problems import Source, dotted
from testbed.spec.profile import NatProfile
from testbed.spec.yaml_text import Path

UNKNOWN = "unknown"
NOT_WRITTEN = ("name", "unknowns", "evidence")
"""Fields of the value that follow from the file instead of standing in it."""
PROSE = ("description", "sources", "observed_on")
"""Fields about the file itself, which have no evidence of their own."""

Refusals = Callable[[NatProfile], Iterable[str]]
"""What an engine cannot do of a profile, as sentences `field: why`; none where it can do all."""


def nothing_refused(_: NatProfile) -> Iterable[str]:
    """The refusals of an engine that can do everything."""
    return ()


def build(source: Source, data: Mapping[str, Any], name: str) -> NatProfile | None:
    """The profile that `data` means; None, and problems in `source`, where it is not one."""
    before = len(source.problems)
    if kind(name) is not None:
        source.add((), f"{name!r} is the name of a built-in kind; give the file another one")
    for key in NOT_WRITTEN:
        if key in data:
            why = "a profile is called as its file is" if key == "name" else "write {value: …, source: …} at the field"
            source.add((key,), f"unknown key {key!r}: {why}", key=True)
    data = {key: value for key, value in data.items() if key not in NOT_WRITTEN}
    stripped, evidence, unknowns = _take_evidence(source, data, NatProfile, ())
    profile = source.validate(NatProfile, stripped, hidden=NOT_WRITTEN)
    if profile is None or len(source.problems) > before:
        return None
    known = {dotted(path): text for path, text in evidence.items() if path not in unknowns}
    profile = profile.model_copy(
        update={"name": name, "unknowns": tuple(dotted(path) for path in unknowns), "evidence": known}
    )
    for field, sentence in profile.contradictions():
        source.add(tuple(field.split(".")), sentence)
    return profile if len(source.problems) == before else None


def refuse(source: Source, profile: NatProfile, refusals: Refusals) -> None:
    """Tell what the engine cannot do, each at the field that its sentence names."""
    for sentence in refusals(profile):
        field, colon, why = sentence.partition(": ")
        path = tuple(field.split("."))
        if colon and path[0] in NatProfile.model_fields:
            source.add(path, why)
        else:
            source.add((), sentence)


def _take_evidence(
    source: Source, data: Mapping[str, Any], model: type[BaseModel], path: Path
) -> tuple[dict[str, Any], dict[Path, str], list[Path]]:
    """The data without its evidence, the evidence by path, and the paths of unknowns."""
    plain: dict[str, Any] = {}
    evidence: dict[Path, str] = {}
    unknowns: list[Path] = []
    for key, value in data.items():
        here = (*path, key)
        deeper = model.model_fields[key].annotation if key in model.model_fields else None
        if isinstance(value, dict) and "value" in value and key in model.model_fields and key not in PROSE:
            text = _text(source, value, here)
            evidence[here] = text
            value = value["value"]
            if value == UNKNOWN:
                unknowns.append(here)
                continue
        elif value == UNKNOWN and key in model.model_fields and key not in PROSE:
            source.add(here, 'what is unknown is written {value: unknown, source: "where it should be said"}')
            continue
        if isinstance(value, dict) and isinstance(deeper, type) and issubclass(deeper, BaseModel):
            inner, more, further = _take_evidence(source, value, deeper, here)
            plain[key] = inner
            evidence |= more
            unknowns += further
        else:
            plain[key] = value
    return plain, evidence, unknowns


def _text(source: Source, written: Mapping[str, Any], path: Path) -> str:
    """The source of `{value: …, source: …}`; a problem where that is not what is written."""
    text = written.get("source")
    if "source" not in written:
        source.add(path, 'a value with evidence needs its source: {value: …, source: "…"}')
    elif not isinstance(text, str) or not text:
        source.add((*path, "source"), f"{describe(text)} where text is due")
    for key in written.keys() - {"value", "source"}:
        source.add((*path, key), f"unknown key {key!r} (one of value, source)", key=True)
    return str(text)
