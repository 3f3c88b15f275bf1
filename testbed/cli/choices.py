"""Words that several commands take, spelt here so that `--help` needs no other import."""

from __future__ import annotations

LINKS = ("auto", "netem", "wire")
CAPTURES = ("failed", "all", "none")
PROGRESS = ("auto", "live", "plain", "none")
SAMPLE = "Of a population: N trials drawn by its weights, instead of the file's number of each cell."
RULES = ("tested", "point")
BASELINES = "Where baselines are kept; $TESTBED_BASELINES unless said, else testbed/baselines in your state folder."
