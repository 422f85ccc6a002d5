"""Pictures with texts from their packages: Tux Paint's stamps, Open Clip Art, pysioGame's vocabulary.

A few drawings of each package are malformed. If the renderer refuses an SVG file, it is left out.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from dits.bundled_encoder.pairs.shards import PICTURE_SIDE, LeftOut, Pair, encode_picture, open_picture
from dits.common.errors import PairsError

HELD_OUT_STAMPS = ("animals/birds", "food/fruit", "food/vegetables", "clothes/hats", "household/tools", "hobbies/music")
"""Categories of stamps that are left out of training, for the zero-shot test (analysis.encoder_quality.report)."""

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_RDF_OLD = "{http://www.w3.org/TR/1999/REC-rdf-syntax-ns#}"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_COMMON_TITLE = 8  # a title of more drawings names their collection, not their content
_MAX_SVG_BYTES = 3_000_000  # a few maps are larger and take minutes to render
_NOT_DESCRIPTIONS = {  # keywords of icons of user interfaces and of series of abstract shapes
    "hash", "theme", "magick", "gradients", "geometry", "icons", "application", "action", "filesystem", "buttons",
}  # fmt: skip
_NO_WORDS = {"unsorted", "signs_and_symbols", "special", "clipart", "clip art", "svg", "png", "icon", "symbol"}


def stamps(root: Path, release: str) -> Iterator[Pair | LeftOut]:
    """Tux Paint's stamps: PNG and SVG pictures, each with a text file whose first line describes it."""
    folder = root / "usr/share/tuxpaint/stamps"
    for text_file in sorted(folder.rglob("*.txt")):
        lines = text_file.read_text(encoding="utf-8", errors="replace").splitlines()
        picture = _first(text_file.with_suffix(".png"), text_file.with_suffix(".svg"))
        if not lines or not lines[0].strip() or picture is None:
            continue
        category = "/".join(text_file.relative_to(folder).parts[:-1])
        name = _sentence(lines[0])
        texts = (name, f"{name}, {_lower_words(category.rpartition('/')[2])}")
        file = str(picture.relative_to(root))
        yield _pair(("stamps", release, file, "GPL-2.0-or-later", category, texts), picture)


def clipart(root: Path, release: str) -> Iterator[Pair | LeftOut]:
    """Open Clip Art's drawings with titles and keywords from their metadata, without icon themes and bare shapes."""
    folder, png_folder = root / "usr/share/openclipart/svg", root / "usr/share/openclipart/png"
    drawings = [(path, *_metadata(path)) for path in sorted(folder.rglob("*.svg"))]
    title_counts = Counter(title for _, title, _ in drawings)
    for path, title, keywords in drawings:
        if _NOT_DESCRIPTIONS & set(keywords) or path.stat().st_size > _MAX_SVG_BYTES:
            continue
        category = "/".join(path.relative_to(folder).parts[:-1])
        stem = re.sub(r"(_?\d+)+$", "", path.stem)  # "orange_slice" of orange_slice_01.svg
        name = _lower_words(title if title and title_counts[title] <= _COMMON_TITLE else stem)
        words = [_lower_words(w) for w in dict.fromkeys(keywords) if w not in _NO_WORDS]
        if len(re.findall(r"[a-z]{3,}", name)) == 0:
            continue
        texts = (name, ", ".join([name, *words[:4]])) if words else (name,)
        file = str(path.relative_to(root))
        fields = ("clipart", release, file, "CC-PDDC", category, texts)
        png = png_folder / path.relative_to(folder).with_suffix(".png")
        pair = _pair(fields, path)
        yield _pair(fields, png) if isinstance(pair, LeftOut) and png.is_file() else pair


def words(root: Path, release: str) -> Iterator[Pair]:
    """pysioGame's pictures of single words, by category: "baker" among jobs, "dive" among actions."""
    folder = root / "usr/share/games/pysiogame/res/images/art4apps"
    for path in sorted(folder.rglob("*.jpg")):
        name, category = _lower_words(path.stem), _lower_words(path.parent.name)
        file, texts = str(path.relative_to(root)), (name, f"{name}, {category}")
        yield Pair("words", release, file, "GPL-3.0-or-later", category, texts, (_render(path),))


def _pair(fields: tuple[str, str, str, str, str, tuple[str, ...]], path: Path) -> Pair | LeftOut:
    try:
        return Pair(*fields, (_render(path),))
    except PairsError as error:
        return LeftOut("malformed", str(error))


def _render(path: Path) -> bytes:
    """Encodes a picture file for the shards; an SVG file is rendered at their size.

    Raises:
        PairsError: the file cannot be read or rendered.
    """
    if path.suffix != ".svg":
        return encode_picture(open_picture(path, str(path)))
    import resvg_py

    try:
        data = resvg_py.svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), width=PICTURE_SIDE)
    except ValueError as error:  # not UTF-8, or not SVG
        raise PairsError(f"{path} cannot be drawn: replace it, or leave it out.") from error
    return encode_picture(open_picture(bytes(data), str(path)))


def _metadata(path: Path) -> tuple[str, tuple[str, ...]]:
    """The title and keywords of an SVG file's RDF block; empty if there are none or the file is malformed."""
    title, keywords = "", []
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == _TITLE and not title:
                title = (element.text or "").strip()
            elif element.tag in (f"{_RDF}li", f"{_RDF_OLD}li") and (element.text or "").strip():
                keywords.append((element.text or "").strip().lower())
            elif element.tag.endswith("}RDF"):
                break
    except (ElementTree.ParseError, UnicodeDecodeError):
        return "", ()
    return title, tuple(keywords)


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _sentence(text: str) -> str:
    """A stamp's description in lower case, without its last full stop."""
    text = " ".join(text.split())
    return (text[:1].lower() + text[1:]).rstrip(".")


def _lower_words(text: str) -> str:
    """The words of a text in lower case; underscores and hyphens become spaces."""
    return " ".join(re.sub(r"[_\-]+", " ", text).lower().split())
