"""Builds a corpus from annotations and the videos in a folder, and reports missing videos."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dits.common.errors import CorpusError
from dits.corpora.corpus import SPLITS, Clip, Corpus
from dits.corpora.datasets.annotations import Annotations, Entry
from dits.corpora.datasets.videos import EXTENSIONS, VideoFolders


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset and its videos, which may be incomplete.

    Attributes:
        title: the displayed name of the dataset.
        annotations: the content of its annotation files.
        corpus: the clips whose video exists, by split, in the order of the annotations.
        missing: by split, the ids of the clips whose video is missing.
        unused: videos in the folders that belong to no clip.
        gaps: a sentence for every split with missing videos.
        notices: sentences about missing, left-out or repeated content and unusual sizes.
    """

    title: str
    annotations: Annotations
    corpus: Corpus
    missing: Mapping[str, tuple[str, ...]]
    unused: tuple[Path, ...]
    gaps: tuple[str, ...]
    notices: tuple[str, ...]

    def required(self, strict: bool) -> "LoadedDataset":
        """The dataset itself, after a check that it is usable.

        Raises:
            CorpusError: no video exists; or, if `strict`, a video is missing or anything is left out.
        """
        if not len(self.corpus):
            raise CorpusError(self.gaps[0] if self.gaps else f"The annotations of {self.title} list no video.")
        incomplete = (*self.gaps, *self.annotations.left_out)
        if strict and incomplete:
            raise CorpusError(f"{self.title} is not complete. {incomplete[0]}")
        return self


def locate(
    name: str, title: str, annotations: Annotations, folders: Sequence[Path], notices: Sequence[str] = ()
) -> LoadedDataset:
    """Look for the videos of the annotations in the folders; messages name the first folder.

    Raises:
        CorpusError: the first folder is missing, or a folder cannot be listed.
    """
    root = folders[0]
    if not root.is_dir():
        raise CorpusError(f"There is no folder {root}: give the folder with the videos of {title}.")
    videos = VideoFolders(folders)
    clips: list[Clip] = []
    missing: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for entry in annotations.entries:
        path = videos.find(entry.names)
        if path is None:
            missing[entry.split].append(entry)
        else:
            clips.append(Clip(entry.id, path, entry.split, entry.group, entry.captions, entry.start, entry.end))
    listed = Counter(entry.split for entry in annotations.entries)
    absent = {
        split: f"None of the {listed[split]} {split} videos of {title} is in {root}: put them there, the first as "
        f"{_file_name(entries[0])}."
        for split, entries in missing.items()
        if entries and listed[split] == len(entries)
    }
    gaps = tuple(
        absent.get(split)
        or f"Missing in {root}: {len(entries)} of {listed[split]} {split} videos, the first is {entries[0].id}."
        for split, entries in missing.items()
        if entries
    )
    return LoadedDataset(
        title=title,
        annotations=annotations,
        corpus=Corpus(name, tuple(clips), absent),
        missing={split: tuple(entry.id for entry in entries) for split, entries in missing.items()},
        unused=tuple(videos.unused()),
        gaps=gaps,
        notices=(*notices, *annotations.notices, *annotations.left_out, *gaps, *_repeated(clips)),
    )


def repeated_captions(clips: Iterable[Clip | Entry], split: str) -> tuple[int, int]:
    """The number of captions of a split that repeat an earlier caption, and the number of all its captions."""
    captions = [caption for clip in clips if clip.split == split for caption in clip.captions]
    return len(captions) - len(set(captions)), len(captions)


def _repeated(clips: Sequence[Clip]) -> list[str]:
    counts = {split: repeated_captions(clips, split) for split in ("validation", "test")}
    return [
        f"Repeated: {repeated} of {total} {split} captions; they are kept."
        for split, (repeated, total) in counts.items()
        if repeated
    ]


def _file_name(entry: Entry) -> str:
    name = entry.names[0]
    return name if name.lower().endswith(EXTENSIONS) else name + EXTENSIONS[0]
