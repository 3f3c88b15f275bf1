"""`python -m benchmarks [NAME…]`: all of them, or those named. Needs what a lab needs; best on an idle machine."""

from __future__ import annotations

import sys

from benchmarks import classic, datapath, lab, many_nats, start, wire

BENCHMARKS = {
    "start": ("testbed --help beside click alone", start.main),
    "lab": ("a lab built and gone, beside ip -batch with nft -f, and Mininet where it is installed", lab.main),
    "many_nats": ("200 NATs in one lab", many_nats.main),
    "datapath": ("a packet's way through an explicit NAT, beside plain masquerade", datapath.main),
    "wire": ("the exactness of our own links, beside a plain veth", wire.main),
    "classic": ("480 trials over 16 pairs of NATs, with either agent", classic.main),
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; the exit status is 1 where one missed what it promises."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        listed = "\n".join(f"  {name:<10} {what}" for name, (what, _) in BENCHMARKS.items())
        print(f"there is no benchmark {unknown[0]!r}; there are\n{listed}", file=sys.stderr)
        return 2
    missed = 0
    for name in names or BENCHMARKS:
        what, measure = BENCHMARKS[name]
        print(f"\n== {name}: {what}", flush=True)
        missed += measure()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
