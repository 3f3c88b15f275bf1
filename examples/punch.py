#!/usr/bin/env python3
"""The smallest program that testbed can run as an agent: STUN, signalling, hole punching; only the standard library.

    agent: {command: [python3, examples/punch.py]}

It is a lesson, not a peer to build on: it has no relay, no encryption, and believes whoever knows the session's key.
The contract that it follows is docs/agents.md.
"""

import contextlib
import json
import os
import secrets
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

Message = dict[str, Any]

COOKIE = 0x2112A442
RESEND = 0.2  # seconds until a question is asked again
PUNCH_EVERY = 0.05


def say(event: str, **details: object) -> None:
    """Rule 1 of the contract: one JSON object a line, with the monotonic clock in nanoseconds."""
    print(json.dumps({"t": time.monotonic_ns(), "event": event, **details}), flush=True)


def endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def show(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


class Peer:
    def __init__(self, told: Mapping[str, str]) -> None:
        self.name, self.other = told["TESTBED_NAME"], told["TESTBED_PEER"]
        self.stun = [endpoint(text) for text in told["TESTBED_STUN"].split(",")]
        self.signal = endpoint(told["TESTBED_SIGNAL"])
        self.until = time.monotonic() + float(told["TESTBED_SETUP_DEADLINE"])
        self.deadline = float(told["TESTBED_DEADLINE"])
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((told["TESTBED_ADDRESS"].split(",")[0], int(told["TESTBED_PORT"])))
        self.here = self.socket.getsockname()
        self.token, self.secret = secrets.token_hex(8), secrets.token_hex(8)
        self.candidates = [{"type": "host", "address": show(self.here)}]

    def datagrams(self, wait: float) -> Iterator[tuple[bytes, tuple[str, int]]]:
        """Every datagram that arrives within `wait` seconds."""
        end = min(time.monotonic() + wait, self.until)
        while (left := end - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                yield self.socket.recvfrom(2048)

    def give_up_in_time(self) -> None:
        if time.monotonic() >= self.until:
            say("failed", reason="not connected by the deadline")
            raise SystemExit(0)

    # ---- which address do the servers see? (RFC 8489)

    def gather(self) -> None:
        say("candidate", type="host", address=show(self.here))
        asked = {secrets.token_bytes(12): server for server in self.stun}
        patience = time.monotonic() + 3
        while asked and time.monotonic() < patience:
            for transaction, server in asked.items():
                self.socket.sendto(struct.pack("!HHI", 1, 0, COOKIE) + transaction, server)
            for data, _ in self.datagrams(RESEND):
                answering = asked.pop(data[8:20], None)
                if answering is not None and (address := mapped_address(data)):
                    self.found(address, answering)
                if not asked:
                    break
        say("gathered", given_up=[show(server) for server in asked.values()])

    def found(self, address: tuple[str, int], server: tuple[str, int]) -> None:
        if all(entry["address"] != show(address) for entry in self.candidates):
            self.candidates.append({"type": "server-reflexive", "address": show(address)})
            say("candidate", type="server-reflexive", address=show(address), server=show(server))

    # ---- who is the other? (docs/agents.md, "Signalling")

    def tell(self, message: Message) -> None:
        data = b"\x0e" + json.dumps({"token": self.token, "name": self.name, **message}).encode()
        self.socket.sendto(data, self.signal)

    def learn(self) -> Message:
        description = {"candidates": self.candidates, "password": self.secret}
        registered = False
        while True:
            self.give_up_in_time()
            if not registered:
                self.tell({"kind": "register", "id": 1, "peer": self.other, "description": description})
            for data, source in self.datagrams(RESEND):
                message = self.heard_from_signalling(data, source)
                if message.get("kind") == "ack" and not registered:
                    registered = True
                    say("registered")
                if message.get("kind") == "peer":
                    return Message(message["description"])

    def heard_from_signalling(self, data: bytes, source: tuple[str, int]) -> Message:
        if source != self.signal or data[:1] != b"\x0e":
            return {}
        message: Message = json.loads(data[1:])
        if message.get("token") != self.token:
            return {}
        if message["kind"] != "ack":
            self.tell({"kind": "ack", "id": message["id"]})
        return message

    # ---- open the holes

    def punch(self, other: Message) -> None:
        """Each end sends to every address of the other's until it has heard the other and been heard by it."""
        remotes = [endpoint(entry["address"]) for entry in other["candidates"] if entry["type"] != "relayed"]
        key = "".join(sorted((self.secret, other["password"]))).encode()
        heard = connected = False
        attempt = 0
        self.until = time.monotonic() + self.deadline
        while True:
            if not connected:
                self.give_up_in_time()
                attempt += 1
                for remote in remotes:
                    say("check", local=show(self.here), remote=show(remote), round=1, attempt=attempt)
                    self.send(b"\x0fhello", key, remote)
            else:
                self.until = time.monotonic() + 60  # stay and answer: the other end may not be there yet
            for data, source in self.datagrams(PUNCH_EVERY):
                self.heard_from_signalling(data, source)
                if not data.startswith(b"\x0f") or not data.endswith(key):
                    continue
                if not heard:
                    heard = True
                    say("data", local=show(self.here), remote=show(source), size=len(data))
                if data.startswith(b"\x0fhello"):
                    self.send(b"\x0fheard", key, source)
                    if source not in remotes:
                        remotes.append(source)  # its NAT gave it an address that nobody knew before
                elif not connected:
                    connected = True
                    say("connected", local=show(self.here), remote=show(source))

    def send(self, word: bytes, key: bytes, remote: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # an address that leads nowhere from here
            self.socket.sendto(word + self.name.encode() + key, remote)


def mapped_address(data: bytes) -> tuple[str, int] | None:
    """XOR-MAPPED-ADDRESS of a Binding response, IPv4."""
    position = 20
    while position + 4 <= len(data):
        kind, length = struct.unpack_from("!HH", data, position)
        if kind == 0x0020 and length == 8:
            port, address = struct.unpack_from("!HI", data, position + 6)
            return socket.inet_ntoa(struct.pack("!I", address ^ COOKIE)), port ^ COOKIE >> 16
        position += 4 + length + -length % 4
    return None


def main() -> None:
    if "TESTBED_SIGNAL" not in os.environ:
        sys.exit("punch.py is run by testbed: see docs/agents.md")
    say("start")
    peer = Peer(os.environ)
    peer.gather()
    peer.punch(peer.learn())


if __name__ == "__main__":
    main()
