"""A link: two directions, each with tc-netem's impairments.

A file writes a preset's name, or a mapping with `preset:` and any of the keys below; `up:` and `down:`
override one direction. `delay` is one way. *up* is from the node towards its uplink.
Words and meanings: tc-netem(8).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from testbed.spec.model import Duration, Model, Probability, Rate, Whole


class Distribution(StrEnum):
    """The shape of jitter (tc-netem(8), `distribution`)."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    PARETO = "pareto"
    PARETONORMAL = "paretonormal"


class GilbertElliott(Model):
    """Loss in bursts (tc-netem(8), `loss gemodel`): two states, each with its own loss."""

    p: Probability
    """Chance to go from the good state to the bad one, a frame."""
    r: Probability
    """Chance to go from the bad state to the good one, a frame."""
    good_loss: Probability = 0
    """Loss in the good state (tc's 1-k)."""
    bad_loss: Probability = 1_000_000
    """Loss in the bad state (tc's 1-h)."""


def _is_bursty(value: Any) -> str:
    return "bursts" if isinstance(value, (dict, GilbertElliott)) else "share"


Loss = Annotated[
    Annotated[Probability, Tag("share")] | Annotated[GilbertElliott, Tag("bursts")], Discriminator(_is_bursty)
]
"""A share of frames, or a model for bursts: told apart by their shape, so that a mistake gets one message."""


class Impairment(Model):
    """What one direction of a link does to frames. Nothing, unless it is said."""

    delay: Duration = 0
    """One-way delay added before sending."""
    jitter: Duration = 0
    """Variation of the delay; reorders frames, as netem does."""
    correlation: Probability = 0
    """How much one frame's jitter depends on the one before (uniform distribution only)."""
    distribution: Distribution = Distribution.UNIFORM
    """The shape of the jitter."""
    loss: Loss = 0
    """Share of frames that vanish, or a Gilbert-Elliott model for bursts."""
    duplicate: Probability = 0
    """Share of frames that arrive twice."""
    corrupt: Probability = 0
    """Share of frames with one flipped bit; a program sees them as lost (checksum)."""
    reorder: Probability = 0
    """Share of frames that skip the delay."""
    rate: Rate | None = None
    """Line speed: frames leave one after another, and jitter does not reorder them. No limit unless said."""
    limit: Annotated[Whole, Field(ge=1, le=10_000_000)] = 1000
    """Most frames that may wait in this direction."""

    @property
    def is_random(self) -> bool:
        """Whether any fate of a frame is drawn."""
        return bool(self.jitter or self.loss or self.duplicate or self.corrupt or self.reorder)

    @property
    def is_nothing(self) -> bool:
        """Whether a frame passes as through a bare wire."""
        return not (self.is_random or self.delay or self.rate)

    def contradictions(self) -> Iterator[str]:
        """What is said but could have no effect, or what tc would refuse, as sentences."""
        if not self.jitter:
            if self.correlation:
                yield "correlation has no effect without jitter"
            if self.distribution is not Distribution.UNIFORM:
                yield f"distribution {self.distribution.value!r} has no effect without jitter"
        elif self.correlation and self.distribution is not Distribution.UNIFORM:
            yield f"correlation goes with the uniform distribution only, not with {self.distribution.value!r}"
        if self.reorder and not self.delay:
            yield "reorder has no effect without delay: the frames that skip it arrive first"


class Link(Model):
    """Both directions of a link, and what they share."""

    up: Impairment = Impairment()
    """From the node towards its uplink."""
    down: Impairment = Impairment()
    """From the uplink towards the node."""
    mtu: Annotated[Whole, Field(ge=576, le=65535)] = 1500
    """Largest IP packet; 1280 is the least that carries QUIC (RFC 9000 §14)."""
    seed: Annotated[Whole, Field(ge=0, lt=2**64)] | None = None
    """The link's own random seed; derived from the trial's unless said."""
