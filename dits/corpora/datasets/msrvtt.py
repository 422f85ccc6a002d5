"""MSR-VTT: 10,000 clips with 20 captions each, the 9k and 7k training lists, and the 1k-A test split.

The test split has one sentence per clip, from its CSV, not the 20 of the JSON. Five of its 1,000 sentences repeat
another one, so no method can reach R@1 = 100; they are kept, as in all published results.
"""

from typing import Any

from dits.common.errors import CorpusError
from dits.corpora.datasets.annotations import (
    AnnotationFolders,
    Annotations,
    Captions,
    build_annotations,
    captions_by_id,
    read_captions,
    read_json,
    read_table,
    split_validation,
)

VALIDATION = 497  # videos; the size of the official validation split


def read_msrvtt(folders: AnnotationFolders, *, train: str = "9k", validate: bool = True) -> Annotations:
    """Read MSRVTT_data.json, MSRVTT_train.9k.csv or .7k.csv, and MSRVTT_JSFUSION_test.csv.

    Args:
        train: the training list, "9k" or "7k".
        validate: hold out the listed videos that the JSON assigns to the official validation split, or VALIDATION of
            the listed videos if it assigns none; else train on all of them, like the baselines, which select models on
            the test split.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    listed = [row["video_id"].strip() for row in read_table(folders.find(f"MSRVTT_train.{train}.csv"), ("video_id",))]
    test = read_captions(folders.find("MSRVTT_JSFUSION_test.csv"), "video_id", "sentence")
    path = folders.find("MSRVTT_data.json")
    content = read_json(path, dict)
    sentences = content.get("sentences")
    if not isinstance(sentences, list):
        raise CorpusError(f"{path} has no list 'sentences': it is not the file that MSR-VTT's loaders read.")
    captions = captions_by_id(sentences, "video_id", "caption", f"{path}, sentence")
    training = {video: captions.get(video, []) for video in listed}
    splits = _split(training, _official_validation(content)) if validate else {"train": training}
    return build_annotations({**splits, "test": test})


def _split(training: Captions, official: set[str]) -> dict[str, Captions]:
    if not official & training.keys():
        return split_validation(training, VALIDATION)
    return {
        "train": {video: captions for video, captions in training.items() if video not in official},
        "validation": {video: captions for video, captions in training.items() if video in official},
    }


def _official_validation(content: dict[str, Any]) -> set[str]:
    """The videos that the JSON's list `videos` assigns to the validation split; empty if it has no such list."""
    videos = content.get("videos")
    records = videos if isinstance(videos, list) else []
    return {str(v.get("video_id")) for v in records if isinstance(v, dict) and v.get("split") == "validate"}
