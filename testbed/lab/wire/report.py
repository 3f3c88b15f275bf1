"""What a wire says of itself when it is stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class DirectionReport:
    """What happened to the frames of one direction of a cable."""

    cable: str
    towards: str
    """`up` (from the lower end to the upper) or `down`."""
    frames: int
    """How many entered; `control` of them were the kernel's own (ARP and the like)."""
    control: int
    lost: int
    duplicated: int
    corrupted: int
    reordered: int
    overflow: int
    """Copies that found the queue full (`limit`)."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """How long after their time frames were sent, in nanoseconds; None of no frames."""

    frames: int
    p50: int | None
    p95: int | None
    p99: int | None
    largest: int | None

    @classmethod
    def from_histogram(cls, steps: Sequence[int], width: int, largest: int) -> Lateness:
        """Percentiles, each rounded up to the end of its step; the last step has no end but `largest`."""
        frames = sum(steps)
        if not frames:
            return cls(0, None, None, None, None)

        def percentile(share: float) -> int:
            passed = 0
            for index, count in enumerate(steps[:-1]):
                passed += count
                if passed >= share * frames:
                    return min(largest, (index + 1) * width)
            return largest

        return cls(frames, percentile(0.5), percentile(0.95), percentile(0.99), largest)


@dataclass(frozen=True, slots=True)
class WireReport:
    """The whole life of a wire."""

    scheduling: str
    """How the kernel scheduled it: `fifo` (before all normal processes), `nice`, or `other` (like any process)."""
    busy: int
    """Nanoseconds of a core that it needed; what receivers do with a frame in the kernel counts too."""
    sent: int
    unread: int
    """Frames that came faster than they were read, and are missing: nothing measured meanwhile is worth anything."""
    truncated: int
    """Frames larger than any link's `mtu` (a device with segmentation offload left on), and missing."""
    refused: Mapping[str, int]
    """Frames that the kernel did not take, by the name of its error."""
    lateness: Lateness
    directions: tuple[DirectionReport, ...]

    @property
    def missing(self) -> int:
        """Frames that vanished though no link says so."""
        return self.unread + self.truncated + sum(self.refused.values())

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WireReport:
        """The value that `to_json` wrote."""
        fields = json.loads(text)
        fields["lateness"] = Lateness(**fields["lateness"])
        fields["directions"] = tuple(DirectionReport(**direction) for direction in fields["directions"])
        return cls(**fields)
