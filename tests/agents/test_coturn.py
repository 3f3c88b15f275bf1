"""The rendezvous serves clients that others wrote: Debian's turnutils (package coturn), over loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial

import pytest
import trio

from testbed.agents.contract import ServerAddresses
from testbed.agents.rendezvous import run_rendezvous
from tests.agents.sockets import address, open_socket

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True)
def turnutils(request: pytest.FixtureRequest) -> None:
    if shutil.which("turnutils_uclient") is None:
        reason = "turnutils_uclient is missing: apt-get install coturn"
        if request.config.getoption("--require-lab") or os.environ.get("REQUIRE_LAB"):
            pytest.fail(reason)
        pytest.skip(reason)


async def ask(commands: dict[str, list[str]]) -> tuple[ServerAddresses, dict[str, str]]:
    """What each command says to the rendezvous; all run at once, since turnutils take their time."""
    said: dict[str, str] = {}

    async def run(name: str, command: list[str], servers: ServerAddresses) -> None:
        user, password = servers.credentials.username, servers.credentials.password
        credentials = ["-u", user, "-w", password] if command[0] == "turnutils_uclient" else []
        full = [command[0], *credentials, *command[1:], servers.stun[0].host]
        with trio.fail_after(30):
            done = await trio.run_process(full, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
        said[name] = done.stdout.decode()

    async with trio.open_nursery() as nursery:
        serve = partial(
            run_rendezvous, (address(21), address(22)), open_socket=open_socket, seed=1, loopback_peers=True
        )
        servers: ServerAddresses = await nursery.start(serve)
        echo = partial(
            trio.run_process,
            ["turnutils_peer", "-L", address(23), "-p", "3480"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        nursery.start_soon(echo)
        async with trio.open_nursery() as clients:
            for name, command in commands.items():
                clients.start_soon(run, name, command, servers)
        nursery.cancel_scope.cancel()
    return servers, said


def test_turnutils_uclient_relays_without_loss_in_every_way_it_knows() -> None:
    ways = {
        "channels, an even port and the next one for RTCP": ["-e", address(23)],
        "Send indications": ["-e", address(23), "-c", "-s"],
        "client to client": ["-y"],
        "many requests of all kinds": ["-e", address(23), "-c", "-m", "2", "-G"],
    }
    client = ["turnutils_uclient", "-L", address(24), "-n", "5"]
    _, said = trio.run(ask, {name: [*client, *way] for name, way in ways.items()})
    for name, text in said.items():
        assert "Total lost packets 0 (0.000000%), total send dropped 0" in text, f"{name}: {text}"


def test_turnutils_natdiscovery_finds_that_loopback_has_no_nat() -> None:
    client = ["turnutils_natdiscovery", "-L", address(25)]
    servers, said = trio.run(ask, {"mapping": [*client, "-m"], "filtering": [*client, "-f"]})
    other = servers.stun[1]
    assert f"Other addr: : {other.host}:3479" in said["mapping"]
    assert "No NAT! (Endpoint Independent Mapping)" in said["mapping"]
    assert "NAT with Endpoint Independent Filtering!" in said["filtering"]
