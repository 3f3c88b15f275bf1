"""`testbed ls`: the labs that are held on this machine."""

from __future__ import annotations

import click


@click.command(epilog="\b\nExamples:\n  testbed ls\n  testbed ls --json\n")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(as_json: bool) -> None:
    """List the labs that `testbed up` holds on this machine."""
    import json

    from testbed.lab.registry import held_labs

    labs = held_labs()
    if as_json:
        click.echo(json.dumps({"labs": [{**lab.document, "pid": lab.pid} for lab in labs]}))
        return
    if not labs:
        click.echo("no lab is held; start one with: testbed up two_homes --nat nat_a=eim-apdf --nat nat_b=eim-apdf")
    width = max((len(lab.id) for lab in labs), default=0)
    for lab in labs:
        click.echo(f"{lab.id:<{width}}  process {lab.pid}  {', '.join(lab.document['nodes'])}")
