"""Pictures that come with words of their own: Tux Paint's stamps, Open Clip Art, pysioGame's vocabulary.

An SVG file that the renderer refuses is yielded as the error that names it: a few drawings of each package are
malformed, which preparation counts rather than stops at.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from dits.bundled_encoder.pairs.shards import PICTURE_SIDE, Pair, encode_picture, open_picture
from dits.common.errors import PairsError

HELD_OUT_STAMPS = ("animals/birds", "food/fruit", "food/vegetables", "clothes/hats", "household/tools", "hobbies/music")
"""Categories of stamps that no training sees: the zero-shot test (analysis.encoder_quality.report)."""

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_RDF_OLD = "{http://www.w3.org/TR/1999/REC-rdf-syntax-ns#}"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_COMMON_TITLE = 8  # a title that more drawings carry names their collection, not what they show
_MAX_SVG_BYTES = 3_000_000  # a few maps are larger and take minutes to draw
_NOT_DESCRIPTIONS = {  # keywords of screen furniture and of series of abstract shapes
    "hash", "theme", "magick", "gradients", "geometry", "icons", "application", "action", "filesystem", "buttons",
}  # fmt: skip
_NO_WORDS = {"unsorted", "signs_and_symbols", "special", "clipart", "clip art", "svg", "png", "icon", "symbol"}


def stamps(root: Path, release: str) -> Iterator[Pair | PairsError]:
    """Tux Paint's stamps: PNG and SVG pictures, each with a text file whose first line says what it shows."""
    folder = root / "usr/share/tuxpaint/stamps"
    for text_file in sorted(folder.rglob("*.txt")):
        lines = text_file.read_text(encoding="utf-8", errors="replace").splitlines()
        picture = _first(text_file.with_suffix(".png"), text_file.with_suffix(".svg"))
        if not lines or not lines[0].strip() or picture is None:
            continue
        category = "/".join(text_file.relative_to(folder).parts[:-1])
        name = _sentence(lines[0])
        texts = (name, f"{name}, {_plain(category.rpartition('/')[2])}")
        file = str(picture.relative_to(root))
        yield _pair_or_error(("stamps", release, file, "GPL-2.0-or-later", category, texts), picture)


def clipart(root: Path, release: str) -> Iterator[Pair | PairsError]:
    """Open Clip Art's drawings with titles and keywords from their metadata; icon themes and bare shapes left out."""
    folder, drawn = root / "usr/share/openclipart/svg", root / "usr/share/openclipart/png"
    found = [(path, *_metadata(path)) for path in sorted(folder.rglob("*.svg"))]
    often = Counter(title for _, title, _ in found)
    for path, title, keywords in found:
        if _NOT_DESCRIPTIONS & set(keywords) or path.stat().st_size > _MAX_SVG_BYTES:
            continue
        category = "/".join(path.relative_to(folder).parts[:-1])
        name = _plain(title if title and often[title] <= _COMMON_TITLE else _stem_words(path.stem))
        words = [_plain(w) for w in dict.fromkeys(keywords) if w not in _NO_WORDS]
        if len(re.findall(r"[a-z]{3,}", name)) == 0:
            continue
        texts = (name, ", ".join([name, *words[:4]])) if words else (name,)
        file = str(path.relative_to(root))
        fields = ("clipart", release, file, "CC-PDDC", category, texts)
        png = drawn / path.relative_to(folder).with_suffix(".png")
        pair = _pair_or_error(fields, path)
        yield _pair_or_error(fields, png) if isinstance(pair, PairsError) and png.is_file() else pair


def words(root: Path, release: str) -> Iterator[Pair]:
    """pysioGame's pictures of single words, by category: "baker" among jobs, "dive" among actions."""
    folder = root / "usr/share/games/pysiogame/res/images/art4apps"
    for path in sorted(folder.rglob("*.jpg")):
        name, category = _plain(path.stem), _plain(path.parent.name)
        file, texts = str(path.relative_to(root)), (name, f"{name}, {category}")
        yield Pair("words", release, file, "GPL-3.0-or-later", category, texts, (_draw(path),))


def _pair_or_error(fields: tuple[str, str, str, str, str, tuple[str, ...]], path: Path) -> Pair | PairsError:
    try:
        return Pair(*fields, (_draw(path),))
    except PairsError as error:
        return error


def _draw(path: Path) -> bytes:
    """A picture file as the shards keep it; an SVG file is drawn at their size.

    Raises:
        PairsError: the file cannot be read or drawn.
    """
    if path.suffix != ".svg":
        return encode_picture(open_picture(path, str(path)))
    import resvg_py

    try:
        data = resvg_py.svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), width=PICTURE_SIDE)
    except ValueError as error:  # not UTF-8, or no drawing
        raise PairsError(f"{path} cannot be drawn: replace it, or leave it out.") from error
    return encode_picture(open_picture(bytes(data), str(path)))


def _metadata(path: Path) -> tuple[str, tuple[str, ...]]:
    """The title and keywords of an SVG file's RDF block; empty where it has none or is malformed."""
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


def _plain(text: str) -> str:
    """Words in lower case: underscores and hyphens become spaces."""
    return " ".join(re.sub(r"[_\-]+", " ", text).lower().split())


def _stem_words(stem: str) -> str:
    """A file's name without its number and its author's name: "orange_slice_jonathan_di_01" says an orange slice."""
    return re.sub(r"(_?\d+)+$", "", stem)
