"""Addresses and routes of clips and their pictures: by ids only, so that no path of the machine is revealed."""

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
"""Media types of suffixes that systems define differently or not at all."""

PLOTLY_ADDRESS = "/plotly.js"

CORPUS_TOKEN = "corpus"
"""Name of the page's corpus in addresses, in the place of an index's token."""

NOT_FOUND = "There is nothing at this address."
"""Message of a 404 response."""

_SIGNATURES = (b"\x1aE\xdf\xa3", b"OggS", b"0&\xb2u\x8ef\xcf\x11", b"FLV\x01", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")

_log = logging.getLogger(__name__)

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600"}


class Media:
    """Addresses of a clip, of its strip of frames, and of a picture of it; an empty string if there is none."""

    def __init__(self, token: str) -> None:
        self._token = token

    def video(self, clip: Clip) -> str:
        return f"/clip/{self._token}/{_quoted(clip)}{_fragment(clip)}"

    def strip(self, clip: Clip) -> str:
        return ""

    def picture(self, clip: Clip) -> str:
        return ""

    def _thumbnail(self, clip: Clip) -> str:
        return f"/thumbnail/{self._token}/{_quoted(clip)}"


class CorpusMedia(Media):
    """Addresses of the page's corpus by clip ids; strips are those of the demo."""

    def strip(self, clip: Clip) -> str:
        return self._thumbnail(clip) if strip_path(clip.path).is_file() or is_built(clip) else ""


class IndexMedia(Media):
    """Addresses of an index's segments by ids, below the index's secret token."""

    def picture(self, clip: Clip) -> str:
        return self._thumbnail(clip)


CORPUS_MEDIA = CorpusMedia(CORPUS_TOKEN)


class Segments(Protocol):
    """Served files of segments by id; None if there is no such segment."""

    def file(self, segment: str) -> Path | None: ...
    def thumbnail(self, segment: str) -> bytes | None: ...


class CorpusSegments:
    """Served files of a corpus: clips and their strips. Missing files of the demo are built again."""

    def __init__(self, corpus: Corpus) -> None:
        self._clips = {clip.id: clip for clip in corpus}
        self._building = threading.Lock()

    def file(self, segment: str) -> Path | None:
        clip = self._clips.get(segment)
        return self._existing(clip, clip.path) if clip else None

    def thumbnail(self, segment: str) -> bytes | None:
        clip = self._clips.get(segment)
        path = self._existing(clip, strip_path(clip.path)) if clip else None
        return path.read_bytes() if path else None

    def _existing(self, clip: Clip, path: Path) -> Path | None:
        """Return a clip's file if it exists, or could be built again."""
        if not path.is_file() and is_built(clip):
            with self._building:
                try:
                    rebuild_clip(clip)
                except DitsError as error:
                    _log.warning("A missing clip of the demo cannot be built again: %s", error)
        return path if path.is_file() else None


def media_routes(library: Callable[[str], Segments | None], script: Path) -> list[BaseRoute]:
    """Return the routes of the addresses of `CorpusMedia` and `IndexMedia`, and the route of plotly.js.

    Args:
        library: returns the segments of a token.
        script: the file of plotly.js.
    """

    async def clip(request: Request) -> Response:
        path = await run_in_threadpool(_lookup, library, request, "file")
        if path is None or not await run_in_threadpool(looks_playable, path):
            return _not_found()
        return FileResponse(path, media_type=content_type(path), headers=_HEADERS)

    async def thumbnail(request: Request) -> Response:
        picture = await run_in_threadpool(_lookup, library, request, "thumbnail")
        return _not_found() if picture is None else Response(picture, media_type="image/jpeg", headers=_HEADERS)

    async def plotly(request: Request) -> Response:
        return FileResponse(script, media_type="text/javascript", headers=_HEADERS)

    return [
        Route("/clip/{token}/{segment:path}", clip),
        Route("/thumbnail/{token}/{segment:path}", thumbnail),
        Route(PLOTLY_ADDRESS, plotly),
    ]


def looks_playable(path: Path) -> bool:
    """Whether a file begins like a video: MP4 and QuickTime, WebM and Matroska, Ogg, AVI, ASF, FLV, or MPEG.

    The name is not enough: a video may have been replaced by a link to any file, and an index or a table of videos from
    another person may name any file.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError:
        return False
    return head.startswith(_SIGNATURES) or head[4:8] in _ATOMS or (head[:4] == b"RIFF" and head[8:] == b"AVI ")


def content_type(path: Path) -> str:
    """Return the media type by suffix: a video type, or application/octet-stream, which browsers do not display."""
    suffix = path.suffix.lower()
    known = TYPES.get(suffix) or mimetypes.types_map.get(suffix, "")
    return known if known.startswith("video/") else "application/octet-stream"


def _quoted(clip: Clip) -> str:
    return quote(clip.id, safe="", errors="surrogatepass")


def _fragment(clip: Clip) -> str:
    """The clip's part of its file, as a media fragment."""
    if clip.start is None:
        return ""
    return f"#t={clip.start:.3f}" + (f",{clip.end:.3f}" if clip.end is not None else "")


def _lookup(library: Callable[[str], Segments | None], request: Request, what: str) -> Any:
    segments = library(request.path_params["token"])
    return getattr(segments, what)(request.path_params["segment"]) if segments else None


def _not_found() -> Response:
    return Response(NOT_FOUND, status_code=404, media_type="text/plain")
