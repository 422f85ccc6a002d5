"""The benchmarks of text-video retrieval, and one's own videos, as corpora; every official file is read as it is."""

from dits.corpora.datasets.loading import LoadedDataset
from dits.corpora.datasets.registry import DATASETS, Dataset, load_dataset
from dits.corpora.datasets.table import load_table

__all__ = ["DATASETS", "Dataset", "LoadedDataset", "load_dataset", "load_table"]
