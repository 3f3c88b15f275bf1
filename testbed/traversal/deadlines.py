"""How long an end tries, and what it says when that was too long.

Rule 1: the time for setting up counts from the start; from the first check, sent or heard, `deadline` counts instead.
Rule 2: an end that is connected has no deadline.
"""

from __future__ import annotations

from testbed.traversal.introduction import Introduction
from testbed.traversal.strategies import Strategy


class Deadlines:
    """When one end gives up."""

    def __init__(self, deadline: int, setup_deadline: int) -> None:
        """Both in nanoseconds."""
        self._deadline, self._setup_deadline = deadline, setup_deadline
        self._give_up_at: int | None = None
        self._is_checking = False

    def start(self, now: int) -> None:
        """The end begins."""
        self._give_up_at = now + self._setup_deadline

    def checking(self, now: int) -> None:
        """A check was sent or heard."""
        if not self._is_checking and self._give_up_at is not None:
            self._is_checking, self._give_up_at = True, now + self._deadline

    def connected(self) -> None:
        """Application bytes went both ways, directly."""
        self._is_checking, self._give_up_at = True, None

    def next_timeout(self) -> int | None:
        """When to give up."""
        return self._give_up_at

    def is_missed(self, now: int) -> bool:
        """Whether it is time to give up; said once."""
        is_missed = self._give_up_at is not None and self._give_up_at <= now
        self._give_up_at = None if is_missed else self._give_up_at
        return is_missed

    def reason(self, introduction: Introduction, strategy: Strategy) -> str:
        """What was missed."""
        if self._is_checking:
            return "no direct path by the deadline"
        if not strategy.rounds:
            return f"the strategy {strategy.name!r} looks for no direct path"
        if introduction.other is not None:
            return "the other end began no round within the time for setting up"
        if introduction.is_registered:
            return "the other end was not learnt within the time for setting up"
        return "gathering did not end within the time for setting up"
