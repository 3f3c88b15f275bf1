"""NATs that are ready to be loaded: compiled once in the warm parent, sent as bytes in each trial.

Rule 1: `prepare` does what takes long, in scratch namespaces, once for each text. `load` sends one message.
Rule 2: what is loaded is what the text says: a replay is compared with the text's own table before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.errors import BrokenError
from testbed.lab.namespaces import new_namespace
from testbed.lab.nftables.dice import words
from testbed.lab.nftables.library import Nftables
from testbed.lab.nftables.netfilter import Netfilter
from testbed.lab.nftables.recording import MARKS, Recording, canonical, read_back, record
from testbed.lab.nftables.rules import compile_rules, compile_with
from testbed.plan.network import Translation

_recordings: dict[str, Recording] = {}


@dataclass(frozen=True, slots=True)
class Prepared:
    """The rules of one NAT or firewall."""

    translation: Translation
    recording: Recording

    @property
    def sysctls(self) -> Mapping[str, str]:
        """Settings that the rules need, path below /proc/sys/net -> value: none, timeouts are in the rules."""
        return {}

    def load(self, seed: int) -> None:
        """Make the rules, active at once, in the namespace that the thread is in. Raises BrokenError, MachineError."""
        with Netfilter() as netfilter:
            netfilter.send(self.recording.with_words(words(self.translation.profile, seed)))


def prepare(translation: Translation) -> Prepared:
    """Make ready what `translation` says. Needs the right to make namespaces. Raises MachineError, BrokenError."""
    text = compile_with(translation, MARKS)
    if text not in _recordings:
        _recordings[text] = _record(text)
    return Prepared(translation, _recordings[text])


def text(translation: Translation, seed: int) -> str:
    """The rules of a trial with this seed, as a person may read them."""
    return compile_rules(translation, seed)


def load_text(rules: str) -> None:
    """Load rules in the slow way, by libnftables, in the namespace that the thread is in."""
    with Nftables() as nftables:
        nftables.run(rules)


def _record(rules: str) -> Recording:
    scratch = new_namespace()
    try:
        with scratch:
            load_text(rules)
            with Netfilter() as netfilter:
                recording = record(netfilter, rules)
                wanted = canonical(read_back(netfilter))
    finally:
        scratch.close()
    scratch = new_namespace()
    try:
        with scratch, Netfilter() as netfilter:
            netfilter.send(recording.data)
            found = canonical(read_back(netfilter))
    finally:
        scratch.close()
    if found != wanted:
        raise BrokenError("rules that are loaded from a recording differ from their text")
    return recording
