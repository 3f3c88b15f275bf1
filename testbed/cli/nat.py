"""`testbed nat`: which NATs there are, what one is, and whether each is what it says.

Rule 1: what is listed and tested is what a name finds from here, as `testbed list profiles` has it.
Rule 2: `nat test` ends with 1 where an observation disagrees with a profile; a lab that dies is an error (4).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from testbed.cli import show
from testbed.errors import ExitStatus, Problem, SpecError, UsageError
from testbed.plan.engines import engine_name, engine_of, refusals
from testbed.spec.kinds import KINDS
from testbed.spec.load import load_profile
from testbed.spec.model import CONTEXT_WRITTEN
from testbed.spec.places import FileKind, available
from testbed.spec.profile import Dependence, Engine, NatProfile

if TYPE_CHECKING:  # it brings the lab along, which `list` and `show` do without
    from testbed.certify.rows import Certificate

LIST_SCHEMA, SHOW_SCHEMA = "testbed.nat-list/1", "testbed.nat/1"

EPILOG = """\b
Examples:
  testbed nat list                         what each maps and filters, and how it is made
  testbed nat show openwrt                 its fields and their sources
  sudo testbed nat test eim-apdf openwrt   measured in a lab, a row for each behaviour
"""
SHOW_EPILOG = """\b
Examples:
  testbed nat show openwrt
  testbed nat show ./my_router.yaml --rules
"""
TEST_EPILOG = """\b
Examples:
  sudo testbed nat test eim-apdf           every behaviour, and how it was measured
  sudo testbed nat test --all --json > certificates.json
