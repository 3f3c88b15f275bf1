"""What the user who runs the tests may do."""

from __future__ import annotations

import os
from pathlib import Path

IS_ROOT_OF_ALL_USERS = os.geteuid() == 0 and str(2**32 - 1) in Path("/proc/self/uid_map").read_text()
"""Not so for root in a user namespace, as whom the lab tests of other users run: it may not become another user."""
