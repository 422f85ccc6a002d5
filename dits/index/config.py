"""How videos are added to an index, how far that is, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass

from dits.decoding import SECONDS
from dits.errors import require
from dits.segments import Segmenting


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
    """

    segment: str = "10s"
    workers: int = 0
    seconds: float = SECONDS
    precision: str = "auto"
    retry: bool = False

    def __post_init__(self) -> None:
        Segmenting.parse(self.segment)
        require(self.workers >= 0, f"The number of workers must be 1 or more, not {self.workers}.")
        require(self.seconds > 0, f"The seconds that a file may take must be above 0, not {self.seconds:g}.")


@dataclass(frozen=True)
class AddProgress:
    """How far a run is.

    Attributes:
        done, files: files that are finished, and all that are new or changed.
        segments: that were embedded.
        failed: files that could not be decoded.
        rate: segments a second.
        seconds_left: as the bytes that are left suggest; None before any are done.
    """

    done: int
    files: int
    segments: int
    failed: int
    rate: float
    seconds_left: float | None


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


Progress = Callable[[AddProgress], None]
