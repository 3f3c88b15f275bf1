"""The door: names, paths, overrides, the files that had a say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import SpecError, TestbedError, UsageError
from testbed.spec.load import (
    LoadedScenario,
    LoadedTopology,
    kind_of,
    load_any,
    load_profile,
    load_scenario,
    load_topology,
)
from testbed.spec.places import FileKind, available, installed
from testbed.spec.profile import Dependence, NatProfile

HOMES = """\
nodes:
  meet: {kind: rendezvous, uplink: internet}
  nat_a: {kind: nat, uplink: internet}
  alice: {kind: peer, uplink: nat_a}
  nat_b: {kind: nat, uplink: internet, profile: mine}
  bob: {kind: peer, uplink: nat_b}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ---- names


def test_a_name_is_found_beside_the_file_that_says_it_first(here: Path) -> None:
    write(here / "a/topologies/homes.yaml", HOMES)
    write(here / "a/nat_profiles/mine.yaml", "mapping: address-dependent\n")
    write(here / "nat_profiles/mine.yaml", "mapping: endpoint-independent\n")
    beside = load_topology("a/topologies/homes.yaml")
    assert beside.profiles["nat_b"].mapping is Dependence.ADDRESS_DEPENDENT, "the sister folder of the file"
    (here / "a/nat_profiles/mine.yaml").unlink()
    beside = load_topology("a/topologies/homes.yaml")
    assert beside.profiles["nat_b"].mapping is Dependence.ENDPOINT_INDEPENDENT, "the current directory's folder"
    (here / "nat_profiles/mine.yaml").unlink()
    with pytest.raises(SpecError, match=r"homes\.yaml:5:\d+: nodes\.nat_b\.profile: there is no nat profile 'mine'"):
        load_topology("a/topologies/homes.yaml")


def test_files_of_one_folder_find_each_other_when_it_is_of_no_kind(here: Path) -> None:
    write(here / "all/homes.yaml", HOMES)
    write(here / "all/mine.yml", "mapping: address-dependent\n")
    write(here / "all/run.yaml", "topology: homes\nmatrix: {nat_a: [mine]}\n")
    loaded = load_scenario("all/run.yaml")
    assert loaded.cells[0].profiles["nat_a"] == loaded.cells[0].profiles["nat_b"]
    assert loaded.cells[0].profiles["nat_a"].name == "mine"


def test_a_scenario_and_its_topology_may_share_a_name(here: Path) -> None:
    write(here / "all/homes.yaml", "topology: homes\nmatrix: {nat_a: [eim-eif], nat_b: [eim-eif]}\n")
    write(here / "topologies/homes.yaml", HOMES.replace(", profile: mine", ""))
    assert load_scenario("all/homes.yaml").topology.name == "homes"


def test_what_is_installed_is_found_from_anywhere(here: Path) -> None:
    assert load_scenario("symmetric_nat").topology.name == "two_homes"
    assert load_topology("two_homes").topology.nodes.keys() == {"meet", "nat_a", "alice", "nat_b", "bob"}
    assert load_profile("linux-masquerade").ports.overload


def test_a_name_of_ones_own_hides_an_installed_one(here: Path) -> None:
    write(here / "topologies/two_homes.yaml", HOMES.replace(", profile: mine", ", profile: eim-eif"))
    assert load_topology("two_homes").profiles["nat_b"].name == "eim-eif"
    assert available(FileKind.TOPOLOGY)["two_homes"] == Path("topologies/two_homes.yaml")


def test_the_nine_kinds_come_before_files(here: Path) -> None:
    write(here / "nat_profiles/eim-eif.yaml", "mapping: address-dependent\n")
    assert load_profile("eim-eif").mapping is Dependence.ENDPOINT_INDEPENDENT
    assert load_profile("apdm-apdf-sequential").ports.otherwise == "sequential"


def test_what_is_shipped_is_listed(here: Path) -> None:
    assert {"symmetric_nat", "classic", "grid"} <= available(FileKind.SCENARIO).keys()
    assert installed(FileKind.SCENARIO).is_dir()


