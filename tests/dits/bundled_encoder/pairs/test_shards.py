import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from dits.bundled_encoder.pairs.gathering import prepare_pairs, template_of
from dits.bundled_encoder.pairs.near_duplicates import NearDuplicates
from dits.bundled_encoder.pairs.shards import Pair, encode_picture, open_picture, read_shards, write_shards
from dits.common.errors import InputError, PairsError


def picture(seed=0, size=(64, 48)):
    """A smooth random picture: perceptual hashes look at low frequencies."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, size=(6, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def pair(number=0, count=1, **changes):
    pictures = changes.pop("pictures", None) or tuple(encode_picture(picture(100 * number + n)) for n in range(count))
    fields = {
        "source": "templates",
        "package": "some-package 1.0",
        "file": f"{number}.webp",
        "licence": "MIT",
        "group": "g",
        "texts": (f"caption {number}", "à second one"),
        "pictures": pictures,
    }
    return Pair(**{**fields, **changes})


@pytest.fixture
def shards(tmp_path):
    pairs = [pair(n, 1 + n % 3) for n in range(7)]
    write_shards(tmp_path / "pairs", pairs, {"note": 1})
    return tmp_path / "pairs", pairs


def test_written_pairs_are_read_back(shards):
    folder, pairs = shards
    assert list(read_shards(folder)) == pairs


def test_the_same_pairs_give_the_same_bytes(shards, tmp_path):
    folder, pairs = shards
    write_shards(tmp_path / "again", iter(pairs), {"note": 1})
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_members_are_named_as_webdataset_expects(shards):
    with tarfile.open(shards[0] / "pairs-00000.tar") as archive:
        names = archive.getnames()
    assert names[:4] == ["0000000.json", "0000000.00.webp", "0000001.json", "0000001.00.webp"]
    keys = [name.partition(".")[0] for name in names]
    assert keys == sorted(keys)  # the files of a pair follow each other


def test_many_pairs_fill_several_shards(tmp_path):
    tiny = encode_picture(Image.new("RGB", (2, 2)))
    pairs = [pair(n, pictures=(tiny,)) for n in range(501)]
    index = write_shards(tmp_path, iter(pairs), {})
    assert [shard["pairs"] for shard in index["shards"]] == [500, 1]
    assert [p.file for p in read_shards(tmp_path)] == [p.file for p in pairs]


@pytest.mark.parametrize("texts", [(), ("",), ("fine", "  ")])
def test_refuses_an_empty_caption(texts):
    with pytest.raises(PairsError, match=r"0\.webp of some-package 1\.0 has an empty caption"):
        pair(texts=texts)


def test_refuses_an_unreadable_picture(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    with pytest.raises(PairsError, match=r"torn\.png cannot be read as a picture"):
        open_picture(tmp_path / "torn.png", "torn.png")


def test_refuses_a_picture_of_too_many_pixels():
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    with pytest.raises(PairsError, match="huge"):
        open_picture(buffer.getvalue(), "huge")


def test_refuses_shards_of_another_version(shards):
    folder, _ = shards
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "version": 99}))
    with pytest.raises(PairsError, match="version 99, and this release reads dits-pairs version 1"):
        list(read_shards(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "damaged"), ("[]", "damaged"), ('{"format": "x", "version": 1, "shards": []}', "format x")],
)
def test_refuses_a_damaged_index(shards, text, message):
    (shards[0] / "index.json").write_text(text)
    with pytest.raises(PairsError, match=message):
        list(read_shards(shards[0]))


def test_refuses_a_changed_shard(shards):
    path = shards[0] / "pairs-00000.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(PairsError, match="missing or changed"):
        list(read_shards(shards[0]))


def test_refuses_a_shard_outside_its_folder(shards):
    index = json.loads((shards[0] / "index.json").read_text())
    index["shards"][0]["name"] = "../pairs-00000.tar"
    (shards[0] / "index.json").write_text(json.dumps(index))
    with pytest.raises(PairsError, match="outside its folder"):
        list(read_shards(shards[0]))


def test_missing_pairs_raise_how_to_make_them(tmp_path):
    with pytest.raises(PairsError, match="python -m dits pairs --out"):
        list(read_shards(tmp_path))


def test_pictures_are_resized_and_stay_transparent():
    opaque = open_picture(encode_picture(Image.new("RGB", (1600, 900))), "a")
    assert opaque.size == (569, 320)
    clear = open_picture(encode_picture(Image.new("RGBA", (40, 30), (255, 0, 0, 0))), "b")
    assert clear.size == (40, 30)
    assert clear.convert("RGBA").getpixel((3, 3))[3] == 0


def test_near_duplicates_survive_scaling_compression_and_mirroring():
    original = picture(1, (320, 240))
    near = NearDuplicates([original, picture(2)])
    buffer = io.BytesIO()
    original.resize((200, 150)).save(buffer, "JPEG", quality=40)
    assert near.is_close(Image.open(buffer))
    assert near.is_close(original.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    side_by_side = Image.new("RGB", (640, 240))
    side_by_side.paste(picture(9, (320, 240)), (0, 0))
    side_by_side.paste(original, (320, 0))
    assert near.is_close(side_by_side)


def test_different_pictures_are_no_near_duplicates():
    near = NearDuplicates([picture(n) for n in range(5)])
    assert not any(near.is_close(picture(n)) for n in range(50, 80))
    assert not NearDuplicates([]).is_close(picture())


def test_template_names_lose_their_numbers():
    assert template_of("api_veo3-1") == template_of("api_veo3-2-10") == "api_veo3"
    assert template_of("video_wan2_2") == "video_wan2_2"


def test_refuses_unknown_sources_and_names_missing_packages(tmp_path):
    with pytest.raises(InputError, match="no source 'stickers'"):
        prepare_pairs(tmp_path / "out", ["stickers"], tmp_path, print)
    with pytest.raises(InputError, match="at least one source"):
        prepare_pairs(tmp_path / "out", [], tmp_path, print)
    with pytest.raises(PairsError, match=r"tuxpaint-stamps-default is missing below .*apt-get install tuxpaint"):
        prepare_pairs(tmp_path / "out", ["stamps"], tmp_path, print)
    assert not (tmp_path / "out").exists()
