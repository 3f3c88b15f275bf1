"""`testbed --help` must feel instant: it may cost little more than Python and click alone."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.paired import promise, show, take_turns

MOST = 1.6
"""Times as long as click alone."""


def main(rounds: int = 30) -> int:
    """Print both; how many promises were missed."""
    rounds_of = take_turns(
        {
            "python, click": lambda: _run("-c", "import click"),
            "testbed --help": lambda: _run("-m", "testbed", "--help"),
        },
        rounds,
    )
    show(rounds_of, "python, click")
    ratio = rounds_of.ratio("testbed --help", "python, click").value
    assert ratio is not None
    return promise("testbed --help beside click alone", ratio, MOST, "x")


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
