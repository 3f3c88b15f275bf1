"""How far a run is, as lines and as a picture."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping

import pytest

from testbed.errors import UsageError
from testbed.report.progress import FRAME, HEARTBEAT, LiveProgress, Mode, PlainProgress, Progress, progress
from testbed.units import NS_PER_SECOND
from tests.report.test_page import Screen
from tests.results.build import fields, record, run

SECOND = NS_PER_SECOND
CELLS = run(fields(nat_a=["x", "y"]), 4).cells
TERMINAL: Mapping[str, str] = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}


def test_plain_lines_tell_each_finished_cell_and_each_broken_trial() -> None:
    file = io.StringIO()
    with progress("plain", CELLS, 5 * SECOND, file, {}) as shown:
        for index in range(3):
            shown.finished(record("nat_a=x", index), 6 * SECOND)
        assert file.getvalue() == ""
        shown.finished(record("nat_a=x", 3, "relayed"), 7 * SECOND)
        shown.finished(record("nat_a=y", 0, "broken", reason="the wire died"), 8 * SECOND)
        shown.note("one core is busy", 9 * SECOND)
    assert file.getvalue().splitlines() == [
        "[   2.0 s] 4/8  nat_a=x: 3 direct, 1 relayed, 75 % [30.1–95.4]",
        "[   3.0 s] cell nat_a=y, trial 0: broken: the wire died",
        "[   4.0 s] one core is busy",
    ]


def test_plain_lines_give_a_sign_of_life() -> None:
    file = io.StringIO()
    shown = PlainProgress(CELLS, 0, file)
    assert shown.next_tick() == HEARTBEAT
    shown.tick(HEARTBEAT - 1)
    assert file.getvalue() == ""
    shown.finished(record("nat_a=x", 0), 5 * SECOND)
    shown.tick(HEARTBEAT)
    shown.tick(HEARTBEAT + 1)
    assert file.getvalue() == "[  10.0 s] 1/8 trials, 0/2 cells, about 70 s left\n"
    assert shown.next_tick() == 2 * HEARTBEAT


@pytest.mark.parametrize(
    ("resumed", "fresh", "now", "left"),
    [
        pytest.param(0, 0, 10, None, id="before the first trial nobody knows"),
        pytest.param(0, 2, 10, 30, id="two in ten seconds: six in thirty"),
        pytest.param(4, 2, 10, 10, id="what an earlier run did says nothing of the speed"),
        pytest.param(0, 8, 10, 0, id="nothing is left"),
    ],
)
def test_time_left(resumed: int, fresh: int, now: int, left: int | None) -> None:
    shown = Progress(CELLS, 0)
    trials = [record(cell.id, index) for cell in CELLS for index in range(4)]
    for trial in trials[:resumed]:
        shown.resumed(trial)
    for trial in trials[resumed : resumed + fresh]:
        shown.finished(trial, now * SECOND)
    assert shown.left(now * SECOND) == (None if left is None else left * SECOND)


def live(screen: Screen, cells: int = 2) -> LiveProgress:
    from testbed.report.page import console

    planned = run(fields(nat_a=[f"p{i:02}" for i in range(cells)]), 4).cells
    return LiveProgress(planned, 0, console(screen, TERMINAL))


def frame(shown: LiveProgress, now: int) -> list[str]:
    return [str(getattr(part, "plain", "")) for part in shown.frame(now).renderables]


def test_the_live_table_shows_cells_and_a_bar() -> None:
    shown = live(Screen())
    for index in range(4):
        shown.finished(record("nat_a=p00", index, "direct" if index else "failed"), SECOND)
    assert frame(shown, SECOND) == [
        "nat_a=p00  4/4  3 direct  1 failed",
        "nat_a=p01  0/4",
        "██████████░░░░░░░░░░ 4/8 trials, 1/2 cells, about 1 s left",
    ]
    shown.close()


def test_the_live_table_follows_what_is_running() -> None:
    shown = live(Screen(), cells=40)
    for cell in range(30):
        for index in range(4):
            shown.finished(record(f"nat_a=p{cell:02}", index), SECOND)
    seen = frame(shown, SECOND)
    assert [line[:9] for line in seen[:12]] == [f"nat_a=p{i}" for i in range(26, 38)]
    assert seen[12] == "and 28 more cells"
    assert all(len(line) <= 80 for line in seen)
    shown.close()


def test_the_live_table_is_drawn_eight_times_a_second_by_this_thread_alone() -> None:
    screen = Screen()
    before = threading.active_count()
    shown = live(screen)
    drawn = []
    for now in range(0, SECOND, FRAME // 4):
        size = len(screen.getvalue())
        shown.finished(record("nat_a=p00", 0), now)
        shown.tick(now)
        drawn.append(len(screen.getvalue()) > size)
    assert threading.active_count() == before
    assert sum(drawn) == 7
    assert shown.next_tick() == 8 * FRAME
    shown.close()


def test_a_broken_trial_is_told_above_the_live_table() -> None:
    screen = Screen()
    with progress("live", CELLS, 0, screen, TERMINAL) as shown:
        shown.finished(record("nat_a=x", 0, "broken", reason="the wire died"), SECOND)
        shown.note("one core is busy", SECOND)
        assert "cell nat_a=x, trial 0: broken: the wire died" in screen.getvalue()
        assert "one core is busy" in screen.getvalue()


@pytest.mark.parametrize(
    ("mode", "file", "environ", "kind"),
    [
        pytest.param("auto", Screen(), TERMINAL, LiveProgress, id="a terminal"),
        pytest.param("auto", io.StringIO(), TERMINAL, PlainProgress, id="a pipe"),
        pytest.param("auto", Screen(), {"TERM": "dumb"}, PlainProgress, id="a terminal that cannot redraw"),
        pytest.param("plain", Screen(), TERMINAL, PlainProgress, id="plain wins over the terminal"),
        pytest.param("none", Screen(), TERMINAL, Progress, id="none"),
    ],
)
def test_which_progress(mode: Mode, file: io.StringIO, environ: Mapping[str, str], kind: type[Progress]) -> None:
    with progress(mode, CELLS, 0, file, environ) as shown:
        assert type(shown) is kind


def test_none_says_nothing() -> None:
    screen = Screen()
    with progress("none", CELLS, 0, screen, TERMINAL) as shown:
        shown.finished(record("nat_a=x", 0, "broken"), 1)
        shown.note("well", 2)
        shown.tick(HEARTBEAT)
        assert shown.next_tick() is None
    assert screen.getvalue() == ""


def test_live_is_refused_where_nothing_can_be_redrawn() -> None:
    with (
        pytest.raises(UsageError, match="--progress live needs a terminal"),
        progress("live", CELLS, 0, io.StringIO(), {}),
    ):
        pass


def test_an_error_in_the_run_leaves_a_clean_terminal() -> None:
    screen = Screen()
    with pytest.raises(RuntimeError), progress("live", CELLS, 0, screen, TERMINAL):
        raise RuntimeError
    assert screen.getvalue().count("\x1b[?25h") == screen.getvalue().count("\x1b[?25l") == 1
