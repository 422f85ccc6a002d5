"""Metadata of a video file: the times and size of its frames, and its duration.

Only this module opens files with PyAV. Files are untrusted: every value from a file is bounded before use, and a file
that cannot be read raises VideoError with a message of one sentence.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dits.common.errors import VideoError

if TYPE_CHECKING:  # imported when used, so that importing this module is fast
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

PathLike = str | os.PathLike[str]

MAX_PIXELS = 2**26
"""Of a frame: 8192 x 8192, twice 8K. A file of a few bytes can declare a frame that does not fit into memory."""

_FORMATS = (
    "3gp,apng,asf,av1,avi,avs2,avs3,bink,cavsvideo,dirac,dv,evc,film_cpk,flic,flv,gif,gxf,h261,h263,h264,hevc,ipu,"
    "ivf,kux,live_flv,m4v,matroska,mjpeg,mjpeg_2000,mov,mpeg,mpegts,mpegvideo,mv,mxf,nsv,nut,nuv,obu,ogg,rm,roq,"
    "smk,swf,ty,vc1,vc1test,vivo,vvc,wtv,yuv4mpegpipe,"
    "bmp_pipe,jpeg_pipe,jpegxl_pipe,png_pipe,tiff_pipe,webp_pipe,"
    "aac,ac3,aiff,amr,ape,au,caf,dts,eac3,flac,mp3,w64,wav,wv,tty"
)
"""Formats that are opened: videos and images, and also sound and text, for a better error message. Playlists (hls,
dash, concat, numbered images, ...) are excluded, because they read other files."""

_LIMITS = {"max_pixels": str(MAX_PIXELS)}  # the decoders check it before they allocate memory
_MAX_TICKS = 2**53  # from the first frame to the last; float64 is exact up to here


@dataclass(frozen=True)
class VideoInfo:
    """Metadata of a video file, counted from its packets: for a truncated file, the metadata of the rest."""

    duration: float  # seconds, from the first frame to the end of the last; sound is ignored
    frames: int
    width: int  # pixels as displayed, after rotation
    height: int
    fps: float  # average: frames / duration
    codec: str  # "h264", "vp9", "av1", ...


@dataclass(frozen=True, eq=False)  # == of arrays is not a bool
class Video:
    """The result of `inspect_video`: everything needed to read frames. Keeps no file open; can be pickled."""

    path: PathLike  # as given by the caller
    format: str  # the first of FFmpeg's names for it: "mov", "matroska", "avi", ...
    info: VideoInfo
    tick: float  # seconds
    pts: np.ndarray  # (frames,) int64 ticks, ascending: presentation times
    keys: np.ndarray  # (keyframes,) int64 ticks, ascending: where decoding can start; includes the first frame
    decord_agrees: bool  # decord's frame numbers are the positions in `pts`

    def seconds(self, pts: np.ndarray) -> np.ndarray:
        """Convert ticks to seconds from the first frame."""
        return (pts - self.pts[0]) * self.tick

    def times(self) -> np.ndarray:
        """(frames,) float64, ascending: presentation times, in seconds from the first frame.

        Files round times to ticks (Matroska: 1 ms), so a frame can be stamped just after its real start. If rounding
        explains all unevenness, the frame rate is constant and the unrounded times are returned.
        """
        times, step = self.seconds(self.pts), self.info.duration / len(self.pts)
        even = np.arange(len(times)) * step
        return even if np.abs(times - even).max() <= min(1.5 * self.tick, 0.25 * step) else times


def inspect_video(path: PathLike) -> Video:
    """Read the packets of the video stream and decode one frame: milliseconds for a clip, seconds for hours of video.

    Raises VideoError if the file cannot be read, or its frames exceed MAX_PIXELS.
    """
    rows = array("q")  # per packet, in file order: time, decoding time, duration, whether it is a keyframe
    whole = True
    first: VideoFrame | None = None
    with opened(path) as (container, stream):
        format_name = container.format.name.split(",")[0]
        for packet in packets(container, stream):
            if packet is not None:
                # AVI has no presentation times. FFmpeg guesses them, out of order; decoding times are used instead.
                time = packet.dts if format_name == "avi" else packet.pts
                if time is None or packet.is_discard:  # edited out: only decoded for the packets that follow
                    whole = False
                else:
                    decoding = time if packet.dts is None else packet.dts
                    rows.extend((time, decoding, packet.duration or 0, packet.is_keyframe))
            if first is None:  # the rotation is only known from a decoded frame
                first = next(decoded(stream, packet), None)
        table = np.array(rows, np.int64).reshape(-1, 4)
        whole = whole and stream.frames in (0, len(table))
        codec = stream.codec_context.codec.canonical_name
        tick, rate = float(stream.time_base or 1), float(stream.average_rate or 0)
    if first is None:
        raise VideoError(
            f"{name_of(path)} holds no frame that can be decoded and has at most {MAX_PIXELS:,} pixels; "
            "get the file again, or convert it to mp4."
        )
    if not len(table):
        raise VideoError(f"{name_of(path)} has no presentation times; convert it to mp4.")

    pts, order = np.unique(table[:, 0], return_index=True)
    if int(pts[-1]) - int(pts[0]) > _MAX_TICKS:
        raise VideoError(f"{name_of(path)} has impossible presentation times; convert it to mp4.")
    last = float(table[order[-1], 2])  # duration of the last frame, which some formats lack
    if last <= 0:
        last = float(np.median(np.diff(pts))) if len(pts) > 1 else 1 / (rate * tick) if rate else 0.0
    duration = float(pts[-1] - pts[0] + last) * tick
    width, height = (first.width, first.height) if first.rotation % 180 != 90 else (first.height, first.width)
    return Video(
        path=path,
        format=format_name,
        info=VideoInfo(duration, len(pts), width, height, len(pts) / duration if duration > 0 else 0.0, codec),
        tick=tick,
        pts=pts,
        keys=np.union1d(pts[:1], table[table[:, 3] == 1, 0]),
        decord_agrees=format_name == "mov" and whole and len(pts) == len(table) and _decord_seeks(table, order),
    )


@contextmanager
def opened(path: PathLike) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the file and its video stream, ready to decode. Raises VideoError."""
    import av
    from av.stream import Disposition
    from av.video.stream import VideoStream

    _check_is_file(path)
    # Some releases of torchvision turn PyAV's logging on, which can deadlock: a decoder thread that logs waits for the
    # interpreter, while the interpreter closes the decoder and waits for the thread.
    av.logging.set_level(None)
    # FFmpeg never takes an absolute path for a URL. The whitelists keep a disguised playlist from reading other files.
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, **_LIMITS}
    try:
        container = av.open(os.path.abspath(path), metadata_errors="replace", options=options)
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, PermissionError):
            raise VideoError(f"{name_of(path)} is not readable; change its permissions.") from None
        raise VideoError(_open_failure(path)) from None
    with container:
        stream = container.streams.best("video")
        if stream is None and not container.streams.audio:
            raise VideoError(_open_failure(path))
        if (
            not isinstance(stream, VideoStream)
            or stream.disposition & Disposition.attached_pic  # cover art of a song
            or container.format.name == "tty"  # any text file named .txt
        ):
            raise VideoError(f"{name_of(path)} holds no video, only sound or text; choose a video file.")
        if stream.codec_context is None:
            raise VideoError(f"{name_of(path)} has an unknown video codec, or is cut off; export it again as H.264.")
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise VideoError(
                f"{name_of(path)} has frames of {stream.codec_context.width} x {stream.codec_context.height} pixels, "
                f"more than the {MAX_PIXELS:,} that are allowed; scale it down."
            )
        stream.codec_context.options = _LIMITS  # for frames larger than the header declares
        yield container, stream


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet | None]:
    """The readable packets of the stream, then None, which flushes the decoder."""
    from av import FFmpegError

    try:
        for packet in container.demux(stream):
            # Skip empty packets (AVI repeats a frame with them), which would end decoding, and truncated packets.
            if packet.size and not packet.is_corrupt:
                yield packet
    except FFmpegError:
        pass
    yield None


