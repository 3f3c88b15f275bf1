"""`testbed doctor`: what this machine can do, and the commands that mend the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from testbed.errors import ExitStatus
from testbed.lab.probe import Capability, capabilities

_WORDS = {
    (True, True): ("ok", "green"),
    (True, False): ("ok", "green"),
    (False, True): ("missing", "red"),
    (False, False): ("none", "yellow"),
}
"""By (is it there, is it required)."""


@click.command(epilog="\b\nExamples:\n  testbed doctor\n  testbed doctor --json\n")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(as_json: bool) -> int:
    """Try each thing that a lab rests on. Exit status: 0 where a lab can be built, 3 where it cannot."""
    found = capabilities()
    missing = [capability for capability in found if capability.is_required and capability.missing is not None]
    if as_json:
        click.echo(json.dumps({"schema": "testbed.doctor/1", "capabilities": list(map(_document, found))}, indent=1))
    else:
        _print(found)
        click.echo("\nlabs can be built here" if not missing else "\nlabs cannot be built here", err=True)
    return ExitStatus.MACHINE if missing else ExitStatus.OK


def _print(found: Sequence[Capability]) -> None:
    width = max(len(capability.name) for capability in found)
    first: dict[tuple[str, str | None], str] = {}
    for capability in found:
        word, colour = _WORDS[capability.missing is None, capability.is_required]
        detail = f" ({capability.detail})" if capability.detail else ""
        click.echo(f"{click.style(f'{word:<8}', fg=colour)} {capability.name:<{width}}  {capability.purpose}{detail}")
        if capability.missing is None:
            continue
        name = first.setdefault((capability.missing, capability.mend), capability.name)
        if name != capability.name:
            click.echo(f"{'':9}{'':{width}}  as {name}")
            continue
        click.echo(f"{'':9}{'':{width}}  {capability.missing}")
        if capability.mend is not None:
            click.echo(f"{'':9}{'':{width}}  to mend it: {capability.mend}")


def _document(capability: Capability) -> dict[str, object]:
    return {
        "name": capability.name,
        "status": "ok" if capability.missing is None else "missing",
        "required": capability.is_required,
        "purpose": capability.purpose,
        "detail": capability.detail,
        "reason": capability.missing,
        "mend": capability.mend,
    }
