"""What events must be beyond their grammar.

Rule 1: an event is about one nat or one link that every cell has, and falls into the time that a trial can last.
Rule 2: an event that would change nothing is a mistake: a link that is so already, a nat that loses at once what it has
        just lost, two words for one thing at one time.
Rule 3: what cannot be done is refused by name, here, and not while a trial runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from testbed.spec.event import Change, Event
from testbed.spec.link import Impairment, Link
from testbed.spec.presets import changed, contradictions, presets
from testbed.spec.problems import Source, suggestion
from testbed.spec.profile import Dependence, NatProfile
from testbed.spec.scenario import Scenario
from testbed.spec.topology import Node, NodeKind, Topology
from testbed.spec.written import WrittenChange
from testbed.units import format_duration

_BOTH = ("up", "down")


class Cell(Protocol):
    """A cell, as far as events know it (matrix.CellSpec)."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def topology(self) -> Topology:
        """With its own links."""

    @property
    def profiles(self) -> Mapping[str, NatProfile]:
        """Of nats and firewalls."""


Told: TypeAlias = "tuple[tuple[str, ...], str]"
"""Where in the event, and what is wrong."""


def in_order(events: Sequence[Event]) -> list[tuple[int, Event]]:
    """The events with their places in the file, as they happen: by time, then in the order of the file."""
    return sorted(enumerate(events), key=lambda numbered: numbered[1].at)


def links_of(topology: Topology) -> dict[str, Link]:
    """Every link that a node has to what is above it: `alice`, or `alice.0` and `alice.1` where there are several."""
    return {
        name if len(node.attachments) == 1 else f"{name}.{number}": attachment.link
        for name, node in topology.nodes.items()
        for number, attachment in enumerate(node.attachments)
    }


def check_shapes(source: Source, scenario: Scenario) -> None:
    """Tell what is wrong with the events whatever the network is."""
    for index, event in enumerate(scenario.events):
        for path, message in _shape(event, scenario):
            source.add(("events", index, *path), message)
    for (index, event), (_, before) in _at_once(scenario.events):
        for path, message in _clash(event, before):
            source.add(("events", index, *path), message)


def check_places(source: Source, scenario: Scenario, cells: Sequence[Cell]) -> None:
    """Tell which events the network of some cell does not have, and which change nothing in any.

    Not before all of them have the right shape.
    """
    if any(problem.path.partition(".")[0] == "events" for problem in source.problems):
        return
    states = [links_of(cell.topology) for cell in cells]
    for index, event in in_order(scenario.events):
        found = [_in_cell(event, cell, links) for cell, links in zip(cells, states, strict=True)]
        wrong = [(cell, told) for cell, told in zip(cells, found, strict=True) if told is not None]
        if wrong:
            cell, (path, message) = wrong[0]
            where = "" if len(wrong) == len(cells) else f" (in the cell {cell.id})"
            source.add(("events", index, *path), message + where)
        elif event.link is not None and event.set is not None:
            after = [changed(links[event.link], event.set) for links in states]
            if all(link == links[event.link] for link, links in zip(after, states, strict=True)):
                source.add(("events", index, "set"), f"changes nothing: the link {event.link!r} is so already")
            for link, links in zip(after, states, strict=True):
                links[event.link] = link


# ---------------------------------------------------------------------------- whatever the network is


def _shape(event: Event, scenario: Scenario) -> Iterator[Told]:
    longest = scenario.setup_deadline + scenario.deadline
    if event.at >= longest:
        yield (("at",), f"a trial is over by then: it lasts {format_duration(longest)} at most (both deadlines)")
    if event.node is None and event.link is None:
        yield ((), "is about nothing: write node: with do:, or link: with set:")
    elif event.node is not None and event.link is not None:
        yield (("link",), "a node and a link at once: write an event for each")
    elif event.node is not None:
        if event.set is not None:
            yield (("set",), f"a link is set, a node does something: do: {', '.join(Change)}; or write link:")
        elif event.do is None:
            yield ((), f"says not what happens to {event.node!r}: do: {', '.join(Change)}")
    elif event.do is not None:
        yield (("do",), "a node does something, a link is set, as in set: {loss: 100%}; or write node:")
    elif event.set is None:
        yield ((), f"says not what happens to the link {event.link!r}, as in set: {{loss: 100%}}")
    if event.set is not None and event.set.preset is not None and event.set.preset not in presets():
        hint = suggestion(event.set.preset, presets())
        yield (("set", "preset"), f"there is no link preset {event.set.preset!r}{hint}")


