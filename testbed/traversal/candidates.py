"""Candidates, and what one end tells the other of itself (RFC 8445 §4, §5.1).

Rule 1: a candidate's type says how its address was learnt; it is never inferred from the address.
Rule 2: what comes from the other end is hostile until read: `from_json` raises `DescriptionError` and nothing else.

There is one component and one stream, so that a priority is type, then local preference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import TypeAlias

from testbed.datagram import Endpoint

JsonObject: TypeAlias = "dict[str, object]"
MAX_CANDIDATES = 16
"""Of one end; more are refused, since each is an address that we would send packets to."""


class DescriptionError(ValueError):
    """What the other end says of itself makes no sense."""


class Role(StrEnum):
    """Who decides which path is used (RFC 8445 §4). The controlling end is the QUIC client."""

    CONTROLLING = "controlling"
    CONTROLLED = "controlled"


class CandidateType(StrEnum):
    """How an address was learnt (RFC 8445 §4)."""

    HOST = "host"
    SERVER_REFLEXIVE = "server-reflexive"
    PEER_REFLEXIVE = "peer-reflexive"
    RELAYED = "relayed"


TYPE_PREFERENCE: Mapping[CandidateType, int] = {
    CandidateType.HOST: 126,
    CandidateType.PEER_REFLEXIVE: 110,
    CandidateType.SERVER_REFLEXIVE: 100,
    CandidateType.RELAYED: 0,
}
"""RFC 8445 §5.1.2.2."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transport address that is a potential point of contact."""

    type: CandidateType
    address: Endpoint
    base: Endpoint
    """The own address that packets for this candidate leave from; the candidate's itself for the other end's."""
    priority: int
    foundation: str
    """Equal for candidates of one type, base host and server (RFC 8445 §5.1.1.3)."""
    server: Endpoint | None = None
    """Who told us; None for a host candidate and for the other end's."""

    def to_json(self) -> JsonObject:
        """What the other end is told: the base and the server are our own business."""
        return {
            "type": self.type.value,
            "address": str(self.address),
            "priority": self.priority,
            "foundation": self.foundation,
        }

    @classmethod
    def from_json(cls, value: object) -> Candidate:
        """The other end's candidate. `priority` and `foundation` may be left out."""
        if not isinstance(value, dict):
            raise DescriptionError("a candidate is not an object")
        try:
            kind = CandidateType(str(value.get("type")))
        except ValueError:
            raise DescriptionError(f"{value.get('type')!r} is no candidate type") from None
        address = read_endpoint(value.get("address"))
        number, foundation = value.get("priority", priority(kind)), value.get("foundation", kind.value)
        if type(number) is not int or not 0 < number < 2**31:
            raise DescriptionError(f"{number!r} is no priority")
        if not isinstance(foundation, str) or len(foundation) > 32:
            raise DescriptionError(f"{foundation!r} is no foundation")
        return cls(kind, address, address, number, foundation)


@dataclass(frozen=True, slots=True)
class Description:
    """What one end tells the other through signalling: where it may be reached, and the words that checks carry."""

    candidates: tuple[Candidate, ...] = ()
    ufrag: str = ""
    password: str = ""
    """Short-term credentials of connectivity checks (RFC 8445 §7.2.2); empty where the checks are not STUN."""
    depends: bool = False
    """Whether two servers saw one socket at two addresses: its mapping depends on the remote (RFC 4787 §4.1), and the
    other end will see a third one."""

    def to_json(self) -> JsonObject:
        """As it goes into a signalling message."""
        return {
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "ufrag": self.ufrag,
            "password": self.password,
            "depends": self.depends,
        }

    @classmethod
    def from_json(cls, value: object) -> Description:
        """Raises DescriptionError."""
        if not isinstance(value, dict) or not isinstance(value.get("candidates"), list):
            raise DescriptionError("a description has no list of candidates")
        entries, ufrag, password = value["candidates"], value.get("ufrag", ""), value.get("password", "")
        if len(entries) > MAX_CANDIDATES:
            raise DescriptionError(f"{len(entries)} candidates; at most {MAX_CANDIDATES} are read")
        if not isinstance(ufrag, str) or not isinstance(password, str):
            raise DescriptionError("ufrag and password are texts")
        if type(depends := value.get("depends", False)) is not bool:
            raise DescriptionError(f"{depends!r} is neither true nor false")
        return cls(tuple(map(Candidate.from_json, entries)), ufrag, password, depends)

    def of_type(self, *types: CandidateType) -> tuple[Endpoint, ...]:
        """Addresses of candidates of these types, highest priority first."""
        ranked = sorted(self.candidates, key=lambda candidate: -candidate.priority)
        return distinct(candidate.address for candidate in ranked if candidate.type in types)


def read_endpoint(value: object) -> Endpoint:
    """`HOST:PORT` with a canonical IP address and a port that can be sent to. Raises DescriptionError."""
    try:
        endpoint = Endpoint.parse(value) if isinstance(value, str) else None
        if endpoint is not None and endpoint.port and str(ip_address(endpoint.host)) == endpoint.host:
            return endpoint
    except ValueError:
        pass
    raise DescriptionError(f"{value!r} is not IP:PORT")


def distinct(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Each once, in the order of first appearance."""
    return tuple(dict.fromkeys(endpoints))


def priority(kind: CandidateType, local_preference: int = 65535) -> int:
    """RFC 8445 §5.1.2.1, for component 1."""
    return TYPE_PREFERENCE[kind] << 24 | local_preference << 8 | 255


def candidate(
    kind: CandidateType, address: Endpoint, base: Endpoint, *, index: int = 0, server: Endpoint | None = None
) -> Candidate:
    """An own candidate. `index`: of its base among the own addresses; an earlier one is preferred."""
    foundation = f"{kind.value[0]}{index}" + (f"@{server.host}" if server is not None else "")
    return Candidate(kind, address, base, priority(kind, 65535 - index), foundation, server)


def without_redundant(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """RFC 8445 §5.1.3: of those with the same address and base, only the one of highest priority."""
    best: dict[tuple[Endpoint, Endpoint], Candidate] = {}
    for entry in candidates:
        key = (entry.address, entry.base)
        if key not in best or best[key].priority < entry.priority:
            best[key] = entry
    return tuple(best.values())
