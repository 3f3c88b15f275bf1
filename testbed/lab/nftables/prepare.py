"""NATs that are ready to be loaded: compiled once in the warm parent, sent as bytes in each trial.

Rule 1: `prepare` does what takes long, in scratch namespaces, once for each profile. `load` sends one message.
Rule 2: what is loaded is what the text says: a replay is compared with the text's own table before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from testbed.errors import BrokenError
from testbed.lab.namespaces import new_namespace
from testbed.lab.nftables.dice import words
from testbed.lab.nftables.library import Nftables
from testbed.lab.nftables.marks import WORD_MARKS, Mark, marked, word, word_marks
from testbed.lab.nftables.netfilter import Netfilter
from testbed.lab.nftables.recording import Recording, canonical, read_back, record
from testbed.lab.nftables.rules import compile_rules, compile_with
from testbed.plan.network import Translation

_recordings: dict[str, Recording] = {}


@dataclass(frozen=True, slots=True)
class Prepared:
    """The rules of one NAT or firewall."""

    translation: Translation
    recording: Recording

    def load(self, seed: int) -> None:
        """Make the rules, active at once, in the namespace that the thread is in. Raises BrokenError, MachineError."""
        with Netfilter() as netfilter:
            netfilter.send(self.transaction(seed))

    def transaction(self, seed: int) -> bytearray:
        """What makes the rules of a trial with this seed."""
        return self.recording.bytes_with(self._words(seed))

    def _words(self, seed: int) -> Mapping[str, bytes]:
        return {name: word(value) for name, value in words(self.translation.profile, seed).items()}


def prepare(translation: Translation) -> Prepared:
    """Make ready what `translation` says. Needs the right to make namespaces. Raises MachineError, BrokenError."""
    general, addresses, values = marked(translation)
    rules = compile_with(general, WORD_MARKS)
    if rules not in _recordings:
        _recordings[rules] = _record(rules, {**word_marks(), **addresses})
    return Prepared(translation, _recordings[rules].filled(values))


def text(translation: Translation, seed: int) -> str:
    """The rules of a trial with this seed, as a person may read them."""
    return compile_rules(translation, seed)


def load_text(rules: str) -> None:
    """Load rules in the slow way, by libnftables, in the namespace that the thread is in."""
    with Nftables() as nftables:
        nftables.run(rules)


def _record(rules: str, marks: Mapping[str, Mark]) -> Recording:
    with scratch() as netfilter:
        load_text(rules)
        requests = list(read_back(netfilter))
    recording = record(requests, rules, marks)
    with scratch() as netfilter:
        netfilter.send(recording.data)
        replayed = list(read_back(netfilter))
    if canonical(replayed) != canonical(requests):
        raise BrokenError("rules that are loaded from a recording differ from their text")
    return recording


@contextmanager
def scratch() -> Iterator[Netfilter]:
    """A namespace for once, the thread inside."""
    namespace = new_namespace()
    try:
        with namespace, Netfilter() as netfilter:
            yield netfilter
    finally:
        namespace.close()
