"""The profiles of devices and services: what is shipped as fact is what a source says, and no more.

Rule 1: what a source does not say is `unknown` here and in the file. A row of the table that is filled in later needs
        its source first.
Rule 2: of a device, six fields are stated or unknown, never silent: a default that nobody meant is not a fact.
"""

from __future__ import annotations

import re

import pytest

from testbed.plan.engines import engine_of, refusals
from testbed.spec.load import load_profile
from testbed.spec.profile import Engine, NatProfile
from tests.spec.corpus import ROOT

FOLDER = ROOT / "nat_profiles"
UNKNOWN = "unknown"
EIM = EIF = "endpoint-independent"
ADF = "address-dependent"
APDM = APDF = "address-and-port-dependent"
MATTERS = ("mapping", "filtering", "ports", "hairpinning", "udp_timeout", "refresh")
"""What decides whether peers meet, and how long they then stay."""

STATED: dict[str, tuple[str, str, str]] = {
    "aws-nat-gateway": (APDM, APDF, "Tailscale measured it; AWS writes of destinations, not of filters"),
    "aws-security-group": (EIM, APDF, "an address for each instance, no port translated; only answers come in"),
    "azure-nat-gateway": (APDM, APDF, "a port for each connection"),
    "azure-private-5g-core": (UNKNOWN, UNKNOWN, "pinholes, of which the shape is not said"),
    "cisco-asa": (UNKNOWN, APDF, "what a second connection from the same port gets is not said"),
    "cisco-ios": (UNKNOWN, UNKNOWN, "timers are documented, behaviour is not"),
    "f5-lsn-pool": (UNKNOWN, UNKNOWN, "both are options"),
    "fortigate": (UNKNOWN, APDF, "sessions"),
    "fortigate-hyperscale-cgn": (UNKNOWN, UNKNOWN, "both are switches of a policy"),
    "freebsd-ipfw-eim": (EIM, UNKNOWN, "who may come in is for the rules beside it to say"),
    "gcp-cloud-nat": (APDM, APDF, "what it is by default"),
    "gcp-cloud-nat-eim": (EIM, UNKNOWN, "the option is about mapping only"),
    "juniper-napt": (APDM, UNKNOWN, "mapping by default; the filter is named as an option only"),
    "juniper-napt-eim": (EIM, EIF, "both options taken"),
    "juniper-pba": (UNKNOWN, UNKNOWN, "both are options, beside the blocks"),
    "libslirp": (EIM, UNKNOWN, "the source's table; the host's firewall is not in it"),
    "linux-masquerade": (EIM, APDF, "measured"),
    "linux-masquerade-before-5": (EIM, APDF, "as after, with other timers"),
    "linux-masquerade-input-accept": (EIM, APDF, "measured, until the other side comes first"),
    "linux-masquerade-random": (APDM, APDF, "measured"),
    "mikrotik-routeros-6": (EIM, APDF, "Linux"),
    "mikrotik-routeros-7": (EIM, APDF, "Linux"),
    "mikrotik-routeros-7-eim": (EIM, EIF, "an action of its own"),
    "nokia-sros-cgn": (UNKNOWN, UNKNOWN, "the MIB's default for filtering is a number whose meaning is not confirmed"),
    "openwrt": (EIM, APDF, "Linux"),
    "openwrt-fullcone": (EIM, EIF, "what the module is for"),
    "palo-alto-dipp": (APDM, APDF, "a port for each session"),
    "palo-alto-persistent-dipp": (EIM, UNKNOWN, "the feature is about mapping only"),
    "passt": (EIM, UNKNOWN, "the port stays; sockets differ between versions"),
    "pf-static-port": (EIM, APDF, "the port stays"),
    "pfsense": (APDM, APDF, "a random port for each connection"),
    "rfc4787-ideal": (EIM, EIF, "REQ-1, and REQ-8's first choice"),
    "rfc4787-ideal-adf": (EIM, ADF, "REQ-1, and REQ-8's second choice"),
    "sing-box-tun": (EIM, EIF, "documented in RFC 4787's words"),
    "starlink": (UNKNOWN, UNKNOWN, "shared addresses, and nothing comes in by itself"),
    "twilio-super-sim": (UNKNOWN, UNKNOWN, "only timers are documented"),
    "ubicom-adf": (EIM, ADF, "one of three settings"),
    "ubicom-apdf": (EIM, APDF, "one of three settings"),
    "ubicom-eif": (EIM, EIF, "one of three settings"),
    "vpp-det44": (UNKNOWN, UNKNOWN, "ports are deterministic; more is not said"),
    "vpp-nat44-ed": (APDM, APDF, "documented in RFC 4787's words"),
    "vpp-nat44-ei": (EIM, UNKNOWN, "its name says what of mapping"),
    "windows-winnat": (UNKNOWN, ADF, "the filter is a setting that shows itself"),
}
"""Mapping, filtering, and how one knows."""

