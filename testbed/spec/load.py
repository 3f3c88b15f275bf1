"""The door: from a word or a path to values, with everything that they need.

Rule 1: whatever the bytes are, what comes out is a value or a SpecError; all problems of all files at once.
Rule 2: what an engine can do is known in the lab, so its refusals are an argument.
Rule 3: every file that had a say is kept as it was read (`files`), so that a run can be repeated from its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.errors import SpecError, UsageError
from testbed.spec.factor_rules import misfit, text
from testbed.spec.loader import LoadedScenario, LoadedTopology, Loader
from testbed.spec.matrix import CellSpec
from testbed.spec.places import FileKind, read
from testbed.spec.problems import suggestion
from testbed.spec.profile import NatProfile
from testbed.spec.profile_rules import Refusals, nothing_refused
from testbed.spec.scenario import MOST_TRIALS, SEEDS, Scenario
from testbed.spec.scenario_rules import unknown_factor, unknown_value
from testbed.spec.topology import NodeKind, Topology

Loaded = LoadedTopology | NatProfile | LoadedScenario


def load_topology(
    word: str, *, nats: Mapping[str, str] | None = None, refusals: Refusals = nothing_refused
) -> LoadedTopology:
    """The topology that `word` means: a name, or the path of a file. Raises SpecError.

    `nats` gives nodes a profile by name, instead of the topology's own (`testbed up --nat NODE=PROFILE`); then
    every nat needs one.
    """
    loader = Loader(refusals)
    path = loader.find(FileKind.TOPOLOGY, word)
    read_one = loader.topology(path)
    loader.raise_problems()
    assert read_one is not None
    profiles = {**read_one.profiles}
    for name, profile in (nats or {}).items():
        profiles[name] = _given(loader, read_one.topology, name, profile)
    if nats is not None:
        for name, node in read_one.topology.nodes.items():
            if node.kind is NodeKind.NAT and name not in profiles:
                raise UsageError(f"the nat {name!r} has no profile: write --nat {name}=eim-apdf")
    return LoadedTopology(read_one.topology, profiles, loader.files)


def load_profile(word: str, *, beside: Path | None = None, refusals: Refusals = nothing_refused) -> NatProfile:
    """The profile that `word` means: one of the nine kinds, a name, or the path of a file. Raises SpecError."""
    return Loader(refusals).profile_of(word, beside)


def load_scenario(
    word: str,
    *,
    refusals: Refusals = nothing_refused,
    trials: int | None = None,
    seed: int | None = None,
    only: Sequence[str] = (),
) -> LoadedScenario:
    """The scenario that `word` means: a name, or the path of a file. Raises SpecError, UsageError.

    `trials` and `seed` override the file's. `only` holds FACTOR=VALUE: of cells, those are kept that have one of
    the values named for each factor named.
    """
    loader = Loader(refusals)
    loaded = loader.scenario(loader.find(FileKind.SCENARIO, word))
    changes: dict[str, int] = {}
    for name, value, least, most in (("trials", trials, 1, MOST_TRIALS), ("seed", seed, 0, SEEDS - 1)):
        if value is not None and not least <= value <= most:
            raise UsageError(f"{name}: {value} is not a whole number from {least} to {most}")
        if value is not None:
            changes[name] = value
    return LoadedScenario(
        loaded.scenario.model_copy(update=changes), loaded.topology, select(loaded.cells, only), loaded.files
    )


def load_any(path: Path, *, refusals: Refusals = nothing_refused) -> Loaded:
    """A file of any kind: its folder tells which, or else its keys. Raises SpecError."""
    loader = Loader(refusals)
    match kind_of(path):
        case FileKind.TOPOLOGY:
            found = loader.topology(path)
            loader.raise_problems()
            assert found is not None
            return LoadedTopology(found.topology, found.profiles, loader.files)
        case FileKind.NAT_PROFILE:
            return loader.profile(path)
        case FileKind.SCENARIO:
            return loader.scenario(path)


def kind_of(path: Path) -> FileKind:
    """What a file is. Raises SpecError where neither its folder nor its keys tell."""
    if kind_by_folder := FileKind.of_folder(path.absolute().parent.name):
        return kind_by_folder
    source, _ = read(path)
    keys = source.tree.data.keys()
    told = {
        FileKind.TOPOLOGY: keys & {"nodes", "regions"},
        FileKind.SCENARIO: keys & (Scenario.model_fields.keys() - {"name", "description"}),
        FileKind.NAT_PROFILE: keys & (NatProfile.model_fields.keys() - {"name", "description"}),
    }
    best = max(told, key=lambda kind: len(told[kind]))
    if told[best]:
        return best
    folders = ", ".join(f"{kind.folder}/" for kind in FileKind)
    mend = "a topology has `nodes:`, a NAT profile `mapping:`, a scenario `topology:`"
    source.add((), f"neither the folder ({folders}) nor a key tells what this is: {mend}")
    raise SpecError(source.problems)


def select(cells: Sequence[CellSpec], only: Sequence[str]) -> tuple[CellSpec, ...]:
    """The cells that `only`, each FACTOR=VALUE, leaves. Raises UsageError where it names nothing."""
    wanted: dict[str, set[str]] = {}
    factors = [cell.factors for cell in cells]
    for choice in only:
        name, equals, value = choice.partition("=")
        if not equals:
            raise UsageError(f"--only {choice}: write FACTOR=VALUE, such as --only {_example(cells)}")
        if unknown := unknown_factor(factors, name) or unknown_value(factors, name, value):
            raise UsageError(f"--only {choice}: {unknown}")
        wanted.setdefault(name, set()).add(value)
    left = tuple(
        cell
        for cell in cells
        if all(name in cell.factors and text(cell.factors[name]) in values for name, values in wanted.items())
    )
    if not left:
        raise UsageError(f"no cell is all of {' '.join(f'--only {choice}' for choice in only)}")
    return left


def _example(cells: Sequence[CellSpec]) -> str:
    return next((f"{name}={text(value)}" for cell in cells for name, value in cell.factors.items()), "nat_a=eim-eif")


def _given(loader: Loader, topology: Topology, name: str, word: str) -> NatProfile:
    """The profile that the command line gives a node."""
    node = topology.nodes.get(name)
    forwarding = [name for name, node in topology.nodes.items() if node.kind.forwards]
    if node is None or not node.kind.forwards:
        what = f"there is no nat {name!r}" if node is None else f"{name!r} is a {node.kind.value}"
        raise UsageError(f"--nat {name}={word}: {what}{suggestion(name, forwarding)}")
    profile = loader.profile_of(word, None)
    if wrong := misfit(node, profile):
        raise UsageError(f"--nat {name}={word}: {wrong}")
    return profile


__all__ = [
    "Loaded",
    "LoadedScenario",
    "LoadedTopology",
    "load_any",
    "load_profile",
    "load_scenario",
    "load_topology",
    "select",
]
