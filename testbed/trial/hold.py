"""A lab that is held for a person: built once, its rendezvous running, until it is interrupted."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from testbed.agents.rendezvous import run_rendezvous
from testbed.errors import TestbedError
from testbed.lab import links, namespaces
from testbed.lab.blueprint import draw
from testbed.lab.lab import Lab, build
from testbed.lab.registry import Announcement
from testbed.plan.addressing import plan_network
from testbed.plan.seeds import derive
from testbed.spec import scenario as spec
from testbed.spec.loader import LoadedTopology
from testbed.spec.topology import NodeKind
from testbed.trial.attempt import first_error, watch_children
from testbed.trial.interrupt import heeded


def hold(loaded: LoadedTopology, asked: spec.Links, seed: int, ready: Callable[[dict[str, Any]], None]) -> None:
    """Build the lab of a topology, call `ready` with what it is, and hold it until an interrupt.

    Raises MachineError where it cannot be built, BrokenError where a part of it dies.
    """
    network = plan_network(loaded.topology, loaded.profiles)
    announcement = Announcement(f"{loaded.topology.name}-{os.getpid()}")
    namespaces.enter_world()
    blueprint = draw(network, links.choose(asked))
    with build(blueprint, seed, capture=False) as lab:
        document = _document(announcement.id, loaded.topology.name, lab)
        _run(partial(_hold, lab, seed, announcement, document, ready))


def _run(main: Callable[[], Awaitable[None]]) -> None:
    """Run it with trio; what goes wrong in it comes out as the one error that it is."""
    errors: list[BaseException] = []
    try:
        trio.run(main)
    except* (TestbedError, OSError) as group:
        errors.append(first_error(group))
    for error in errors:
        raise error


def _document(name: str, topology: str, lab: Lab) -> dict[str, Any]:
    boxes = lab.blueprint.network.boxes
    nodes = {
        box.name: {
            "kind": box.kind.value,
            "addresses": list(map(str, box.addresses())),
            "netns": lab.boxes[box.name].path,
        }
        for box in boxes.values()
        if box.kind is not None
    }
    return {"lab": name, "topology": topology, "links": lab.blueprint.links, "nodes": nodes}


async def _hold(
    lab: Lab, seed: int, announcement: Announcement, document: dict[str, Any], ready: Callable[[dict[str, Any]], None]
) -> None:
    with trio.open_signal_receiver(*heeded()) as signals:
        async with trio.open_nursery() as nursery:
            for box in lab.blueprint.network.boxes.values():
                if box.kind is NodeKind.RENDEZVOUS:
                    addresses = tuple(map(str, box.addresses()))
                    opener = partial(lab.open_socket, box.name)
                    serve = partial(run_rendezvous, addresses, open_socket=opener, seed=derive(seed, "rendezvous"))
                    await nursery.start(serve)
            announcement.open(document)
            nursery.start_soon(_answer, announcement)
            nursery.start_soon(watch_children, lab)
            ready(document)
            async for _ in signals:
                break
            nursery.cancel_scope.cancel()


async def _answer(announcement: Announcement) -> None:
    while True:
        await trio.lowlevel.wait_readable(announcement.socket)
        announcement.answer()
