"""Data sets as sources of pairs, on small folders in the layouts of their releases."""

import json
import shlex
import subprocess

import numpy as np
import pytest
from PIL import Image

from dits.bundled_encoder.pairs import gathering
from dits.bundled_encoder.pairs.benchmarks import flickr, msrvtt
from dits.bundled_encoder.pairs.gathering import prepare_pairs
from dits.bundled_encoder.pairs.shards import LeftOut, Pair, open_picture, read_index, read_shards
from dits.bundled_encoder.pairs.sources import SOURCES, Source, default_sources
from dits.cli.parser import main
from dits.common.errors import CorpusError, InputError, PairsError
from dits.corpora.corpus import Clip, Corpus
from tests.helpers.documents import REPOSITORY
from tests.helpers.videos import write_video


def gathered(items):
    """The texts of the pairs by file, and the sentences of what is left out by reason."""
    items = list(items)
    left_out = {}
    for item in items:
        if isinstance(item, LeftOut):
            left_out.setdefault(item.reason, []).append(item.sentence)
    return {item.file: item.texts for item in items if isinstance(item, Pair)}, left_out


# --- MSR-VTT ---

LISTED = {  # for training, with the split that the JSON gives
    "video0": "train", "video1": "validate", "video2": "train", "video3": "train", "video4": "train",
    "video5": "train", "video6": "train", "video7": "validate", "video8": "train",
}  # fmt: skip
TESTED = {"video2": "a test video", "video7": "another", "video8": "", "video9": "a third"}


