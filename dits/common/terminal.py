"""What a terminal is shown of texts that anybody may have written."""

import unicodedata

_COMMANDS = ("Cc", "Cs", "Zl", "Zp")  # categories of Unicode: control characters, halves of pairs, breaks of lines


def printable(text: str) -> str:
    """A text on one line that tells a terminal nothing: what would move its cursor or rename its window is escaped."""
    return "".join(ascii(sign)[1:-1] if unicodedata.category(sign) in _COMMANDS else sign for sign in text)
