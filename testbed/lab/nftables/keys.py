"""Keys of the maps: what of a packet a behaviour can see, in nft's words.

Rule 1: a behaviour is a key, not a set of rules of its own: mapping and filtering differ only in how much of the
        remote endpoint stands in the key (RFC 4787 §4.1, §5).
Rule 2: the same key is read from four places: from a packet's own fields in either direction, or from what
        connection tracking remembers of the flow's first packet, where the fields have been rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.spec.profile import Dependence

SOURCE_PORT, TARGET_PORT = "@nh,160,16", "@nh,176,16"
"""The packet's own ports, as the numbers that an ICMP error's are compared with; its IP header has no options."""
ENDPOINT = "ipv4_addr . inet_service"
REMOTE_TYPES: Mapping[Dependence, str] = {
    Dependence.ENDPOINT_INDEPENDENT: "",
    Dependence.ADDRESS_DEPENDENT: " . ipv4_addr",
    Dependence.ADDRESS_AND_PORT_DEPENDENT: " . ipv4_addr . inet_service",
}
"""The remote's part of a key's type."""


def remote(dependence: Dependence, address: str, port: str) -> str:
    """The remote's part of a key, from where its address and its port are read."""
    match dependence:
        case Dependence.ADDRESS_DEPENDENT:
            return f" . {address}"
        case Dependence.ADDRESS_AND_PORT_DEPENDENT:
            return f" . {address} . {port}"
        case _:
            return ""


@dataclass(frozen=True, slots=True)
class Fields:
    """Where the fields of a packet of one protocol are read.

    UDP and TCP have their ports in the same place (`th`); chains know the protocol by how they are reached, so their
    rules do not ask for it again. Only ports that connection tracking remembers need to be told (`known`).
    """

    protocol: str

    @property
    def known(self) -> str:
        """What a rule with ports of connection tracking begins with."""
        return f"meta l4proto {self.protocol} "

    @property
    def source(self) -> str:
        """The packet's source endpoint."""
        return "ip saddr . th sport"

    @property
    def destination(self) -> str:
        """The packet's destination endpoint."""
        return "ip daddr . th dport"

    def outbound(self, dependence: Dependence) -> str:
        """Source, and of the destination what is seen: for a packet from inside, untouched as yet."""
        return self.source + remote(dependence, "ip daddr", "th dport")

    def inbound(self, dependence: Dependence) -> str:
        """Destination, and of the source what is seen: for a packet from outside."""
        return self.destination + remote(dependence, "ip saddr", "th sport")

    def first(self, dependence: Dependence, direction: str = "original") -> str:
        """The same as `outbound`, as connection tracking remembers it of one direction."""
        key = f"ct {direction} ip saddr . ct {direction} proto-src"
        return key + remote(dependence, f"ct {direction} ip daddr", f"ct {direction} proto-dst")
