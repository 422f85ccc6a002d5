"""The example queries of the demo corpus, by kind (assets/demo/examples.csv)."""

from dataclasses import dataclass
from functools import cache

from dits.common.files import ASSETS
from dits.corpora.corpus import read_rows

EXAMPLES_FILE = ASSETS / "demo" / "examples.csv"

GAINS, LOSES = "DITS gains", "DITS loses"
"""The kinds of queries that methods answer differently: DITS places the clip that is asked for no lower than any other
method and higher than one, or no higher than any and lower than one. They ask for clips of the validation split, in
other words than their captions; the weights were chosen on that split, the queries after the weights."""


@dataclass(frozen=True)
class Example:
    """A query, the kind of thing it asks for, and the clip that it asks for.

    DITS places that clip first, but for the kinds that show where methods differ.
    """

    kind: str
    query: str
    clip: str


def read_examples() -> dict[str, list[Example]]:
    """The examples by kind, in the file's order.

    Raises:
        InputError: the file cannot be read, or lacks a column or a value.
    """
    kinds: dict[str, list[Example]] = {}
    for row in read_rows(EXAMPLES_FILE, ("kind", "query", "clip")):
        kinds.setdefault(row["kind"], []).append(Example(row["kind"], row["query"], row["clip"]))
    return kinds


def first_query() -> str:
    """What the page ranks when it opens."""
    return next(iter(clips_asked_for()))


@cache
def clips_asked_for() -> dict[str, str]:
    """The clip that each example query asks for."""
    return {example.query: example.clip for examples in read_examples().values() for example in examples}
