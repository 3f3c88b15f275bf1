"""Links by name, and from what a person wrote to both directions of a link.

Rule 1: a preset names its source; the file beside this one holds nothing else.
Rule 2: what is written later in the chain wins: preset, then the keys of both directions, then `up:`/`down:`.
Rule 3: only what was written overrides; a default never does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path as FilePath

from testbed.spec.link import Impairment, Link
from testbed.spec.model import Model
from testbed.spec.places import read
from testbed.spec.written import WrittenChange, WrittenLink

FILE = FilePath(__file__).with_name("link_presets.yaml")


class Preset(Model):
    """A link by name, with the source of its numbers."""

    description: str
    source: str
    link: WrittenLink


class _Presets(Model):
    presets: dict[str, Preset]


@cache
def presets() -> Mapping[str, Preset]:
    """Every preset, in the file's order."""
    source, _ = read(FILE)
    found = source.validate(_Presets, {"presets": source.tree.data})
    source.raise_problems()
    assert found is not None
    return found.presets


def resolve(written: WrittenLink) -> Link:
    """The link that was meant. Raises KeyError where its preset does not exist."""
    base = Link() if written.preset is None else resolve(presets()[written.preset].link)
    own = {name: getattr(written, name) for name in {"mtu", "seed"} & written.model_fields_set}
    return base.model_copy(update={**_overridden(base, written), **own})


def changed(link: Link, written: WrittenChange) -> Link:
    """What becomes of a link by a change: a preset replaces what it did, then each key says what is new.

    Raises KeyError where its preset does not exist.
    """
    base = link
    if written.preset is not None:
        named = resolve(presets()[written.preset].link)
        base = link.model_copy(update={"up": named.up, "down": named.down})
    return base.model_copy(update=_overridden(base, written))


def _overridden(base: Link, written: WrittenChange) -> dict[str, object]:
    shared = _said(written)
    return {
        name: getattr(base, name).model_copy(update={**shared, **_said(getattr(written, name))})
        for name in ("up", "down")
    }


def contradictions(link: Link) -> Iterator[str]:
    """What a link says that can have no effect, as sentences; told once where both directions say it."""
    told = {name: list(getattr(link, name).contradictions()) for name in ("up", "down")}
    yield from told["up"] if told["up"] == told["down"] else []
    if told["up"] != told["down"]:
        yield from (f"{name}: {sentence}" for name, sentences in told.items() for sentence in sentences)


def _said(impairment: Impairment) -> dict[str, object]:
    """The impairments that were written, not those that hold their default."""
    names = Impairment.model_fields.keys() & impairment.model_fields_set
    return {name: getattr(impairment, name) for name in names}
