"""The sources of pairs: functions that yield pairs from installed packages, or from the folder of a data set.

Debian packages are read below a root folder: "/" if they are installed, or a folder into which they were unpacked
(`apt-get download NAME`, `dpkg -x NAME*.deb FOLDER`), which does not need root rights.
"""

import gzip
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dits.bundled_encoder.pairs import benchmarks, drawings, emoji
from dits.bundled_encoder.pairs.shards import LeftOut, Pair, encode_picture, open_picture
from dits.common.errors import PairsError
from dits.common.files import ASSETS
from dits.corpora.corpus import FRAMES, read_rows
from dits.corpora.demo import build_demo
from dits.video.sampling import sample_frames

CAPTIONED = ASSETS / "pairs"
LEFT_OUT = ASSETS / "demo" / "left_out.csv"

_CLIP_FRAMES = 6  # frames of an animation outside the demo corpus

_DEBIAN_PICTURES = {
    "gnome-backgrounds": "CC-BY-SA-3.0",
    "mate-backgrounds": "GPL-2.0-or-later",
    "plasma-workspace-wallpapers": "GPL-2.0-or-later",
    "lomiri-wallpapers-16.04": "CC-BY-SA-4.0",
    "lomiri-wallpapers-20.04": "CC-BY-SA-4.0",
    "sway-backgrounds": "MIT",
    "ukui-wallpapers": "CC-BY-SA-3.0",
    "xfdesktop4-data": "GPL-2.0-or-later",
}


@dataclass(frozen=True)
class Source:
    """One source of pairs.

    Attributes:
        packages: the Debian packages that it reads; empty if it reads Python packages or a data set.
        gather: yields the pairs and what is left out, given the root folder of the Debian packages, or the folder of
            the data set.
        flags: of a data set, the flags of `pairs` that give its folder; empty for packages.
    """

    packages: tuple[str, ...]
    gather: Callable[[Path], Iterator[Pair | LeftOut]]
    flags: tuple[str, ...] = ()

    def check(self, root: Path) -> None:
        """Raises PairsError, with how to install it, for a Debian package that is missing below `root`."""
        for package in self.packages:
            debian_release(package, root)


def default_sources(folders: Mapping[str, Path]) -> list[str]:
    """The names of the sources that need no folder or have one in `folders` (by name), in the order of SOURCES."""
    return [name for name, source in SOURCES.items() if not source.flags or name in folders]


def debian_release(package: str, root: Path) -> str:
    """The name and version of a Debian package below `root`, such as "wordnet-base 1:3.0-37".

    Raises:
        PairsError: it is missing.
    """
    changelog = root / "usr/share/doc" / package / "changelog.Debian.gz"
    if not changelog.is_file():
        raise PairsError(
            f"The Debian package {package} is missing below {root}: apt-get install {package}, or, without root "
            f"rights, apt-get download {package}, dpkg -x {package}_*.deb FOLDER, and --root FOLDER."
        )
    with gzip.open(changelog, "rt", encoding="utf-8", errors="replace") as stream:
        return f"{package} {stream.readline().partition('(')[2].partition(')')[0]}"


def python_release(package: str) -> tuple[str, Path]:
    """The name and version of an installed Python package, and its folder.

    Raises:
        PairsError: it is not installed.
    """
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise PairsError(f"The package {package} is missing: pip install -r requirements-pairs.txt.")
    return f"{package} {importlib.metadata.version(package)}", Path(spec.submodule_search_locations[0])


def _demo(_root: Path) -> Iterator[Pair | LeftOut]:
    more = _captions(CAPTIONED / "demo_captions.csv", ("file",))
    for clip in build_demo().split("train"):
        frames = [encode_picture(Image.fromarray(f)) for f in sample_frames(clip.path, FRAMES, size=320).frames]
        texts = clip.captions + more.get((clip.id,), ())
        yield Pair("demo", "the demo corpus", f"{clip.id}.mp4", "MIT", clip.group, texts, tuple(frames))


def _left_out(_root: Path) -> Iterator[Pair | LeftOut]:
    for (package, clip), captions in _captions(LEFT_OUT, ("package", "clip")).items():
        release, folder = python_release(package)
        path = folder / "templates" / f"{clip}.webp"
        yield Pair("left-out", release, path.name, "MIT", clip, captions, _frames(path))


def _templates(_root: Path) -> Iterator[Pair | LeftOut]:
    yield from _captioned("templates", lambda package: (*python_release(package), "MIT"))


def _wallpapers(root: Path) -> Iterator[Pair | LeftOut]:
    yield from _captioned(
        "wallpapers", lambda package: (debian_release(package, root), root, _DEBIAN_PICTURES[package])
    )


def _captioned(source: str, locate: Callable[[str], tuple[str, Path, str]]) -> Iterator[Pair]:
    """Pictures and clips with captions in assets/pairs; raises PairsError if a file differs from the captioned one."""
    texts = _captions(CAPTIONED / f"{source}_captions.csv", ("package", "file"))
    for row in read_rows(CAPTIONED / f"{source}.csv", ("package", "file", "sha256")):
        release, folder, licence = locate(row["package"])
        path = folder / row["file"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
            raise PairsError(
                f"{release} is not the release that was captioned ({row['file']} differs): install the one that "
                "requirements-pairs.txt or assets/pairs/NOTICE.md names."
            )
        group = path.stem.rpartition("-")[0] or path.stem
        yield Pair(source, release, row["file"], licence, group, texts[row["package"], row["file"]], _frames(path))


def _captions(path: Path, columns: tuple[str, ...]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The captions of a CSV file, grouped by the values of some of its columns, in the file's order."""
    texts: dict[tuple[str, ...], list[str]] = {}
    for row in read_rows(path, (*columns, "caption")):
        texts.setdefault(tuple(row[column] for column in columns), []).append(row["caption"])
    return {key: tuple(captions) for key, captions in texts.items()}


def _frames(path: Path) -> tuple[bytes, ...]:
    """A still, or evenly spaced frames of an animation, encoded."""
    image = open_picture(path, str(path))
    count = getattr(image, "n_frames", 1)
    if count == 1:
        return (encode_picture(image),)
    frames = []
    for number in np.floor((np.arange(_CLIP_FRAMES) + 0.5) / _CLIP_FRAMES * count).astype(int):
        image.seek(int(number))
        frames.append(encode_picture(image.convert("RGB")))
    return tuple(frames)


SOURCES = {
    "demo": Source((), _demo),
    "left-out": Source((), _left_out),
    "templates": Source((), _templates),
    "wallpapers": Source(tuple(_DEBIAN_PICTURES), _wallpapers),
    "stamps": Source(
        ("tuxpaint-stamps-default",),
        lambda root: drawings.stamps(root, debian_release("tuxpaint-stamps-default", root)),
    ),
    "clipart": Source(
        ("openclipart-svg", "openclipart-png"),
        lambda root: drawings.clipart(root, debian_release("openclipart-svg", root)),
    ),
    "emoji": Source(
        ("fonts-noto-color-emoji", "unicode-cldr-core"),
        lambda root: emoji.emoji(root, debian_release("fonts-noto-color-emoji", root)),
    ),
    "words": Source(("pysiogame",), lambda root: drawings.words(root, debian_release("pysiogame", root))),
    "msrvtt": Source((), benchmarks.msrvtt, ("--msrvtt",)),
    "flickr": Source((), benchmarks.flickr, ("--flickr8k", "--flickr30k")),
}
"""All sources of pictures, by name. The ImageNet classes of the image tower are in dits.bundled_encoder.data."""
