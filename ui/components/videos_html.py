"""What the tab "Your videos" says, as HTML. Names and reasons are escaped: anybody may have written them."""

from collections.abc import Sequence
from html import escape

from dits.index.adding.config import counted
from dits.index.status import IndexStatus
from dits.video.probe import name_of
from ui.components.results import error_html, notice_html, progress_html
from ui.services.index_runs import IndexRuns

_LISTED = 200


def run_html(runs: IndexRuns) -> str:
    """How far a run is, or what came of the last one; nothing where there was none."""
    if runs.running:
        return _progress(runs)
    if runs.error:
        return error_html(str(runs.error))
    if runs.report:
        notices = "".join(map(notice_html, runs.report.notices))
        return f'<p class="done" role="status">Done: {escape(runs.report.as_text())}.</p>{notices}'
    if runs.stopped and runs.progress:
        return (
            f'<p class="done" role="status">Stopped after {counted(runs.progress.done, "file")}: what was embedded '
            "stays, and adding the same again goes on from there.</p>"
        )
    return ""


def held_html(status: IndexStatus | None, hidden: str = "") -> str:
    """What an index holds, and which files are not searched, with the reasons.

    Args:
        hidden: a folder that a visitor need not know of: it is left out of paths.
    """
    if status is None:
        return '<p class="status">No videos yet: choose some above, and press Add.</p>'
    clean = lambda text: text.replace(hidden, "") if hidden else text  # noqa: E731
    lists = "".join(
        _list(title, [(clean(path), clean(reason)) for path, reason in rows], shown)
        for title, rows, shown in (
            ("could not be read", status.failed, True),
            ("the same as another", status.duplicates, False),
            ("gone from the disk", [(path, "") for path in status.missing], False),
        )
    )
    where = "" if hidden else f" Kept in <code>{escape(status.location)}</code>."
    return (
        f'<section class="held"><p role="status"><b>{counted(status.videos, "video")}</b> in '
        f"{counted(status.segments, 'segment')} can be searched.{where}</p>{lists}</section>"
    )


def _progress(runs: IndexRuns) -> str:
    if runs.stopped:
        return progress_html("Stopping", 0, 1)
    if runs.waiting:
        return progress_html("Waiting until the videos that are being added now are done", 0, 1)
    if runs.progress is None or not runs.progress.files:
        return progress_html("Looking for videos", 0, 1)
    progress = runs.progress
    failed = f", {progress.failed} failed" if progress.failed else ""
    return progress_html(f"Adding videos ({progress.pace}{failed})", progress.done, progress.files)


def _list(title: str, rows: Sequence[tuple[str, str]], shown: bool) -> str:
    if not rows:
        return ""
    items = "".join(
        f"<li><b>{escape(name_of(path))}</b>{': ' * bool(reason)}{escape(reason)}</li>"
        for path, reason in rows[:_LISTED]
    )
    more = f"<li>and {len(rows) - _LISTED} more</li>" if len(rows) > _LISTED else ""
    return (
        f"<details{' open' if shown else ''}><summary>{counted(len(rows), 'file')} {title}</summary>"
        f"<ul>{items}{more}</ul></details>"
    )
