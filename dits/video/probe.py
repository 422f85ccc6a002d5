"""What a video file says about itself: when its frames are shown, their size, the length of it all.

The only place that opens a video file. Files come from anywhere: nothing that one claims is believed before it is
bounded, and what cannot be read is a VideoError in one sentence.
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

if TYPE_CHECKING:  # imported where it is used, so that importing this module is quick
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

PathLike = str | os.PathLike[str]

MAX_PIXELS = 2**26
"""Of a frame: 8192 x 8192, twice 8K. A file of a few bytes can ask for a picture that no memory holds."""

_FORMATS = (
    "3gp,apng,asf,av1,avi,avs2,avs3,bink,cavsvideo,dirac,dv,evc,film_cpk,flic,flv,gif,gxf,h261,h263,h264,hevc,ipu,"
    "ivf,kux,live_flv,m4v,matroska,mjpeg,mjpeg_2000,mov,mpeg,mpegts,mpegvideo,mv,mxf,nsv,nut,nuv,obu,ogg,rm,roq,"
    "smk,swf,ty,vc1,vc1test,vivo,vvc,wtv,yuv4mpegpipe,"
    "bmp_pipe,jpeg_pipe,jpegxl_pipe,png_pipe,tiff_pipe,webp_pipe,"
    "aac,ac3,aiff,amr,ape,au,caf,dts,eac3,flac,mp3,w64,wav,wv,tty"
)
"""What is opened: pictures that are in the file itself, and sound and text, to say so. Not playlists (hls, dash,
concat, numbered pictures, ...): they show other files than the one that is named."""

_LIMITS = {"max_pixels": str(MAX_PIXELS)}  # refused by the decoders before they ask for memory
_MAX_TICKS = 2**53  # from the first frame to the last: what a float64 counts exactly


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds, counted from its packets: a truncated file tells what is left of it."""

    duration: float  # seconds, from the first frame to the end of the last; sound does not count
    frames: int
    width: int  # pixels as shown, after rotation
    height: int
    fps: float  # average: frames / duration
    codec: str  # "h264", "vp9", "av1", ...


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class Video:
    """A file that was examined: all that reading frames needs to know of it. Holds no file open; can be pickled."""

    path: PathLike  # as the caller wrote it
    format: str  # first of the names that FFmpeg gives it: "mov", "matroska", "avi", ...
    info: VideoInfo
    tick: float  # seconds
    pts: np.ndarray  # (frames,) int64 ticks, ascending: when each frame is shown
    keys: np.ndarray  # (keyframes,) int64 ticks, ascending: where decoding can begin; the first frame counts as one
    decord_agrees: bool  # decord numbers the frames as `pts` does

    def seconds(self, pts: np.ndarray) -> np.ndarray:
        """Ticks as seconds from the first frame."""
        return (pts - self.pts[0]) * self.tick

    def times(self) -> np.ndarray:
        """(frames,) float64, ascending: when each frame is shown, in seconds from the first.

        Files round times to ticks (Matroska: 1 ms), which can stamp a frame just after the moment at which it begins.
        Where that explains all unevenness, the frame rate is constant and the unrounded times are known.
        """
        times, step = self.seconds(self.pts), self.info.duration / len(self.pts)
        even = np.arange(len(times)) * step
        return even if np.abs(times - even).max() <= min(1.5 * self.tick, 0.25 * step) else times


