"""netem by our own messages: against tc's bytes, against the header's layout, and in a kernel that has it."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import BrokenError, MachineError
from testbed.lab import netlink_netem
from testbed.lab.namespaces import new_namespace
from testbed.lab.netlink import LOOPBACK, Batch, Netlink
from testbed.lab.netlink_netem import (
    Settings,
    change_qdisc,
    check_changes,
    compare_qdisc,
    decode,
    encode,
    netem_refusal,
    qdisc,
    read_qdisc,
    settings,
    try_netem,
)
from testbed.spec.link import Distribution, GilbertElliott, Impairment
from tests.lab import tc

MS = 1_000_000
PERCENT = 10_000
OPTIONS_AT = 16 + 20 + 12 + 4
"""After the message's header, tcmsg, the kind's attribute and the options' own header."""

ROWS = [
    ("nothing but the limit", "limit 1000", Impairment()),
    ("a short queue", "limit 5", Impairment(limit=5)),
    ("delay", "delay 20ms", Impairment(delay=20 * MS)),
    ("the longest delay that ticks can hold", "delay 274s", Impairment(delay=274_000 * MS)),
    ("jitter", "delay 20ms 4ms", Impairment(delay=20 * MS, jitter=4 * MS)),
    ("correlation", "delay 20ms 4ms 25%", Impairment(delay=20 * MS, jitter=4 * MS, correlation=25 * PERCENT)),
    (
        "a normal shape",
        "delay 20ms 4ms distribution normal",
        Impairment(delay=20 * MS, jitter=4 * MS, distribution=Distribution.NORMAL),
    ),
    (
        "a Pareto shape",
        "delay 20ms 4ms distribution pareto",
        Impairment(delay=20 * MS, jitter=4 * MS, distribution=Distribution.PARETO),
    ),
    (
        "the mixed shape",
        "delay 20ms 4ms distribution paretonormal",
        Impairment(delay=20 * MS, jitter=4 * MS, distribution=Distribution.PARETONORMAL),
    ),
    ("loss", "loss 5%", Impairment(loss=5 * PERCENT)),
    ("loss of everything", "loss 100%", Impairment(loss=100 * PERCENT)),
    ("the smallest loss that can be written", "loss 0.0001%", Impairment(loss=1)),
    ("bursts", "loss gemodel 1% 10%", Impairment(loss=GilbertElliott(p=1 * PERCENT, r=10 * PERCENT))),
    (
        "bursts with both losses",
        "loss gemodel 1% 10% 70% 0.1%",
        Impairment(loss=GilbertElliott(p=1 * PERCENT, r=10 * PERCENT, bad_loss=70 * PERCENT, good_loss=1000)),
    ),
    ("duplicate", "duplicate 1%", Impairment(duplicate=1 * PERCENT)),
    ("corrupt", "corrupt 0.5%", Impairment(corrupt=5000)),
    ("reorder", "delay 10ms reorder 25%", Impairment(delay=10 * MS, reorder=25 * PERCENT)),
    ("rate", "rate 10mbit", Impairment(rate=10_000_000)),
    ("a rate beyond 32 bits", "rate 100gbit", Impairment(rate=100_000_000_000)),
    (
        "all at once",
        "limit 777 delay 10ms 2ms 25% loss gemodel 1% 10% 70% 0.1% duplicate 1% corrupt 0.5% reorder 5% rate 10mbit",
        Impairment(
            limit=777,
            delay=10 * MS,
            jitter=2 * MS,
            correlation=25 * PERCENT,
            loss=GilbertElliott(p=1 * PERCENT, r=10 * PERCENT, bad_loss=70 * PERCENT, good_loss=1000),
            duplicate=1 * PERCENT,
            corrupt=5000,
            reorder=5 * PERCENT,
            rate=10_000_000,
        ),
    ),
]
rows = pytest.mark.parametrize(("sentence", "arguments", "impairment"), ROWS, ids=[row[0] for row in ROWS])


