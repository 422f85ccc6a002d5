"""How videos are added to an index, how far that is, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass

from dits.common.errors import require
from dits.corpora.decode_check import SECONDS
from dits.video.segments import Segmenting


@dataclass(frozen=True)
class AddConfig:
    """How videos are added.

    Attributes:
        segment: how they are cut: "whole", a length such as "10s", or "scenes".
        workers: processes that decode; 0 is one a core, up to 8.
        seconds: that a file may take to decode a few segments; large files have more.
        precision: of the encoder: "fp32", "bf16" or "fp16"; "auto" is fp32 on a CPU and fp16 on a
            GPU (of the bundled encoder fp16 moves embeddings by a cosine of less than 0.001, bf16 by up to 0.002).
        retry: try again what failed before and has not changed since.
        longest: seconds that a video may last; 0 is any.
    """

    segment: str = "10s"
    workers: int = 0
    seconds: float = SECONDS
    precision: str = "auto"
    retry: bool = False
    longest: float = 0.0

    def __post_init__(self) -> None:
        Segmenting.parse(self.segment)
        require(self.workers >= 0, f"The number of workers must be 1 or more, not {self.workers}.")
        require(self.seconds > 0, f"The seconds that a file may take must be above 0, not {self.seconds:g}.")
        require(self.longest >= 0, f"The seconds that a video may last must be 0 or more, not {self.longest:g}.")


@dataclass(frozen=True)
class AddProgress:
    """How far a run is.

    Attributes:
        done, files: files that are finished, and all that are new or changed.
        segments: that were embedded.
        failed: files that could not be decoded.
        rate: segments a second.
        seconds_left: as the bytes that are left suggest; None before enough are done to say.
    """

    done: int
    files: int
    segments: int
    failed: int
    rate: float
    seconds_left: float | None

    @property
    def pace(self) -> str:
        """What was embedded, how fast, and how long the rest takes."""
        return f"{counted(self.segments, 'segment')}, {self.rate:.1f} a second{_left(self.seconds_left)}"


@dataclass(frozen=True)
class AddReport:
    """What a run did, in files but for `segments`; `notices` are sentences on what was peculiar."""

    added: int = 0
    unchanged: int = 0
    duplicates: int = 0
    failed: int = 0
    missing: int = 0
    segments: int = 0
    notices: tuple[str, ...] = ()

    def as_text(self) -> str:
        """The counts in a sentence without a full stop."""
        return (
            f"{counted(self.added, 'video')} added ({counted(self.segments, 'segment')}), {self.unchanged} unchanged, "
            f"{self.duplicates} of the same content as another, {self.failed} failed, {self.missing} gone"
        )


Progress = Callable[[AddProgress], None]


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _left(seconds: float | None) -> str:
    if not seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f", {hours} h {minutes} min left" if hours else f", {minutes}:{rest:02d} left"
