"""Pieces of Markdown: tables, lists, paragraphs."""

import textwrap
from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table, the first columns (`texts`) to the left and the others to the right."""
    lines = [head, ["---"] * texts + ["---:"] * (len(head) - texts), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def listed(settings: dict[str, Any]) -> str:
    """Settings in one line."""
    return ", ".join(f"{name} {f'{v:g}' if isinstance(v, float) else v}" for name, v in settings.items())


def bullets(*texts: str) -> str:
    """A list, wrapped."""
    return "\n".join(filled(f"- {text}", "  ") for text in texts)


def filled(text: str, indent: str = "") -> str:
    """A paragraph, wrapped."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
