"""The shard format of image-text pairs: tar files that WebDataset can read, and an index.

A pair is a member `<key>.json` (texts, source, licence, origin) with its pictures `<key>.00.webp`, `<key>.01.webp`,
...: one for a still, several for the frames of a clip. `index.json` contains the version of the format, the name and
checksum of every shard, and the counts of the preparation.
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from dits.common.errors import PairsError
from dits.common.files import make_folder, parse_json, sha256_of, storage_errors, write_json

FORMAT = "dits-pairs"
VERSION = 1
INDEX = "index.json"
PICTURE_SIDE = 320  # maximum pixels of the shorter side; the image tower uses 260

_SHARD_PAIRS = 500
_UNFINISHED = ".unfinished"  # folder of the shards until all are written
_MAX_PIXELS = 100_000_000
_MAX_RATIO = 50  # of the sides; a narrower picture exceeds WebP's limit of 16,383 pixels a side


@dataclass(frozen=True)
class Pair:
    """Pictures and the texts that describe them.

    Attributes:
        source: the name of the source: "stamps", "templates", ...
        package: name and release of the package with the pictures.
        file: the file in that package.
        licence: the licence of the pictures, as an SPDX identifier if there is one.
        group: a category of the source, by which pairs can be held out; in the demo corpus, the scene of a clip.
        texts: one or more descriptions.
        pictures: encoded WebP files: one of a still, several of a clip in temporal order.
    """

    source: str
    package: str
    file: str
    licence: str
    group: str
    texts: tuple[str, ...]
    pictures: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not self.texts or not all(text.strip() for text in self.texts):
            raise PairsError(f"{self.file} of {self.package} has an empty caption: write one, or leave the file out.")
        if not self.pictures:
            raise PairsError(f"{self.file} of {self.package} has no picture.")


@dataclass(frozen=True)
class LeftOut:
    """An item of a source that cannot be used: a source yields it in place of a pair.

    Attributes:
        reason: what it is counted under, in a few words: "missing", "undecodable", ...
        sentence: what is wrong, where, and what to do.
    """

    reason: str
    sentence: str


def write_shards(folder: Path, pairs: Iterable[Pair], facts: dict[str, Any]) -> dict[str, Any]:
    """Writes pairs as shards, then their index, and returns the index.

    The shards of an earlier call are replaced when all new ones are written: an error leaves them as they were.

    Args:
        folder: created if it is missing.
        pairs: iterated once, one shard at a time.
        facts: more entries of the index; read after the pairs are written.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    make_folder(folder)
    iterator = iter(pairs)
    shards: list[dict[str, Any]] = []
    with _unfinished(folder) as unfinished:
        while batch := list(islice(iterator, _SHARD_PAIRS)):
            path = unfinished / f"pairs-{len(shards):05d}.tar"
            with storage_errors(folder), tarfile.open(path, "w") as archive:
                for position, pair in enumerate(batch):
                    _add(archive, f"{len(shards) * _SHARD_PAIRS + position:07d}", pair)
            shards.append({"name": path.name, "pairs": len(batch), "sha256": sha256_of(path)})
        with storage_errors(folder):
            for old in folder.glob("pairs-[0-9][0-9][0-9][0-9][0-9].tar"):
                old.unlink()
            for shard in shards:
                (unfinished / shard["name"]).replace(folder / shard["name"])
    index = {"format": FORMAT, "version": VERSION, "shards": shards, **facts}
    write_json(folder / INDEX, index)
    return index


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder of shards.

    Raises:
        PairsError: it is missing, damaged, or of another version.
    """
    path = folder / INDEX
    if not path.is_file():
        raise PairsError(f"There are no pairs in {folder}: make them with python -m dits pairs --out {folder}.")
    try:
        index: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        kind, version = index["format"], index["version"]
        names = [shard["name"] for shard in index["shards"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PairsError(f"{path} is damaged: make the pairs again with python -m dits pairs.") from error
    if kind != FORMAT or version != VERSION:
        raise PairsError(
            f"{path} is of format {kind} version {version}, and this release reads {FORMAT} version {VERSION}: "
            "make the pairs again with python -m dits pairs."
        )
    if any(Path(name).name != name for name in names):
        raise PairsError(f"{path} names a shard outside its folder: make the pairs again with python -m dits pairs.")
    return index


def read_shards(folder: Path) -> Iterator[Pair]:
    """The pairs of a folder, in order; the checksum of a shard is compared before it is read.

    Raises:
        PairsError: the index or a shard is missing, damaged, changed or of another version.
    """
    for shard in read_index(folder)["shards"]:
        path = folder / shard["name"]
        if not path.is_file() or sha256_of(path) != shard["sha256"]:
            raise PairsError(f"{path} is missing or changed since it was written: make the pairs again.")
        yield from _read_shard(path)


def encode_picture(image: Image.Image) -> bytes:
    """Encodes a picture as WebP, lossless if it is transparent; its shorter side has at most PICTURE_SIDE pixels."""
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    image = image.convert("RGBA" if has_alpha else "RGB")
    factor = PICTURE_SIDE / min(image.size)
    if factor < 1:
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if has_alpha:
        image.save(buffer, "WEBP", lossless=True, method=2)
    else:
        image.save(buffer, "WEBP", quality=92, method=2)
    return buffer.getvalue()


def open_picture(data: bytes | Path, name: str) -> Image.Image:
    """Decodes a picture, or the first frame of an animation; `name` is for messages.

    Raises:
        PairsError: it cannot be read as a picture, has more than 100 million pixels, or is very narrow.
    """
    try:
        image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)
        size = f"{image.width} x {image.height}"
        if image.width * image.height > _MAX_PIXELS:
            raise PairsError(f"{name} has too many pixels, {size}: leave it out.")
        if max(image.size) > _MAX_RATIO * min(image.size):
            raise PairsError(f"{name} is too narrow, {size} pixels: leave it out.")
        image.load()
        return image
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise PairsError(f"{name} cannot be read as a picture: replace it, or leave it out.") from error


def pictures_digest(pictures: Iterable[bytes]) -> str:
    """SHA-256 of a sequence of encoded pictures, for the names of cached results."""
    digest = hashlib.sha256()
    for data in pictures:
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A folder for shards, inside `folder` so that they can be renamed; a killed call may have left one."""
    unfinished = folder / _UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        yield make_folder(unfinished)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _add(archive: tarfile.TarFile, key: str, pair: Pair) -> None:
    record = {name: value for name, value in asdict(pair).items() if name != "pictures"}
    members = [(f"{key}.json", json.dumps(record, ensure_ascii=False).encode())]
    members += [(f"{key}.{number:02d}.webp", data) for number, data in enumerate(pair.pictures)]
    for name, data in members:
        member = tarfile.TarInfo(name)  # without time and owner, so that the same pairs give the same file
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


def _read_shard(path: Path) -> Iterator[Pair]:
    record: dict[str, Any] | None = None
    pictures: list[bytes] = []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                data = archive.extractfile(member)
                if data is None:
                    raise PairsError(f"{path} contains {member.name}, which is not a file: make the pairs again.")
                if not member.name.endswith(".json"):
                    pictures.append(data.read())
                    continue
                if record is not None:
                    yield _pair(record, pictures)
                record, pictures = parse_json(data.read()), []
        if record is not None:
            yield _pair(record, pictures)
    except (tarfile.TarError, OSError, ValueError, TypeError, KeyError) as error:
        raise PairsError(f"{path} is damaged: make the pairs again with python -m dits pairs.") from error


def _pair(record: dict[str, Any], pictures: list[bytes]) -> Pair:
    return Pair(**{**record, "texts": tuple(record["texts"])}, pictures=tuple(pictures))
