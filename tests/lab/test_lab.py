"""Labs: what is built is what was planned, packets find their way, and nothing is left behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from testbed.datagram import Endpoint
from testbed.errors import BrokenError
from testbed.lab import namespaces
from testbed.lab.blueprint import FIRST_INDEX, draw
from testbed.lab.lab import Lab, build
from testbed.lab.netlink import Netlink
from testbed.plan.addressing import plan_network
from testbed.plan.network import Network
from testbed.spec.load import load_topology
from testbed.spec.loader import LoadedTopology
from testbed.spec.topology import NodeKind

pytestmark = pytest.mark.lab

TWO_HOMES = """
nodes:
  meet:  {kind: rendezvous, uplink: internet, link: {delay: 1ms}}
  nat_a: {kind: nat, uplink: internet, profile: eim-apdf, link: {delay: 2ms}}
  alice: {kind: peer, uplink: nat_a}
  nat_b: {kind: nat, uplink: internet, profile: apdm-apdf}
  bob:   {kind: peer, uplink: nat_b, link: {delay: 1ms}}
"""
NESTED = """
nodes:
  meet:    {kind: rendezvous, uplink: internet}
  carrier: {kind: nat, uplink: internet, profile: apdm-apdf}
  home:    {kind: nat, uplink: carrier, profile: eim-eif}
  alice:   {kind: peer, uplink: home, link: {delay: 1ms}}
  bob:     {kind: peer, uplink: carrier}
"""
SEVERAL_HOSTS = """
nodes:
  meet: {kind: rendezvous, uplink: internet}
  home: {kind: nat, uplink: internet, profile: eim-eif, lan: 10.1.2.0/24}
  alice: {kind: peer, uplink: home, link: {delay: 1ms}}
  bob: {kind: peer, uplink: home}
  tv: {kind: host, uplink: home}
"""
SAME_PREFIX = """
nodes:
  meet:  {kind: rendezvous, uplink: internet}
  nat_a: {kind: nat, uplink: internet, profile: eim-eif, lan: 192.168.7.0/24}
  alice: {kind: peer, uplink: nat_a}
  nat_b: {kind: nat, uplink: internet, profile: eim-eif, lan: 192.168.7.0/24}
  bob:   {kind: peer, uplink: nat_b}
"""
TWO_UPLINKS = """
nodes:
  meet:  {kind: rendezvous, uplink: internet}
  nat_a: {kind: nat, uplink: internet, profile: eim-eif}
  nat_b: {kind: nat, uplink: internet, profile: eim-eif}
  alice: {kind: peer, uplink: [nat_a, nat_b], link: [{delay: 1ms}, {}]}
  bob:   {kind: peer, uplink: internet}
"""
REGIONS = """
regions:
  lon1: {fra1: 2ms, nyc1: 5ms}
  fra1: {nyc1: 6ms}
  nyc1: {}
nodes:
  meet:  {kind: rendezvous, uplink: fra1}
  wall:  {kind: router, uplink: lon1}
  alice: {kind: peer, uplink: wall}
  nat_b: {kind: nat, uplink: nyc1, profile: eim-eif}
  bob:   {kind: peer, uplink: nat_b}
"""
LOSSY = """
nodes:
  meet:  {kind: rendezvous, uplink: internet}
  alice: {kind: peer, uplink: internet, link: {delay: 1ms, up: {loss: 30%}}}
  bob:   {kind: peer, uplink: internet}
