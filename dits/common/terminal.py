"""Untrusted text, made safe to print on a terminal."""

import unicodedata

_UNSAFE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, surrogates, line breaks


def printable(text: str) -> str:
    """The text on one line, with line breaks and all terminal control characters escaped."""
    return "".join(ascii(char)[1:-1] if unicodedata.category(char) in _UNSAFE else char for char in text)
