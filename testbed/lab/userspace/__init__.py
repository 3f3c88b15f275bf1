"""NATs and firewalls made by the model itself, on real packets: what rules of the kernel cannot do.

`headers`      IPv4, UDP, TCP and ICMP: what a NAT reads of them, and what it changes
`middlebox`    one box: frames in, frames out, each drop with its reason; no I/O
`process`      the process that plays all such boxes of a lab, and what may be asked of it
"""
