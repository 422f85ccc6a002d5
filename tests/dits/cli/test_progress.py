"""Progress on the error stream, by a clock that only the tests move."""

import io

import pytest

from dits.cli.progress import ProgressDisplay


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(stream, calls, total=3871):
    """Calls the display with a task at given seconds and numbers; returns what it printed."""
    seconds = iter([second for second, _ in calls])
    display = ProgressDisplay(stream, lambda: next(seconds))
    for _, done in calls:
        display("Embedding the clips", done, total)
    return stream.getvalue()


def test_outside_a_terminal_there_is_a_line_a_minute():
    printed = show(io.StringIO(), [(n / 4, 1 + n) for n in range(4 * 150)])  # four a second, for 150 seconds
    assert printed.splitlines() == [
        "Embedding the clips: 241 of 3871, 4.0 a second, 15 minutes left",
        "Embedding the clips: 481 of 3871, 4.0 a second, 14 minutes left",
    ]


def test_work_that_ends_within_a_minute_prints_nothing_outside_a_terminal():
    assert show(io.StringIO(), [(n, n) for n in range(59)], total=58) == ""


def test_rare_items_print_at_most_one_line_each():
    printed = show(io.StringIO(), [(0, 0), (59, 1), (100, 2), (159, 3), (1000, 4)], total=4)
    assert printed.splitlines() == [
        "Embedding the clips: 2 of 4, 1.2 a minute, 100 seconds left",
        "Embedding the clips: 4 of 4, 14.4 an hour, done in 17 minutes",
    ]


def test_what_was_done_before_does_not_count_for_the_rate():
    printed = show(io.StringIO(), [(0, 3001), (87, 3001 + 87)])
    assert printed == "Embedding the clips: 3088 of 3871, 1.0 a second, 13 minutes left\n"


def test_a_terminal_shows_one_line_that_is_overwritten():
    printed = show(Terminal(), [(0, 1), (0.5, 2), (2, 3), (9000, 4)], total=4)
    assert printed.split("\r\x1b[K") == [
        "",
        "Embedding the clips: 1 of 4",
        "Embedding the clips: 2 of 4",
        "Embedding the clips: 3 of 4, 1.0 a second, 1 second left",
        "Embedding the clips: 4 of 4, 1.2 an hour, done in 2 hours\n",
    ]


def test_every_task_and_every_repetition_of_one_has_its_own_clock():
    stream, seconds = io.StringIO(), iter([0, 50, 70, 110, 115, 180])
    display = ProgressDisplay(stream, lambda: next(seconds))
    for task, done in (("one", 0), ("one", 9), ("two", 0), ("two", 5), ("two", 1), ("two", 3)):
        display(task, done, 10)
    assert stream.getvalue() == "two: 3 of 10, 1.8 a minute, 4 minutes left\n"


@pytest.mark.parametrize(
    ("made", "left", "says"),
    [
        (610, 5490, "10.0 a second, 9 minutes left"),
        (61_000, 10, "1000 a second, 0 seconds left"),
        (61, 119, "1.0 a second, 119 seconds left"),
        (6.1, 8.9, "6.0 a minute, 89 seconds left"),
        (0.61, 108, "36.0 an hour, 3 hours left"),
    ],
)
def test_rates_and_durations_have_a_readable_unit(made, left, says):
    printed = show(io.StringIO(), [(0, 0), (61, made)], total=made + left)
    assert printed.endswith(f", {says}\n")