WORDS = [
    ("two_homs", "there is no topology 'two_homs', did you mean 'two_homes'?", "a near name"),
    ("./two_homes", "no such file: ./two_homes", "a path, because of its slash"),
    ("two_homes.yaml", "no such file: two_homes.yaml", "a path, because of its ending"),
    ("x" * 300, f"there is no topology '{'x' * 300}'", "longer than any file's name"),
    ("a\0b", "there is no topology 'a\\x00b'", "a byte that no name has"),
    ("", "there is no topology ''", "no name at all"),
]


@pytest.mark.parametrize(("word", "message", "why"), WORDS, ids=[row[2] for row in WORDS])
def test_a_word_that_leads_nowhere_is_told(here: Path, word: str, message: str, why: str) -> None:
    with pytest.raises(TestbedError) as caught:
        load_topology(word)
    assert str(caught.value).startswith(message), why


def test_what_cannot_be_read_is_told(here: Path) -> None:
    (here / "topologies/folder.yaml").mkdir(parents=True)
    write(here / "topologies/large.yaml", "#" * ((1 << 20) + 1))
    for name, message in (("folder", "is a folder"), ("large", "is larger than 1 MiB"), ("none", "no such file")):
        with pytest.raises(SpecError, match=message):
            load_any(here / "topologies" / f"{name}.yaml")


# ---- kinds of files

KEYS = [
    ("nodes: {}\n", FileKind.TOPOLOGY, "nodes"),
    ("topology: two_homes\n", FileKind.SCENARIO, "a topology's name"),
    ("mapping: none\n", FileKind.NAT_PROFILE, "a behaviour"),
    ("description: x\nnodes: {}\n", FileKind.TOPOLOGY, "a description is in all of them"),
    ("trials: 3\nmatrix: {}\n", FileKind.SCENARIO, "even without what it must have"),
]


@pytest.mark.parametrize(("text", "kind", "why"), KEYS, ids=[row[2] for row in KEYS])
def test_a_files_kind_is_told_by_its_keys_where_its_folder_does_not(
    tmp_path: Path, text: str, kind: FileKind, why: str
) -> None:
    assert kind_of(write(tmp_path / "x.yaml", text)) is kind, why
    assert kind_of(write(tmp_path / "topologies/x.yaml", text)) is FileKind.TOPOLOGY, "the folder comes first"


def test_each_kind_of_file_loads_as_its_value(here: Path) -> None:
    for word, value in (("topologies", LoadedTopology), ("nat_profiles", NatProfile), ("scenarios", LoadedScenario)):
        folder = installed(next(kind for kind in FileKind if kind.folder == word))
        assert isinstance(load_any(min(folder.glob("*.yaml"))), value)


# ---- what an engine cannot do


def no_blocks(profile: NatProfile) -> Iterator[str]:
    if profile.ports.block is not None:
        yield "ports.block: this engine has no blocks"
    if profile.name == "apdm-apdf":
        yield "not today"


def test_what_an_engine_cannot_do_is_told_at_its_place(here: Path) -> None:
    write(here / "nat_profiles/blocks.yaml", "mapping: endpoint-independent\nports: {block: 64}\n")
    write(here / "topologies/homes.yaml", HOMES.replace("profile: mine", "profile: apdm-apdf"))
    with pytest.raises(SpecError, match=r"^nat_profiles/blocks\.yaml:2:16: ports\.block: this engine has no blocks$"):
        load_profile("blocks", refusals=no_blocks)
    with pytest.raises(SpecError, match=r"5:49: nodes\.nat_b\.profile: apdm-apdf: not today$"):
        load_topology("homes", refusals=no_blocks)
    write(here / "scenarios/s.yaml", "topology: homes\nmatrix: {nat_a: [blocks]}\n")
    with pytest.raises(SpecError) as caught:
        load_scenario("s", refusals=no_blocks)
    assert [problem.file for problem in caught.value.problems] == ["nat_profiles/blocks.yaml", "topologies/homes.yaml"]


# ---- nats of a topology by itself

