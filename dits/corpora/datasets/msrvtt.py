"""MSR-VTT: 10,000 clips with 20 captions each, the 9k and 7k training lists, and the 1k-A test split.

The test split takes one sentence a clip from its CSV, not the 20 of the JSON. Five of its 1,000 sentences repeat
another's, so that no method can reach R@1 = 100; they are kept, as all published numbers have them.
"""

from dits.common.errors import CorpusError
from dits.corpora.datasets.annotations import (
    AnnotationFolders,
    Annotations,
    Captions,
    annotations_of,
    read_json,
    read_table,
    split_off,
    value_of,
)

VALIDATION = 497  # videos held out; the full split of MSR-VTT validates on as many


def read_msrvtt(folders: AnnotationFolders, *, train: str = "9k", validate: bool = True) -> Annotations:
    """Reads MSRVTT_data.json, MSRVTT_train.9k.csv or .7k.csv, and MSRVTT_JSFUSION_test.csv.

    Args:
        train: which training list: "9k" or "7k".
        validate: hold VALIDATION training videos out as a validation split, for the files name none; else train on
            all of them, as the baselines do, which select models on the test split.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    listed = [row["video_id"].strip() for row in read_table(folders.find(f"MSRVTT_train.{train}.csv"), ("video_id",))]
    test: Captions = {}
    for row in read_table(folders.find("MSRVTT_JSFUSION_test.csv"), ("video_id", "sentence")):
        test.setdefault(row["video_id"].strip(), []).append(row["sentence"] or "")
    captions = _captions(folders)
    training = {video: captions.get(video, []) for video in listed}
    parted = split_off(training, VALIDATION) if validate else {"train": training}
    return annotations_of({**parted, "test": test})


def _captions(folders: AnnotationFolders) -> Captions:
    path = folders.find("MSRVTT_data.json")
    sentences = read_json(path, dict).get("sentences")
    if not isinstance(sentences, list):
        raise CorpusError(f"{path} has no list 'sentences': it is not the file that MSR-VTT's loaders read.")
    captions: Captions = {}
    for number, item in enumerate(sentences, start=1):
        where = f"{path}, sentence {number}"
        captions.setdefault(value_of(item, "video_id", where), []).append(value_of(item, "caption", where))
    return captions
