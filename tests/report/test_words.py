"""Numbers as text."""

from __future__ import annotations

import pytest

from testbed.report import words
from testbed.report.words import ASCII, UNICODE, Glyphs
from testbed.results.document import Quantile, Rate
from testbed.stats import Proportion, wilson


def rate(share: Proportion) -> Rate:
    return Rate.model_validate({name: getattr(share, name) for name in Rate.model_fields})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00"), (0.00561, "5.61"), (0.009994, "9.99"), (0.009996, "10.0"), (0.0561, "56.1"), (0.09996, "100"),
     (0.1112, "111"), (12.3456, "12346")],
    ids=str,
)  # fmt: skip
def test_milliseconds_have_three_digits(seconds: float, text: str) -> None:
    assert words.milliseconds(seconds) == text


@pytest.mark.parametrize(("share", "text"), [(1.0, "100"), (0.96667, "96.7"), (0.0, "0"), (0.5, "50"), (0.0004, "0")])
def test_percents(share: float, text: str) -> None:
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("k", "n", "g", "text"),
    [
        pytest.param(30, 30, UNICODE, "100 % [88.6–100]", id="all"),
        pytest.param(29, 30, ASCII, "96.7 % [83.3-99.4]", id="in ASCII"),
        pytest.param(0, 0, UNICODE, "no trial counted", id="none"),
    ],
)
def test_rates(k: int, n: int, g: Glyphs, text: str) -> None:
    assert words.rate_text(rate(wilson(k, n)), g) == text


@pytest.mark.parametrize(
    ("quantile", "value", "interval"),
    [
        pytest.param(Quantile(value=0.111, low=0.108, high=0.115), "111", "108–115", id="known"),
        pytest.param(Quantile(value=0.111, low=0.108, high=None), "111", "108–…", id="open above"),
        pytest.param(Quantile(value=0.111, low=None, high=None), "111", "…–…", id="too few trials"),
        pytest.param(Quantile(value=None, low=0.2, high=None, exceeds=10.0), ">10 s", "200–…", id="censored"),
        pytest.param(
            Quantile(value=None, low=None, high=None, exceeds=0.25), ">250", "…–…", id="censored, short deadline"
        ),
        pytest.param(Quantile(value=None, low=None, high=None), "–", "", id="nothing"),
    ],
)
def test_quantiles(quantile: Quantile, value: str, interval: str) -> None:
    assert words.quantile_value(quantile, UNICODE) == value
    assert words.quantile_interval(quantile, UNICODE) == interval


@pytest.mark.parametrize(
    ("share", "g", "drawn"),
    [
        pytest.param(0.0, UNICODE, "░░░░", id="nothing"),
        pytest.param(1.0, UNICODE, "████", id="all"),
        pytest.param(0.5, UNICODE, "██░░", id="half"),
        pytest.param(0.53125, UNICODE, "██▏░", id="an eighth more"),
        pytest.param(0.53125, ASCII, "##..", id="ASCII has no eighths"),
        pytest.param(None, UNICODE, "    ", id="unknown"),
    ],
)
def test_bars(share: float | None, g: Glyphs, drawn: str) -> None:
    assert "".join(words.bar(share, 4, g)) == drawn


@pytest.mark.parametrize(
    ("key", "name"),
    [("nat_a", "nat_a"), ("nodes.alice.link.loss", "alice.loss"), ("nodes", "nodes"), ("strategy", "strategy")],
)
def test_names_of_factors(key: str, name: str) -> None:
    assert words.factor_name(key) == name


@pytest.mark.parametrize(
    ("encoding", "found"), [("utf-8", UNICODE), ("UTF8", UNICODE), ("ascii", ASCII), ("latin-1", ASCII)]
)
def test_what_a_stream_can_show(encoding: str, found: Glyphs) -> None:
    assert words.glyphs(encoding) is found


def test_ascii_is_ascii() -> None:
    assert all(getattr(ASCII, name).isascii() for name in Glyphs.__slots__)