NATS = [
    ({"nat_a": "eim-eif"}, "the nat 'nat_b' has no profile: write --nat nat_b=eim-apdf", "every nat needs one"),
    ({"alice": "eim-eif"}, "--nat alice=eim-eif: 'alice' is a peer (one of nat_a, nat_b)", "a peer has none"),
    ({"nat_c": "eim-eif"}, "--nat nat_c=eim-eif: there is no nat 'nat_c', did you mean 'nat_b'?", "no such node"),
    ({"nat_a": "eim-efi"}, "there is no nat profile 'eim-efi', did you mean 'eim-eif'?", "no such profile"),
]


@pytest.mark.parametrize(("nats", "message", "why"), NATS, ids=[row[2] for row in NATS])
def test_nats_of_the_command_line(here: Path, nats: dict[str, str], message: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_topology("two_homes", nats=nats)
    assert str(caught.value) == message, why


def test_a_profile_of_the_command_line_takes_the_place_of_the_topologys(here: Path) -> None:
    loaded = load_topology("access_lines", nats={"nat_a": "eim-eif"})
    assert {name: profile.name for name, profile in loaded.profiles.items()} == {
        "nat_a": "eim-eif",
        "nat_b": "linux-masquerade",
    }


# ---- overrides and files


def test_trials_and_seed_of_the_command_line_win(here: Path) -> None:
    loaded = load_scenario("symmetric_nat", trials=3, seed=7)
    assert (loaded.scenario.trials, loaded.scenario.seed) == (3, 7)
    for wrong in ({"trials": 0}, {"seed": -1}, {"seed": 2**63}):
        with pytest.raises(UsageError, match="is not a whole number from"):
            load_scenario("symmetric_nat", **wrong)  # type: ignore[arg-type]


def test_every_file_that_had_a_say_is_kept_as_it_was_read(here: Path) -> None:
    scenario = "# mine\r\ntopology: homes\nmatrix: {nat_a: [mine, eim-eif]}\n"
    (here / "scenarios").mkdir()
    (here / "scenarios/s.yaml").write_bytes(b"\xef\xbb\xbf" + scenario.encode())
    write(here / "topologies/homes.yaml", HOMES)
    write(here / "nat_profiles/mine.yaml", "mapping: address-dependent\n")
    assert load_scenario("s").files == {
        "scenarios/s.yaml": "\ufeff" + scenario,
        "topologies/homes.yaml": HOMES,
        "nat_profiles/mine.yaml": "mapping: address-dependent\n",
    }


def test_two_files_of_one_name_are_both_kept(here: Path) -> None:
    write(here / "a/homes.yaml", HOMES)
    write(here / "a/mine.yaml", "mapping: address-dependent\n")
    write(here / "b/mine.yaml", "mapping: endpoint-independent\n")
    write(here / "b/s.yaml", "topology: ../a/homes.yaml\nmatrix: {nat_a: [mine]}\n")
    loaded = load_scenario("b/s.yaml")
    assert loaded.cells[0].profiles["nat_a"].mapping is Dependence.ENDPOINT_INDEPENDENT
    assert loaded.cells[0].profiles["nat_b"].mapping is Dependence.ADDRESS_DEPENDENT
    assert sorted(loaded.files) == [
        "nat_profiles/2/mine.yaml",
        "nat_profiles/mine.yaml",
        "scenarios/s.yaml",
        "topologies/homes.yaml",
    ]


def test_problems_of_all_files_are_told_at_once(here: Path) -> None:
    write(here / "topologies/homes.yaml", HOMES + "  eve: {kind: pear, uplink: internet}\n")
    write(here / "nat_profiles/bad.yaml", "mapping: x\n")
    write(here / "scenarios/s.yaml", "topology: homes\nmatrix: {nat_a: [bad]}\nagent: quick\n")
    with pytest.raises(SpecError) as caught:
        load_scenario("s")
    assert [problem.file for problem in caught.value.problems] == [
        "nat_profiles/bad.yaml",
        "scenarios/s.yaml",
        "topologies/homes.yaml",
    ]
