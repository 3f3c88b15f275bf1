"""Which external ports a NAT assigns, as a function of the trial's seed alone.

Rule 1: a NAT has one stream of candidate ports for each protocol. Every allocation that does not preserve its port
        takes candidates from the stream until one is free; so the n-th candidate depends on the seed and on n.
Rule 2: a random stream is `jhash(counter, seed)` scaled to the range, as the kernel computes it (nft_hash.c):
        no list is loaded, and the whole range is used. A sequential stream is the counter itself.
Rule 3: all chance of a NAT is in a few 32-bit *words* with names. The rules' text has them as constants, so that
        a recording of the rules can be given other words without being compiled again.

The arithmetic is the model's (nat/ports.py). `draw` in allocation.py must say the same in nft's language; a test
compares kernel and `candidates`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from testbed.nat import ports
from testbed.nat.ports import COUNTED, WORD, jhash_word, scale
from testbed.plan.seeds import derive
from testbed.spec.profile import NatProfile, Otherwise

WORDS = ("udp_ports", "tcp_ports", "pool")
"""Every word that rules may contain: the two streams, and the choice among several external addresses."""
PROTOCOLS = ("udp", "tcp")

Words = Mapping[str, int]


def words(profile: NatProfile, seed: int) -> Words:
    """The words of a NAT in a trial with this seed."""
    first, last = profile.ports.range
    found = {name: derive(seed, "nat", name) & WORD for name in WORDS}
    if profile.ports.otherwise is Otherwise.SEQUENTIAL:
        starts = last - first + 1 - window(profile) + 1
        for protocol in PROTOCOLS:
            name = f"{protocol}_ports"
            # counting down is counting up with every bit of the port turned (allocation.py), so the start is turned too
            start = first + found[name] % starts
            found[name] = start if profile.ports.step > 0 else WORD & (0xFFFF - (start + window(profile) - 1))
    return found


def window(profile: NatProfile) -> int:
    """How many ports a sequential stream walks through before it begins again: the kernel's counter can be given an
    offset, but not a place to wrap around to.
    """
    first, last = profile.ports.range
    return ports.window(last - first + 1)


def candidates(profile: NatProfile, seed: int, protocol: str) -> Iterator[int]:
    """The stream of `protocol` (udp or tcp), without blocks: what is asked for first, second, and so on."""
    word = words(profile, seed)[f"{protocol}_ports"]
    first, last = profile.ports.range
    step = profile.ports.step
    for number in count():
        if profile.ports.otherwise is Otherwise.SEQUENTIAL:
            at = ((number + 1) * abs(step) - 1) % window(profile)
            yield word + at if step > 0 else 0xFFFF - (word + at)
        else:
            yield first + scale(jhash_word(number % COUNTED, word), last - first + 1)
