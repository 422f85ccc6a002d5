"""VATEX: ten English captions a video, every one of them a query, on the split of HGR.

HGR halves the 3,000 validation videos of VATEX into validation and test, because the public test split has no captions.
"""

from pathlib import Path

import numpy as np

from dits.common.errors import CorpusError
from dits.corpora.datasets.annotations import (
    AnnotationFolders,
    Annotations,
    annotations_of,
    read_json,
    read_lines,
    split_off,
    text_of,
)

_ARRAYS = {"train": "trn_names.npy", "validation": "val_names.npy", "test": "tst_names.npy"}
_LISTS = {"train": "train_list.txt", "validation": "val_list.txt", "test": "test_list.txt"}


def read_vatex(folders: AnnotationFolders) -> Annotations:
    """Reads ref_captions.json, and the videos of the splits from HGR's trn_names.npy, val_names.npy and tst_names.npy.

    Where those are not there, from TS2-Net's train_list.txt and test_list.txt. That split validates on the test
    videos; here val_list.txt names others, or else 5 % of the training videos are held out.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    path = folders.find("ref_captions.json")
    captions = {
        video: [text_of(sentence, f"{path}: a caption of {video}") for sentence in _list(sentences, video, path)]
        for video, sentences in read_json(path, dict).items()
    }
    notices = []
    if folders.has(_LISTS["train"]) and not folders.has(_ARRAYS["train"]):
        files = {split: name for split, name in _LISTS.items() if split != "validation" or folders.has(name)}
        names = {split: [line.strip() for line in read_lines(folders.find(name))] for split, name in files.items()}
        notices.append("The splits are those of the text lists: there is no trn_names.npy.")
    else:
        names = {split: read_names(folders.find(name)) for split, name in _ARRAYS.items()}
    splits = {split: {video: captions.get(video, []) for video in videos} for split, videos in names.items()}
    if "validation" not in splits:
        splits |= split_off(splits["train"], max(1, len(splits["train"]) // 20))
    return annotations_of(splits, notices)


def read_names(path: Path) -> list[str]:
    """The texts of an .npy file with a list of them. Nothing is unpickled: that would run what the file says.

    Raises:
        CorpusError: it is damaged, or holds anything but a list of texts.
    """
    try:
        names = np.lib.format.open_memmap(path, mode="r")  # maps the file, so no header makes it ask for memory
    except (ValueError, OSError, EOFError, OverflowError, MemoryError, SyntaxError, TypeError) as error:
        if "objects in dtype" in str(error):
            raise CorpusError(
                f"{path} holds pickled objects, which could run any program and are not read. If you trust the file, "
                f"save it as texts: python -c \"import numpy as np; p = '{path.name}'; "
                'np.save(p, np.load(p, allow_pickle=True).astype(str))"'
            ) from error
        raise CorpusError(f"{path} is no array of NumPy, or a damaged one: get it again.") from error
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise CorpusError(f"{path} holds no list of texts but an array of {names.dtype} with {names.ndim} dimensions.")
    try:
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
    except (ValueError, SystemError) as error:  # no UTF-8, or no characters at all
        raise CorpusError(f"Cannot read {path}: its names are not UTF-8 text.") from error


def _list(sentences: object, video: str, path: Path) -> list[object]:
    if not isinstance(sentences, list):
        raise CorpusError(f"{path}: the captions of {video[:100]!r} are no list.")
    return sentences