"""
TOPOLOGIES = {
    "two homes": TWO_HOMES,
    "a carrier's nat before a home's": NESTED,
    "several hosts behind one nat": SEVERAL_HOSTS,
    "two homes with one prefix": SAME_PREFIX,
    "a node with two uplinks": TWO_UPLINKS,
    "regions and a router": REGIONS,
}
PATIENCE = 20
IP_RECVTTL = 12  # linux/in.h; Python has no name for it


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], LoadedTopology]:
    def load_text(text: str) -> LoadedTopology:
        path = tmp_path / "topologies" / "own.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return load_topology(str(path))

    return load_text


@contextmanager
def built(loaded: LoadedTopology, seed: int = 1) -> Iterator[Lab]:
    """A lab in this process."""
    network = plan_network(loaded.topology, loaded.profiles)
    with build(draw(network, "wire"), seed) as lab:
        yield lab


def test_nothing_changes_where_a_lab_is_made(load: Callable[[str], LoadedTopology]) -> None:
    """Neither a device nor a setting, while it is there and afterwards."""
    settings = ("ipv4/ip_forward", "ipv4/conf/all/send_redirects", "ipv6/conf/all/disable_ipv6")

    def state() -> tuple[dict[str, object], list[str]]:
        with Netlink() as link:
            devices = {name: message["flags"] for name, message in link.links().items()}
        return devices, [Path(f"/proc/sys/net/{name}").read_text() for name in settings]

    loaded = load(TWO_HOMES)
    with closing(namespaces.new_namespace()) as here, here:
        before = state()
        with built(loaded):
            assert state() == before
        assert state() == before


def ask(lab: Lab, client: str, server: str, *, source: str | None = None, port: int = 7000) -> Endpoint:
    """A datagram from one node to another and back; returns whom the server saw."""
    target = Endpoint(str(lab.blueprint.network.boxes[server].addresses()[0]), port)
    own = source or str(lab.blueprint.network.boxes[client].addresses()[0])
    with (
        lab.open_socket(server, target) as listening,
        lab.open_socket(client, Endpoint(own, 0)) as asking,
    ):
        asking.sendto(b"who am I?", target)
        assert select.select([listening], [], [], PATIENCE)[0], f"{client} does not reach {server}"
        data, seen = listening.recvfrom(100)
        assert data == b"who am I?"
        listening.sendto(b"that", seen)
        assert select.select([asking], [], [], PATIENCE)[0], f"no way back from {server} to {client}"
        answer, answerer = asking.recvfrom(100)
        assert (answer, Endpoint(*answerer)) == (b"that", target)
        return Endpoint(*seen)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_what_is_built_is_what_was_planned(name: str, load: Callable[[str], LoadedTopology]) -> None:
    with built(load(TOPOLOGIES[name])) as lab:
        for plan in lab.blueprint.boxes:
            box, indexes = plan.box, plan.indexes
            with lab.boxes[box.name], Netlink() as link:
                devices = {name for name, found in link.links().items() if found["index"] >= FIRST_INDEX}
                assert devices == set(indexes)
                assert {entry for entry in link.addresses() if entry[0] != 1} == {
                    (indexes[i.name], address) for i in box.interfaces for address in i.addresses
                }
                planned = {(r.destination, r.via, indexes[r.interface], r.table) for r in box.routes}
                assert {route for route in link.routes() if route[2] >= FIRST_INDEX} == planned
                assert link.neighbours() == {(indexes[n.interface], n.address, n.mac) for n in box.neighbours}
                assert link.source_rules() == set(box.rules)
            forwards = "1" if box.forwards else "0"
            with lab.boxes[box.name]:
                assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == forwards


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_everybody_reaches_the_rendezvous_as_theory_says(name: str, load: Callable[[str], LoadedTopology]) -> None:
    with built(load(TOPOLOGIES[name])) as lab:
        network = lab.blueprint.network
        for box in network.boxes.values():
            if box.kind in (NodeKind.PEER, NodeKind.HOST):
                seen = ask(lab, box.name, "meet")
                assert seen.host == outside_of(network, box.name), f"{box.name} comes out elsewhere"


def outside_of(network: Network, node: str) -> str:
    """The address by which the Internet should see a node, over its first uplink."""
    name, address = node, str(network.boxes[node].addresses()[0])
    while True:
        cable = next(c for c in network.cables if c.lower.box == name)
        above = network.boxes[cable.upper.box]
        if above.kind is None:
            return address
        if above.kind is NodeKind.NAT:
            assert above.translation is not None
            address = str(above.translation.external[0])
        name = above.name


def test_a_node_with_two_uplinks_leaves_by_the_one_of_its_source_address(
    load: Callable[[str], LoadedTopology],
) -> None:
    with built(load(TWO_UPLINKS)) as lab:
        boxes = lab.blueprint.network.boxes
        first, second = map(str, boxes["alice"].addresses())
        nats = [str(translation.external[0]) for n in ("nat_a", "nat_b") if (translation := boxes[n].translation)]
        assert [ask(lab, "alice", "meet", source=source).host for source in (first, second)] == nats


def test_hosts_of_one_nat_meet_on_their_segment_and_the_nat_sees_nothing(
    load: Callable[[str], LoadedTopology],
) -> None:
    with built(load(SEVERAL_HOSTS)) as lab:
        seen = ask(lab, "alice", "bob")
        assert seen.host == str(lab.blueprint.network.boxes["alice"].addresses()[0])
        assert lab.capture is not None
        lab.capture.drain()
        assert not [p for p in lab.capture.udp("home") if p.payload == b"who am I?"]
        assert not [p for p in lab.capture.udp("tv") if p.payload == b"who am I?"], "the segment floods"


def test_routers_on_the_way_take_from_the_time_to_live(load: Callable[[str], LoadedTopology]) -> None:
    with built(load(REGIONS)) as lab:
        target = Endpoint(str(lab.blueprint.network.boxes["meet"].addresses()[0]), 7001)
        own = Endpoint(str(lab.blueprint.network.boxes["alice"].addresses()[0]), 0)
        with lab.open_socket("meet", target) as listening, lab.open_socket("alice", own) as asking:
            listening.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
            asking.sendto(b"?", target)
            assert select.select([listening], [], [], PATIENCE)[0]
            _, ((_, _, ttl),), _, _ = listening.recvmsg(10, 100)
            assert int.from_bytes(ttl, "little") == 64 - len(["wall", "lon1", "fra1"])


def test_both_ends_of_a_packet_are_in_the_capture_with_its_delay(load: Callable[[str], LoadedTopology]) -> None:
    with built(load(TWO_HOMES)) as lab:
        ask(lab, "alice", "meet")
        assert lab.capture is not None
        lab.capture.drain()
        (sent,) = (p for p in lab.capture.udp("alice") if p.is_outgoing and p.payload == b"who am I?")
        (arrived,) = (p for p in lab.capture.udp("meet") if not p.is_outgoing and p.payload == b"who am I?")
        assert sent.digest == arrived.digest
        assert sent.source != arrived.source, "the NAT left the source as it was"
        assert arrived.time - sent.time >= 3_000_000
        assert lab.capture.drops() == 0


def test_the_same_seed_makes_the_same_ports(load: Callable[[str], LoadedTopology]) -> None:
    loaded = load(TWO_HOMES)
    seen = []
    for seed in (1, 1, 2):
        with built(loaded, seed) as lab:
            seen.append([ask(lab, "bob", "meet", port=port).port for port in (7000, 7001, 7002)])
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


def test_the_same_seed_loses_the_same_frames(load: Callable[[str], LoadedTopology]) -> None:
    loaded = load(LOSSY)
    arrived = []
    for seed in (1, 1, 2):
        with built(loaded, seed) as lab:
            arrived.append(numbers_that_arrive(lab, "alice", "meet"))
    assert arrived[0] == arrived[1]
    assert arrived[0] != arrived[2]
    assert 100 < len(arrived[0]) < 180, "of 200, each lost with a probability of 30 %"


def numbers_that_arrive(lab: Lab, client: str, server: str) -> list[int]:
    """Of 200 datagrams; a link keeps their order, so that a later one says that no more of them will come."""
    target, own = (Endpoint(str(lab.blueprint.network.boxes[box].addresses()[0]), 7000) for box in (server, client))
    with lab.open_socket(server, target) as listening, lab.open_socket(client, own) as sending:
        for number in range(200):
            sending.sendto(number.to_bytes(2, "big"), target)
        found: list[int] = []
        for _ in range(PATIENCE * 100):
            sending.sendto((200).to_bytes(2, "big"), target)
            while select.select([listening], [], [], 0.01)[0]:
                number = int.from_bytes(listening.recv(100), "big")
                if number == 200:
                    return found
                found.append(number)
    raise AssertionError("the last datagram never arrives")


# ---------------------------------------------------------------------------- nothing is left


def processes() -> set[str]:
    """The numbers of all processes."""
    return {entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()}


def namespaces_in_use(by: set[str]) -> set[str]:
    """Every network namespace that one of these processes is in or holds open.

    The kernel gives the number of one that is gone to the next one, whoever makes it: so only those who could have
    held the old one are asked.
    """
    found = set()
    for number in by:
        process = Path("/proc", number)
        try:
            links = [process / "ns" / "net", *(process / "fd").iterdir()]
        except OSError:
            continue
        for link in links:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("net:["):
                found.add(target)
    return found


def namespaces_of_ours() -> set[str]:
    """Every network namespace that this process holds open."""
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return {target for target in links if target.startswith("net:[")}


def hold_a_lab(loaded: LoadedTopology) -> tuple[int, list[str], int]:
    """A process that holds a lab: its id, its namespaces, the id of its wire."""
    blueprint = draw(plan_network(loaded.topology, loaded.profiles), "wire")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.enter_world()
            lab = build(blueprint, 1)
            inodes = [os.readlink(f"/proc/self/fd/{box.fd}") for box in lab.boxes.values()]
            assert lab.wire is not None
            os.write(writing, " ".join([*inodes, str(lab.wire.pid)]).encode())
            signal.pause()
        except BaseException:
            traceback.print_exc()  # nothing may unwind into the tests; they show what is printed
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        *inodes, wire = file.read1(4096).decode().split()
    return pid, inodes, int(wire)


@pytest.mark.parametrize("victim", ["the holder", "the wire, then the holder"])
def test_nothing_is_left_after_sigkill(victim: str, load: Callable[[str], LoadedTopology]) -> None:
    pid, inodes, wire = hold_a_lab(load(TWO_HOMES))
    suspects = processes()
    assert set(inodes) <= namespaces_in_use(suspects)
    pidfd = os.pidfd_open(wire)
    if victim != "the holder":
        os.kill(wire, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert select.select([pidfd], [], [], PATIENCE)[0], "the wire outlived its lab"
    os.close(pidfd)
    assert not set(inodes) & namespaces_in_use(suspects)


def test_a_lab_that_cannot_be_finished_leaves_nothing(
    load: Callable[[str], LoadedTopology], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = namespaces_of_ours()

    def refuse(self: Netlink, name: str) -> bool:
        return False

    monkeypatch.setattr(Netlink, "finish_carrier", refuse)
    with pytest.raises(BrokenError, match="has no carrier"), built(load(TWO_HOMES)):
        pass
    assert namespaces_of_ours() == before
