"""How a machine is prepared, played with commands that only note that they were called."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PYTHON = """\
#!/bin/sh
case "$*" in
--version) echo "Python {version}" ;;
*"version_info < (3, 11)"*) exit {too_old} ;;
*_base_executable*) echo "$0" ;;
*-venv*) echo python3.12-venv ;;
*ensurepip*) exit {no_venv} ;;
*ctypes*) exit {no_library} ;;
esac
"""
APT = '#!/bin/sh\necho "$0 $*" | sed "s|.*/||" >>"$CALLS"\nexit {status}\n'
SUDO = '#!/bin/sh\necho "sudo $1 $2" >>"$CALLS"\n[ "$1" != -n ] || shift\n"$@"\n'


def python(version: str, *, venv: bool = True, library: bool = True) -> str:
    too_old = int(version.split(".")[1]) < 11
    return PYTHON.format(version=version, too_old=int(too_old), no_venv=int(not venv), no_library=int(not library))


@dataclass(frozen=True)
class Machine:
    """A folder of programs, which is all that a script finds."""

    programs: Path

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str, str, list[str]]:
        """Exit status, stdout, stderr and what was called as another."""
        calls = self.programs.parent / "calls"
        calls.touch()
        done = subprocess.run(
            ["/bin/sh", ROOT / "tools" / script, *arguments],
            env={"PATH": str(self.programs), "CALLS": str(calls), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr, calls.read_text().splitlines()


def machine(folder: Path, programs: Mapping[str, str]) -> Machine:
    bin_ = folder / "bin"
    bin_.mkdir()
    for name in ("dirname", "env", "sed"):
        (bin_ / name).symlink_to(f"/usr/bin/{name}")
    for name, text in {"uname": "#!/bin/sh\necho Linux\n", **programs}.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    return Machine(bin_)


ROOT_USER = {"id": "#!/bin/sh\necho 0\n"}
USER = {"id": "#!/bin/sh\necho 1000\n"}
APT_WORKS = {"apt-get": APT.format(status=0)}
APT_FAILS = {"apt-get": APT.format(status=100)}
NO_LIBRARY = {"python3": python("3.12.1", library=False)}
BARE = {"python3": python("3.12.1", library=False, venv=False)}


@pytest.mark.parametrize(
    ("sentence", "programs", "status", "says", "calls"),
    [
        ("nothing is missing: nothing is called or said",
         ROOT_USER | APT_WORKS | {"python3": python("3.12.1")}, 0, "", []),
        ("root installs the library",
         ROOT_USER | APT_WORKS | NO_LIBRARY, 0, "installing nftables (apt-get)",
         ["apt-get update -qq", "apt-get install -qq -y --no-install-recommends nftables"]),
        ("and what this very Python lacks",
         ROOT_USER | APT_WORKS | BARE, 0, "installing python3.12-venv nftables (apt-get)",
         ["apt-get update -qq", "apt-get install -qq -y --no-install-recommends python3.12-venv nftables"]),
        ("without any Python, the system's",
         ROOT_USER | APT_WORKS, 0, "installing python3 python3-venv nftables (apt-get)",
         ["apt-get update -qq", "apt-get install -qq -y --no-install-recommends python3 python3-venv nftables"]),
        ("a user does it by sudo, which asks nothing where nobody can answer",
         USER | APT_WORKS | NO_LIBRARY | {"sudo": SUDO}, 0, "installing nftables (sudo -n apt-get)",
         ["sudo -n env", "apt-get update -qq",
          "sudo -n env", "apt-get install -qq -y --no-install-recommends nftables"]),
        ("a user without sudo is told the command",
         USER | APT_WORKS | NO_LIBRARY, 3,
         "as root, run: apt-get update && apt-get install --no-install-recommends nftables", []),
        ("apt-get fails: the command to give",
         ROOT_USER | APT_FAILS | NO_LIBRARY, 3,
         "that failed; as root, run: apt-get update && apt-get install --no-install-recommends nftables",
         ["apt-get update -qq"]),
        ("another kind of Linux is told what to install",
         ROOT_USER | NO_LIBRARY, 3, "what these packages of Debian hold: nftables", []),
        ("another system is told how to get a Linux",
         ROOT_USER | {"uname": "#!/bin/sh\necho Darwin\n"}, 3, "this is Darwin; try: vagrant up", []),
        ("Python is too old: no package is installed for nothing",
         ROOT_USER | APT_WORKS | {"python3": python("3.10.12")}, 3,
         "needs Python 3.11 or newer; here is Python 3.10.12", []),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)  # fmt: skip
def test_the_system_gets_what_it_lacks(
    sentence: str, programs: dict[str, str], status: int, says: str, calls: list[str], tmp_path: Path
) -> None:
    got, out, said, called = machine(tmp_path, programs).run("install-system")
    assert (got, out, called) == (status, "", calls)
    assert says in said
    assert bool(said) == bool(says)


def test_more_is_installed_only_for_those_who_ask(tmp_path: Path) -> None:
    here = machine(tmp_path, ROOT_USER | APT_WORKS | {"python3": python("3.12.1"), "make": "", "shellcheck": ""})
    assert here.run("install-system", "checks")[3][-1].endswith("--no-install-recommends ruby")
    status, _, said, _ = here.run("install-system", "chekcs")
    assert (status, said) == (2, "install-system: chekcs: say checks or tests, or nothing\n")


@pytest.mark.parametrize(
    ("sentence", "programs", "asked", "chosen"),
    [
        ("python3 will do", {"python3": "3.11.2", "python3.14": "3.14.0"}, "", "python3"),
        ("python3 is too old: the newest that is not",
         {"python3": "3.10.1", "python3.13": "3.13.0", "python3.11": "3.11.9"}, "", "python3.13"),
        ("what PYTHON says", {"python3": "3.11.2", "python3.14": "3.14.0"}, "python3.14", "python3.14"),
        ("PYTHON is too old, though another would do", {"python3": "3.11.2", "python3.9": "3.9.1"}, "python3.9",
         "PYTHON=python3.9 is Python 3.9.1"),
        ("PYTHON is nothing", {"python3": "3.11.2"}, "python4", "PYTHON=python4 is no Python at all"),
        ("nothing new enough", {"python3": "3.9.1"}, "", "here is Python 3.9.1"),
        ("nothing", {}, "", "here is no python3"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)  # fmt: skip
def test_the_interpreter(sentence: str, programs: dict[str, str], asked: str, chosen: str, tmp_path: Path) -> None:
    here = machine(tmp_path, {name: python(version) for name, version in programs.items()})
    status, out, said, _ = here.run("find-python", PYTHON=asked)
    if chosen in programs:
        assert (status, out, said) == (0, f"{here.programs / chosen}\n", "")
    else:
        assert (status, out) == (3, "")
        assert chosen in said


@pytest.mark.parametrize(
    ("prefix", "status", "says"),
    [
        ("usr/local", 2, "must be an absolute path"),
        ("/proc/nowhere", 3, "run: sudo make install (or choose a PREFIX)"),
    ],
)
def test_an_installation_that_cannot_be_is_refused_before_it_begins(prefix: str, status: int, says: str) -> None:
    done = subprocess.run(
        ["/bin/sh", ROOT / "tools/install-testbed"],
        env={"PATH": os.environ["PATH"], "PREFIX": prefix, "DESTDIR": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert says in done.stderr
