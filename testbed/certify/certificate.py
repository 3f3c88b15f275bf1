"""From a NAT to its certificate: which measurements there are, and what is made of them.

Rule 1: a measurement is made where a row asks for it, and gives all rows that it can.
Rule 2: every NAT has a process of its own, which enters a world of its own; what dies in it is told as broken, never
        as a disagreement.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

from testbed.certify import admission, assignment, duration
from testbed.certify.pool import run_all
from testbed.certify.rows import QUICK, Certificate, Seen, expectations, row
from testbed.certify.stage import Stage, stay_on_one_cpu
from testbed.certify.subject import Subject
from testbed.errors import BrokenError
from testbed.lab import namespaces, packets, probe
from testbed.plan.engines import engine_name, engine_of
from testbed.spec.profile import NatProfile

Form = Literal["full", "quick"]
SEED = 1
"""Of the ports that a NAT assigns: a certificate is the same each time."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What gives some of the rows."""

    rows: tuple[str, ...]
    measure: Callable[[Stage], dict[str, Seen]]


MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement(("mapping",), assignment.mapping),
    Measurement(("filtering",), admission.filtering),
    Measurement(("ports.preserve",), assignment.preservation),
    Measurement(("ports.otherwise", "ports.step", "ports.range", "ports.parity"), assignment.order),
    Measurement(("ports.block", "ports.blocks_per_host"), assignment.blocks),
    Measurement(("ports.block_allocation",), duration.blocks_returned),
    Measurement(("ports.overload",), assignment.overloading),
    Measurement(("external_addresses", "pooling"), assignment.addresses),
    Measurement(("hairpinning",), admission.hairpin),
    Measurement(("session_reply",), admission.session_reply),
    Measurement(("max_mappings",), assignment.table_limit),
    Measurement(("udp_timeout", "refresh"), duration.lifetime_of_datagrams),
    Measurement(("restart",), duration.restarted),
    Measurement(("early inbound packet",), admission.early_packet),
    Measurement(("icmp errors inward",), admission.icmp_errors),
    Measurement(("unsolicited",), admission.unsolicited),
    Measurement(("udp_blocked",), admission.blocked),
    Measurement(
        (
            "tcp_timeout.established",
            "tcp_timeout.transitory",
            "tcp_timeout.partially_open",
            "tcp_timeout.closing",
            "tcp_timeout.reset",
        ),
        duration.lifetime_of_connections,
    ),
    Measurement(("tcp simultaneous open",), admission.simultaneous_open),
)


def certify(
    subjects: Sequence[Subject], *, jobs: int | None = None, on_done: Callable[[Certificate], None] = lambda _: None
) -> list[Certificate]:
    """Measure every behaviour of each NAT; `jobs` at once, four a core unless said. `on_done` hears of each at once.

    Raises MachineError where no lab can be built, BrokenError where one dies.
    """
    packets.warm()
    return _measured(subjects, "full", jobs or 4 * _cores(), on_done)


def quick(profiles: Sequence[NatProfile], *, jobs: int | None = None) -> list[Certificate]:
    """The short form of it, of NATs that are what their profiles make them; two a core unless said."""
    return _measured([Subject(profile) for profile in profiles], "quick", jobs or 2 * _cores(), lambda _: None)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _measured(
    subjects: Sequence[Subject], form: Form, at_once: int, on_done: Callable[[Certificate], None]
) -> list[Certificate]:
    def work(item: tuple[int, Subject]) -> bytes:
        number, subject = item
        stay_on_one_cpu(number)
        namespaces.enter_world()
        return json.dumps(measure(subject, form).to_json()).encode()

    def name(item: tuple[int, Subject]) -> str:
        return f"the test of the NAT {item[1].profile.name}"

    probe.ensure_basics()
    found: dict[int, Certificate] = {}
    with closing(run_all(work, list(enumerate(subjects)), at_once, name=name)) as answers:
        for number, answer in answers:
            found[number] = Certificate.from_json(json.loads(answer))
            on_done(found[number])
    return [found[number] for number in range(len(subjects))]


def measure(subject: Subject, form: Form) -> Certificate:
    """Measure one NAT, in a lab of its own."""
    profile = subject.profile
    expected = expectations(profile, engine_of(profile))
    if form == "quick":
        expected = {name: value for name, value in expected.items() if name in QUICK}
    seen: dict[str, Seen] = {}
    with Stage(subject, SEED) as stage:
        for measurement in _due(profile, expected):
            seen |= measurement.measure(stage)
    if missing := expected.keys() - seen.keys():
        raise BrokenError(f"nothing measures {', '.join(sorted(missing))}")
    rows = tuple(row(profile, name, value, seen[name]) for name, value in expected.items())
    return Certificate(profile.name, engine_name(profile), rows)


def _due(profile: NatProfile, expected: dict[str, str]) -> Iterator[Measurement]:
    for measurement in MEASUREMENTS:
        if profile.udp_blocked and measurement.measure is assignment.mapping:
            measurement = replace(measurement, measure=admission.mapping_of_connections)
        if any(name in expected for name in measurement.rows):
            yield measurement


__all__ = ["Certificate", "Subject", "certify", "measure", "quick"]
