"""What a machine is: facts that colour a run's numbers, and which of them must be alike for two runs to be compared.

Rule 1: the key is made of slow facts only, those that a reboot into the same system leaves as they are. A load or a
        frequency is no part of it: it would refuse every comparison.
Rule 2: what cannot be found out is None, never a guess.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from testbed import __version__
from testbed.results.document import Document

_ABOUT: Mapping[str, str] = {
    "testbed": "version of testbed",
    "kernel_release": "kernel",
    "machine": "architecture",
    "cpu_model": "processor",
    "cpus": "cores",
    "python": "version of Python",
    "aioquic": "version of aioquic",
    "links": "links",
    "kernel": "kernel of the lab",
    "time": "time",
}
"""The key: name -> what a person calls it. The last three are of the lab."""


def environment() -> dict[str, JsonValue]:
    """What must be the same for two runs' numbers to be compared: slow facts only."""
    return {
        "testbed": __version__,
        "kernel_release": platform.release(),
        "machine": platform.machine(),
        "cpu_model": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "aioquic": version("aioquic"),
    }


def passing_facts(
    proc: Path = Path("/proc"), sys: Path = Path("/sys"), etc: Path = Path("/etc")
) -> dict[str, JsonValue]:
    """What a person may want to know later of this machine as it is now, and what is no part of the key."""
    return {
        "os": _after(etc / "os-release", "PRETTY_NAME=", '"'),
        "memory_bytes": _memory(proc / "meminfo"),
        "governor": _line(sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load": _load(proc / "loadavg"),
    }


def key(document: Document) -> dict[str, JsonValue]:
    """The environment key of a run."""
    facts = {**document.environment, **document.lab.model_dump(mode="json")}
    return {name: facts.get(name) for name in _ABOUT}


def differences(base: Document, new: Document) -> Iterator[str]:
    """`kernel: 6.12.0 in the base, 6.14.1 in the new`, one line for each fact of the key that is not the same."""
    then, now = key(base), key(new)
    for name, about in _ABOUT.items():
        if then[name] != now[name]:
            yield f"{about}: {_said(then[name])} in the base, {_said(now[name])} in the new"


def _said(value: JsonValue) -> str:
    return "not known" if value is None else str(value)


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    return next(
        (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "unknown"
    )


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _after(path: Path, start: str, strip: str) -> str | None:
    lines = (_line(path) or "").splitlines()
    return next((line.removeprefix(start).strip(strip) for line in lines if line.startswith(start)), None)


def _memory(path: Path) -> int | None:
    words = (_after(path, "MemTotal:", "") or "").split()
    return 1024 * int(words[0]) if words and words[0].isdecimal() else None


def _load(path: Path) -> list[JsonValue] | None:
    words = (_line(path) or "").split()[:3]
    try:
        return [float(word) for word in words] if len(words) == 3 else None
    except ValueError:
        return None
