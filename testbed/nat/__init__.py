"""A NAT, or a firewall, as a pure state machine: RFC 4787 for UDP, RFC 5382 for TCP, RFC 5508 for ICMP errors.

`Nat(translation, seed)`      .outbound(packet, now), .inbound(packet, now) -> Decision; .next_timeout()
`packet`                      what goes in, what comes out, why something is dropped
`behaviour.remote_key`        what of a remote a behaviour sees: the nine kinds are two of these
`ports.Ports`                 which external ports are assigned, as a function of the seed

It does no I/O and has neither a clock nor dice of its own, so it is the same in a prediction and on real packets.
"""
