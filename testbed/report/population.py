"""What a population's trials say together: its rate, its prediction, the field's figures, and what is left out."""

from __future__ import annotations

from rich.text import Text

from testbed.report import lines, words
from testbed.report.words import Glyphs
from testbed.results.population import ConditionResult, Figure, Population, PopulationRate


def render(population: Population, width: int, g: Glyphs) -> list[Text]:
    """Its lines, each hanging from its mark."""
    drawn = [line for one in population.conditions for line in _condition(population, one, width, g)]
    for figure in population.published:
        drawn += lines.hanging(Text("  beside it", style="dim"), _figure(figure, g), width)
    if population.leaves_out:
        text = Text(" ".join(population.leaves_out.split()), style="dim")
        drawn += lines.hanging(Text("  left out", style="dim"), text, width)
    return drawn


def _condition(population: Population, one: ConditionResult, width: int, g: Glyphs) -> list[Text]:
    of = f"{one.cells} cells, weighted" if population.form == "weighted" else f"{one.success_rate.n} trials drawn"
    where = ", ".join(f"{words.factor_name(name)} {value}" for name, value in one.factors.items())
    text = Text.assemble(f"{where}: " if where else "", (_rate(one.success_rate, g), "bold"), f" of {of}")
    if one.prediction is not None:
        text.append(f" {g.dot} predicted {_rate(one.prediction, g)}", style="dim")
    if one.agrees is False:
        text.append(f" {g.differs} does not agree", style="bold red")
    return list(lines.hanging(Text("population", style="bold"), text, width))


def _rate(rate: PopulationRate, g: Glyphs) -> str:
    value = g.dash if rate.value is None else f"{100 * rate.value:.1f} %"
    return f"{value} [{100 * rate.low:.1f}{g.dash}{100 * rate.high:.1f}]"


def _figure(figure: Figure, g: Glyphs) -> Text:
    if figure.success_rate is None:
        value = f"at least {100 * (figure.at_least or 0):.3g} %"
    else:
        within = f" {g.within} {100 * figure.plus_or_minus:.3g} %" if figure.plus_or_minus is not None else ""
        value = f"{100 * figure.success_rate:.3g} %{within}"
    about = f": {figure.about}" if figure.about else ""
    return Text.assemble(f"{figure.name} {value}", (f" ({figure.source}){about}", "dim"))
