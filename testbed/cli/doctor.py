"""`testbed doctor`: what this machine can do, and the commands that mend the rest."""

from __future__ import annotations

import json

import click

from testbed.errors import ExitStatus


@click.command(epilog="\b\nExamples:\n  testbed doctor\n  testbed doctor --json\n")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(as_json: bool) -> int:
    """Try each thing that a lab rests on. Exit status: 0 where a lab can be built, 3 where it cannot."""
    from testbed.lab.probe import Capability, capabilities

    found = capabilities()
    missing = [capability for capability in found if capability.is_required and capability.missing is not None]
    if as_json:
        click.echo(json.dumps({"schema": "testbed.doctor/1", "capabilities": list(map(_document, found))}, indent=1))
    else:
        width = max(len(capability.name) for capability in found)

        def show(capability: Capability) -> None:
            is_ok = capability.missing is None
            word = "ok" if is_ok else "missing" if capability.is_required else "none"
            mark = click.style(f"{word:<8}", fg="green" if is_ok else "red" if capability.is_required else "yellow")
            detail = f" ({capability.detail})" if capability.detail else ""
            click.echo(f"{mark} {capability.name:<{width}}  {capability.purpose}{detail}")
            if capability.missing is not None:
                click.echo(f"{'':9}{'':{width}}  {capability.missing}")
            if capability.mend is not None:
                click.echo(f"{'':9}{'':{width}}  to mend it: {capability.mend}")

        for capability in found:
            show(capability)
        click.echo("\nlabs can be built here" if not missing else "\nlabs cannot be built here", err=True)
    return ExitStatus.MACHINE if missing else ExitStatus.OK


def _document(capability: object) -> dict[str, object]:
    from dataclasses import asdict

    from testbed.lab.probe import Capability

    assert isinstance(capability, Capability)
    told = asdict(capability)
    return {
        "name": told["name"],
        "status": "ok" if told["missing"] is None else "missing",
        "required": told["is_required"],
        "purpose": told["purpose"],
        "detail": told["detail"],
        "reason": told["missing"],
        "mend": told["mend"],
    }