def examine(path: PathLike) -> Video:
    """Lists the packets of the video stream and decodes one frame: milliseconds for a clip, seconds for hours.

    Raises VideoError for a file that cannot be read, or whose frames exceed MAX_PIXELS.
    """
    rows = array("q")  # of each packet: time, decoding time, duration, whether a keyframe; in file order
    whole = True
    first: VideoFrame | None = None
    with opened(path) as (container, stream):
        format_name = container.format.name.split(",")[0]
        for packet in packets(container, stream):
            if packet is not None:
                # AVI has no presentation times. FFmpeg guesses them, out of order; those of decoding will do.
                time = packet.dts if format_name == "avi" else packet.pts
                if time is None or packet.is_discard:  # edited out, and only there to decode what follows
                    whole = False
                else:
                    decoding = time if packet.dts is None else packet.dts
                    rows.extend((time, decoding, packet.duration or 0, packet.is_keyframe))
            if first is None:  # only a decoded frame tells the rotation
                first = next(decoded(stream, packet), None)
        table = np.array(rows, np.int64).reshape(-1, 4)
        whole = whole and stream.frames in (0, len(table))
        codec = stream.codec_context.codec.canonical_name
        tick, rate = float(stream.time_base or 1), float(stream.average_rate or 0)
    if first is None:
        raise VideoError(
            f"{name_of(path)} holds no frame that can be decoded, or none of at most {MAX_PIXELS:,} pixels; "
            "get it again, or convert it to mp4."
        )
    if not len(table):
        raise VideoError(f"{name_of(path)} does not say when its frames are shown; convert it to mp4.")

    pts, order = np.unique(table[:, 0], return_index=True)
    if int(pts[-1]) - int(pts[0]) > _MAX_TICKS:
        raise VideoError(f"{name_of(path)} shows frames at times that cannot be; convert it to mp4.")
    last = float(table[order[-1], 2])  # how long the last frame is shown, which some formats do not say
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
    """The file and its video stream, ready to decode. Raises VideoError."""
    import av
    from av.stream import Disposition
    from av.video.stream import VideoStream

    _check_is_file(path)
    # Releases of torchvision turn it on. A decoder's thread that reports something waits for the interpreter then, and
    # the interpreter, which closes the decoder, for the thread.
    av.logging.set_level(None)
    # An absolute path is never taken for a URL, and no playlist that poses as a video is followed anywhere.
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, **_LIMITS}
    try:
        container = av.open(os.path.abspath(path), metadata_errors="replace", options=options)
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, PermissionError):
            raise VideoError(f"{name_of(path)} may not be read; change its permissions.") from None
        raise VideoError(_why_not_opened(path)) from None
    with container:
        stream = container.streams.best("video")
        if stream is None and not container.streams.audio:
            raise VideoError(_why_not_opened(path))
        if (
            not isinstance(stream, VideoStream)
            or stream.disposition & Disposition.attached_pic  # the cover of a song
            or container.format.name == "tty"  # any text file named .txt
        ):
            raise VideoError(f"{name_of(path)} holds no video, only sound or text; choose a video file.")
        if stream.codec_context is None:
            raise VideoError(f"{name_of(path)} has an unknown video codec, or is cut off; export it again as H.264.")
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise VideoError(
                f"{name_of(path)} has frames of {stream.codec_context.width} x {stream.codec_context.height} pixels, "
                f"more than the {MAX_PIXELS:,} that are read; scale it down."
            )
        stream.codec_context.options = _LIMITS  # for what the header does not tell
        yield container, stream


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet | None]:
    """The stream's packets as far as they can be read, then None, which makes the decoder give the rest."""
    from av import FFmpegError

    try:
        for packet in container.demux(stream):
            # An empty one, by which AVI repeats a frame, would end the decoding. A corrupt one is cut off.
            if packet.size and not packet.is_corrupt:
                yield packet
    except FFmpegError:
        pass
    yield None


def decoded(stream: VideoStream, packet: Packet | None) -> Iterator[VideoFrame]:
    """The frames that a packet completes; none where it is damaged."""
    from av import FFmpegError

    try:
        frames = stream.decode(packet)
    except FFmpegError:
        return
    yield from frames


def _decord_seeks(table: np.ndarray, order: np.ndarray) -> bool:
    """Whether decord 0.6 finds the frames of this mp4; elsewhere it returns other frames without a word.

    decord numbers keyframes in file order but frames in order of time: they differ once a frame is stored
    after a keyframe and shown before it (open GOP, usual in HEVC). And it seeks by the time a keyframe is
    shown among the times at which keyframes are decoded, so the next one must not be decoded before that.
    It also goes astray in edited mp4 files, Matroska, AVI and MPEG streams, which never get here.
    """
    keys = np.flatnonzero(table[:, 3])
    shown, read = table[keys, 0], table[keys, 1]
    return 0 in keys and np.array_equal(order[keys], keys) and bool((read[1:] > shown[:-1]).all())


def _check_is_file(path: PathLike) -> None:
    if not os.path.exists(path):
        raise VideoError(f"{name_of(path)} does not exist; check the path.")
    if os.path.isdir(path):
        raise VideoError(f"{name_of(path)} is a folder; name a video file in it.")
    if not os.path.isfile(path):
        raise VideoError(f"{name_of(path)} is not a regular file; copy the video into one.")
    if os.path.getsize(path) == 0:
        raise VideoError(f"{name_of(path)} is empty (0 bytes); copy or export it again.")


def _why_not_opened(path: PathLike) -> str:
    with open(path, "rb") as file:
        if file.read(8)[4:] == b"ftyp":
            return f"{name_of(path)} is cut off: the index at the end of the mp4 is missing; get it again."
    return f"{name_of(path)} is no video that can be read; check that it is one, and complete."


def name_of(path: PathLike | bytes) -> str:
    """A path as it is shown in messages, whatever its bytes: on one line, and telling a terminal nothing."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
