"""What tc(8) of this machine sends to the kernel, seen by strace.

`python -m tests.lab.tc` records it in netem_tc.json for the rows of test_netem.py.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
from hashlib import sha256
from pathlib import Path
from shutil import which

from testbed.lab.namespaces import new_namespace

RECORD = Path(__file__).with_name("netem_tc.json")
_HEADER = struct.Struct("=IHHII")
_ACK = 0x4
_LONGEST = 512


def missing() -> str | None:
    """Why nothing can be seen here; None where it can."""
    absent = [program for program in ("tc", "strace") if which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def version() -> str:
    """Such as 6.1.0."""
    said = subprocess.run(["tc", "-V"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"iproute2-([0-9.]+)", said)
    return found[1] if found else said.strip()


def sent(arguments: str) -> bytes:
    """The message of `tc qdisc add dev lo root netem ARGUMENTS`, made `plain`."""
    command = ["strace", "-e", "trace=sendmsg", "-s", "0", "-e", "write=3", "tc", "qdisc", "add", "dev", "lo", "root"]
    namespace = new_namespace()
    with namespace:
        run = subprocess.run([*command, "netem", *arguments.split()], capture_output=True, text=True, check=False)
    namespace.close()
    rows = re.findall(r"^ \| [0-9a-f]{5}  ((?:[0-9a-f]{2} {1,2}){1,16})", run.stderr, re.MULTILINE)
    return plain(bytes.fromhex("".join(rows)))


def plain(message: bytes) -> bytes:
    """Without what differs from one sending to the next."""
    length, kind, flags, _, _ = _HEADER.unpack_from(message)
    return _HEADER.pack(length, kind, flags & ~_ACK, 0, 0) + message[_HEADER.size :]


def written(message: bytes) -> str:
    """As it is recorded: in hexadecimal, or a digest where there is a table of 8 KiB in it."""
    return message.hex() if len(message) <= _LONGEST else f"sha256 {sha256(message).hexdigest()}"


def recorded() -> dict[str, str]:
    """By arguments; the key `version` says whose."""
    return dict(json.loads(RECORD.read_text()))


if __name__ == "__main__":
    from tests.lab.test_netem import ROWS

    found = {"version": version()} | {arguments: written(sent(arguments)) for _, arguments, _ in ROWS}
    RECORD.write_text(json.dumps(found, indent=1) + "\n")
