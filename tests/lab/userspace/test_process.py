"""The process of the userspace engine in a lab: what it does to packets, what may be asked of it, how it dies."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from testbed.datagram import Endpoint
from testbed.errors import BrokenError
from testbed.lab.blueprint import Links, draw
from testbed.lab.lab import Lab, build
from testbed.lab.namespaces import ensure_rights
from testbed.lab.userspace.middlebox import Middlebox
from testbed.plan.addressing import plan_network
from testbed.spec.link import Impairment, Link
from testbed.spec.profile import SECOND, BlockAllocation, Engine, NatProfile, Ports
from testbed.spec.topology import INTERNET, Attachment, Node, NodeKind, Topology

pytestmark = pytest.mark.lab

PATIENCE = 10
USERSPACE = NatProfile(engine=Engine.USERSPACE)
PBA = NatProfile(ports=Ports(preserve=False, block=64, block_allocation=BlockAllocation.DYNAMIC))
BARE = Link()
DELAYED = Link(up=Impairment(delay=1_000_000), down=Impairment(delay=1_000_000))


def nested(link: Link) -> Topology:
    """A home behind a carrier, both NATs; two hosts in the home, so that there is a bridge."""
    return Topology(
        nodes={
            "server": Node(kind=NodeKind.RENDEZVOUS, attachments=(Attachment(uplink=INTERNET),)),
            "carrier": Node(kind=NodeKind.NAT, attachments=(Attachment(uplink=INTERNET, link=link),)),
            "home": Node(kind=NodeKind.NAT, attachments=(Attachment(uplink="carrier", link=link),)),
            "one": Node(kind=NodeKind.HOST, attachments=(Attachment(uplink="home"),)),
            "two": Node(kind=NodeKind.HOST, attachments=(Attachment(uplink="home"),)),
        }
    )


class Net:
    """A lab, and sockets in it."""

    def __init__(self, lab: Lab, scope: ExitStack) -> None:
        self.lab, self._scope = lab, scope
        self.boxes = lab.blueprint.network.boxes
        assert lab.userspace is not None
        self.process = lab.userspace

    def socket(self, box: str, port: int) -> socket.socket:
        sock = self.lab.open_socket(box, Endpoint(str(self.boxes[box].addresses()[0]), port))
        self._scope.callback(sock.close)
        sock.settimeout(PATIENCE)
        return sock

    def external(self, box: str) -> str:
        translation = self.boxes[box].translation
        assert translation is not None
        return str(translation.external[0])


@contextmanager
def net(home: NatProfile, carrier: NatProfile, link: Link = BARE, links: Links = "wire") -> Iterator[Net]:
    ensure_rights()
    network = plan_network(nested(link), {"home": home, "carrier": carrier})
    with ExitStack() as scope:
        yield Net(scope.enter_context(build(draw(network, links), 1)), scope)


@pytest.mark.parametrize(
    ("home", "carrier"),
    [
        pytest.param(USERSPACE, USERSPACE, id="both"),
        pytest.param(USERSPACE, NatProfile(), id="below rules"),
        pytest.param(NatProfile(), PBA, id="above rules"),
    ],
)
@pytest.mark.parametrize("link", [BARE, DELAYED], ids=["bare cables", "wire"])
def test_packets_pass_with_all_sizes_and_both_ways(home: NatProfile, carrier: NatProfile, link: Link) -> None:
    """One NAT behind another, whoever makes each; over a bridge, over wires, up to the mtu."""
    with net(home, carrier, link) as n:
        server, hosts = n.socket("server", 7000), [n.socket(name, 5000) for name in ("one", "two")]
        for size in (0, 1, 100, 1471, 1472):
            for host in hosts:
                host.sendto(bytes(size), server.getsockname())
                data, source = server.recvfrom(2000)
                assert data == bytes(size)
                assert source[0] == n.external("carrier")
                server.sendto(b"answer", source)
                assert host.recvfrom(2000) == (b"answer", server.getsockname())
        assert n.process.finish().missing == 0


def test_tcp_passes_in_bulk() -> None:
    """Segments of a real TCP, whose sender would like to leave checksums and segmentation to a device."""
    with net(USERSPACE, USERSPACE) as n:
        with n.lab.boxes["server"]:
            listener = socket.create_server(("0.0.0.0", 80))
        with n.lab.boxes["one"]:
            client = socket.socket()
        with listener, client:
            client.settimeout(PATIENCE)
            client.connect((str(n.boxes["server"].addresses()[0]), 80))
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE)
                data = os.urandom(1 << 18)
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                received = b"".join(iter(lambda: client.recv(1 << 16), b""))
        assert received == data
        assert n.process.finish().missing == 0


def test_the_kernel_of_the_box_says_nothing() -> None:
    """It owns no address; what the engine drops is answered by nobody."""
    with net(USERSPACE, USERSPACE) as n:
        with n.lab.boxes["home"]:
            assert Path("/proc/thread-self/net/fib_triestat").exists()
            assert "192.168" not in Path("/proc/thread-self/net/fib_trie").read_text()
        server = n.socket("server", 7000)
        external = n.external("carrier")
        server.connect((external, 4321))
        server.send(b"anybody?")
        host = n.socket("one", 5000)
        host.sendto(b"behind it", (str(n.boxes["server"].addresses()[1]), 7000))
        log = n.lab.drop_logs["carrier"]
        assert log.counters() == {"no-mapping": 1}
        (drop,) = log.read()
        assert (drop.reason, drop.packet[28:]) == ("no-mapping", b"anybody?")


def test_captures_see_both_sides_of_the_box() -> None:
    with net(USERSPACE, NatProfile()) as n:
        server, host = n.socket("server", 7000), n.socket("one", 5000)
        host.sendto(b"seen twice", server.getsockname())
        server.recv(100)
        assert n.lab.capture is not None
        n.lab.capture.drain()
        seen = [(p.is_outgoing, p.source.host) for p in n.lab.capture.udp("home") if p.payload == b"seen twice"]
        inside, translated = str(n.boxes["one"].addresses()[0]), n.external("home")
        assert seen == [(False, inside), (True, translated)]


def test_what_may_happen_to_a_nat() -> None:
    with net(USERSPACE, NatProfile()) as n:
        server, host, home = n.socket("server", 7000), n.socket("one", 5000), n.process.nat("home")

        def ask() -> tuple[str, int]:
            host.sendto(b"who am I?", server.getsockname())
            source: tuple[str, int] = server.recvfrom(100)[1]
            return source

        first = ask()
        (left,) = home.time_left("udp")
        assert 170 * SECOND < left <= 180 * SECOND
        assert home.time_left("tcp") == []
        home.flush()
        assert home.time_left("udp") == []
        assert ask() == first
        home.restart()
        assert home.time_left("udp") == []
        with pytest.raises(ValueError, match="2 addresses cannot stand for 1"):
            home.change_address([IPv4Address("100.64.0.9"), IPv4Address("100.64.0.10")])
        assert ask() == first, "what was refused has changed nothing"
        translation = n.boxes["home"].translation
        assert translation is not None
        home.become(translation, 2)
        assert home.time_left("udp") == []


def test_a_process_that_dies_is_seen_named_and_ends_what_asks_it() -> None:
    with net(USERSPACE, USERSPACE) as n:
        os.kill(n.process.pid, signal.SIGKILL)
        assert select.select([n.process], [], [], PATIENCE)[0]
        with pytest.raises(BrokenError, match=r"^the userspace engine died \(signal 9\)$"):
            n.process.nat("home").counters()


def test_a_mistake_in_it_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr(Middlebox, "receive", refuse)
    with net(USERSPACE, USERSPACE) as n:
        n.socket("one", 5000).sendto(b"x", ("11.0.0.2", 1))
        with pytest.raises(BrokenError, match=r"(?s)the userspace engine died \(exit status 1\): .*not today$"):
            n.process.nat("home").counters()


def test_it_holds_its_taps_and_nothing_else() -> None:
    with net(USERSPACE, USERSPACE) as n:
        held = [entry for entry in Path(f"/proc/{n.process.pid}/fd").iterdir() if int(entry.name) > 2]
        assert sorted(entry.readlink().name.partition(":")[0] for entry in held) == [
            "net",
            "socket",
            "socket",
            "socket",
        ]
