"""200 NATs in one lab: how long it takes to build, and that every host behind one reaches the server."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
import traceback

from benchmarks.paired import promise
from testbed.datagram import Endpoint
from testbed.lab import namespaces
from testbed.lab.blueprint import Blueprint, draw
from testbed.lab.lab import Lab, build
from testbed.plan.addressing import plan_network
from testbed.spec.kinds import kind
from testbed.spec.link import Impairment, Link
from testbed.spec.topology import INTERNET, Attachment, Node, NodeKind, Topology

NATS = 200
MOST = 5.0
"""Seconds."""
PATIENCE = 20
PORT = 7000


def main(count: int = NATS) -> int:
    """Print the time; how many promises were missed."""
    blueprint = _blueprint(count)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = _measure(blueprint, count)
        except BaseException:
            traceback.print_exc()  # nothing may unwind into a second copy of this program
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writing)
    os.close(reading)
    return 1 if os.waitpid(pid, 0)[1] else 0


def _blueprint(count: int) -> Blueprint:
    delay = Link(up=Impairment(delay=1_000_000), down=Impairment(delay=1_000_000))
    nodes = {"meet": Node(kind=NodeKind.RENDEZVOUS, attachments=(Attachment(uplink=INTERNET),))}
    for number in range(count):
        nodes[f"n{number}"] = Node(kind=NodeKind.NAT, attachments=(Attachment(uplink=INTERNET, link=delay),))
        nodes[f"h{number}"] = Node(kind=NodeKind.PEER, attachments=(Attachment(uplink=f"n{number}"),))
    profile = kind("apdm-apdf")
    assert profile is not None
    profiles = {name: profile for name, node in nodes.items() if node.kind is NodeKind.NAT}
    before = time.perf_counter()
    blueprint = draw(plan_network(Topology(name="many", nodes=nodes), profiles), "wire")
    print(f"planned and encoded once, before any lab: {time.perf_counter() - before:.2f} s")
    return blueprint


def _measure(blueprint: Blueprint, count: int) -> int:
    namespaces.enter_world()
    before = time.perf_counter()
    lab = build(blueprint, 1)
    took = time.perf_counter() - before
    missed = promise(f"a lab of {count} NATs and {count} hosts, built", took, MOST, "s")
    reached = _reached(lab, count)
    print(f"hosts that reach the server and are answered: {reached} of {count}")
    return missed + (reached != count)


def _reached(lab: Lab, count: int) -> int:
    target = Endpoint(str(lab.blueprint.network.boxes["meet"].addresses()[0]), PORT)
    server = lab.open_socket("meet", target)
    hosts: dict[socket.socket, str] = {}
    poll = select.poll()
    poll.register(server, select.POLLIN)
    for number in range(count):
        name = f"h{number}"
        host = lab.open_socket(name, Endpoint(str(lab.blueprint.network.boxes[name].addresses()[0]), 0))
        host.sendto(name.encode(), target)
        hosts[host] = name
        poll.register(host, select.POLLIN)
    by_fd = {host.fileno(): host for host in hosts}
    answered: set[str] = set()
    until = time.monotonic() + PATIENCE
    while len(answered) < count and (left := until - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            if fd == server.fileno():
                data, source = server.recvfrom(100)
                server.sendto(data, source)
            elif by_fd[fd].recv(100).decode() == hosts[by_fd[fd]]:
                answered.add(hosts[by_fd[fd]])
    return len(answered)


if __name__ == "__main__":
    sys.exit(main())
