"""Numbers as text, the same everywhere.

Rule 1: a number is never shown without its interval; an end that is not known is shown as such.
Rule 2: as many digits as the number is worth, three at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.results.document import Quantile, Rate


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters beyond ASCII, and what stands for them where the terminal has none."""

    dash: str = "–"
    ellipsis: str = "…"
    times: str = "×"
    dot: str = "·"
    met: str = "✓"
    missed: str = "✗"
    unknown: str = "?"
    full: str = "█"
    eighths: str = " ▏▎▍▌▋▊▉"
    track: str = "░"
    rule: str = "─"
    differs: str = "≠"
    within: str = "±"


UNICODE = Glyphs()
ASCII = Glyphs("-", "..", "x", "|", "+", "x", "?", "#", "", ".", "-", "!=", "+/-")


def glyphs(encoding: str) -> Glyphs:
    """What a stream of this encoding can show."""
    return UNICODE if encoding.lower().replace("-", "").startswith("utf") else ASCII


def percent(share: float) -> str:
    """`1.0` -> `100`, `0.9667` -> `96.7`: percents, whole where they are."""
    text = f"{100 * share:.1f}"
    return text.removesuffix(".0")


def rate_interval(rate: Rate, g: Glyphs, *, whole: bool = False) -> str:
    """`88.6–100`, or in whole percents `89–100`; the interval of a rate that no trial bears is not shown."""
    if rate.value is None:
        return ""
    if whole:
        return f"{100 * rate.low:.0f}{g.dash}{100 * rate.high:.0f}"
    return f"{percent(rate.low)}{g.dash}{percent(rate.high)}"


def rate_text(rate: Rate, g: Glyphs) -> str:
    """`100 % [88.6–100]`."""
    return "no trial counted" if rate.value is None else f"{percent(rate.value)} % [{rate_interval(rate, g)}]"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three digits: `111`, `56.1`, `5.61`."""
    ms = 1000 * seconds
    return f"{ms:.2f}" if ms < 9.995 else f"{ms:.1f}" if ms < 99.95 else f"{ms:.0f}"


def quantile_value(quantile: Quantile, g: Glyphs) -> str:
    """In ms: `111`; among censored values what it exceeds, `>10 s`; a dash where there is nothing."""
    if quantile.value is not None:
        return milliseconds(quantile.value)
    if quantile.exceeds is None:
        return g.dash
    return f">{quantile.exceeds:.3g} s" if quantile.exceeds >= 1 else f">{milliseconds(quantile.exceeds)}"


def quantile_interval(quantile: Quantile, g: Glyphs) -> str:
    """`108–115`; a side that is open, for lack of trials or by censoring, is `…`."""
    if quantile.value is None and quantile.exceeds is None:
        return ""
    low, high = (g.ellipsis if v is None else milliseconds(v) for v in (quantile.low, quantile.high))
    return f"{low}{g.dash}{high}"


def bar(share: float | None, width: int, g: Glyphs) -> tuple[str, str]:
    """The filled and the empty part of a bar of `width` characters, to an eighth of one."""
    if share is None or width == 0:
        return "", " " * width
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    filled = g.full * full + (g.eighths[rest] if rest and g.eighths else "")
    return filled, g.track * (width - len(filled))


def factor_name(key: str) -> str:
    """A factor's column heading: of `nodes.alice.link.loss` what a reader needs, `alice.loss`."""
    parts = [part for part in key.split(".") if part not in ("nodes", "link")]
    return ".".join(parts) or key
