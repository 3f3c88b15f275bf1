"""A `two_homes` lab, built and gone: six namespaces, five impaired links, two NATs with rules of their own.

Rule 1: the rival by scripts has the same namespaces, addresses, routes, neighbours and rules, but plain veth pairs:
        no impairments, no captures. So it is compared with a lab of ours that has none either ("bare"); Mininet, which
        has less still, with a whole one.
Rule 2: "gone" is when nobody holds a namespace any more: the lab is closed, `ip netns delete` has returned.
Rule 3: a lab of ours is made as trials make theirs, in a process that has made others before.
Rule 4: nothing of the host is touched: the scripts run in a mount and network namespace of their own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.paired import promise, said, show, take_turns
from testbed.lab.blueprint import Blueprint, draw
from testbed.lab.lab import build
from testbed.lab.nftables.prepare import text
from testbed.plan.addressing import plan_network
from testbed.plan.network import Network
from testbed.spec.link import Link
from testbed.spec.load import load_topology

OURS, BARE, SCRIPTS, MININET = "testbed", "testbed, bare", "ip -batch, nft -f", "Mininet"
PROMISED = {SCRIPTS: 3.0, MININET: 8.0}
MOST = 45.0
"""Milliseconds, median."""
MININET_PROGRAM = """
from mininet.net import Mininet
from mininet.node import Node
from mininet.link import Link
from mininet.topo import Topo
class Router(Node):
    def config(self, **params):
        super().config(**params)
        self.cmd('sysctl net.ipv4.ip_forward=1')
class TwoHomes(Topo):
    def build(self):
        core = self.addNode('core', cls=Router, ip=None)
        for name, inside in (('a', '192.168.1'), ('b', '192.168.2')):
            nat = self.addNode('nat' + name, cls=Router, ip=None)
            peer = self.addHost('p' + name, ip=inside + '.2/24', defaultRoute='via ' + inside + '.1')
            self.addLink(nat, core, intfName1='nat' + name + '-wan')
            self.addLink(peer, nat, params2={'ip': inside + '.1/24'})
        self.addLink(self.addHost('meet', ip='11.0.0.2/30'), core)
net = Mininet(topo=TwoHomes(), controller=None, waitConnected=False)
net.start()
for name in 'ab':
    net['nat' + name].cmd('iptables -t nat -A POSTROUTING -o nat%s-wan -j MASQUERADE' % name)
net.stop()
"""
"""Its nearest equivalent: routers out of nodes, masquerade by iptables, no impairments."""


def main(rounds: int = 40) -> int:
    """Print the medians and ratios; how many promises were missed."""
    loaded = load_topology("two_homes", nats={"nat_a": "eim-apdf", "nat_b": "apdm-apdf"})
    network = plan_network(loaded.topology, loaded.profiles)
    blueprint = draw(network, "wire")
    bare = draw(_without_impairments(network), "wire")
    with tempfile.TemporaryDirectory() as folder:
        script = _write_scripts(network, Path(folder))
        subjects = {
            OURS: lambda: _ours(blueprint),
            BARE: lambda: _ours(bare, capture=False),
            SCRIPTS: lambda: _isolated("sh", str(script)),
        }
        if _has_mininet():
            program = Path(folder) / "mininet_two_homes.py"
            program.write_text(MININET_PROGRAM)
            subjects[MININET] = lambda: _isolated("/usr/bin/python3", str(program))
        else:
            print("Mininet is not installed (apt-get install mininet): left out")
        measured = take_turns(subjects, rounds)
    missed = show(measured, OURS, {MININET: PROMISED[MININET]})
    ratio = measured.ratio(SCRIPTS, BARE)
    assert ratio.value is not None
    is_kept = ratio.value >= PROMISED[SCRIPTS]
    missed += not is_kept
    verdict = "kept" if is_kept else "MISSED"
    print(f"{SCRIPTS} beside {BARE}: {said(ratio, 'x', 2)}, promised {PROMISED[SCRIPTS]:g} x: {verdict}")
    median = measured.median(OURS).value
    assert median is not None
    return missed + promise("a lab, built and gone", median, MOST, "ms")


def _without_impairments(network: Network) -> Network:
    return replace(network, cables=tuple(replace(cable, link=Link()) for cable in network.cables))


def _ours(blueprint: Blueprint, *, capture: bool = True) -> None:
    with build(blueprint, 1, capture=capture):
        pass


def _isolated(*command: str) -> None:
    subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh", *command],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _write_scripts(network: Network, folder: Path) -> Path:
    """The same lab for ip(8) and nft(8); one batch for the devices, one a namespace for what is in it."""
    lines = ["set -e"]
    make = [f"netns add {name}" for name in network.boxes]
    for cable in network.cables:
        lower, upper = cable.lower, cable.upper
        make.append(
            f"link add {lower.interface} address {lower.mac} netns {lower.box} type veth "
            f"peer name {upper.interface} address {upper.mac} netns {upper.box}"
        )
    lines.append(_batch(folder, "make", make, "ip"))
    for name, box in network.boxes.items():
        lines.append(_batch(folder, name, list(_inside(network, name)), f"ip -n {name}"))
        if box.forwards:
            lines.append(f"ip netns exec {name} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'")
        if box.translation is not None:
            rules = folder / f"{name}.nft"
            rules.write_text(text(box.translation, 1))
            lines.append(f"ip netns exec {name} nft -f {rules}")
    lines.append(_batch(folder, "gone", [f"netns delete {name}" for name in network.boxes], "ip"))
    script = folder / "lab.sh"
    script.write_text("\n".join(lines) + "\n")
    return script


def _inside(network: Network, name: str) -> Iterator[str]:
    box = network.boxes[name]
    for interface in box.interfaces:
        if interface.is_bridge:
            yield f"link add {interface.name} address {interface.mac} type bridge"
    yield "link set lo up"
    for cable in network.cables:
        for port in (cable.lower, cable.upper):
            if port.box == name:
                master = f" master {port.bridge}" if port.bridge else ""
                yield f"link set {port.interface}{master} up"
    for interface in box.interfaces:
        if interface.is_bridge:
            yield f"link set {interface.name} up"
        yield from (f"address add {address} dev {interface.name} noprefixroute" for address in interface.addresses)
    for neighbour in box.neighbours:
        yield f"neigh add {neighbour.address} lladdr {neighbour.mac} dev {neighbour.interface} nud permanent"
    for route in box.routes:
        via = f"via {route.via} " if route.via is not None else ""
        scope = "" if route.via is not None else " scope link"
        yield f"route add {route.destination} {via}dev {route.interface}{scope}"


def _batch(folder: Path, name: str, commands: list[str], program: str) -> str:
    file = folder / f"{name}.batch"
    file.write_text("\n".join(commands) + "\n")
    return f"{program} -batch {file}"


def _has_mininet() -> bool:
    probe = [*("/usr/bin/python3", "-c"), "import mininet.net"]
    return (
        shutil.which("ovs-vsctl") is not None
        and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )


if __name__ == "__main__":
    sys.exit(main())
