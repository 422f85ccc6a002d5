"""Research data sets as sources of pairs: MSR-VTT's training videos, and the photographs of Flickr8k or Flickr30k.

They are read from folders in the layouts of their public releases, and have terms of their own.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dits.bundled_encoder.pairs.shards import LeftOut, Pair, encode_picture, open_picture
from dits.common.errors import CorpusError, PairsError, VideoError
from dits.common.files import reason_of
from dits.corpora.corpus import Clip
from dits.corpora.datasets import LoadedDataset, load_dataset
from dits.corpora.datasets.annotations import check_name, clean
from dits.video.sampling import sample_frames

CLIP_FRAMES = 6
"""Frames of a clip; those that a short clip would repeat are left out."""

_MISSING, _UNDECODABLE, _UNCAPTIONED, _MALFORMED = "missing", "undecodable", "without a caption", "malformed"


# --- MSR-VTT ---


def msrvtt(folder: Path) -> Iterator[Pair | LeftOut]:
    """The training videos of MSR-VTT's 7k protocol, without those of its validation split and of the 1k-A test.

    The annotations are read at once, the videos one by one. Left out are listed videos that are missing, have no
    sentence or cannot be decoded.

    Raises:
        CorpusError: an annotation file is missing or cannot be used, or no video is there.
        InputError: an annotation file lacks a column, or no training video is there.
    """
    loaded = load_dataset("msrvtt-7k", folder)
    return _pairs_of_videos(loaded, tuple(loaded.corpus.split("train")), folder)


def _pairs_of_videos(loaded: LoadedDataset, clips: tuple[Clip, ...], folder: Path) -> Iterator[Pair | LeftOut]:
    for video in loaded.missing["train"]:
        yield LeftOut(_MISSING, f"There is no video {video} in {folder}: put it there, or leave it out of the list.")
    for video in loaded.annotations.uncaptioned.get("train", ()):
        yield LeftOut(_UNCAPTIONED, f"The annotations in {folder} have no sentence for {video}: get them again.")
    for clip in clips:
        try:
            sampled = sample_frames(clip.path, CLIP_FRAMES, size=320)
        except VideoError as error:
            yield LeftOut(_UNDECODABLE, str(error))
            continue
        _, distinct = np.unique(sampled.times, return_index=True)
        frames = tuple(encode_picture(Image.fromarray(sampled.frames[number])) for number in distinct)
        yield Pair("msrvtt", "MSR-VTT", clip.path.name, "research use", clip.id, clip.captions, frames)


# --- Flickr ---


@dataclass(frozen=True)
class _Layout:
    """The layout of a file of captions.

    Attributes:
        delimiter: what separates cells; only cells between commas may be quoted.
        image, caption: the names of the columns.
        has_header: whether the first line names the columns. If not, a row is NAME#NUMBER and a caption.
    """

    delimiter: str
    image: str = "image"
    caption: str = "caption"
    has_header: bool = True


_CAPTIONS = {
    "captions.txt": _Layout(","),
    "results.csv": _Layout("|", "image_name", "comment"),
    "Flickr8k.token.txt": _Layout("\t", has_header=False),
    "results_20130124.token": _Layout("\t", has_header=False),
}
_FLICKR_TERMS = "non-commercial research and education"
_IMAGES = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images", "flickr30k-images")


def flickr(folder: Path) -> Iterator[Pair | LeftOut]:
    """The photographs of Flickr8k (captions.txt, Images) or Flickr30k (results.csv, flickr30k_images).

    Also reads the files of captions of the original releases, NAME.jpg#0 and a caption, with a tab between. The
    captions are read at once, the photographs one by one. Left out are rows without a caption or of another form, and
    photographs that are missing or cannot be decoded.

    Raises:
        PairsError: there is no file of captions or no folder of images, the file has other columns or no captions, or
            it is of another release: none of its images is there.
    """
    captions, images = _first(folder, tuple(_CAPTIONS)), _first(folder, _IMAGES)
    texts: dict[str, list[str]] = {}
    left_out: list[LeftOut] = []
    for row in _rows(captions, _CAPTIONS[captions.name]):
        if isinstance(row, LeftOut):
            left_out.append(row)
        else:
            texts.setdefault(row[0], []).append(row[1])
    if not texts:
        raise PairsError(f"{captions} has no captions: get it again.")
    try:
        found = set(os.listdir(images))
    except OSError as error:
        raise PairsError(f"Cannot list {images}: {reason_of(error)}.") from error
    if not found & texts.keys():
        raise PairsError(
            f"None of the {len(texts)} images that {captions} names is in {images}, the first is {next(iter(texts))}: "
            "give the captions and the images of the same release."
        )
    return _pairs_of_images(texts, left_out, images)


def _pairs_of_images(texts: dict[str, list[str]], left_out: list[LeftOut], images: Path) -> Iterator[Pair | LeftOut]:
    yield from left_out
    for name, sentences in texts.items():
        path = images / name
        if not path.is_file():
            yield LeftOut(_MISSING, f"There is no image {path}: put it there, or leave its captions out.")
            continue
        try:
            picture = encode_picture(open_picture(path, str(path)))
        except PairsError as error:
            yield LeftOut(_UNDECODABLE, str(error))
            continue
        yield Pair("flickr", "Flickr", name, _FLICKR_TERMS, name, tuple(sentences), (picture,))


def _rows(path: Path, layout: _Layout) -> Iterator[tuple[str, str] | LeftOut]:
    """The image and the caption of each row of a file of captions.

    Raises:
        PairsError: the file cannot be read, or has other columns.
    """
    rows = _cells(path, layout.delimiter)
    columns = [layout.image, layout.caption]
    if layout.has_header:
        columns = [name.strip() for name in next(rows, columns)]
        for column in (layout.image, layout.caption):
            if column not in columns:
                raise PairsError(f"{path} has no column '{column}': give the captions of Flickr8k or Flickr30k.")
    image, caption = columns.index(layout.image), columns.index(layout.caption)
    for number, cells in enumerate(rows, start=2 if layout.has_header else 1):
        where = f"{path}, row {number}"
        if len(cells) > len(columns):
            yield LeftOut(_MALFORMED, f"{where}: more cells than columns: quote texts that contain a comma.")
        elif cells:
            name = cells[image] if image < len(cells) else ""
            name = name.strip() if layout.has_header else name.rpartition("#")[0]
            yield _checked(name, clean(cells[caption]) if caption < len(cells) else "", where)


def _cells(path: Path, delimiter: str) -> Iterator[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            if delimiter == ",":
                yield from csv.reader(stream)
            else:
                yield from csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else reason_of(error)
        raise PairsError(f"Cannot read {path}: {reason}: get it again.") from error


def _checked(name: str, caption: str, where: str) -> tuple[str, str] | LeftOut:
    try:
        check_name(name, where)
    except CorpusError as error:
        return LeftOut(_MALFORMED, str(error))
    if not caption:
        return LeftOut(_UNCAPTIONED, f"{where}: the caption of {name} is empty: write one, or leave the row out.")
    return name, caption


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise PairsError(f"There is no {' or '.join(names)} in {folder}: give the folder of Flickr8k or Flickr30k.")
