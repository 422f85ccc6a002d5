"""Opens corpora by name."""

import os
from collections.abc import Callable
from pathlib import Path

from dits.common.errors import InputError
from dits.corpora.corpus import Corpus, read_clips
from dits.corpora.datasets import DATASETS, LoadedDataset, load_dataset, load_table
from dits.corpora.demo import build_demo, demo_folder
from dits.corpora.index_location import is_index

Progress = Callable[[str, int, int], None]
"""Called with a description of the task, the amount that is done, and the total."""


def open_corpus(
    name: str = "demo",
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    strict: bool = False,
) -> Corpus:
    """Open a corpus by name.

    Args:
        name: "demo", which is built if necessary; a folder with captions.csv and its clips as `<clip>.mp4`;
            "NAME:FOLDER" for a benchmark (see `dits.corpora.datasets.DATASETS`); or a CSV file (see
            `dits.corpora.datasets.load_table`).
        progress: called while the demo corpus is built.
        notice: called with sentences about missing or unusual content of a benchmark or a CSV file.
        strict: raise if a video is missing, instead of giving a notice.

    Raises:
        InputError: there is no such corpus, or its captions cannot be read.
        CorpusError: the corpus is inconsistent.
        StorageError: the cache folder cannot be written.
    """
    if name == "demo":
        return build_demo(lambda done, total: report_progress(progress, "Preparing the demo clips", done, total))
    if is_index(name):
        raise InputError(
            f"{name} is an index: its videos have no captions. Search it with `search` or the app; to train or "
            "evaluate, give a CSV file of videos and captions."
        )
    loaded = _dataset(name, strict)
    if loaded:
        if notice:
            for sentence in loaded.notices:
                notice(sentence)
        return loaded.corpus
    folder = corpus_folder(name)
    if not os.path.isfile(folder / "captions.csv"):
        raise InputError(
            f"There is no corpus '{name}': use 'demo', a folder with a captions.csv, a CSV file, or NAME:FOLDER for "
            "one of the benchmarks that `python -m dits data list` shows."
        )
    return Corpus(folder.name, read_clips(folder / "captions.csv", folder))


def corpus_folder(name: str = "demo") -> Path:
    """The folder of a corpus's videos, whether or not it is built.

    Raises:
        InputError: the name is not a valid path.
    """
    try:
        return demo_folder() if name == "demo" else Path(name).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"There is no corpus '{name[:200]}': use 'demo', or a folder with a captions.csv.") from error


def _dataset(name: str, strict: bool) -> LoadedDataset | None:
    dataset, colon, root = name.partition(":")
    if colon and dataset in DATASETS:
        return load_dataset(dataset, _path(root), strict=strict)
    if name.lower().endswith(".csv") and not os.path.isdir(name):
        return load_table(_path(name), strict=strict)
    return None


def _path(name: str) -> Path:
    """The absolute path. Links are not resolved: the paths in a linked table are relative to the folder of the link."""
    try:
        os.stat(path := Path(name).expanduser().absolute())
        return path
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"There is no file or folder '{name[:200]}'.") from error


def report_progress(progress: Progress | None, task: str, done: int, total: int) -> None:
    """Call `progress`, if it is given."""
    if progress:
        progress(task, done, total)
