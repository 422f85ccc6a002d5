"""Colour emoji: the bitmaps of Noto Color Emoji with the English names and keywords of the CLDR."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from dits.bundled_encoder.pairs.shards import Pair, encode_picture, open_picture
from dits.common.errors import PairsError

_FONT = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
_NAMES = "usr/share/unicode/cldr/common/annotations/en.xml"


def emoji(root: Path, release: str) -> Iterator[Pair]:
    """Emoji of a single code point, in the font's order, without flags and other sequences.

    Raises:
        PairsError: the font or the names cannot be read.
    """
    from fontTools.ttLib import TTFont, TTLibError

    try:
        font: Any = TTFont(root / _FONT, lazy=True)
        glyphs, bitmaps = font.getBestCmap(), font["CBDT"].strikeData[0]
    except (OSError, KeyError, TTLibError) as error:
        raise PairsError(f"{root / _FONT} is not Noto's colour bitmap font: install {release} again.") from error
    names, keywords = _annotations(root / _NAMES)
    for code, glyph in glyphs.items():
        character = chr(code)
        if character not in names or glyph not in bitmaps:
            continue
        name = names[character]
        words = [word for word in keywords.get(character, ()) if word != name]
        texts = (name, ", ".join([name, *words[:5]])) if words else (name,)
        image = open_picture(bytes(bitmaps[glyph].imageData), f"the emoji {name}")
        yield Pair("emoji", release, f"U+{code:04X}", "OFL-1.1", "emoji", texts, (encode_picture(image),))


def _annotations(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The English name and the keywords of each emoji."""
    names: dict[str, str] = {}
    keywords: dict[str, list[str]] = {}
    try:
        for element in ElementTree.parse(path).iter("annotation"):
            character, text = element.get("cp", ""), element.text or ""
            if element.get("type") == "tts":
                names[character] = text.strip()
            else:
                keywords[character] = [word.strip() for word in text.split("|")]
    except (OSError, ElementTree.ParseError) as error:
        raise PairsError(f"{path} cannot be read: install unicode-cldr-core again.") from error
    return names, keywords