"""
NO_RULES = "  rules: none; the userspace engine reads the profile and plays the NAT itself, packet by packet"
_SHORT = {
    Dependence.ENDPOINT_INDEPENDENT: "endpoint",
    Dependence.ADDRESS_DEPENDENT: "address",
    Dependence.ADDRESS_AND_PORT_DEPENDENT: "address+port",
    Dependence.NONE: "none",
}


@click.group(epilog=EPILOG)
def command() -> None:
    """NATs and firewalls: list them, show one, test whether each is what it says."""


# ---------------------------------------------------------------------------- list


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def list_command(as_json: bool) -> None:
    """List every profile: what of the remote its mapping and its filter see, its ports, what makes it."""
    profiles = _load(_all_names())
    if as_json:
        click.echo(json.dumps({"schema": LIST_SCHEMA, "profiles": list(map(_listed, profiles))}, indent=1))
        return
    head = ("profile", "mapping sees", "filter sees", "ports", "engine", "unknown")
    rows = [head, *((p.name, _sees(p, "mapping"), _sees(p, "filtering"), *_rest(p)) for p in profiles)]
    click.echo("\n".join(_table(rows)))


def _listed(profile: NatProfile) -> dict[str, Any]:
    return {
        "profile": profile.name,
        "description": profile.description,
        "mapping": profile.mapping.value,
        "filtering": profile.filtering.value,
        "ports": _ports(profile),
        "engine": engine_name(profile),
        "unknowns": list(profile.unknowns),
    }


def _sees(profile: NatProfile, field: str) -> str:
    return _SHORT[getattr(profile, field)] + ("?" if field in profile.unknowns else "")


def _rest(profile: NatProfile) -> tuple[str, str, str]:
    return _ports(profile), engine_name(profile), str(len(profile.unknowns) or "")


def _ports(profile: NatProfile) -> str:
    if profile.mapping is Dependence.NONE:
        return "as they are"
    words = "kept" if profile.ports.preserve else profile.ports.otherwise.value
    if profile.ports.block is None:
        return words
    most = f"{profile.ports.blocks_per_host} × " if profile.ports.is_dynamic else ""
    return f"{words}, blocks of {most}{profile.ports.block}"


# ---------------------------------------------------------------------------- show


@command.command("show", epilog=SHOW_EPILOG)
@click.argument("profile")
@click.option("--rules", "with_rules", is_flag=True, help="Also the nftables rules that it is compiled to, if any.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def show_command(profile: str, with_rules: bool, as_json: bool) -> None:
    """Show PROFILE, a kind, a name or a file: its fields, where each comes from, and what no source says.

    The rules are those of the lab in which `nat test` measures it.
    """
    loaded = load_profile(profile, refusals=refusals)
    rules = _rules(loaded) if with_rules else None
    if as_json:
        written = loaded.model_dump(mode="json", context=CONTEXT_WRITTEN)
        body = {"schema": SHOW_SCHEMA, "profile": loaded.name, "engine": engine_name(loaded), "fields": written}
        click.echo(json.dumps(body | ({"rules": rules} if with_rules else {}), indent=1))
        return
    click.echo("\n".join([loaded.name, *(f"  {line}" for line in show.lines(loaded))]))
    click.echo(f"  made by: {engine_name(loaded)}")
    if with_rules:
        click.echo(f"\n{rules}" if rules is not None else NO_RULES, nl=rules is None)


def _rules(profile: NatProfile) -> str | None:
    """None where there are none."""
    if engine_of(profile) is Engine.USERSPACE:
        return None
    from testbed.certify.certificate import SEED
    from testbed.certify.subject import NAT, translation_of
    from testbed.lab.nftables.prepare import text
    from testbed.plan.seeds import derive

    return text(translation_of(profile), derive(SEED, "nat", NAT))


# ---------------------------------------------------------------------------- test


@command.command("test", epilog=TEST_EPILOG)
@click.argument("profiles", nargs=-1, metavar="[PROFILE]...")
@click.option("--all", "every", is_flag=True, help="Every profile that `nat list` shows.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Labs at once; four a core unless said.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, and nothing else.")
def test_command(profiles: tuple[str, ...], every: bool, jobs: int | None, as_json: bool) -> int:
    """Test whether each PROFILE is what it says: measured from inside a lab, a row for each behaviour.

    Exit status: 0 where all rows agree, 1 where one does not.
    """
    if every == bool(profiles):
        raise UsageError("name the profiles to test, or --all")
    loaded = _load(_all_names() if every else dict.fromkeys(profiles))
    from testbed.certify.certificate import Subject, certify
    from testbed.certify.rows import SCHEMA

    width = max(len(profile.name) for profile in loaded)
    is_shown = not as_json and len(loaded) > 1

    def tell(certificate: Certificate) -> None:
        if is_shown:
            rows = certificate.disagreements
            words = f"{len(certificate.rows)} behaviours agree" if not rows else "is not what it says:"
            click.echo("\n".join([f"{certificate.profile:<{width}}  {words}", *(f"    {row}" for row in rows)]))
            sys.stdout.flush()

    found = certify([Subject(profile) for profile in loaded], jobs=jobs, on_done=tell)
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "profiles": [one.to_json() for one in found]}, indent=1))
    elif not is_shown:
        click.echo("\n".join(_certificate(found[0])))
    disagreeing = [one.profile for one in found if not one.agrees]
    if not as_json:
        click.echo(f"\n{len(found) - len(disagreeing)} of {len(found)} are what they say", err=True)
    return ExitStatus.MISSED if disagreeing else ExitStatus.OK


def _certificate(certificate: Certificate) -> Iterator[str]:
    yield f"{certificate.profile} ({certificate.engine})"
    yield ""
    rows = [("behaviour", "declared", "observed", "", "how")]
    rows += [(r.name, r.declared, r.observed, "" if r.agrees else "NO", r.how) for r in certificate.rows]
    yield from _table(rows)


# ---------------------------------------------------------------------------- details


def _all_names() -> list[str]:
    return [*KINDS, *available(FileKind.NAT_PROFILE)]


def _load(names: Sequence[str] | dict[str, None]) -> list[NatProfile]:
    """The profiles of these names. Raises SpecError with the problems of all of them."""
    problems: list[Problem] = []
    loaded = []
    for name in names:
        try:
            loaded.append(load_profile(name, refusals=refusals))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return loaded


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()


__all__ = ["command"]
