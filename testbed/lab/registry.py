"""Labs that a person holds: how another process finds them and enters their nodes.

Rule 1: a lab is announced by an abstract socket, which the kernel removes with the process that holds the lab. There
        is no file to go stale.
Rule 2: whoever connects gets one JSON document and nothing else; what it may do with that is decided by the kernel, by
        its rights on the holder's process.
Rule 3: the socket must be made before the holder leaves the host's network: abstract sockets belong to a network
        namespace.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import MachineError, UsageError
from testbed.lab import namespaces

PREFIX = "testbed/lab/"
_PATIENCE = 2.0
_PROC_NET_UNIX = Path("/proc/net/unix")


@dataclass(frozen=True, slots=True)
class Held:
    """A lab that some process holds."""

    id: str
    pid: int
    document: Mapping[str, Any]
    """`{"lab": …, "topology": …, "nodes": {name: {"kind", "addresses", "netns"}}}`."""


class Announcement:
    """The socket by which a lab is found."""

    def __init__(self, name: str) -> None:
        """Raises UsageError where a lab of this name is held already."""
        self.id = name
        self._document = b"{}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self.socket.bind(f"\0{PREFIX}{name}")
        except OSError:
            self.socket.close()
            raise UsageError(f"a lab {name!r} is held already: see `testbed ls`") from None

    def open(self, document: Mapping[str, Any]) -> None:
        """Answer from now on."""
        self._document = json.dumps(document).encode()
        self.socket.listen(16)

    def answer(self) -> None:
        """Give the document to one who has connected; call it when the socket is readable."""
        try:
            connection, _ = self.socket.accept()
        except BlockingIOError:
            return
        with connection:
            connection.setblocking(True)
            connection.settimeout(_PATIENCE)
            try:
                connection.sendall(self._document)
            except OSError:
                return  # it went away; that is its own business

    def close(self) -> None:
        """Be found no more."""
        self.socket.close()


def held_labs() -> tuple[Held, ...]:
    """Every lab that is held on this machine, by id."""
    names = set()
    for line in _PROC_NET_UNIX.read_text().splitlines():
        _, _, name = line.partition(f" @{PREFIX}")
        if name:
            names.add(name)
    return tuple(lab for name in sorted(names) if (lab := _ask(name)) is not None)


def held_lab(name: str | None) -> Held:
    """The lab of this id, or the only one there is. Raises UsageError."""
    labs = {lab.id: lab for lab in held_labs()}
    if name is None and len(labs) == 1:
        return next(iter(labs.values()))
    if name in labs:
        return labs[name]
    if not labs:
        raise UsageError("no lab is held: start one with `testbed up TOPOLOGY`")
    listed = ", ".join(labs)
    raise UsageError(f"there is no lab {name!r} (held: {listed})" if name else f"several labs are held: --lab {listed}")


def enter_node(lab: Held, node: str) -> None:
    """Put this process into a node of a held lab, for good. Raises UsageError, MachineError."""
    nodes = lab.document["nodes"]
    if node not in nodes:
        raise UsageError(f"the lab {lab.id} has no node {node!r} (it has {', '.join(nodes)})")
    try:
        namespaces.join(lab.pid, nodes[node]["netns"])
    except OSError as error:
        raise MachineError(
            f"entering {node} of the lab {lab.id} is refused: {error.strerror}",
            mend=f"run it as the one who holds the lab (process {lab.pid}), or with sudo",
        ) from error


def _ask(name: str) -> Held | None:
    """None where it is gone, or not ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as asking:
        asking.settimeout(_PATIENCE)
        try:
            asking.connect(f"\0{PREFIX}{name}")
            pid = int.from_bytes(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
            data = b"".join(iter(lambda: asking.recv(1 << 16), b""))
            document = json.loads(data)
        except (OSError, ValueError):
            return None
    return Held(name, pid, document) if "nodes" in document else None
