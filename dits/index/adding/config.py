"""Configuration, progress and report of a run that adds videos to an index."""

from collections.abc import Callable
from dataclasses import dataclass

from dits.common.errors import require
from dits.video.segments import Segmenting
from dits.video.workers import SECONDS_PER_FILE


@dataclass(frozen=True)
class AddConfig:
    """How videos are added.

    Attributes:
        segment: how to cut videos: "whole", a length such as "10s", or "scenes".
        workers: number of decoding processes; 0 is one per core, at most 8.
        seconds: time limit for decoding a few segments of a file; large files get more.
        precision: precision of the encoder: "fp32", "bf16", "fp16", or "auto" (fp32 on a CPU, fp16 on a GPU).
            Embeddings of the bundled encoder differ from fp32 by a cosine distance below 0.001 in fp16, up to 0.002 in
            bf16.
        retry: retry unchanged files that failed before.
        longest: maximum duration of a video in seconds; 0 is no limit.
    """

    segment: str = "10s"
    workers: int = 0
    seconds: float = SECONDS_PER_FILE
    precision: str = "auto"
    retry: bool = False
    longest: float = 0.0

    def __post_init__(self) -> None:
        Segmenting.parse(self.segment)
        require(self.workers >= 0, f"The number of workers must be 0 or more, not {self.workers}.")
        require(self.seconds > 0, f"The time limit for a file must be above 0 seconds, not {self.seconds:g}.")
        require(self.longest >= 0, f"The maximum duration of a video must be 0 or more seconds, not {self.longest:g}.")


@dataclass(frozen=True)
class AddProgress:
    """The progress of a run.

    Attributes:
        done, files: number of finished files, and of all new or changed files.
        segments: number of embedded segments.
        failed: number of files that could not be decoded.
        rate: segments per second.
        seconds_left: estimated from the remaining bytes; None at the beginning of a run.
    """

    done: int
    files: int
    segments: int
    failed: int
    rate: float
    seconds_left: float | None

    @property
    def pace(self) -> str:
        """Segments embedded, segments per second, and the time left, as text."""
        return f"{pluralise(self.segments, 'segment')}, {self.rate:.1f} a second{_time_left(self.seconds_left)}"


@dataclass(frozen=True)
class AddReport:
    """What a run did: numbers of files, and of `segments`. Each of the `notices` is a sentence on something unusual."""

    added: int = 0
    unchanged: int = 0
    duplicates: int = 0
    failed: int = 0
    missing: int = 0
    segments: int = 0
    notices: tuple[str, ...] = ()

    def as_text(self) -> str:
        """The counts as a sentence without a full stop."""
        return (
            f"{pluralise(self.added, 'video')} added ({pluralise(self.segments, 'segment')}), "
            f"{self.unchanged} unchanged, {self.duplicates} copies, {self.failed} failed, {self.missing} missing"
        )


Progress = Callable[[AddProgress], None]


def pluralise(number: int, noun: str) -> str:
    """A number with its noun, in the plural except for 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _time_left(seconds: float | None) -> str:
    if not seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f", {hours} h {minutes} min left" if hours else f", {minutes}:{rest:02d} left"
