"""The example queries of the demo corpus, by kind (assets/demo/examples.csv)."""

from dataclasses import dataclass
from functools import cache

from dits.common.files import ASSETS
from dits.corpora.corpus import read_rows

EXAMPLES_FILE = ASSETS / "demo" / "examples.csv"

GAINS, LOSES = "DITS gains", "DITS loses"
"""Kinds of queries on which the methods differ: DITS ranks the target clip at least as high as every other method and
higher than one of them (gains), or the reverse (loses). The target clips are from the validation split, and the queries
use other words than the captions. The weights were selected on that split, and the queries after the weights."""


@dataclass(frozen=True)
class Example:
    """A query with its kind and its target clip. DITS ranks the target first, except for the kinds GAINS and LOSES."""

    kind: str
    query: str
    clip: str


def read_examples() -> dict[str, list[Example]]:
    """Return the examples by kind, in the order of the file.

    Raises:
        InputError: the file cannot be read, or a column or a value is missing.
    """
    kinds: dict[str, list[Example]] = {}
    for row in read_rows(EXAMPLES_FILE, ("kind", "query", "clip")):
        kinds.setdefault(row["kind"], []).append(Example(row["kind"], row["query"], row["clip"]))
    return kinds


def first_query() -> str:
    """Return the query of the first ranking of a page."""
    return next(iter(target_clips()))


@cache
def target_clips() -> dict[str, str]:
    """Return the id of the target clip of each example query."""
    return {example.query: example.clip for examples in read_examples().values() for example in examples}