def _at_once(events: Sequence[Event]) -> Iterator[tuple[tuple[int, Event], tuple[int, Event]]]:
    """Events of one time about one thing, each with each that stands before it."""
    numbered = list(enumerate(events))
    for place, later in enumerate(numbered):
        for before in numbered[:place]:
            one, other = later[1], before[1]
            if (one.at, one.node, one.link) == (other.at, other.node, other.link):
                yield later, before


def _clash(event: Event, before: Event) -> Iterator[Told]:
    if event.do is not None and event.do is before.do:
        yield (("do",), f"{event.do.value!r} happens to {event.node!r} at that time already")
    elif event.do is Change.FLUSH and before.do is not None:
        yield (("do",), f"has no effect: {event.node!r} loses its mappings at that time already")
    elif before.do is Change.FLUSH and event.do is not None:
        yield (("do",), f"the flush of {event.node!r} at the same time has then no effect")
    if event.set is not None and before.set is not None:
        twice = [words for words in _words(event.set) if words in _words(before.set)]
        if twice:
            words = ", ".join(dict.fromkeys(word for _, word in twice))
            yield (("set",), f"{words} of the link {event.link!r} is set at that time already")


def _words(change: WrittenChange) -> list[tuple[str, str]]:
    """What a change sets, of which direction."""
    if change.preset is not None:
        return [(way, word) for way in _BOTH for word in Impairment.model_fields]
    shared = change.model_fields_set & Impairment.model_fields.keys()
    own = {way: getattr(change, way).model_fields_set for way in _BOTH}
    return [(way, word) for way in _BOTH for word in Impairment.model_fields if word in shared | own[way]]


# ---------------------------------------------------------------------------- in a network


def _in_cell(event: Event, cell: Cell, links: Mapping[str, Link]) -> Told | None:
    """What is wrong with an event in a cell, whose links are like this by then."""
    if event.node is not None and event.do is not None:
        message = _about_node(event.node, event.do, cell)
        return None if message is None else (("node",) if event.node not in cell.profiles else ("do",), message)
    if event.link is None or event.set is None:
        return None
    if event.link not in links:
        return ("link",), _no_link(event.link, links)
    told = next(contradictions(changed(links[event.link], event.set)), None)
    return None if told is None else (("set",), told)


def _about_node(name: str, change: Change, cell: Cell) -> str | None:
    node, profile = cell.topology.nodes.get(name), cell.profiles.get(name)
    if node is None:
        return f"there is no node {name!r}{suggestion(name, cell.profiles)}"
    if profile is None:
        return _stateless(name, node, cell)
    translates = profile.mapping is not Dependence.NONE
    if change is Change.CHANGE_ADDRESS and not translates:
        return f"{name!r} is a firewall ({profile.name}): it translates nothing and has no external address"
    if change is Change.CHANGE_ADDRESS and profile.external_addresses > 1:
        return (
            f"{name!r} has {profile.external_addresses} external addresses ({profile.name}): "
            "an event can change one, and not those of a pool"
        )
    if not translates and profile.filtering is Dependence.NONE:
        return f"{name!r} lets everything in ({profile.name}): it has no state to lose"
    return None


def _stateless(name: str, node: Node, cell: Cell) -> str:
    if node.kind is NodeKind.ROUTER:
        return f"the router {name!r} is no firewall: it has no state to lose"
    return f"{name!r} is a {node.kind.value}: only a nat or a firewall can{suggestion(name, cell.profiles)}"


def _no_link(name: str, links: Mapping[str, Link]) -> str:
    several = [known for known in links if known.partition(".")[0] == name]
    if several:
        return f"{name!r} has {len(several)} links: write {' or '.join(several)}"
    return f"there is no link {name!r}: a link is called as the node below it{suggestion(name, links)}"


__all__ = ["check_places", "check_shapes", "in_order", "links_of"]
