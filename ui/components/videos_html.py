"""The contents of the tab "Your videos" as HTML. File names and reasons are escaped: they are untrusted."""

from collections.abc import Sequence
from html import escape

from dits.index.adding.config import pluralise
from dits.index.status import IndexStatus
from dits.video.probe import name_of
from ui.components.results import error_html, notice_html, progress_html
from ui.services.index_runs import IndexRuns

_LISTED = 200


def run_html(runs: IndexRuns) -> str:
    """Return the progress of the current run or the result of the last one; "" if there was none."""
    if runs.running:
        return _progress(runs)
    if runs.error:
        return error_html(str(runs.error))
    if runs.report:
        notices = "".join(map(notice_html, runs.report.notices))
        return f'<p class="done" role="status">Done: {escape(runs.report.as_text())}.</p>{notices}'
    if runs.stopped and runs.progress:
        return (
            f'<p class="done" role="status">Stopped after {pluralise(runs.progress.done, "file")}. Finished files stay '
            "in the index. To continue, add the same files again.</p>"
        )
    return ""


def index_html(status: IndexStatus | None, hidden: str = "") -> str:
    """Return the contents of an index, and the files that cannot be searched with the reasons.

    Args:
        hidden: a folder that is removed from all paths, so that visitors do not see it.
    """
    if status is None:
        return '<p class="status">No videos yet. Choose some above and press Add.</p>'
    clean = lambda text: text.replace(hidden, "") if hidden else text  # noqa: E731
    lists = "".join(
        _list(title, [(clean(path), clean(reason)) for path, reason in rows], shown)
        for title, rows, shown in (
            ("could not be read", status.failed, True),
            ("identical to another file", status.duplicates, False),
            ("missing from the disk", [(path, "") for path in status.missing], False),
        )
    )
    where = "" if hidden else f" Index: <code>{escape(status.location)}</code>."
    return (
        f'<section class="held"><p role="status"><b>{pluralise(status.videos, "video")}</b> in '
        f"{pluralise(status.segments, 'segment')} can be searched.{where}</p>{lists}</section>"
    )


def _progress(runs: IndexRuns) -> str:
    if runs.stopped:
        return progress_html("Stopping", 0, 1)
    if runs.waiting:
        return progress_html("Waiting for another run to finish", 0, 1)
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
        f"<details{' open' if shown else ''}><summary>{pluralise(len(rows), 'file')} {title}</summary>"
        f"<ul>{items}{more}</ul></details>"
    )
