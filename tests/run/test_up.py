"""`up`, `exec` and `ls`: a lab that is held, and who works in it.

Labs are found through abstract sockets, which belong to a network namespace: each test has one of its own, and so sees
the labs of nobody else.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed.lab.namespaces import CLONE_NEWNET, Namespace, new_namespace, setns
from testbed.lab.registry import PREFIX
from tests.run.command import Ran, Running, call, children, named_namespaces, start

pytestmark = pytest.mark.lab

NATS = ("--nat", "nat_a=eim-apdf", "--nat", "nat_b=apdm-apdf")


class Host:
    """A network namespace that plays the host, and a folder."""

    def __init__(self, namespace: Namespace, at: Path) -> None:
        self._namespace, self._at = namespace, at
        self.held: list[Running] = []

    def enter(self) -> None:
        setns(self._namespace.fd, CLONE_NEWNET)

    def up(self, *arguments: object, before: Callable[[], None] = lambda: None) -> tuple[Running, Mapping[str, Any]]:
        """A lab that is ready, and its line of JSON."""

        def go() -> None:
            self.enter()
            before()

        running = start("up", *arguments, "--json", at=self._at, before=go)
        self.held.append(running)
        running.until(lambda: running.out.text().endswith("\n"))
        (line,) = running.out.text().splitlines()
        document: Mapping[str, Any] = json.loads(line)
        return running, document

    def call(self, *arguments: object, before: Callable[[], None] = lambda: None) -> Ran:
        def go() -> None:
            self.enter()
            before()

        return call(*arguments, at=self._at, before=go)

    def sockets(self) -> list[str]:
        with self._namespace:
            return [line for line in Path("/proc/thread-self/net/unix").read_text().splitlines() if PREFIX in line]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    namespace = new_namespace()
    host = Host(namespace, tmp_path_factory.mktemp("host"))
    yield host
    for running in host.held:
        if running.processes():
            running.kill()
        running.wait()
    namespace.close()


@pytest.fixture(scope="module")
def lab(host: Host) -> Mapping[str, Any]:
    """A lab that several tests look at."""
    return host.up("two_homes", *NATS)[1]


def test_the_line_says_what_there_is(lab: Mapping[str, Any]) -> None:
    assert list(lab["nodes"]) == ["meet", "nat_a", "alice", "nat_b", "bob"]
    alice = lab["nodes"]["alice"]
    assert alice["kind"] == "peer"
    assert alice["addresses"] == ["192.168.1.2"]
    assert alice["netns"].startswith("/proc/")
    namespace = Namespace(os.open(alice["netns"], os.O_RDONLY))
    with namespace, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
        inside.bind((alice["addresses"][0], 0))  # fails where no interface has it
    namespace.close()


ASK = """
import os, socket
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(20)
asking.sendto(bytes.fromhex("000100002112a442") + bytes(12), ("11.0.0.2", 3478))
print("answer from", asking.recvfrom(1000)[1][0])
"""
EXECS = [
    ("its output is ours", ("alice", "--", "cat", "/proc/net/fib_trie"), 0, "192.168.1.2", ""),
    ("it sees the node's devices in /sys", ("alice", "--", "ls", "/sys/class/net"), 0, "eth0\nlo\n", ""),
    ("its status is ours", ("bob", "--", "sh", "-c", "exit 42"), 42, "", ""),
    ("also with options that look like our own", ("bob", "--", "sh", "-c", "echo $0", "--lab"), 0, "--lab\n", ""),
    ("the -- may be left out", ("bob", "sh", "-c", "exit 3"), 3, "", ""),
    (
        "the rendezvous answers, through a nat",
        ("alice", "--", sys.executable, "-c", ASK),
        0,
        "answer from 11.0.0.2",
        "",
    ),
    ("there is no such command", ("alice", "--", "no-such-command"), 127, "", "no command 'no-such-command'"),
    ("it cannot be executed", ("alice", "--", "/etc/passwd"), 126, "", "/etc/passwd: Permission denied"),
    ("there is no such node", ("carol", "--", "true"), 125, "", "has no node 'carol' (it has meet, nat_a,"),
    ("there is no such lab", ("--lab", "void", "alice", "--", "true"), 125, "", "there is no lab 'void'"),
    ("nothing is to be run", ("alice", "--"), 125, "", "say what to run in alice"),
    ("nothing is said at all", (), 125, "", "Missing argument"),
]


@pytest.mark.parametrize(("sentence", "arguments", "status", "out", "err"), EXECS, ids=[row[0] for row in EXECS])
def test_exec(
    sentence: str, arguments: tuple[str, ...], status: int, out: str, err: str, host: Host, lab: Mapping[str, Any]
) -> None:
    ran = host.call("exec", *arguments)
    assert (ran.status, "Traceback" in ran.err) == (status, False), ran.err
    assert out in ran.out
    assert err in ran.err


def test_ls_shows_the_lab(host: Host, lab: Mapping[str, Any]) -> None:
    ran = host.call("ls", "--json")
    (shown,) = json.loads(ran.out)["labs"]
    assert {key: shown[key] for key in lab} == dict(lab)
    assert lab["lab"] in host.call("ls").out


def test_of_several_labs_one_is_chosen(host: Host, lab: Mapping[str, Any]) -> None:
    other, document = host.up("one_home", "--nat", "nat=eim-eif")
    ran = host.call("exec", "alice", "--", "true")
    assert ran.status == 125
    assert "--lab" in ran.err
    assert document["lab"] in ran.err
    assert lab["lab"] in ran.err
    assert host.call("exec", "--lab", document["lab"], "nat", "--", "true").status == 0
    assert host.call("exec", "--lab", lab["lab"], "nat_a", "--", "true").status == 0
    other.kill(signal.SIGTERM)
    other.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left(number: signal.Signals, tmp_path: Path) -> None:
    namespace = new_namespace()
    host = Host(namespace, tmp_path)
    running, _ = host.up("two_homes", *NATS)
    assert len(host.sockets()) == 1
    running.kill(number)
    ran = running.wait()
    assert ran.status == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert ran.err.strip() in ("", "testbed: interrupted")
    running.gone()
    assert host.sockets() == []
    assert named_namespaces() == []
    assert list(tmp_path.iterdir()) == []
    namespace.close()


def test_a_wire_that_dies_ends_the_lab_with_a_reason(host: Host) -> None:
    running, _ = host.up("two_homes", *NATS)
    (wire,) = children(running.pid)
    os.kill(wire, signal.SIGKILL)
    ran = running.wait()
    assert ran.status == 4
    assert ran.err == "testbed: the wire process died (signal 9)\n"


def test_no_lab_is_said(tmp_path: Path) -> None:
    namespace = new_namespace()
    host = Host(namespace, tmp_path)
    assert "no lab is held" in host.call("ls").out
    assert json.loads(host.call("ls", "--json").out) == {"labs": []}
    ran = host.call("exec", "alice", "--", "true")
    assert ran.status == 125
    assert "testbed up" in ran.err
    namespace.close()


UPS = [
    ("a nat without a profile", ("two_homes",), "nat_a"),
    ("half a choice", ("two_homes", "--nat", "nat_a"), "NODE=PROFILE"),
    ("a node that is not there", ("two_homes", *NATS, "--nat", "nat_c=eim-eif"), "nat_c"),
    ("a profile that is not there", ("two_homes", *NATS[:3], "nat_b=eim-eiff"), "did you mean"),
]


@pytest.mark.parametrize(("sentence", "arguments", "words"), UPS, ids=[row[0] for row in UPS])
def test_a_mistake_is_status_2(sentence: str, arguments: tuple[str, ...], words: str, host: Host) -> None:
    ran = host.call("up", *arguments)
    assert ran.status == 2
    assert words in ran.err


def test_a_hostile_announcement_is_no_lab(tmp_path: Path) -> None:
    """Whoever takes a name like ours says nothing, or nonsense."""
    namespace = new_namespace()
    with namespace, socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as bound:
        silent.bind(f"\0{PREFIX}silent")
        silent.listen()
        bound.bind(f"\0{PREFIX}bound")
        ran = Host(namespace, tmp_path).call("ls", "--json")
    assert json.loads(ran.out) == {"labs": []}
    namespace.close()
