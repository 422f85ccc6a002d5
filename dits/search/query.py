"""Preparation and validation of queries before they are encoded."""

import unicodedata
from dataclasses import dataclass

from dits.common.errors import InputError
from dits.encoders.openclip import OpenClipEncoder

MAX_QUERY_CHARACTERS = 20_000
MAX_RESULTS = 100

_UNREADABLE = "The encoder has no words for most of this query: the ranking means little."


@dataclass(frozen=True)
class PreparedQuery:
    """A query as it is encoded, a notice about it, and the number of results."""

    query: str
    notice: str | None
    top: int


def read_query(text: str, encoder: OpenClipEncoder) -> tuple[str, str | None]:
    """The query without control characters and superfluous spaces, and a notice or None.

    The notice says that the query is cut, or that at least half of its tokens are unknown to the encoder.

    Raises:
        InputError: the query is empty.
    """
    text = text.strip()[:MAX_QUERY_CHARACTERS]
    query = " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).split())
    if not any(unicodedata.category(c) != "Cf" and not c.isspace() for c in query):
        raise InputError("The query is empty: describe in a sentence what the video shows.")
    cut = encoder.cut_text(query)
    if cut is None:
        return query, _UNREADABLE if encoder.unknown_share(query) >= 0.5 else None
    return query, (
        f"The query is longer than the encoder reads: it was cut after {len(cut.split())} words, '{cut[-40:].strip()}'."
    )


def check_top(top: int) -> None:
    """Check the number of results.

    Raises:
        InputError: `top` is not from 1 to MAX_RESULTS.
    """
    if not 1 <= top <= MAX_RESULTS:
        raise InputError(f"The number of results must be from 1 to {MAX_RESULTS}, not {str(top)[:20]}.")
