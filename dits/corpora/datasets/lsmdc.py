"""LSMDC: short movie clips with a sentence each; the files are tab-separated, although their extension is .csv."""

from dataclasses import replace
from pathlib import Path

from dits.common.errors import CorpusError
from dits.corpora.datasets.annotations import AnnotationFolders, Annotations, Captions, build_annotations, read_lines

UNREADABLE = "1012_Unbreakable_00.05.16.065-00.05.21.941"
"""A training clip that cannot be decoded; it is left out, as in X-Pool and T-MASS."""

_FIELDS = 6  # clip, start and end aligned, start and end extracted, sentence
_FILES = {
    "train": ("LSMDC16_annos_training.csv",),
    "validation": ("LSMDC16_annos_val.csv",),
    "test": ("LSMDC16_challenge_1000_publictect.csv", "LSMDC16_challenge_1000_publictest.csv"),  # sic
}


def read_lsmdc(folders: AnnotationFolders, *, last: bool = False) -> Annotations:
    """Read LSMDC16_annos_training.csv, LSMDC16_annos_val.csv and LSMDC16_challenge_1000_publictect.csv.

    Args:
        last: keep only the last row of a clip, as in X-Pool and T-MASS; else every row is a caption, as in CLIP4Clip.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    splits, repeated, unreadable = {}, 0, False
    for split, names in _FILES.items():
        captions = _captions(folders.find(*names))
        unreadable |= captions.pop(UNREADABLE, None) is not None
        repeated += sum(len(sentences) > 1 for sentences in captions.values())
        splits[split] = {clip: sentences[-1:] for clip, sentences in captions.items()} if last else captions
    kept = "the last row is" if last else "all rows are"
    notices = [
        f"Clips with several rows: {repeated}; {kept} kept." if repeated else "",
        f"Left out: the training clip {UNREADABLE}, which is known to be unreadable." if unreadable else "",
    ]
    annotations = build_annotations(splits, tuple(filter(None, notices)))
    # Clips are in one folder per movie, as distributed, or all in one folder.
    entries = [replace(entry, names=(f"{movie_of(entry.id)}/{entry.id}", entry.id)) for entry in annotations.entries]
    return replace(annotations, entries=tuple(entries))


def movie_of(clip: str) -> str:
    """The movie folder of a clip: its id up to the first dot, without the hours.

    >>> movie_of("1012_Unbreakable_00.05.16.065-00.05.21.941")
    '1012_Unbreakable'
    """
    return clip.split(".")[0][:-3]


def _captions(path: Path) -> Captions:
    captions: Captions = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        if len(fields) != _FIELDS:
            raise CorpusError(
                f"{path}, line {number}: {len(fields)} fields where {_FIELDS} are expected, separated by tabs: get "
                "the original file again, not one saved by a spreadsheet program."
            )
        clip, sentence = fields[0].strip(), fields[-1].strip()
        if clip.startswith('"'):  # some rows start with a quote, which some copies of the file also close
            clip = clip[1:]
            sentence = sentence[:-1] if sentence.endswith('"') and sentence.count('"') % 2 else sentence
        captions.setdefault(clip, []).append(sentence)
    return captions
