import gzip
import io

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import newTable
from fontTools.ttLib.tables import E_B_D_T_, E_B_L_C_
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from PIL import Image

from dits.bundled_encoder.data import is_held_out
from dits.bundled_encoder.pairs import sources
from dits.bundled_encoder.pairs.drawings import clipart, stamps, words
from dits.bundled_encoder.pairs.emoji import emoji
from dits.bundled_encoder.pairs.gathering import prepare_pairs
from dits.bundled_encoder.pairs.shards import LeftOut, open_picture, read_shards
from dits.bundled_encoder.pairs.sources import SOURCES, debian_release, python_release
from dits.common.errors import PairsError

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><metadata>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>{title}</dc:title><rdf:Bag>{keywords}</rdf:Bag></rdf:RDF></metadata><rect width="20" height="30"/></svg>"""


def svg(title, *keywords):
    return SVG.format(title=title, keywords="".join(f"<rdf:li>{word}</rdf:li>" for word in keywords))


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def png(colour="red", size=(20, 20)):
    buffer = io.BytesIO()
    Image.new("RGBA", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    """Debian packages unpacked below a folder, each with a file or two in the real layout."""
    for package in ("tuxpaint-stamps-default", "openclipart-svg", "openclipart-png", "pysiogame"):
        changelog = gzip.compress(f"{package} (1:2.0-1) unstable; urgency=low\n".encode())
        put(tmp_path / "usr/share/doc" / package / "changelog.Debian.gz", changelog)
    stamp_folder = tmp_path / "usr/share/tuxpaint/stamps"
    put(stamp_folder / "animals/birds/crow.png", png())
    put(stamp_folder / "animals/birds/crow.txt", "A crow.\nfr.utf8=Un corbeau.\n")
    put(stamp_folder / "vehicles/ship/boat.svg", svg("ignored"))
    put(stamp_folder / "vehicles/ship/boat.txt", "A small boat!\n")
    put(stamp_folder / "vehicles/ship/silent.png", png())
    put(stamp_folder / "vehicles/ship/torn.svg", "<svg")
    put(stamp_folder / "vehicles/ship/torn.txt", "Something torn.\n")
    art = tmp_path / "usr/share/openclipart/svg"
    put(art / "food/orange_slice_01.svg", svg("Orange Slice", "food", "Orange", "unsorted"))
    put(art / "computer/back.svg", svg("Back", "hash", "computer"))
    put(art / "people/torn.svg", "<svg><metadata>")
    put(tmp_path / "usr/share/openclipart/png/people/torn.png", png())
    put(tmp_path / "usr/share/games/pysiogame/res/images/art4apps/jobs/fire_fighter.jpg", _jpeg())
    return tmp_path


def _jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40), "green").save(buffer, "JPEG")
    return buffer.getvalue()


def test_stamps_carry_their_first_line_and_category(root):
    gathered = list(stamps(root, "stamps 1"))
    pairs = {pair.texts[0]: pair for pair in gathered if not isinstance(pair, LeftOut)}
    assert set(pairs) == {"a crow", "a small boat!"}
    crow = pairs["a crow"]
    assert (crow.texts, crow.group) == (("a crow", "a crow, birds"), "animals/birds")
    assert crow.file == "usr/share/tuxpaint/stamps/animals/birds/crow.png"
    boat = open_picture(pairs["a small boat!"].pictures[0], "boat").convert("RGBA")
    assert (boat.width, boat.height) == (320, 240)
    assert boat.getpixel((10, 10)) == (0, 0, 0, 255)
    assert boat.getpixel((310, 10))[3] == 0
    torn = f"{root}/usr/share/tuxpaint/stamps/vehicles/ship/torn.svg cannot be drawn: replace it, or leave it out."
    assert [item for item in gathered if isinstance(item, LeftOut)] == [LeftOut("malformed", torn)]


def test_held_out_stamps_are_recognised(root):
    held_out = {pair.group: is_held_out(pair) for pair in stamps(root, "r") if not isinstance(pair, LeftOut)}
    assert held_out == {"animals/birds": True, "vehicles/ship": False}


def test_clipart_has_titles_and_keywords_and_no_icon_themes(root):
    pairs = {pair.file.rpartition("/")[2]: pair for pair in clipart(root, "clipart 1")}
    assert set(pairs) == {"orange_slice_01.svg", "torn.svg"}
    assert pairs["orange_slice_01.svg"].texts == ("orange slice", "orange slice, food, orange")
    assert pairs["torn.svg"].texts == ("torn",)  # its name, and the PNG picture beside it
    assert open_picture(pairs["torn.svg"].pictures[0], "torn").size == (20, 20)


def test_words_come_from_file_names(root):
    (pair,) = words(root, "words 1")
    assert (pair.texts, pair.group) == (("fire fighter", "fire fighter, jobs"), "jobs")


def test_emoji_join_the_fonts_bitmaps_with_the_cldrs_names(tmp_path):
    write_colour_font(tmp_path / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", {0x1F600: png("yellow")})
    names = """<?xml version="1.0" encoding="UTF-8"?><ldml><annotations>
        <annotation cp="😀">face | grin | grinning face</annotation>
        <annotation cp="😀" type="tts">grinning face</annotation>
        <annotation cp="🦊" type="tts">fox</annotation></annotations></ldml>"""
    put(tmp_path / "usr/share/unicode/cldr/common/annotations/en.xml", names)
    (pair,) = emoji(tmp_path, "font 1")
    assert pair.file == "U+1F600"
    assert pair.texts == ("grinning face", "grinning face, face, grin")
    assert open_picture(pair.pictures[0], "emoji").convert("RGB").getpixel((5, 5)) == (255, 255, 0)


def write_colour_font(path, bitmaps):
    """A font with nothing but colour bitmaps, in the tables that Noto Color Emoji has."""
    names = {code: f"u{code:X}" for code in bitmaps}
    builder = FontBuilder(100, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupHorizontalMetrics({name: (100, 0) for name in builder.font.getGlyphOrder()})
    builder.setupHorizontalHeader()
    builder.setupPost()
    glyphs = {}
    for code, data in bitmaps.items():
        glyph = cbdt_bitmap_format_17(b"", builder.font)
        glyph.metrics = E_B_D_T_.SmallGlyphMetrics()
        glyph.metrics.__dict__.update(height=20, width=20, BearingX=0, BearingY=20, Advance=20)
        glyph.imageData = data
        glyphs[names[code]] = glyph
    data_table, location = newTable("CBDT"), newTable("CBLC")
    data_table.version = location.version = 3.0
    data_table.strikeData = [glyphs]
    location.strikes = [_strike(list(glyphs))]
    builder.font["CBDT"], builder.font["CBLC"] = data_table, location
    path.parent.mkdir(parents=True)
    builder.save(path)


def _strike(names):
    strike = E_B_L_C_.Strike()
    size = strike.bitmapSizeTable
    for line in ("hori", "vert"):
        metrics = E_B_L_C_.SbitLineMetrics()
        offsets = ("caretSlopeNumerator", "caretSlopeDenominator", "caretOffset", "minOriginSB", "minAdvanceSB")
        for field in ("ascender", "descender", "widthMax", *offsets, "maxBeforeBL", "minAfterBL", "pad1", "pad2"):
            setattr(metrics, field, 0)
        setattr(size, line, metrics)
    glyphs = {"startGlyphIndex": 1, "endGlyphIndex": len(names)}
    size.__dict__.update(colorRef=0, ppemX=20, ppemY=20, bitDepth=32, flags=1, **glyphs)
    table = E_B_L_C_.eblc_index_sub_table_1(None, None)
    table.names, table.indexFormat, table.imageFormat = names, 1, 17
    strike.indexSubTables = [table]
    return strike


def test_a_font_without_colour_bitmaps_is_refused(tmp_path):
    path = tmp_path / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
    put(path, "no font")
    with pytest.raises(PairsError, match=r"is not Noto's colour bitmap font: install font 1 again"):
        list(emoji(tmp_path, "font 1"))


def test_releases_come_from_the_packages(root):
    assert debian_release("pysiogame", root) == "pysiogame 1:2.0-1"
    with pytest.raises(PairsError, match=r"Debian package wordnet is missing .* apt-get install wordnet.*--root"):
        debian_release("wordnet", root)
    with pytest.raises(PairsError, match=r"package no-such-package is missing: pip install -r requirements-pairs"):
        python_release("no-such-package")


def test_pictures_must_be_the_captioned_ones(tmp_path, monkeypatch):
    put(tmp_path / "usr/share/doc/gnome-backgrounds/changelog.Debian.gz", gzip.compress(b"gnome (43-1) x\n"))
    put(tmp_path / "usr/share/hill.jpg", _jpeg())
    put(tmp_path / "wallpapers.csv", "package,file,sha256\ngnome-backgrounds,usr/share/hill.jpg,0123\n")
    put(tmp_path / "wallpapers_captions.csv", "package,file,caption\ngnome-backgrounds,usr/share/hill.jpg,a hill\n")
    monkeypatch.setattr(sources, "CAPTIONED", tmp_path)
    with pytest.raises(PairsError, match=r"gnome-backgrounds 43-1 is not the release that was captioned \(usr"):
        list(SOURCES["wallpapers"].gather(tmp_path))


def test_prepares_shards_without_pictures_of_a_held_out_clip(root, tmp_path, demo):
    """A stamp replaced by a frame of a test clip is left out; the others stay, counted with package and licence."""
    from dits.video.sampling import sample_frames

    test_clip = next(clip for clip in demo if clip.split == "test")
    buffer = io.BytesIO()
    Image.fromarray(sample_frames(test_clip.path, 12, size=160).frames[4]).save(buffer, "PNG")
    put(root / "usr/share/tuxpaint/stamps/animals/birds/crow.png", buffer.getvalue())
    lines = []
    index = prepare_pairs(tmp_path / "out", ["stamps", "words"], root, lines.append)
    counts = index["sources"]["stamps"]
    assert counts["left_out"] == {"malformed": 1, "close to a held-out clip": 1}
    assert counts["packages"] == {"tuxpaint-stamps-default 1:2.0-1": "GPL-2.0-or-later"}
    assert [pair.texts[0] for pair in read_shards(tmp_path / "out")] == ["a small boat!", "fire fighter"]
    assert lines[-1] == "words: 1 pairs, 1 pictures, 2 texts; left out: none"
