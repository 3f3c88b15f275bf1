"""The process that plays the userspace NATs of one lab after another: a child (lab/child.py) with a tap in the
namespace of each.

Rule 1: the kernel of such a box has no address, no route and no forwarding: it has nothing to answer with, and carries
        frames to and from the tap. What the box is to its neighbours, the middlebox is.
Rule 2: a request is served after the packets that were there before it; so who has seen a packet arrive may ask what
        the NAT made of it.
Rule 3: it sends through the qdisc of its device, where netem impairs the link, and where captures look.
Rule 4: frames that were lost here, though nobody meant it, are in the report, and spoil the trial.

A question is (operation, box, arguments).
"""

from __future__ import annotations

import errno
import json
import pickle
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from typing import Any

from testbed.lab.child import ANSWER, FINISH, READY, REPORT, Child, enter, read, send
from testbed.lab.drops import Drop
from testbed.lab.namespaces import Namespace
from testbed.lab.tap import Tap, address_of
from testbed.lab.userspace.middlebox import Description, Middlebox
from testbed.link.model import LINK_HEADER
from testbed.nat.packet import Transport
from testbed.plan.network import Translation

_ROOM = 16 << 20
"""Bytes of frames that may wait to be read (see tap.py)."""
_TO_US = 0
"""Packet type of what is addressed to the device that it came in by (PACKET_HOST)."""
_ROUNDS = 256
"""So often the taps are read before a request is served, if there is always more."""


@dataclass(frozen=True, slots=True)
class Report:
    """The whole life of the process."""

    busy: int
    """Nanoseconds of a core that it needed."""
    unread: int
    """Frames that came faster than they were read."""
    truncated: int
    """Frames larger than any link's mtu."""
    refused: Mapping[str, int]
    """Frames that the kernel did not take, by the name of its error."""

    @property
    def missing(self) -> int:
        """Frames that vanished without a reason that a NAT could have."""
        return self.unread + self.truncated + sum(self.refused.values())


class Userspace(Child):
    """A process that plays NATs for one lab after another: `play`, `wait`, ask through `nat`, `finish`; or `close`."""

    what = "the userspace engine"

    def __init__(self) -> None:
        """Fork it; for now it plays nothing."""
        super().__init__(_play)

    def play(self, boxes: Sequence[tuple[Description, Namespace, int]]) -> None:
        """Begin, and come back at once; `wait` before frames are sent. Raises BrokenError where it is dead.

        `boxes`: each with its namespace and the seed of its NAT.
        """
        self.begin([(box, seed) for box, _, seed in boxes], [namespace for _, namespace, _ in boxes])

    def nat(self, box: str) -> RunningNat:
        """The NAT of a box."""
        return RunningNat(self, box)

    def finish(self) -> Report:
        """Play no more, and learn what it did; see `Child.last_words`. Raises BrokenError where it had died before."""
        return Report(**json.loads(self.last_words()))


class RunningNat:
    """One userspace NAT of a lab: what it dropped, and what may happen to it."""

    def __init__(self, process: Userspace, box: str) -> None:
        self._process, self._box = process, box

    def counters(self) -> Mapping[str, int]:
        """See drops.DropLog."""
        return dict(self._ask("counters"))

    def read(self) -> list[Drop]:
        """See drops.DropLog."""
        return list(self._ask("drops"))

    def restart(self) -> None:
        """Power off and on: all state is lost, and ports are chosen as from the start."""
        self._ask("restart")

    def flush(self) -> None:
        """Lose all mappings."""
        self._ask("flush")

    def change_address(self, external: Sequence[IPv4Address]) -> None:
        """Map to these addresses from now on; mappings are lost. Raises ValueError where they are not as many."""
        self._ask("change_address", tuple(external))

    def become(self, translation: Translation, seed: int) -> None:
        """Be another NAT, as if the box had just been built."""
        self._ask("become", translation, seed)

    def time_left(self, protocol: str) -> list[int]:
        """Nanoseconds that each mapping of `udp` or `tcp` has left."""
        return list(self._ask("time_left", protocol))

    def _ask(self, operation: str, *arguments: object) -> Any:
        return self._process.ask(operation, self._box, arguments)


# ---------------------------------------------------------------------------- the child


def _play(plans: Sequence[tuple[Description, int]], namespaces: Sequence[int], control: socket.socket, _: str) -> None:
    """Play the boxes until there is word to finish, or the parent is gone."""
    before, places = time.process_time_ns(), {}
    with ExitStack() as scope:
        for (plan, seed), namespace in zip(plans, namespaces, strict=True):
            enter(namespace)
            tap = Tap(largest=plan.largest + LINK_HEADER, room=_ROOM, outgoing=False, past_qdisc=False)
            scope.callback(tap.close)
            addresses = {device: address_of(device) for device in plan.devices}
            places[plan.box.name] = _Place(Middlebox(plan, seed), tap, addresses)
        loop = _Loop(places)
        send(control, READY)
        loop.run(control)
        send(control, REPORT, json.dumps(asdict(loop.report(time.process_time_ns() - before))).encode())


@dataclass(slots=True)
class _Place:
    middlebox: Middlebox
    tap: Tap
    addresses: Mapping[int, bytes]
    """Device -> where to send what is to leave by it."""


def _counters(box: Middlebox) -> dict[str, int]:
    return dict(box.counters)


def _time_left(box: Middlebox, protocol: str) -> list[int]:
    return box.time_left(Transport(protocol), time.monotonic_ns())


_OPERATIONS: Mapping[str, Callable[..., object]] = {
    "counters": _counters,
    "drops": Middlebox.read_drops,
    "restart": Middlebox.restart,
    "flush": Middlebox.flush,
    "change_address": Middlebox.change_address,
    "become": Middlebox.become,
    "time_left": _time_left,
}


class _Loop:
    """One thread for all boxes: packets in the order in which they came to each."""

    def __init__(self, places: Mapping[str, _Place]) -> None:
        self._places = places
        self._truncated = 0
        self._refused: Counter[str] = Counter()

    def run(self, control: socket.socket) -> None:
        """Serve until there is word to finish, or the control connection is at its end."""
        poll, by_fd = select.poll(), {place.tap.fileno(): place for place in self._places.values()}
        for fd in (*by_fd, control.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            for fd in ready:
                if fd in by_fd:
                    self._take(by_fd[fd])
            if control.fileno() in ready and not self._answer(control):
                return

    def _take(self, place: _Place) -> bool:
        """Play some packets that wait; whether there were any."""
        packets = place.tap.read()
        for packet in packets:
            if packet.kind != _TO_US:
                continue
            if len(packet.data) < packet.length:
                self._truncated += 1
                continue
            for device, frame in place.middlebox.receive(packet.interface, packet.data, packet.time):
                if number := place.tap.send(place.addresses[device], frame):
                    self._refused[errno.errorcode[number]] += 1
        return bool(packets)

    def _answer(self, control: socket.socket) -> bool:
        """Serve one request; whether it was one."""
        message = read(control)
        if message is None or message[0] == FINISH:
            return False
        operation, box, arguments = pickle.loads(message[1])
        for _ in range(_ROUNDS):
            if not any(self._take(place) for place in self._places.values()):
                break
        refusal, answer = None, None
        try:
            answer = _OPERATIONS[operation](self._places[box].middlebox, *arguments)
        except ValueError as error:
            refusal = str(error)
        send(control, ANSWER, pickle.dumps((refusal, answer)))
        return True

    def report(self, busy: int) -> Report:
        """What was done."""
        unread = sum(place.tap.drops() for place in self._places.values())
        return Report(busy, unread, self._truncated, dict(self._refused))
