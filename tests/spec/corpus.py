"""Files that are wrong, each with the exact messages that it deserves; and the shipped ones, which are right."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BROKEN = ROOT / "tests" / "data" / "broken"
SHIPPED = tuple(
    path.relative_to(ROOT)
    for folder in ("topologies", "nat_profiles", "scenarios")
    for path in sorted((ROOT / folder).glob("*.yaml"))
)
MISTAKES = tuple(path.relative_to(BROKEN) for path in sorted(BROKEN.glob("*/*.yaml")) if path.parent.name != "good")
