"""The nine kinds of NAT by name: `eim-eif` to `apdm-apdf`, as a function of the name.

Rule 1: the first word is the mapping, the second the filtering (RFC 4787 §4.1 and §5).
Rule 2: `eim-*` keeps the port; `adm-*` and `apdm-*`, which need a port for each remote, take a random one from
        the whole range. A suffix `-preserve`, `-sequential` or `-random` says otherwise.
Rule 3: a last suffix `-session-reply` says that an answer leaves by the mapping that its question came in on, where
        that may be another than its own: not under `eim-*`, which has one mapping for all.
Rule 4: all of them drop what is unsolicited, hairpin nothing, and keep an idle UDP mapping for 180 s.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbed.spec.profile import SECOND, Dependence, NatProfile, Otherwise, Ports

_DEPENDENCES = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT_DEPENDENT,
)
MAPPINGS: Mapping[str, Dependence] = dict(zip(("eim", "adm", "apdm"), _DEPENDENCES, strict=True))
FILTERINGS: Mapping[str, Dependence] = dict(zip(("eif", "adf", "apdf"), _DEPENDENCES, strict=True))
PORTS: Mapping[str, Ports] = {
    "preserve": Ports(preserve=True),
    "sequential": Ports(preserve=False, otherwise=Otherwise.SEQUENTIAL),
    "random": Ports(preserve=False),
}
_SAID: Mapping[str, str] = {
    "preserve": "the port is kept where it is free",
    "sequential": "ports are taken in sequence",
    "random": "ports are taken at random",
}

KINDS = tuple(f"{mapping}-{filtering}" for mapping in MAPPINGS for filtering in FILTERINGS)
"""The nine names, without suffixes."""

OLDER_NAMES: Mapping[str, str] = {
    "full-cone": "eim-eif",
    "restricted-cone": "eim-adf",
    "address-restricted-cone": "eim-adf",
    "port-restricted-cone": "eim-apdf",
    "symmetric": "apdm-apdf",
}
"""What texts before RFC 4787 called four of them; understood in messages only, since each mixes the two axes."""

SESSION_REPLY = "-session-reply"
_PLAIN = (*KINDS, *(f"{kind}-{suffix}" for kind in KINDS for suffix in PORTS))
ALL_KINDS = (*_PLAIN, *(f"{name}{SESSION_REPLY}" for name in _PLAIN if not name.startswith("eim-")))
"""Every name that `kind` knows."""


def kind(name: str) -> NatProfile | None:
    """The profile of a kind; None where `name` is not one."""
    if name not in ALL_KINDS:
        return None
    plain = name.removesuffix(SESSION_REPLY)
    mapping, _, rest = plain.partition("-")
    filtering, _, suffix = rest.partition("-")
    suffix = suffix or ("preserve" if mapping == "eim" else "random")
    said = _SAID[suffix] + (", answers leave as their session came in" if plain != name else "")
    return NatProfile(
        name=name,
        description=f"{MAPPINGS[mapping].value} mapping, {FILTERINGS[filtering].value} filtering; {said}",
        sources=("RFC 4787 §4.1, §4.2, §5",),
        mapping=MAPPINGS[mapping],
        filtering=FILTERINGS[filtering],
        ports=PORTS[suffix],
        session_reply=plain != name,
        udp_timeout=180 * SECOND,
    )