def without_seed(impairment: Impairment) -> bytes:
    """Our message as tc would write it before it had seeds (iproute2 6.6)."""
    message = qdisc("", LOOPBACK, impairment, 0).data[:-12]
    length, options = len(message), len(message) - OPTIONS_AT + 4
    return (
        struct.pack("=I", length) + message[4 : OPTIONS_AT - 4] + struct.pack("=H", options) + message[OPTIONS_AT - 2 :]
    )


@rows
def test_a_message_has_the_bytes_that_tc_sends(sentence: str, arguments: str, impairment: Impairment) -> None:
    assert tc.written(without_seed(impairment)) == tc.recorded()[arguments]


@pytest.mark.lab
@rows
def test_what_was_recorded_is_what_tc_sends_here(sentence: str, arguments: str, impairment: Impairment) -> None:
    if (reason := tc.missing()) is not None:
        pytest.skip(reason)
    message = tc.sent(arguments)
    if tc.version() == tc.recorded()["version"]:
        assert tc.written(message) == tc.recorded()[arguments]
    assert decode(message[OPTIONS_AT:]) == replace(settings(impairment, 0), seed=None)


LAYOUTS = [
    (
        "a seed is an attribute of 8 bytes, number 14, at the end",
        Settings(seed=0x0102030405060708),
        "0c000e00" + "0807060504030201",
    ),
    (
        "a delay that is no whole number of ticks travels in nanoseconds too",
        Settings(delay=33_333),
        "0c000a00" + "3582000000000000",
    ),
    ("so does one beyond 32 bits of ticks", Settings(delay=300_000 * MS), "0c000a00" + "00b864d945000000"),
    ("and a jitter", Settings(jitter=1), "0c000b00" + "0100000000000000"),
]


@pytest.mark.parametrize(("sentence", "wanted", "end"), LAYOUTS, ids=[row[0] for row in LAYOUTS])
def test_layout(sentence: str, wanted: Settings, end: str) -> None:
    assert encode(wanted)[24:].hex() == end


REFUSED = [
    ("the kernel caps jitter at 31 bits", Impairment(jitter=2**31), "a jitter above 2147483647 ns"),
    ("half a byte per second cannot be said", Impairment(rate=12), "a rate of 12 bit/s: it counts in bytes per second"),
]


@pytest.mark.parametrize(("sentence", "impairment", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_netem_cannot_do_is_refused(sentence: str, impairment: Impairment, words: str) -> None:
    with pytest.raises(MachineError, match=words) as caught:
        qdisc("", LOOPBACK, impairment, 1)
    assert caught.value.mend == "--links wire"


numbers = st.integers(0, 2**32 - 1)


@given(
    st.builds(
        Settings,
        delay=st.integers(0, 2**63 - 1),
        jitter=st.integers(0, 2**31 - 1),
        correlation=numbers,
        limit=numbers,
        loss=numbers,
        bursts=st.none() | st.tuples(numbers, numbers, numbers, numbers),
        duplicate=numbers,
        corrupt=numbers,
        gap=numbers,
        reorder=numbers,
        rate=st.integers(0, 2**60),
        seed=st.none() | st.integers(0, 2**64 - 1),
    )
)
def test_what_was_written_can_be_read(wanted: Settings) -> None:
    assert decode(encode(wanted)) == wanted


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "netem on device 7: it is not there"),
        (Settings(delay=5 * MS, seed=1), "netem on device 7: delay is 5000000, where 20000000 was set"),
        (Settings(delay=20 * MS), "netem on device 7: seed is None, where 1 was set"),
    ],
)
def test_a_difference_is_named(found: Settings | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink_netem, "read_qdisc", lambda index: found)
    with pytest.raises(BrokenError, match=words):
        compare_qdisc(7, Impairment(delay=20 * MS), 1)


# ---------------------------------------------------------------------------- in this kernel


