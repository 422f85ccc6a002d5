"""The progress of long work on the error stream: how far it is, how fast, and how long it still takes."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

_SECONDS_BETWEEN_LINES = 60.0  # where lines stay: not on a terminal
_LEAST_SECONDS = 1.0  # before there is a rate


class ProgressDisplay:
    """Shows progress: on a terminal one line that is overwritten, elsewhere at most a line a minute."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`stream` is by default the error stream of the moment; `clock` gives seconds."""
        self._stream, self._clock = stream, clock
        self._task: tuple[str, int] | None = None
        self._start, self._last_line, self._done_before, self._done = 0.0, 0.0, 0, 0

    def __call__(self, task: str, done: int, total: int) -> None:
        """Shows that `done` of `total` items of a task are done. A task of one item is not shown.

        The rate counts from the first call on, so that items that were done before do not speed it up.
        """
        if total <= 1:
            return
        now = self._clock()
        if self._task != (task, total) or done < self._done:
            self._task, self._start, self._last_line, self._done_before = (task, total), now, now, done
        self._done = done
        stream = self._stream or sys.stderr
        text = f"{task}: {done} of {total}{self._pace(now - self._start, done, total)}"
        if stream.isatty():
            print(f"\r\x1b[K{text}", end="\n" if done == total else "", file=stream, flush=True)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(text, file=stream, flush=True)

    def _pace(self, seconds: float, done: int, total: int) -> str:
        """Rate and time left; empty as long as there is no rate. The time that all took, if all is done."""
        made = done - self._done_before
        if made <= 0 or seconds < _LEAST_SECONDS:
            return ""
        rate = made / seconds
        if done == total:
            return f", {_rate(rate)}, done in {_duration(seconds)}"
        return f", {_rate(rate)}, {_duration((total - done) / rate)} left"


def _rate(per_second: float) -> str:
    """A rate in the smallest unit in which it is at least 1, or else an hour: "6.1 a second", "12.0 a minute"."""
    for unit, length in (("second", 1), ("minute", 60)):
        if per_second * length >= 1:
            return f"{per_second * length:.{0 if per_second >= 100 else 1}f} a {unit}"
    return f"{3600 * per_second:.1f} an hour"


def _duration(seconds: float) -> str:
    """A duration in the largest unit of which there are at least two: "90 seconds", "9 minutes", "3 hours"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"
