"""The example queries of the demo corpus, by kind (assets/demo/examples.csv)."""

from dataclasses import dataclass

from dits.corpus import read_rows
from dits.files import ASSETS

EXAMPLES_FILE = ASSETS / "demo" / "examples.csv"


@dataclass(frozen=True)
class Example:
    """A query, the kind of thing it asks for, and the clip that comes first for it."""

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
