"""The scenario `classic`, 480 trials, with either agent: how long it takes, and that every cell is as theory says.

Theory: two NATs can be punched unless one maps by address and port and the other filters by address and port
(docs/concepts.md). So each cell is 30 of 30, or 0 of 30.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.paired import promise
from testbed.spec.places import FileKind, installed

PROMISED = {"quic": 60.0, "udp": 25.0}
"""Seconds on two cores."""


def main() -> int:
    """Print the times; how many promises were missed."""
    return sum(_run(agent, most) for agent, most in PROMISED.items())


def _run(agent: str, most: float) -> int:
    with tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder) / "scenarios" / "classic.yaml"
        scenario.parent.mkdir()
        text = (installed(FileKind.SCENARIO) / "classic.yaml").read_text()
        scenario.write_text(text.replace("agent: quic", f"agent: {agent}"))
        out = str(Path(folder) / "out")
        before = time.perf_counter()
        command = [sys.executable, "-m", "testbed", "run", str(scenario), "--json", "--progress", "none", "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.perf_counter() - before
    if not done.stdout:
        print(done.stderr)
        return 1
    cells = json.loads(done.stdout)["cells"]
    wrong = [cell["id"] for cell in cells if not _is_as_theory_says(cell)]
    trials = sum(cell["trials"] for cell in cells)
    print(f"agent {agent}: {trials} trials, {trials / took:.1f} a second; exit status {done.returncode}")
    for name in wrong:
        print(f"  {name} is not as theory says")
    return promise(f"classic with agent {agent}", took, most, "s") + bool(wrong) + bool(done.returncode)


def _is_as_theory_says(cell: dict[str, dict[str, object]]) -> bool:
    kinds = [str(cell["factors"][name]) for name in ("nat_a", "nat_b")]
    is_blocked = any(one.startswith("apdm") and other.endswith("apdf") for one, other in (kinds, reversed(kinds)))
    expected = 0 if is_blocked else cell["trials"]
    return cell["outcomes"]["direct"] == expected and cell["outcomes"]["broken"] == 0


if __name__ == "__main__":
    sys.exit(main())