CONDITIONS = frozenset({"udp-blocked"})
"""What is no device: a network that does one thing, with any NAT."""

NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DEVICES = [name for name in NAMES if name not in CONDITIONS]

TIMERS: list[tuple[str, int, str]] = [
    ("openwrt", 180, "of a mapping that was answered, not the 60 s of one that was not"),
    ("mikrotik-routeros-6", 180, "of a stream, not the 10 s before"),
    ("pfsense", 60, "with packets of both directions, not the 30 s of one"),
    ("aws-security-group", 180, "of a stream"),
    ("libslirp", 240, "not DNS's 10 s"),
    ("cisco-ios", 300, "not DNS's 60 s"),
    ("nokia-sros-cgn", 300, "not the 15 s before the first answer"),
    ("twilio-super-sim", 12, "of a stream, although it is the shorter one"),
    ("rfc4787-ideal", 300, "what is recommended, not the two minutes that are allowed"),
]


def shipped(name: str) -> NatProfile:
    return load_profile(str(FOLDER / f"{name}.yaml"), refusals=refusals)


def said(profile: NatProfile, field: str) -> str:
    return UNKNOWN if field in profile.unknowns else str(getattr(profile, field))


def test_there_are_enough_and_each_is_in_the_table() -> None:
    assert sorted(STATED) == DEVICES
    assert len(DEVICES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_loads_with_the_engines_there_are(name: str) -> None:
    profile = shipped(name)
    assert profile.description, "`testbed list` shows it"
    assert profile.sources
    assert len(profile.description) <= 110, "one line of `testbed list`"


@pytest.mark.parametrize(("name", "stated"), STATED.items(), ids=STATED)
def test_a_profile_claims_what_its_source_says(name: str, stated: tuple[str, str, str]) -> None:
    mapping, filtering, why = stated
    profile = shipped(name)
    assert (said(profile, "mapping"), said(profile, "filtering")) == (mapping, filtering), why


@pytest.mark.parametrize("name", DEVICES)
def test_what_matters_is_stated_or_unknown(name: str) -> None:
    profile = shipped(name)
    silent = [field for field in MATTERS if field not in profile.model_fields_set | {*profile.unknowns}]
    assert not silent


@pytest.mark.parametrize("name", DEVICES)
def test_an_unknown_says_where_to_look_and_a_fact_who_says_so(name: str) -> None:
    profile = shipped(name)
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.count("value: unknown, source:") == len(profile.unknowns)
    assert all(source for source in profile.evidence.values())
    assert profile.evidence or set(MATTERS) <= {*profile.unknowns}, (
        "a source beside each value, or nothing but unknowns"
    )


@pytest.mark.parametrize(("name", "seconds", "why"), TIMERS, ids=[row[0] for row in TIMERS])
def test_of_several_timers_it_is_the_one_that_peers_keep(name: str, seconds: int, why: str) -> None:
    assert shipped(name).udp_timeout == seconds * 1_000_000_000, why


@pytest.mark.parametrize("name", DEVICES)
def test_what_is_linux_is_made_by_linux(name: str) -> None:
    """Sharing one endpoint among inside hosts by remote, with one mapping for all remotes, is masquerade and pf."""
    profile = shipped(name)
    shares = profile.ports.overload and (profile.mapping == EIM or name.startswith("linux-"))
    assert (engine_of(profile) is Engine.NATIVE) == shares


def test_what_is_not_confirmed_is_not_shipped() -> None:
    """Heard of often, and confirmed by nothing that could be cited."""
    unconfirmed = ("fritz", "asus", "merlin", "unifi", "vodafone", "kpn", "odido", "jio")
    assert not [path.name for path in FOLDER.glob("*.yaml") for word in unconfirmed if word in path.read_text().lower()]


def test_a_name_is_lower_case_with_hyphens() -> None:
    assert not [name for name in NAMES if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)]
