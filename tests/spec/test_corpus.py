"""Every broken file of tests/data/broken gets exactly the words beside it in its `.expected` file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from testbed.errors import ExitStatus, SpecError
from testbed.spec.load import load_any
from tests.spec.corpus import BROKEN, MISTAKES, ROOT, SHIPPED


@pytest.mark.parametrize("path", MISTAKES, ids=str)
def test_a_broken_file_gets_its_words(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    with pytest.raises(SpecError) as caught:
        load_any(path)
    assert str(caught.value) == path.with_suffix(".expected").read_text(encoding="utf-8").rstrip("\n")
    assert caught.value.exit_status is ExitStatus.USAGE


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_a_shipped_file_is_right(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    load_any(path)
    assert path.read_text().startswith("# yaml-language-server: $schema=../docs/schema/")


def test_the_corpus_is_large_and_complete() -> None:
    kinds = Counter(path.parent.name for path in MISTAKES)
    assert len(MISTAKES) >= 40
    assert min(kinds[folder] for folder in ("topologies", "nat_profiles", "scenarios")) >= 10
    assert {path.with_suffix("") for path in MISTAKES} == {
        path.relative_to(BROKEN).with_suffix("") for path in BROKEN.glob("*/*.expected")
    }
