"""NATs and firewalls made of nftables rules.

`text(translation, seed)`    the rules, as a person may read them
`prepare(translation)`       once, in the warm parent; then `.load(seed)` in each trial, inside the NAT's namespace
`PacketLog()`                what was dropped and why

Only `library.py` loads libnftables; only `netfilter.py` speaks netfilter's netlink.
"""