@pytest.mark.lab
def test_a_device_without_netem_is_seen_as_such() -> None:
    with new_namespace():
        assert read_qdisc(LOOPBACK) is None
        with pytest.raises(BrokenError, match="qdisc of device 99: No such device"):
            read_qdisc(99)


@pytest.mark.lab
def test_whether_there_is_netem_is_found_out_by_trying() -> None:
    refusal = netem_refusal()
    with new_namespace():
        if refusal is None:
            try_netem()
        else:
            with pytest.raises(MachineError) as caught:
                try_netem()
            assert str(caught.value).startswith(refusal)


@pytest.mark.lab
@rows
def test_a_kernel_with_netem_holds_what_was_set(sentence: str, arguments: str, impairment: Impairment) -> None:
    if (refusal := netem_refusal()) is not None:
        pytest.skip(refusal)
    seed = 2**63 + 5
    with new_namespace():
        with Netlink() as link:
            link.send(Batch([qdisc("on lo", LOOPBACK, impairment, seed)]))
        compare_qdisc(LOOPBACK, impairment, seed)


# ---------------------------------------------------------------------------- changes

_CREATE_OR_EXCLUSIVE = 0x600
NORMAL = Impairment(delay=20 * MS, jitter=4 * MS, distribution=Distribution.NORMAL)
UNIFORM = Impairment(delay=20 * MS, jitter=4 * MS)


@pytest.mark.parametrize(("about", "_", "impairment"), ROWS, ids=[row[0] for row in ROWS])
def test_a_change_says_all_of_it(about: str, _: str, impairment: Impairment) -> None:
    """A netem leaves alone what a change does not tell: what is nothing now must be told too (netem_change)."""
    message = change_qdisc("on lo", LOOPBACK, impairment, 7).data
    flags = struct.unpack_from("=IHH", message)[2]
    assert not flags & _CREATE_OR_EXCLUSIVE, "it changes what is there, or fails"
    told = decode(message[OPTIONS_AT:])
    assert told == settings(impairment, 7), about
    kinds = {struct.unpack_from("=HH", message, at)[1] & 0x3FFF for at in attributes_of(message)}
    assert {1, 3, 4, 6} <= kinds, "correlation, reorder, corrupt, rate"


def attributes_of(message: bytes) -> list[int]:
    at, found = OPTIONS_AT + 24, []
    while at < len(message):
        found.append(at)
        at += -(-struct.unpack_from("=H", message, at)[0] // 4) * 4
    return found


@pytest.mark.parametrize(
    ("states", "is_refused"),
    [
        pytest.param([UNIFORM, NORMAL], False, id="to a table"),
        pytest.param([NORMAL, Impairment(delay=MS), NORMAL], False, id="to no jitter and back"),
        pytest.param([NORMAL, UNIFORM], True, id="a table cannot be taken away again"),
        pytest.param([NORMAL, Impairment(), UNIFORM], True, id="not even in two steps"),
    ],
)
def test_what_netem_cannot_become_is_refused(states: list[Impairment], is_refused: bool) -> None:
    if is_refused:
        with pytest.raises(MachineError, match="alice up: netem cannot go back to the uniform distribution"):
            check_changes("alice up", states)
    else:
        check_changes("alice up", states)


@pytest.mark.lab
@rows
def test_a_kernel_changes_from_anything_to_anything(sentence: str, arguments: str, impairment: Impairment) -> None:
    if (refusal := netem_refusal()) is not None:
        pytest.skip(refusal)
    everything = Impairment(delay=MS, jitter=MS, correlation=PERCENT, loss=1, duplicate=1, corrupt=1, reorder=1, rate=8)
    with new_namespace():
        with Netlink() as link:
            link.send(Batch([qdisc("on lo", LOOPBACK, everything, 1)]))
            link.send(Batch([change_qdisc("on lo", LOOPBACK, impairment, 2)]))
        compare_qdisc(LOOPBACK, impairment, 2)
