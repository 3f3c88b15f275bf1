"""NAT profiles as rules: which engine makes a profile, and its text.

Rule 1: compiling is pure: the same translation and the same seed give the same text, and nothing is looked at.
Rule 2: which engine that is says plan/engines.py; what the userspace engine makes has no rules.
Rule 3: a mapping of `none` is a firewall, whatever the engine.
"""

from __future__ import annotations

from testbed.lab.nftables.dice import Words, words
from testbed.lab.nftables.explicit import compile_explicit
from testbed.lab.nftables.firewall import compile_firewall
from testbed.lab.nftables.native import compile_native
from testbed.plan.engines import engine_of
from testbed.plan.network import Translation
from testbed.spec.profile import Dependence, Engine


def compile_rules(translation: Translation, seed: int) -> str:
    """The rules as nft reads them. Refused profiles must not get here (plan/engines.py)."""
    return compile_with(translation, words(translation.profile, seed))


def compile_with(translation: Translation, chance: Words) -> str:
    """The same, with the words of dice.py given."""
    if translation.profile.mapping is Dependence.NONE:
        return compile_firewall(translation)
    if engine_of(translation.profile) is Engine.NATIVE:
        return compile_native(translation)
    return compile_explicit(translation, chance)
