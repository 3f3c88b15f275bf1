"""`testbed up`: hold a lab, for a person to work in."""

from __future__ import annotations

import click

from testbed.cli.choices import LINKS
from testbed.errors import ExitStatus, UsageError

EXAMPLES = """\b
Examples:
  sudo testbed up two_homes --nat nat_a=eim-apdf --nat nat_b=apdm-apdf
  sudo testbed exec alice -- ping -c 3 11.0.0.2      in another terminal
  testbed up my_topology.yaml --json                 one line once it is ready, then it holds
"""


@click.command(epilog=EXAMPLES)
@click.argument("topology")
@click.option("--nat", multiple=True, metavar="NODE=PROFILE", help="The profile of a nat; may be repeated.")
@click.option("--links", type=click.Choice(LINKS), default="auto", show_default=True, help="What makes links.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of every die of the lab.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON once the lab is ready.")
def command(topology: str, nat: tuple[str, ...], links: str, seed: int, as_json: bool) -> int:
    """Build the network of TOPOLOGY, a name or a file, and hold it until Ctrl-C. Its rendezvous runs."""
    from testbed.plan.engines import refusals
    from testbed.spec.load import load_topology
    from testbed.spec.scenario import Links
    from testbed.trial.hold import hold

    given = {}
    for choice in nat:
        node, equals, profile = choice.partition("=")
        if not equals:
            raise UsageError(f"--nat {choice}: write NODE=PROFILE, such as --nat nat_a=eim-apdf")
        given[node] = profile
    loaded = load_topology(topology, nats=given, refusals=refusals)
    hold(loaded, Links(links), seed, ready=_print_json if as_json else _print_table)
    return ExitStatus.INTERRUPTED


def _print_json(document: dict[str, object]) -> None:
    import json

    click.echo(json.dumps(document))


def _print_table(document: dict[str, object]) -> None:
    nodes = document["nodes"]
    assert isinstance(nodes, dict)
    click.echo(f"lab {document['lab']} is ready; Ctrl-C ends it\n")
    width = max(map(len, nodes))
    for name, node in nodes.items():
        click.echo(f"  {name:<{width}}  {node['kind']:<10}  {', '.join(node['addresses'])}")
    first = next((name for name, node in nodes.items() if node["kind"] == "peer"), next(iter(nodes)))
    click.echo(f"\nin another terminal: testbed exec {first} -- ip address")
