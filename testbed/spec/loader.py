"""Files that are read together: a scenario, its topology, the profiles that either names.

Rule 1: each file is read once; what is wrong in any of them is kept until all are read.
Rule 2: a name that leads nowhere is told at the place that says it; what is wrong in a file, at its place there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from testbed.errors import Problem, SpecError
from testbed.spec import profile_rules, scenario_rules, topology_rules
from testbed.spec.factor_rules import misfit, tell
from testbed.spec.kinds import KINDS, kind
from testbed.spec.matrix import CellSpec, Expansion
from testbed.spec.places import FileKind, find, not_found, read
from testbed.spec.problems import Source
from testbed.spec.profile import NatProfile
from testbed.spec.profile_rules import Refusals
from testbed.spec.scenario import Scenario
from testbed.spec.topology import Topology


@dataclass(frozen=True, slots=True)
class LoadedTopology:
    """A topology, and the profiles that its nats and firewalls have."""

    topology: Topology
    profiles: Mapping[str, NatProfile]
    """By node. A nat that a scenario is to give a profile has none yet."""
    files: Mapping[str, str]
    """`topologies/x.yaml` -> its text, for every file that had a say."""


@dataclass(frozen=True, slots=True)
class LoadedScenario:
    """A scenario and its cells."""

    scenario: Scenario
    topology: Topology
    """As its file says; each cell holds its own, with the cell's dotted factors put in."""
    cells: tuple[CellSpec, ...]
    files: Mapping[str, str]
    """`scenarios/x.yaml` -> its text, for every file that had a say."""


@dataclass(frozen=True, slots=True)
class _ReadTopology:
    topology: Topology
    source: Source
    profiles: Mapping[str, NatProfile]


@dataclass(slots=True)
class Loader:
    """What has been read so far, and what is wrong with it."""

    refusals: Refusals
    files: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _profiles: dict[Path, NatProfile | SpecError] = field(default_factory=dict)

    def raise_problems(self) -> None:
        """SpecError where there are any."""
        if self.problems:
            raise SpecError(self.problems)

    def find(self, kind: FileKind, word: str, beside: Path | None = None) -> Path:
        """The file that `word` means. Raises SpecError, about no file."""
        path = find(kind, word, beside)
        if path is None:
            more = KINDS if kind is FileKind.NAT_PROFILE else ()
            raise SpecError([Problem("", 0, 0, "", not_found(kind, word, beside, more))])
        return path

    def read(self, kind: FileKind, path: Path) -> Source:
        """A file's data, and its text into `files`. Raises SpecError."""
        source, content = read(path)
        name, place = f"{kind.folder}/{path.name}", 1
        while self.files.get(name, content.decode()) != content.decode():
            place += 1
            name = f"{kind.folder}/{place}/{path.name}"
        self.files[name] = content.decode()
        return source

    def profile_of(self, word: str, beside: Path | None) -> NatProfile:
        """A profile by what a file or the command line calls it. Raises SpecError."""
        if (built_in := kind(word)) is not None:
            if refused := list(self.refusals(built_in)):
                raise SpecError([Problem("", 0, 0, "", f"{word}: {sentence}") for sentence in refused])
            return built_in
        return self.profile(self.find(FileKind.NAT_PROFILE, word, beside))

    def profile(self, path: Path) -> NatProfile:
        """A profile's file. Raises SpecError, the same each time."""
        if path not in self._profiles:
            try:
                self._profiles[path] = self._read_profile(path)
            except SpecError as error:
                self._profiles[path] = error
        found = self._profiles[path]
        if isinstance(found, SpecError):
            raise SpecError(found.problems)
        return found

    def _read_profile(self, path: Path) -> NatProfile:
        source = self.read(FileKind.NAT_PROFILE, path)
        profile = profile_rules.build(source, source.tree.data, path.stem)
        if profile is not None:
            profile_rules.refuse(source, profile, self.refusals)
        source.raise_problems()
        assert profile is not None
        return profile

    def topology(self, path: Path) -> _ReadTopology | None:
        """A topology's file; None, and `problems`, where it is not one. Its profiles are beside it."""
        try:
            source = self.read(FileKind.TOPOLOGY, path)
        except SpecError as error:
            self.problems += error.problems
            return None
        topology = topology_rules.build(source, source.tree.data, path.stem)
        profiles: dict[str, NatProfile] = {}
        for name, node in topology.nodes.items() if topology is not None else ():
            if node.profile is None:
                continue
            here = ("nodes", name, "profile")
            try:
                profiles[name] = self.profile_of(node.profile, path)
            except SpecError as error:
                tell(source, here, error)
            else:
                if wrong := misfit(node, profiles[name]):
                    source.add(here, wrong)
        self.problems += source.problems
        return None if topology is None or source.problems else _ReadTopology(topology, source, profiles)

    def scenario(self, path: Path) -> LoadedScenario:
        """A scenario's file, and all that it names. Raises SpecError."""
        source = self.read(FileKind.SCENARIO, path)
        scenario = scenario_rules.build(source, source.tree.data, path.stem)
        written = source.tree.data.get("topology")
        found = self._topology_of(source, written, path) if isinstance(written, str) else None
        cells: tuple[CellSpec, ...] = ()
        if scenario is not None and found is not None:

            def profile_of(word: str) -> NatProfile:
                return self.profile_of(word, path)

            raw = found.source.tree.data
            cells = Expansion(source, scenario, found.topology, raw, found.source, found.profiles, profile_of).cells()
        elif scenario is not None:
            self._read_profiles_of(scenario, path)
        self.problems += source.problems
        self.raise_problems()
        assert scenario is not None
        assert found is not None
        return LoadedScenario(scenario, found.topology, cells, self.files)

    def _read_profiles_of(self, scenario: Scenario, beside: Path) -> None:
        """Tell what is wrong in the files of profiles, where the topology cannot tell which factors are nats."""
        words = {word for factors in scenario.matrix for values in factors.values() for word in values}
        words |= {word for mix in scenario.population.values() for word in mix}
        for word in sorted(word for word in words if isinstance(word, str)):
            try:
                self.profile_of(word, beside)
            except SpecError as error:
                self.problems += (problem for problem in error.problems if problem.file)

    def _topology_of(self, source: Source, word: str, beside: Path) -> _ReadTopology | None:
        try:
            return self.topology(self.find(FileKind.TOPOLOGY, word, beside))
        except SpecError as error:
            tell(source, ("topology",), error)
            return None