@pytest.fixture(scope="module")
def msrvtt_folder(tmp_path_factory):
    """MSR-VTT with mistakes: `video2`, `video7` and `video8`, without a sentence there, are test videos too.

    `video3` has no file, `video4` no frames, `video5` no sentence in the JSON. `video6` has two frames.
    """
    folder = tmp_path_factory.mktemp("msrvtt")
    (folder / "videos").mkdir()
    for name in {*LISTED, *TESTED} - {"video3", "video4"}:
        write_video(folder / "videos" / f"{name}.mp4", 2 if name == "video6" else 12, size=(64, 48), fps=4)
    (folder / "videos" / "video4.mp4").touch()
    videos = [{"video_id": name, "split": split} for name, split in LISTED.items()]
    sentences = [
        {"video_id": name, "caption": f"{text} {name[5:]}"}
        for text in ("someone does number", "this shows")
        for name in LISTED
        if name != "video5"
    ]
    (folder / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    (folder / "MSRVTT_train.7k.csv").write_text("\n".join(["video_id", *LISTED]))
    rows = [f"ret{n},msr{n},{name},{text}" for n, (name, text) in enumerate(TESTED.items())]
    (folder / "MSRVTT_JSFUSION_test.csv").write_text("\n".join(["key,vid_key,video_id,sentence", *rows]))
    return folder


def test_msrvtt_gives_training_videos_and_counts_the_unusable(msrvtt_folder):
    pairs, left_out = gathered(msrvtt(msrvtt_folder))
    assert list(pairs) == ["video0.mp4", "video6.mp4"]
    assert pairs["video0.mp4"] == ("someone does number 0", "this shows 0")
    assert left_out == {
        "missing": [f"There is no video video3 in {msrvtt_folder}: put it there, or leave it out of the list."],
        "without a caption": [f"The annotations in {msrvtt_folder} have no sentence for video5: get them again."],
        "undecodable": left_out["undecodable"],
    }
    assert len(left_out["undecodable"]) == 1
    assert "video4.mp4" in left_out["undecodable"][0]


def test_a_short_video_gives_each_of_its_frames_once(msrvtt_folder):
    counts = {item.file: len(item.pictures) for item in msrvtt(msrvtt_folder) if isinstance(item, Pair)}
    assert counts == {"video0.mp4": 6, "video6.mp4": 2}


def test_msrvtt_without_training_videos_is_an_error(tmp_path, msrvtt_folder):
    for path in msrvtt_folder.glob("*.*"):
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(CorpusError, match=r"None of the \d train videos of MSR-VTT, 7k training is in"):
        msrvtt(tmp_path)
    (tmp_path / "video9.mp4").symlink_to(msrvtt_folder / "videos" / "video9.mp4")  # a test video
    with pytest.raises(InputError, match=r"None of the \d train videos of MSR-VTT, 7k training is in"):
        msrvtt(tmp_path)
    with pytest.raises(CorpusError, match="There is no folder"):
        msrvtt(tmp_path / "nowhere")


# --- Flickr ---

CAPTIONS = {"10_a.jpg": ("A dog , wet .", 'It says "go" .'), "20_b.jpg": ("Two boys .",)}

COMMAS = 'image,caption\n10_a.jpg,"A dog , wet ."\n10_a.jpg,"It says ""go"" ."\n20_b.jpg,Two boys .\n'
BARS = """image_name| comment_number| comment
10_a.jpg| 0| A dog , wet .
10_a.jpg| 1| It says "go" .
20_b.jpg| 0| Two boys .
"""
TABS = '10_a.jpg#0\tA dog , wet .\n10_a.jpg#1\tIt says "go" .\n20_b.jpg#0\tTwo boys .\n'


def flickr_folder(folder, text=COMMAS, captions="captions.txt", images="Images"):
    """A folder with two photographs and a file of captions."""
    (folder / images).mkdir(parents=True)
    for number, name in enumerate(CAPTIONS):
        Image.fromarray(_photograph(number)).save(folder / images / name)
    (folder / captions).write_text(text, encoding="utf-8")
    return folder


def _photograph(seed):
    """Smooth random pixels (60, 90, 3): perceptual hashes look at low frequencies."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((90, 60), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("captions", "images", "text"),
    [
        ("captions.txt", "Images", COMMAS),
        ("results.csv", "flickr30k_images", BARS),
        ("Flickr8k.token.txt", "Flicker8k_Dataset", TABS),
        ("results_20130124.token", "flickr30k-images", TABS),
    ],
    ids=lambda value: value if len(value) < 30 else "",
)
def test_every_layout_of_flickr_gives_the_same_pairs(tmp_path, captions, images, text):
    pairs, left_out = gathered(flickr(flickr_folder(tmp_path / "flickr", text, captions, images)))
    assert pairs == CAPTIONS
    assert left_out == {}


def test_bad_rows_and_images_are_left_out_and_the_others_stay(tmp_path):
    rows = [
        "20_b.jpg,one, two",
        "10_a.jpg,",
        "10_a.jpg",
        "../10_a.jpg,elsewhere",
        ",of nothing",
        "30_gone.jpg,nobody has it",
        "40_torn.jpg,half a picture",
        "50_line.png,a line",
        "60_text.jpg,a text",
    ]
    folder = flickr_folder(tmp_path / "flickr", COMMAS + "\n" + "\n".join(rows))
    images = folder / "Images"
    (images / "40_torn.jpg").write_bytes((images / "10_a.jpg").read_bytes()[:-300])
    Image.new("1", (17_000, 1)).save(images / "50_line.png")
    (images / "60_text.jpg").write_text("no picture")
    pairs, left_out = gathered(flickr(folder))
    assert pairs == CAPTIONS
    captions = folder / "captions.txt"
    assert left_out == {
        "malformed": [
            f"{captions}, row 6: more cells than columns: quote texts that contain a comma.",
            f"{captions}, row 9: the name '../10_a.jpg' is not a plain file name without folders.",
            f"{captions}, row 10: the name '' is not a plain file name without folders.",
        ],
        "without a caption": [
            f"{captions}, row {number}: the caption of 10_a.jpg is empty: write one, or leave the row out."
            for number in (7, 8)
        ],
        "missing": [f"There is no image {images}/30_gone.jpg: put it there, or leave its captions out."],
        "undecodable": [
            f"{images}/40_torn.jpg cannot be read as a picture: replace it, or leave it out.",
            f"{images}/50_line.png is too narrow, 17000 x 1 pixels: leave it out.",
            f"{images}/60_text.jpg cannot be read as a picture: replace it, or leave it out.",
        ],
    }


def test_a_row_of_flickr30k_without_its_bar_has_no_caption(tmp_path):
    """The public results.csv has such a row."""
    text = BARS + "20_b.jpg| 4   A dog runs across the grass .\n"
    pairs, left_out = gathered(flickr(flickr_folder(tmp_path / "flickr", text, "results.csv")))
    assert pairs == CAPTIONS
    assert list(left_out) == ["without a caption"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,text\n10_a.jpg,a dog\n", "captions.txt has no column 'caption': give the captions of Flickr8k"),
        (BARS, "captions.txt has no column 'image'"),
        ("image,caption\n", "captions.txt has no captions: get it again"),
        ("", "captions.txt has no captions: get it again"),
        (
            "image,caption\n7.jpg,a\n8.jpg,b\n",
            r"None of the 2 images that .* names is in .*, the first is 7\.jpg: give",
        ),
        ("image,caption\n" + "x" * 200_000, r"Cannot read .*captions.txt: field larger than field limit"),
    ],
)
def test_captions_of_another_release_are_refused(tmp_path, text, says):
    folder = flickr_folder(tmp_path / "flickr", text)
    with pytest.raises(PairsError, match=says):
        flickr(folder)  # before any picture is read


def test_a_folder_without_captions_or_images_is_refused(tmp_path):
    with pytest.raises(PairsError, match=r"no captions.txt or results.csv .*: give the folder of Flickr8k"):
        flickr(tmp_path)
    (tmp_path / "captions.txt").write_bytes(COMMAS.encode("utf-16"))
    with pytest.raises(PairsError, match=r"no Images or .* in .*: give the folder of Flickr8k or Flickr30k"):
        flickr(tmp_path)
    (tmp_path / "Images").touch()
    with pytest.raises(PairsError, match=r"Cannot read .*captions.txt: it is not UTF-8 text: get it again"):
        flickr(tmp_path)
    (tmp_path / "captions.txt").write_text(COMMAS)
    with pytest.raises(PairsError, match=r"Cannot list .*Images: not a directory"):
        flickr(tmp_path)


# --- Gathering ---


@pytest.fixture
def held_out(tmp_path, monkeypatch):
    """A demo corpus with one test clip, which looks like the second photograph."""
    clip = write_video(tmp_path / "clip.mp4", [_photograph(1)] * 3, size=(90, 60))
    corpus = Corpus("demo", (Clip("c", clip, "test", "g", ("a photograph",)),))
    monkeypatch.setattr(gathering, "build_demo", lambda: corpus)


def test_counts_what_is_left_out_and_shows_the_first_of_each_kind(tmp_path, held_out):
    folder = flickr_folder(tmp_path / "flickr", COMMAS + "3.jpg,gone\n4.jpg,gone too\n")
    lines = []
    index = prepare_pairs(tmp_path / "out", ["flickr"], tmp_path, lines.append, {"flickr": folder})
    counts = index["sources"]["flickr"]
    assert counts["left_out"] == {"missing": 2, "close to a held-out clip": 1}
    assert counts["packages"] == {"Flickr": "non-commercial research and education"}
    assert read_index(tmp_path / "out") == index
    assert [pair.file for pair in read_shards(tmp_path / "out")] == ["10_a.jpg"]
    assert lines[1:] == [
        f"flickr: left out: There is no image {folder}/Images/3.jpg: put it there, or leave its captions out.",
        "flickr: 1 pairs, 1 pictures, 2 texts; left out: 1 close to a held-out clip, 2 missing",
    ]


def test_an_error_leaves_the_pairs_of_an_earlier_run_as_they_were(tmp_path, held_out, monkeypatch):
    folders = {"flickr": flickr_folder(tmp_path / "flickr")}
    prepare_pairs(tmp_path / "out", ["flickr"], tmp_path, lambda line: None, folders)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fails(folder):
        yield from flickr(folder)
        raise PairsError("The disk was pulled out.")

    monkeypatch.setitem(SOURCES, "flickr", Source((), fails, ("--flickr8k",)))
    with pytest.raises(PairsError, match="pulled out"):
        prepare_pairs(tmp_path / "out", ["flickr"], tmp_path, lambda line: None, folders)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_data_sets_are_among_the_default_sources_only_with_their_folders(tmp_path):
    packages = [name for name in SOURCES if name not in ("msrvtt", "flickr")]
    assert default_sources({}) == packages
    assert default_sources({"flickr": tmp_path}) == [*packages, "flickr"]
    assert default_sources({"flickr": tmp_path, "msrvtt": tmp_path}) == [*packages, "msrvtt", "flickr"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--sources", "msrvtt"], "The source 'msrvtt' is read from a folder: give it with --msrvtt."),
        (["--sources", "flickr"], "The source 'flickr' is read from a folder: give it with --flickr8k or --flickr30k."),
        (["--sources", "demo", "--msrvtt", "x"], "There is a folder for 'msrvtt', which is not among the sources"),
        (["--sources", "demo,demo"], "The source 'demo' is named twice"),
        (["--sources", "msrvtt", "--msrvtt", "/nowhere"], "There is no folder /nowhere: give the folder of MSR-VTT"),
        (["--sources", "flickr", "--flickr30k", "/nowhere"], "There is no captions.txt or results.csv"),
        (["--flickr8k", "a", "--flickr30k", "b"], "not allowed with argument"),
    ],
)
def test_the_command_refuses_sources_without_folders_before_any_work(tmp_path, capsys, flags, says):
    try:
        code = main(["pairs", "--out", str(tmp_path / "out"), *flags])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_gathers_a_data_set_from_its_folder(tmp_path, held_out, capsys):
    folder = flickr_folder(tmp_path / "flickr", BARS, "results.csv", "flickr30k_images")
    assert main(["pairs", "--out", str(tmp_path / "out"), "--sources", "flickr", "--flickr30k", str(folder)]) == 0
    assert capsys.readouterr().out == f"Wrote 1 pairs to {tmp_path / 'out'}\n"
    (pair,) = read_shards(tmp_path / "out")
    assert pair.texts == CAPTIONS["10_a.jpg"]
    assert open_picture(pair.pictures[0], "it").size == (90, 60)


@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        ([], []),
        (["MSRVTT=/data/ms rvtt"], ["--msrvtt", "/data/ms rvtt"]),
        (["MSRVTT=a", "FLICKR8K=b"], ["--msrvtt", "a", "--flickr8k", "b"]),
        (["FLICKR30K=c"], ["--flickr30k", "c"]),
    ],
)
def test_make_passes_the_folders_of_data_sets(variables, flags):
    made = subprocess.run(
        ["make", "--dry-run", "pairs", *variables], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    (line,) = (line for line in made.stdout.splitlines() if " -m dits pairs " in line)
    assert shlex.split(line)[3:] == ["pairs", "--out", "runs/pairs", "--root", "/", *flags]
