"""JSON files as the pages keep them: what fits stands on one line, so that a new measurement is a diff to be read.

`python -m tools.compact FILE...` rewrites each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.regions import compact


def main() -> None:
    """Rewrite the files that the command line names."""
    for path in map(Path, sys.argv[1:]):
        path.write_text(compact(json.loads(path.read_text(encoding="utf-8"))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
