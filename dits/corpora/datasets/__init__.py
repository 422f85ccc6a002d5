"""Text-video retrieval benchmarks and the user's own videos as corpora; official files are read unchanged."""

from dits.corpora.datasets.loading import LoadedDataset
from dits.corpora.datasets.registry import DATASETS, Dataset, load_dataset
from dits.corpora.datasets.table import load_table

__all__ = ["DATASETS", "Dataset", "LoadedDataset", "load_dataset", "load_table"]
