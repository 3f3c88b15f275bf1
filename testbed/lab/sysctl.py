"""Settings of a network namespace: the files below /proc/sys/net, which show those of the thread that opens them.

Rule 1: a new namespace inherits some of the host's settings (net.core.devconf_inherit_init_net), so whatever a lab
        depends on is written, not assumed, unless new namespaces are found to have it so already: each file costs 50 µs
        in each namespace, for the kernel makes them as they are looked up.
Rule 2: what the kernel does not have (a module that is not loaded) needs no setting.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from testbed.errors import BrokenError, MachineError
from testbed.lab.namespaces import new_namespace

_ALWAYS: Mapping[str, str] = {
    # Interfaces answer by routes of the plan: a multi-homed node may hear on one what it answers on another.
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    # Networks speak IPv4; the kernel's own router solicitations would be noise in captures. (`all` sets `default`.)
    "ipv6/conf/all/disable_ipv6": "1",
    # Frames of a segment's hosts pass the bridge and not the NAT's rules.
    "bridge/bridge-nf-call-iptables": "0",
    "bridge/bridge-nf-call-arptables": "0",
}
_ROUTERS: Mapping[str, str] = {
    # A router on a path that turns back would tell hosts of a shorter one, and change their routes.
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
}
_FORWARD = "ipv4/ip_forward"


def configure(*, forwards: bool) -> None:
    """Set up the new namespace that the thread is in."""
    wanted = {**_ALWAYS, **(_ROUTERS if forwards else {}), _FORWARD: str(int(forwards))}
    found = _of_new_namespaces()
    write({name: value for name, value in wanted.items() if found.get(name) != value})


def write(settings: Mapping[str, str]) -> None:
    """Change the namespace that the thread is in. `settings`: path below /proc/sys/net -> value."""
    for name, value in settings.items():
        _write(name, value)


@cache
def _of_new_namespaces() -> Mapping[str, str]:
    """What a new namespace has, while this process lives."""
    found = {}
    with closing(new_namespace()) as namespace, namespace:
        for name in (*_ALWAYS, *_ROUTERS, _FORWARD):
            with suppress(OSError):
                found[name] = Path(f"/proc/sys/net/{name}").read_text().strip()
    return found


def _write(name: str, value: str) -> None:
    try:
        fd = os.open(f"/proc/sys/net/{name}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _read_only(name, error) from error
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise BrokenError(f"net.{name.replace('/', '.')} = {value}: {error.strerror}") from error
    finally:
        os.close(fd)


def _read_only(name: str, error: OSError) -> MachineError:
    return MachineError(
        f"the settings of a namespace cannot be written (net.{name.replace('/', '.')}: {error.strerror}), as in "
        "containers with a read-only /proc/sys",
        mend="in a container: --privileged, or --security-opt systempaths=unconfined",
    )
