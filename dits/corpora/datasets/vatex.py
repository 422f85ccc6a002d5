"""VATEX: ten English captions per video, all of them queries, with the split of HGR.

HGR splits the 3,000 validation videos of VATEX into validation and test halves: the public test split has no captions.
"""

from pathlib import Path

import numpy as np

from dits.common.errors import CorpusError
from dits.corpora.datasets.annotations import (
    AnnotationFolders,
    Annotations,
    build_annotations,
    read_json,
    read_lines,
    require_text,
    split_validation,
)

_ARRAYS = {"train": "trn_names.npy", "validation": "val_names.npy", "test": "tst_names.npy"}
_LISTS = {"train": "train_list.txt", "validation": "val_list.txt", "test": "test_list.txt"}


def read_vatex(folders: AnnotationFolders) -> Annotations:
    """Read ref_captions.json, and the splits from HGR's trn_names.npy, val_names.npy and tst_names.npy.

    If those are missing, the splits are read from TS2-Net's train_list.txt and test_list.txt. TS2-Net validates on the
    test videos; here validation uses val_list.txt if it exists, or else holds out 5 % of the training videos.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    path = folders.find("ref_captions.json")
    captions = {
        video: [require_text(caption, f"{path}: a caption of {video}") for caption in _list(sentences, video, path)]
        for video, sentences in read_json(path, dict).items()
    }
    notices = []
    if folders.has(_LISTS["train"]) and not folders.has(_ARRAYS["train"]):
        files = {split: name for split, name in _LISTS.items() if split != "validation" or folders.has(name)}
        names = {split: [line.strip() for line in read_lines(folders.find(name))] for split, name in files.items()}
        notices.append("The splits come from the text lists, because there is no trn_names.npy.")
    else:
        names = {split: read_names(folders.find(name)) for split, name in _ARRAYS.items()}
    splits = {split: {video: captions.get(video, []) for video in videos} for split, videos in names.items()}
    if "validation" not in splits:
        splits |= split_validation(splits["train"], max(1, len(splits["train"]) // 20))
    return build_annotations(splits, notices)


def read_names(path: Path) -> list[str]:
    """The texts of an .npy file with an array of texts. Nothing is unpickled, which could run code from the file.

    Raises:
        CorpusError: the file is damaged, or is not an array of texts.
    """
    try:
        names = np.lib.format.open_memmap(path, mode="r")  # mapped, so a wrong header cannot allocate memory
    except (ValueError, OSError, EOFError, OverflowError, MemoryError, SyntaxError, TypeError) as error:
        if "objects in dtype" in str(error):
            raise CorpusError(
                f"{path} holds pickled objects, which could run any program and are not read. If you trust the file, "
                f"convert it to texts: python -c \"import numpy as np; p = '{path.name}'; "
                'np.save(p, np.load(p, allow_pickle=True).astype(str))"'
            ) from error
        raise CorpusError(f"{path} is not a NumPy array, or is damaged: get it again.") from error
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise CorpusError(f"{path} holds no list of texts but an array of {names.dtype} with {names.ndim} dimensions.")
    try:
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
    except (ValueError, SystemError) as error:  # not UTF-8, or invalid characters
        raise CorpusError(f"Cannot read {path}: its names are not UTF-8 text.") from error


def _list(sentences: object, video: str, path: Path) -> list[object]:
    if not isinstance(sentences, list):
        raise CorpusError(f"{path}: the captions of {video[:100]!r} are not a list.")
    return sentences
