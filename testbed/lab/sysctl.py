"""Settings of a network namespace: the files below /proc/sys/net, which show those of the thread that opens them.

Rule 1: a new namespace inherits some of the host's settings (net.core.devconf_inherit_init_net), so whatever a lab
        depends on is written, not assumed.
Rule 2: what the kernel does not have (a module that is not loaded) needs no setting.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from testbed.errors import BrokenError, MachineError

_ALWAYS: Mapping[str, str] = {
    # Interfaces answer by routes of the plan: a multi-homed node may hear on one what it answers on another.
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    # A router on a path that turns back would tell hosts of a shorter one, and change their routes.
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    # Networks speak IPv4; the kernel's own router solicitations would only be noise in captures.
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    # Frames of a segment's hosts pass the bridge and not the NAT's rules.
    "bridge/bridge-nf-call-iptables": "0",
    "bridge/bridge-nf-call-arptables": "0",
}


def configure(*, forwards: bool, more: Mapping[str, str]) -> None:
    """Write the settings of the namespace that the thread is in. `more`: path below /proc/sys/net -> value."""
    for name, value in {**_ALWAYS, "ipv4/ip_forward": str(int(forwards)), **more}.items():
        _write(name, value)


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
