"""Charades: videos of daily life; the only caption is the script that the actors were given (as in ECLIPSE)."""

from dits.corpora.datasets.annotations import (
    AnnotationFolders,
    Annotations,
    build_annotations,
    read_captions,
    split_validation,
)


def read_charades(folders: AnnotationFolders, *, validate: bool = True) -> Annotations:
    """Read Charades_v1_train.csv and Charades_v1_test.csv.

    Args:
        validate: hold out 5 % of the training videos for validation, because the files define no validation split;
            else train on all of them.

    Raises:
        InputError, CorpusError: a file is missing or cannot be used.
    """
    train, test = (
        read_captions(folders.find(f"Charades_v1_{split}.csv"), "id", "script") for split in ("train", "test")
    )
    splits = split_validation(train, max(1, len(train) // 20)) if validate else {"train": train}
    return build_annotations({**splits, "test": test})
