"""One direction of a link: its laws, and its chances against arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.link.model import LINK_HEADER, Arrival, Cause, Direction, Fate, Lost, seeds_of_directions
from testbed.spec.link import Distribution, GilbertElliott, Impairment

MS = 1_000_000
SECOND = 1000 * MS
PERCENT = 10_000
GBIT = 1_000_000_000
LOST = (Lost(Cause.LOSS),)
FULL = (Lost(Cause.QUEUE_FULL),)


def play(impairment: Impairment, frames: Sequence[tuple[int, int]], seed: int = 1) -> list[tuple[Fate, ...]]:
    """Offer frames of (size, time of entry)."""
    direction = Direction(impairment, seed)
    return [direction.offer(size, now) for size, now in frames]


def arrivals(fates: Sequence[tuple[Fate, ...]]) -> list[Arrival]:
    return [fate for copies in fates for fate in copies if isinstance(fate, Arrival)]


# ---------------------------------------------------------------------------- rows

TIMES = [
    ("nothing said, nothing done", Impairment(), [(100, 0), (100, 5)], [0, 5]),
    ("delay is added", Impairment(delay=10), [(100, 0), (1500, 5)], [10, 15]),
    ("a line of 8 Gbit/s sends a byte in a nanosecond", Impairment(rate=8_000_000_000), [(100, 0)], [100]),
    (
        "a line sends one frame after the other, then rests",
        Impairment(rate=8_000_000_000),
        [(100, 0), (50, 10), (10, 1000)],
        [100, 150, 1010],
    ),
    ("line and delay add up", Impairment(rate=8_000_000_000, delay=7), [(100, 0), (100, 0)], [107, 207]),
    (
        "fractions of a nanosecond are kept: three frames of 100/3 ns take 100",
        Impairment(rate=24_000_000_000),
        [(100, 0), (100, 0), (100, 0)],
        [33, 66, 100],
    ),
    ("time does not go back", Impairment(delay=10), [(100, 50), (100, 40)], [60, 60]),
]


@pytest.mark.parametrize(("sentence", "impairment", "frames", "times"), TIMES, ids=[row[0] for row in TIMES])
def test_times(sentence: str, impairment: Impairment, frames: list[tuple[int, int]], times: list[int]) -> None:
    assert [a.time for a in arrivals(play(impairment, frames))] == times


CERTAIN = [
    ("loss of all", Impairment(loss=100 * PERCENT), LOST),
    ("always two copies", Impairment(duplicate=100 * PERCENT, delay=3), (Arrival(3), Arrival(3))),
    (
        "both duplicated and lost: one copy goes on",
        Impairment(duplicate=100 * PERCENT, loss=100 * PERCENT),
        (Arrival(0), *LOST),
    ),
    ("always early", Impairment(reorder=100 * PERCENT, delay=3), (Arrival(0, None, True),)),
    (
        "a frame that is early skips the line too",
        Impairment(reorder=100 * PERCENT, delay=3, rate=8),
        (Arrival(0, None, True),),
    ),
    ("bad for ever after the first frame", Impairment(loss=GilbertElliott(p=100 * PERCENT, r=0)), (Arrival(0),)),
]


@pytest.mark.parametrize(("sentence", "impairment", "fates"), CERTAIN, ids=[row[0] for row in CERTAIN])
def test_what_is_certain(sentence: str, impairment: Impairment, fates: tuple[Fate, ...]) -> None:
    assert play(impairment, [(100, 0)]) == [fates]


def test_the_state_before_a_frame_decides_about_its_loss() -> None:
    impairment = Impairment(loss=GilbertElliott(p=100 * PERCENT, r=100 * PERCENT))
    kept = (Arrival(0),)
    assert play(impairment, [(100, 0)] * 4) == [kept, LOST, kept, LOST]


def test_a_flipped_bit_is_one_of_the_packet() -> None:
    size = LINK_HEADER + 2
    flipped = {a.flipped for a in arrivals(play(Impairment(corrupt=100 * PERCENT), [(size, 0)] * 500))}
    assert flipped == set(range(8 * LINK_HEADER, 8 * size))


def test_a_frame_of_nothing_but_its_header_cannot_be_corrupted() -> None:
    assert play(Impairment(corrupt=100 * PERCENT), [(LINK_HEADER, 0)]) == [(Arrival(0),)]


# ---------------------------------------------------------------------------- the limit

LIMITS = [
    ("delayed frames count", Impairment(delay=10, limit=2), [0, 1, 2], [1, 1, 0]),
    ("a place is free when a frame arrives", Impairment(delay=10, limit=2), [0, 1, 10, 10], [1, 1, 1, 0]),
    ("frames on the line count", Impairment(rate=8_000_000_000, limit=2), [0, 0, 0, 100, 100], [1, 1, 0, 1, 0]),
    ("nothing waits on a link without delay", Impairment(limit=1), [0, 0, 0], [1, 1, 1]),
    ("the second copy finds the queue full", Impairment(delay=10, limit=1, duplicate=100 * PERCENT), [0], [1]),
    ("what is lost takes no place", Impairment(delay=10, limit=1, loss=100 * PERCENT), [0, 0], [0, 0]),
]


@pytest.mark.parametrize(("sentence", "impairment", "entries", "passed"), LIMITS, ids=[row[0] for row in LIMITS])
def test_limit(sentence: str, impairment: Impairment, entries: list[int], passed: list[int]) -> None:
    fates = play(impairment, [(100, now) for now in entries])
    assert [len(arrivals([copies])) for copies in fates] == passed


def test_a_full_queue_has_its_own_cause() -> None:
    assert play(Impairment(delay=10, limit=1), [(100, 0), (100, 0)]) == [(Arrival(10),), FULL]


# ---------------------------------------------------------------------------- laws

probabilities = st.integers(0, 100 * PERCENT)
losses = probabilities | st.builds(
    GilbertElliott, p=probabilities, r=probabilities, good_loss=probabilities, bad_loss=probabilities
)
impairments = st.builds(
    Impairment,
    delay=st.integers(0, SECOND),
    jitter=st.integers(0, SECOND),
    correlation=probabilities,
    distribution=st.sampled_from(Distribution),
    loss=losses,
    duplicate=probabilities,
    corrupt=probabilities,
    reorder=probabilities,
    rate=st.none() | st.integers(1, 10**12),
    limit=st.integers(1, 50),
)
frame_lists = st.lists(st.tuples(st.integers(14, 65_549), st.integers(0, SECOND)), max_size=60).map(
    lambda frames: sorted(frames, key=lambda frame: frame[1])
)
seeds = st.integers(0, 2**63)


@given(impairments, frame_lists, seeds)
def test_nothing_arrives_before_it_was_sent_nor_more_than_twice(
    impairment: Impairment, frames: list[tuple[int, int]], seed: int
) -> None:
    for (size, now), fates in zip(frames, play(impairment, frames, seed), strict=True):
        assert 1 <= len(fates) <= 2
        for fate in arrivals([fates]):
            assert fate.time >= now
            assert fate.flipped is None or 8 * LINK_HEADER <= fate.flipped < 8 * size


@given(impairments, frame_lists, seeds)
def test_order_is_kept_without_jitter_and_reorder(
    impairment: Impairment, frames: list[tuple[int, int]], seed: int
) -> None:
    calm = impairment.model_copy(update={"jitter": 0, "reorder": 0})
    times = [a.time for a in arrivals(play(calm, frames, seed))]
    assert times == sorted(times)


@given(impairments, frame_lists, seeds)
def test_a_line_keeps_the_order_of_what_jitter_delays(
    impairment: Impairment, frames: list[tuple[int, int]], seed: int
) -> None:
    one_line = impairment.model_copy(update={"reorder": 0, "rate": impairment.rate or 10**9})
    times = [a.time for a in arrivals(play(one_line, frames, seed))]
    assert times == sorted(times)


@given(impairments, frame_lists, seeds)
def test_no_more_wait_than_the_limit_says(impairment: Impairment, frames: list[tuple[int, int]], seed: int) -> None:
    direction = Direction(impairment, seed)
    sent: list[int] = []
    for size, now in frames:
        sent.extend(arrival.time for arrival in arrivals([direction.offer(size, now)]))
        assert sum(time > now for time in sent) <= impairment.limit


@given(st.integers(1, 10**11), st.lists(st.integers(14, 65_549), min_size=1, max_size=200))
def test_a_busy_line_is_exact(rate: int, sizes: list[int]) -> None:
    """However the sizes fall, the last bit leaves at total bits / rate, rounded down once."""
    fates = play(Impairment(rate=rate, limit=10_000), [(size, 0) for size in sizes])
    assert arrivals(fates)[-1].time == sum(sizes) * 8 * SECOND // rate


def kinds(fates: Sequence[tuple[Fate, ...]]) -> list[tuple[object, ...]]:
    """What chance decided, without times and bits."""
    return [
        tuple(
            ("early" if f.early else "late", f.flipped is None) if isinstance(f, Arrival) else f.cause for f in copies
        )
        for copies in fates
    ]


@given(impairments, st.lists(st.tuples(st.integers(15, 1514), st.integers(15, 1514)), max_size=60), seeds)
def test_a_seed_fixes_fates_whatever_the_sizes_and_times(
    impairment: Impairment, sizes: list[tuple[int, int]], seed: int
) -> None:
    endless = impairment.model_copy(update={"limit": 10_000})
    packed = play(endless, [(size, 0) for size, _ in sizes], seed)
    spread = play(endless, [(size, i * SECOND) for i, (_, size) in enumerate(sizes)], seed)
    assert kinds(packed) == kinds(spread)


@given(impairments, st.lists(st.booleans(), max_size=60), seeds)
def test_control_frames_do_not_shift_the_fates_of_others(impairment: Impairment, mix: list[bool], seed: int) -> None:
    endless = impairment.model_copy(update={"limit": 10_000})
    direction = Direction(endless, seed)
    mixed = [direction.offer(100, 0, control=control) for control in mix]
    alone = play(endless, [(100, 0)] * mix.count(False), seed)
    assert kinds([fates for fates, control in zip(mixed, mix, strict=True) if not control]) == kinds(alone)


def test_seeds_and_directions_differ() -> None:
    impairment = Impairment(loss=50 * PERCENT)
    up, down = seeds_of_directions(7)
    frames = [(100, 0)] * 64
    assert len({str(play(impairment, frames, seed)) for seed in (up, down, 7, 8)}) == 4


def test_a_change_leaves_what_is_on_the_way_and_goes_on_with_the_dice() -> None:
    lossy = Impairment(delay=10, loss=50 * PERCENT)
    direction = Direction(lossy, 3, varies=True)
    fates = [direction.offer(100, 0) for _ in range(50)]
    direction.change(Impairment(delay=20, loss=50 * PERCENT, limit=10_000))
    fates += [direction.offer(100, 1) for _ in range(50)]
    assert kinds(fates) == kinds(play(lossy, [(100, 0)] * 100, 3))
    assert {a.time for a in arrivals(fates[:50])} == {10}
    assert {a.time for a in arrivals(fates[50:])} == {21}


LOSSY = Impairment(loss=50 * PERCENT)
NOTHING = Impairment()


@given(st.lists(st.booleans(), max_size=60), seeds)
def test_the_nth_frame_draws_the_same_however_many_came_while_nothing_was_random(quiet: list[bool], seed: int) -> None:
    direction = Direction(NOTHING, seed, varies=True)
    fates, is_quiet = [], True
    for number, now_quiet in enumerate(quiet):
        if now_quiet is not is_quiet:
            direction.change(NOTHING if now_quiet else LOSSY)
            is_quiet = now_quiet
        fates.append(direction.offer(100, number * SECOND))
    always = kinds(play(LOSSY, [(100, 0)] * len(quiet), seed))
    for found, expected, was_quiet in zip(kinds(fates), always, quiet, strict=True):
        assert found == (kinds(play(NOTHING, [(100, 0)]))[0] if was_quiet else expected)


CHANGES = [
    (
        "a line gets free behind all that wait for their delay (tfifo_enqueue)",
        Impairment(delay=100),
        {"rate": 8 * GBIT},
    ),
    ("without a rate nobody waits for others", Impairment(delay=100, rate=8 * GBIT), {}),
]


@pytest.mark.parametrize(("sentence", "before", "after"), CHANGES, ids=[row[0] for row in CHANGES])
def test_what_a_change_means_for_those_behind(sentence: str, before: Impairment, after: dict[str, int]) -> None:
    """Frames of 100 bytes, one byte a nanosecond."""
    direction = Direction(before, 1, varies=True)
    waiting = arrivals([direction.offer(100, 0)])[0].time
    direction.change(Impairment(**after))
    behind = arrivals([direction.offer(100, 10)])[0].time
    assert (waiting, behind) == ((100, 200) if after else (200, 10))


def test_only_a_direction_that_varies_can_be_changed() -> None:
    with pytest.raises(AssertionError, match="cannot be changed"):
        Direction(NOTHING, 1).change(LOSSY)


# ---------------------------------------------------------------------------- chances

N = 20_000


def is_near(found: int, expected: float, trials: int = N) -> bool:
    """Within four standard deviations of a binomial; the seeds are fixed, so this says the same in every run."""
    return abs(found - trials * expected) <= 4 * sqrt(trials * expected * (1 - expected))


CHANCES: list[tuple[str, Impairment, Callable[[tuple[Fate, ...]], bool], float]] = [
    ("loss", Impairment(loss=5 * PERCENT), lambda f: f == LOST, 0.05),
    ("duplicate", Impairment(duplicate=2 * PERCENT), lambda f: len(f) == 2, 0.02),
    ("corrupt", Impairment(corrupt=3 * PERCENT), lambda f: arrivals([f])[0].flipped is not None, 0.03),
    ("reorder", Impairment(reorder=25 * PERCENT, delay=MS, limit=N), lambda f: arrivals([f])[0].early, 0.25),
    (
        "nothing arrives: not duplicated, and lost (of a pair of which one is lost, one goes on)",
        Impairment(loss=10 * PERCENT, duplicate=50 * PERCENT),
        lambda f: not arrivals([f]),
        0.1 * 0.5,
    ),
    (
        "two arrive: duplicated, not lost, and the copy not lost",
        Impairment(loss=10 * PERCENT, duplicate=50 * PERCENT),
        lambda f: len(arrivals([f])) == 2,
        0.5 * 0.9 * 0.9,
    ),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("name", "impairment", "happened", "expected"), CHANCES, ids=[row[0] for row in CHANCES])
def test_fates_are_unbiased(
    name: str, impairment: Impairment, happened: Callable[[tuple[Fate, ...]], bool], expected: float, seed: int
) -> None:
    fates = play(impairment, [(100, 0)] * N, seed)
    assert is_near(sum(map(happened, fates)), expected)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bursts_have_their_share_and_their_length(seed: int) -> None:
    """p = 1 %, r = 10 %: bad for p/(p+r) of the frames, 1/r frames at a time."""
    fates = play(Impairment(loss=GilbertElliott(p=1 * PERCENT, r=10 * PERCENT)), [(100, 0)] * N, seed)
    lost = [f == LOST for f in fates]
    bursts = sum(now and not before for before, now in pairwise([False, *lost]))
    assert sum(lost) / bursts == pytest.approx(10, rel=4 / sqrt(bursts))  # a geometric length's deviation is its mean
    # neighbours depend: the share's variance is that of N/(1+ρ)·(1-ρ) independent frames, ρ = 1-p-r = 0.89
    assert is_near(round(sum(lost) * 0.11 / 1.89), 1 / 11, trials=round(N * 0.11 / 1.89))


SHAPES = [
    (Distribution.UNIFORM, 1 / sqrt(3), 1.0),
    (Distribution.NORMAL, 1.0, 4.1),
    (Distribution.PARETO, 0.82, 4.0),  # its far tail is cut
    (Distribution.PARETONORMAL, 0.834, 4.0),
]


@pytest.mark.parametrize(("shape", "deviation", "widest"), SHAPES)
def test_jitter_has_its_shape(shape: Distribution, deviation: float, widest: float) -> None:
    impairment = Impairment(delay=10 * MS, jitter=MS, distribution=shape)
    offsets = [
        (a.time - 10 * MS) / MS for a in arrivals(play(impairment.model_copy(update={"limit": N}), [(100, 0)] * N))
    ]
    mean = sum(offsets) / N
    assert abs(mean) < 0.04 + 4 / sqrt(N)
    assert sqrt(sum((x - mean) ** 2 for x in offsets) / N) == pytest.approx(deviation, rel=0.05)
    assert max(map(abs, offsets)) <= widest


def test_correlation_ties_a_frames_jitter_to_the_one_before() -> None:
    """A mix of 30 % new and 70 % old: lag-one correlation 0.7, and the deviation shrinks by √(0.3/1.7)."""
    impairment = Impairment(delay=10 * MS, jitter=MS, correlation=70 * PERCENT, limit=N)
    x = [(a.time - 10 * MS) / MS for a in arrivals(play(impairment, [(100, 0)] * N))]
    variance = sum(a * a for a in x) / N
    assert sum(a * b for a, b in pairwise(x)) / N / variance == pytest.approx(0.7, abs=0.03)
    assert sqrt(variance) == pytest.approx(sqrt(0.3 / 1.7 / 3), rel=0.05)
