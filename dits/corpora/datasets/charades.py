"""Charades: videos of daily life, with the script that its actors were given as the one caption (as in ECLIPSE)."""

from pathlib import Path

from dits.corpora.datasets.annotations import (
    AnnotationFolders,
    Annotations,
    Captions,
    annotations_of,
    read_table,
    split_off,
)


def read_charades(folders: AnnotationFolders, *, validate: bool = True) -> Annotations:
    """Reads Charades_v1_train.csv and Charades_v1_test.csv.

    Args:
        validate: hold 5 % of the training videos out as a validation split, for the files name none; else train on
            all of them.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    train, test = (_scripts(folders.find(f"Charades_v1_{split}.csv")) for split in ("train", "test"))
    parted = split_off(train, max(1, len(train) // 20)) if validate else {"train": train}
    return annotations_of({**parted, "test": test})


def _scripts(path: Path) -> Captions:
    scripts: Captions = {}
    for row in read_table(path, ("id", "script")):
        scripts.setdefault(row["id"].strip(), []).append(row["script"] or "")
    return scripts
