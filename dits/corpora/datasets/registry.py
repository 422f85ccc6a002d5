"""The benchmarks by name: how to read them, how to obtain them, and their sizes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dits.common.errors import CorpusError, InputError
from dits.corpora.datasets.annotations import AnnotationFolders, Annotations, MissingAnnotationsError
from dits.corpora.datasets.charades import read_charades
from dits.corpora.datasets.didemo import read_didemo, read_didemo_csv, read_didemo_json
from dits.corpora.datasets.loading import LoadedDataset, locate
from dits.corpora.datasets.lsmdc import read_lsmdc
from dits.corpora.datasets.msrvtt import read_msrvtt
from dits.corpora.datasets.vatex import read_vatex


@dataclass(frozen=True)
class Dataset:
    """A benchmark, or a variant of one.

    Attributes:
        name: its name on the command line.
        title: its displayed name.
        read: the function that reads its annotation files.
        obtain: how to obtain the annotations and the videos.
        videos: the number of videos per split of the complete benchmark, as far as it is known.
        source: the source of these numbers.
        folders: subfolders of the root that may also contain videos or annotations.
    """

    name: str
    title: str
    read: Callable[[AnnotationFolders], Annotations]
    obtain: str
    videos: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    folders: tuple[str, ...] = ("videos", "annotations")


_MSRVTT = (
    "MSRVTT_data.json, MSRVTT_train.9k.csv, MSRVTT_train.7k.csv and MSRVTT_JSFUSION_test.csv are in the file "
    "msrvtt_data.zip that the repository ArrowLuo/CLIP4Clip releases; the videos are Microsoft's (video0.mp4 to "
    "video9999.mp4), available from the organisers of the MSR-VTT challenge."
)
_LSMDC = (
    "LSMDC16_annos_training.csv, LSMDC16_annos_val.csv, LSMDC16_challenge_1000_publictect.csv and the clips are "
    "available from the Max Planck Institute for Informatics under its licence, on request."
)
_DIDEMO = (
    "train_data.json, val_data.json and test_data.json are in the repository LisaAnne/LocalizingMoments, which also "
    "says how to download the videos; joined files (didemo_train_label.csv, didemo_val_label.csv, "
    "didemo_test_label.csv) came with the code of T-MASS."
)
_VATEX = (
    "trn_names.npy, val_names.npy, tst_names.npy and ref_captions.json are among the annotations that the repository "
    "cshizhe/hgr_v2t names; the videos are on YouTube: download each by its name, and cut it to its ten seconds."
)
_CHARADES = (
    "Charades_v1_train.csv, Charades_v1_test.csv and the videos (Charades_v1_480) are available from the Allen "
    "Institute for AI, on the page of the Charades data set."
)
_COUNTED = "counted in the files that T-MASS ships"
_PAPER = "section 4.1 of the DITS paper"

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "msrvtt", "MSR-VTT, 9k training", read_msrvtt, _MSRVTT,
            {"train": 8503, "validation": 497, "test": 1000}, _COUNTED,
        ),
        Dataset(
            "msrvtt-7k", "MSR-VTT, 7k training", partial(read_msrvtt, train="7k"), _MSRVTT,
            {"train": 6513, "validation": 497, "test": 1000}, _COUNTED,
        ),
        Dataset(
            "msrvtt-all", "MSR-VTT, 9k training, no validation split", partial(read_msrvtt, validate=False), _MSRVTT,
            {"train": 9000, "test": 1000}, _COUNTED,
        ),
        Dataset(
            "msrvtt-7k-all", "MSR-VTT, 7k training, no validation split",
            partial(read_msrvtt, train="7k", validate=False), _MSRVTT, {"train": 7010, "test": 1000}, _COUNTED,
        ),
        Dataset("lsmdc", "LSMDC, every row a caption", read_lsmdc, _LSMDC, {"test": 1000}, _PAPER),
        Dataset(
            "lsmdc-last", "LSMDC, the last row of a clip", partial(read_lsmdc, last=True), _LSMDC,
            {"test": 1000}, _PAPER,
        ),
        Dataset("didemo", "DiDeMo paragraphs", read_didemo, _DIDEMO, {"test": 1004}, _COUNTED),
        Dataset(
            "didemo-json", "DiDeMo paragraphs, official files", read_didemo_json, _DIDEMO,
            {"test": 1004}, _COUNTED,
        ),
        Dataset(
            "didemo-csv", "DiDeMo paragraphs, joined files", read_didemo_csv, _DIDEMO,
            {"train": 8362, "validation": 1062, "test": 1004}, _COUNTED,
        ),
        Dataset(
            "vatex", "VATEX, HGR split", read_vatex, _VATEX,
            {"train": 25991, "validation": 1500, "test": 1500}, "the split of HGR",
        ),
        Dataset(
            "charades", "Charades scripts", read_charades, _CHARADES,
            {"train": 7586, "validation": 399, "test": 1863}, "the data set's own split",
            ("videos", "annotations", "Charades", "Charades_v1_480", "Charades_v1"),
        ),
        Dataset(
            "charades-all", "Charades scripts, no validation split", partial(read_charades, validate=False), _CHARADES,
            {"train": 7985, "test": 1863}, "the data set's own split",
            ("videos", "annotations", "Charades", "Charades_v1_480", "Charades_v1"),
        ),
    )
}  # fmt: skip
"""All supported benchmarks by name. `NAME:FOLDER` opens them, and `data check` checks them."""


def find_dataset(name: str) -> Dataset:
    """The dataset with a name.

    Raises:
        InputError: there is none.
    """
    if name not in DATASETS:
        raise InputError(f"There is no dataset '{name[:100]}': choose one of {', '.join(DATASETS)}, or a CSV file.")
    return DATASETS[name]


def load_dataset(name: str, root: Path, *, strict: bool = False, annotations: Path | None = None) -> LoadedDataset:
    """Load the clips of a benchmark whose videos are in a folder.

    Args:
        name: one of DATASETS.
        root: the folder of the videos.
        strict: raise if a video is missing or anything in the annotations is left out, instead of giving a notice.
        annotations: the folder of the annotation files, if it is not `root`.

    Raises:
        InputError: there is no such dataset.
        MissingAnnotationsError: an annotation file is missing; the message says how to obtain it.
        CorpusError: the annotations cannot be used, no video exists, or `strict` and the dataset is not complete.
    """
    return locate_dataset(find_dataset(name), root, annotations).required(strict)


def locate_dataset(dataset: Dataset, root: Path, annotations: Path | None = None) -> LoadedDataset:
    """Like `load_dataset`, but without an error if no video exists.

    Raises:
        CorpusError: see `load_dataset`.
    """
    read = read_annotations(dataset, annotations or root)
    folders = [root, *(root / folder for folder in dataset.folders)]
    return locate(dataset.name, dataset.title, read, folders, _size_notices(dataset, read))


def read_annotations(dataset: Dataset, folder: Path) -> Annotations:
    """A dataset's annotations from a folder.

    Raises:
        MissingAnnotationsError: a file is missing; the message says how to obtain it.
        CorpusError: a file cannot be used.
    """
    if not folder.is_dir():
        raise CorpusError(f"There is no folder {folder}: give the folder of {dataset.title}.")
    try:
        return dataset.read(AnnotationFolders((folder, *(folder / inner for inner in dataset.folders))))
    except MissingAnnotationsError as error:
        raise MissingAnnotationsError(f"{error} How to obtain it: {dataset.obtain}") from error


def _size_notices(dataset: Dataset, annotations: Annotations) -> list[str]:
    """A notice if the number of test videos in the annotations differs from the benchmark's."""
    listed = sum(entry.split == "test" for entry in annotations.entries)
    usual = dataset.videos.get("test", listed)
    if listed == usual:
        return []
    return [
        f"The annotations list {listed} test videos, not {usual} ({dataset.source}): results on other numbers are not "
        "comparable."
    ]
