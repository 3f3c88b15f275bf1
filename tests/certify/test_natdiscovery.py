"""What a client that nobody here wrote says of the nine kinds: coturn's turnutils_natdiscovery (RFC 5780).

Of mapping it is believed what it sees, and where it can tell also what it concludes. Its third question goes to the
OTHER-ADDRESS of the second answer, which is the first server's other port, and is compared with the second answer
(coturn 4.6, natdiscovery.c): so it takes a NAT that maps by address for one that maps by address and port. What it
saw is right: the first and the third answer, from one address, name one external endpoint, and the second another.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import partial

import pytest
import trio

from testbed.agents.rendezvous import run_rendezvous
from testbed.certify import judgement
from testbed.certify.pool import run_all
from testbed.certify.stage import Stage, stay_on_one_cpu
from testbed.certify.subject import HOSTS, SERVER, Subject
from testbed.datagram import Endpoint
from testbed.lab import namespaces
from testbed.spec.kinds import KINDS, kind
from testbed.spec.profile import SECOND, Dependence, Hairpinning, NatProfile

pytestmark = pytest.mark.lab

PROGRAM = "turnutils_natdiscovery"
LIFETIME = 2
QUESTIONS: Mapping[str, list[str]] = {
    "mapping": ["-m"],
    "filtering": ["-f"],
    "hairpin": ["-H"],
    "within its lifetime": ["-t", "-T", str(LIFETIME - 1)],
    "after its lifetime": ["-t", "-T", str(LIFETIME + 1)],
}
WORDS: Mapping[Dependence, str] = {
    Dependence.ENDPOINT_INDEPENDENT: "Endpoint Independent",
    Dependence.ADDRESS_DEPENDENT: "Address Dependent",
    Dependence.ADDRESS_AND_PORT_DEPENDENT: "Address and Port Dependent",
}
AD = Dependence.ADDRESS_DEPENDENT
HAIRPINNED = "Received a request"
ANSWERED, SILENCE = "RFC 5780 response 2", "STUN receive timeout"


def profile_of(name: str) -> NatProfile:
    found = kind(name)
    assert found is not None
    return found.model_copy(update={"udp_timeout": LIFETIME * SECOND})


SUBJECTS = {name: profile_of(name) for name in KINDS} | {
    "hairpins": profile_of("eim-eif").model_copy(update={"hairpinning": Hairpinning.EXTERNAL_SOURCE})
}


async def ask(stage: Stage) -> dict[str, str]:
    """What the client answers to each question; all at once, since it takes its time."""
    said: dict[str, str] = {}

    async def run(question: str, options: list[str]) -> None:
        enter = ["nsenter", f"--net={stage.lab.boxes[HOSTS[0]].path}", PROGRAM]
        command = [*enter, *options, "-L", str(stage.inside[0]), stage.servers[0]]
        with trio.fail_after(40):
            done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
        said[question] = done.stdout.decode()

    async with trio.open_nursery() as nursery:
        opener = partial(stage.lab.open_socket, SERVER)
        await nursery.start(partial(run_rendezvous, stage.servers, open_socket=opener, seed=1))
        async with trio.open_nursery() as clients:
            for question, options in QUESTIONS.items():
                clients.start_soon(run, question, options)
        nursery.cancel_scope.cancel()
    return said


def mapping_seen(text: str) -> str:
    """What its answers, of the first server, of another address, of another port, mean in a profile's words."""
    seen = [Endpoint.parse(word) for word in re.findall(r"UDP reflexive addr: (\S+)", text)]
    own = Endpoint.parse(re.findall(r"Local addr: : (\S+)", text)[0])
    first, new_address = seen[:2]
    new_port = seen[2] if len(seen) > 2 else first  # it does not ask where one mapping serves two addresses
    return judgement.mapping_of(own, [first, new_port, new_address, first])


def discover(item: tuple[int, NatProfile]) -> bytes:
    number, profile = item
    stay_on_one_cpu(number)
    namespaces.enter_world()
    with Stage(Subject(profile), 1) as stage:
        return json.dumps(trio.run(ask, stage)).encode()


@pytest.fixture(scope="module")
def said(request: pytest.FixtureRequest) -> Mapping[str, Mapping[str, str]]:
    if shutil.which(PROGRAM) is None:
        reason = f"{PROGRAM} is missing: apt-get install coturn"
        if request.config.getoption("--require-lab") or os.environ.get("REQUIRE_LAB"):
            pytest.fail(reason)
        pytest.skip(reason)
    names = list(SUBJECTS)
    found = dict(run_all(discover, list(enumerate(SUBJECTS.values())), len(names), name=lambda item: item[1].name))
    return {name: json.loads(found[number]) for number, name in enumerate(names)}


@pytest.mark.parametrize("name", KINDS)
def test_it_agrees_on_every_kind(name: str, said: Mapping[str, Mapping[str, str]]) -> None:
    profile, answers = SUBJECTS[name], said[name]
    assert mapping_seen(answers["mapping"]) == profile.mapping.value
    concluded = WORDS[Dependence.ADDRESS_AND_PORT_DEPENDENT if profile.mapping is AD else profile.mapping]
    assert f"NAT with {concluded} Mapping!" in answers["mapping"]
    assert f"NAT with {WORDS[profile.filtering]} Filtering!" in answers["filtering"]
    assert HAIRPINNED not in answers["hairpin"]
    assert SILENCE in answers["hairpin"], "it has waited for the request that it sent"
    assert ANSWERED in answers["within its lifetime"]
    assert SILENCE not in answers["within its lifetime"]
    assert ANSWERED not in answers["after its lifetime"]
    assert SILENCE in answers["after its lifetime"]


def test_it_sees_a_hairpin_where_there_is_one(said: Mapping[str, Mapping[str, str]]) -> None:
    assert HAIRPINNED in said["hairpins"]["hairpin"]
