"""Sockets on loopback addresses that only this process uses: ports can be the well-known ones."""

from __future__ import annotations

import os
import socket

from testbed.datagram import Endpoint


def address(number: int) -> str:
    """One of this process's own addresses inside 127.0.0.0/8."""
    pid = os.getpid()
    return f"127.{pid >> 8 & 127 | 128}.{pid & 255}.{number}"


def open_socket(local: Endpoint) -> socket.socket:
    """What a lab would open inside a namespace."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.bind(local)
    except OSError:
        opened.close()
        raise
    return opened