def decoded(stream: VideoStream, packet: Packet | None) -> Iterator[VideoFrame]:
    """The frames that a packet completes; none if the packet is damaged."""
    from av import FFmpegError

    try:
        frames = stream.decode(packet)
    except FFmpegError:
        return
    yield from frames


def _decord_seeks(table: np.ndarray, order: np.ndarray) -> bool:
    """Whether decord 0.6 seeks correctly in this mp4; if not, it silently returns wrong frames.

    decord numbers keyframes in file order but frames in presentation order. The two differ if a frame is stored after
    a keyframe and presented before it (open GOP, usual in HEVC). decord also looks up the presentation time of a
    keyframe among the decoding times of keyframes, so the next keyframe must be decoded after that time.
    It fails as well on edited mp4 files, Matroska, AVI and MPEG streams, which the caller excludes.
    """
    keys = np.flatnonzero(table[:, 3])
    presented, decoded_at = table[keys, 0], table[keys, 1]
    return 0 in keys and np.array_equal(order[keys], keys) and bool((decoded_at[1:] > presented[:-1]).all())


def _check_is_file(path: PathLike) -> None:
    if not os.path.exists(path):
        raise VideoError(f"{name_of(path)} does not exist; check the path.")
    if os.path.isdir(path):
        raise VideoError(f"{name_of(path)} is a folder; give a video file in it.")
    if not os.path.isfile(path):
        raise VideoError(f"{name_of(path)} is not a regular file; copy the video to a regular file.")
    if os.path.getsize(path) == 0:
        raise VideoError(f"{name_of(path)} is empty (0 bytes); copy or export it again.")


def _open_failure(path: PathLike) -> str:
    with open(path, "rb") as file:
        if file.read(8)[4:] == b"ftyp":
            return f"{name_of(path)} is cut off: the index at the end of the mp4 is missing; get it again."
    return f"{name_of(path)} is not a video that can be read; check that it is a complete video file."


def name_of(path: PathLike | bytes) -> str:
    """A path for messages, whatever its bytes: on one line, with unprintable characters escaped."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
