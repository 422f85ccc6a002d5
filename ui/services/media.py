"""Where a browser finds clips and their pictures: by ids alone, for paths are nobody's business."""

import logging
import mimetypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from dits.common.errors import DitsError
from dits.corpora.corpus import Clip, Corpus
from dits.corpora.demo import is_built, rebuild_clip, strip_path

TYPES = {
    ".avi": "video/x-msvideo",
    ".m4v": "video/mp4",
    ".mkv": "video/matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".ogv": "video/ogg",
    ".webm": "video/webm",
    ".wmv": "video/x-ms-wmv",
}
"""Of the suffixes that systems know differently or not at all."""

PLOTLY_ADDRESS = "/plotly.js"

CORPUS = "corpus"
"""Stands in addresses for the page's corpus, as a token does for an index."""

NOTHING = "There is nothing at this address."
"""What is said where no clip is, nor anything else."""

_BEGINNINGS = (b"\x1aE\xdf\xa3", b"OggS", b"0&\xb2u\x8ef\xcf\x11", b"FLV\x01", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")

_log = logging.getLogger(__name__)

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600"}


class Media(Protocol):
    """Addresses of a clip, of the strip of its frames and of a picture of it; empty where there is none."""

    def video(self, clip: Clip) -> str: ...
    def strip(self, clip: Clip) -> str: ...
    def picture(self, clip: Clip) -> str: ...


class CorpusMedia:
    """The page's corpus, by its clips' ids, and the strips of the demo build."""

    def video(self, clip: Clip) -> str:
        return f"/clip/{CORPUS}/{_quoted(clip)}{_part(clip)}"

    def strip(self, clip: Clip) -> str:
        return f"/thumbnail/{CORPUS}/{_quoted(clip)}" if strip_path(clip.path).is_file() or is_built(clip) else ""

    def picture(self, clip: Clip) -> str:
        return ""


class IndexMedia:
    """Segments of an index by their ids, below what cannot be guessed."""

    def __init__(self, token: str) -> None:
        self._token = token

    def video(self, clip: Clip) -> str:
        return f"/clip/{self._token}/{_quoted(clip)}{_part(clip)}"

    def strip(self, clip: Clip) -> str:
        return ""

    def picture(self, clip: Clip) -> str:
        return f"/thumbnail/{self._token}/{_quoted(clip)}"


CORPUS_MEDIA = CorpusMedia()


class Segments(Protocol):
    """What an index gives away of a segment, by its id; None where it has no such segment."""

    def file(self, segment: str) -> Path | None: ...
    def thumbnail(self, segment: str) -> bytes | None: ...


class CorpusSegments:
    """What a corpus gives away: its clips' files, and their strips. Those of the demo that are gone are built again."""

    def __init__(self, corpus: Corpus) -> None:
        self._clips = {clip.id: clip for clip in corpus}
        self._building = threading.Lock()

    def file(self, segment: str) -> Path | None:
        clip = self._clips.get(segment)
        return self._there(clip, clip.path) if clip else None

    def thumbnail(self, segment: str) -> bytes | None:
        clip = self._clips.get(segment)
        path = self._there(clip, strip_path(clip.path)) if clip else None
        return path.read_bytes() if path else None

    def _there(self, clip: Clip, path: Path) -> Path | None:
        """One of a clip's files, if it is there, or could be built again."""
        if not path.is_file() and is_built(clip):
            with self._building:
                try:
                    rebuild_clip(clip)
                except DitsError as error:
                    _log.warning("A clip of the demo is gone and cannot be built again: %s", error)
        return path if path.is_file() else None


def media_routes(library: Callable[[str], Segments | None], script: Path) -> list[BaseRoute]:
    """The routes that `CorpusMedia` and `IndexMedia` speak of, and that of plotly.js.

    Args:
        library: gives what a token stands for.
        script: the file of plotly.js.
    """

    async def clip(request: Request) -> Response:
        path = await run_in_threadpool(_found, library, request, "file")
        playable = path is not None and await run_in_threadpool(looks_playable, path)
        return (
            _nothing()
            if path is None or not playable
            else FileResponse(path, media_type=content_type(path), headers=_HEADERS)
        )

    async def thumbnail(request: Request) -> Response:
        picture = await run_in_threadpool(_found, library, request, "thumbnail")
        return _nothing() if picture is None else Response(picture, media_type="image/jpeg", headers=_HEADERS)

    async def plotly(request: Request) -> Response:
        return FileResponse(script, media_type="text/javascript", headers=_HEADERS)

    return [
        Route("/clip/{token}/{segment:path}", clip),
        Route("/thumbnail/{token}/{segment:path}", thumbnail),
        Route(PLOTLY_ADDRESS, plotly),
    ]


def looks_playable(path: Path) -> bool:
    """Whether a file begins as those do that browsers play: MP4 and QuickTime, WebM and Matroska, Ogg, AVI, ASF, MPEG.

    A name proves nothing: where there was a video there may be a link to anything by now, and an index or a table of
    videos that somebody else has made may name any file.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError:
        return False
    return head.startswith(_BEGINNINGS) or head[4:8] in _ATOMS or (head[:4] == b"RIFF" and head[8:] == b"AVI ")


def content_type(path: Path) -> str:
    """What a file is by its suffix: a video, or nothing that a browser would show."""
    suffix = path.suffix.lower()
    known = TYPES.get(suffix) or mimetypes.types_map.get(suffix, "")
    return known if known.startswith("video/") else "application/octet-stream"


def _quoted(clip: Clip) -> str:
    return quote(clip.id, safe="", errors="surrogatepass")


def _part(clip: Clip) -> str:
    """The part of its file that a clip is, as a media fragment."""
    if clip.start is None:
        return ""
    return f"#t={clip.start:.3f}" + (f",{clip.end:.3f}" if clip.end is not None else "")


def _found(library: Callable[[str], Segments | None], request: Request, what: str) -> Any:
    segments = library(request.path_params["token"])
    return getattr(segments, what)(request.path_params["segment"]) if segments else None


def _nothing() -> Response:
    return Response(NOTHING, status_code=404, media_type="text/plain")
