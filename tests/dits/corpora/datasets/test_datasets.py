"""The readers of the benchmarks, on fixtures in the official formats whose contents are counted by hand."""

import hashlib
import json
import shutil
from collections import Counter

import numpy as np
import pytest

from dits.common.errors import CorpusError, InputError
from dits.corpora.datasets import DATASETS, load_dataset, load_table
from dits.corpora.datasets.annotations import hold_out
from dits.corpora.datasets.didemo import printed_number
from dits.corpora.datasets.lsmdc import UNREADABLE, movie_of
from dits.corpora.datasets.videos import VideoFolders
from dits.corpora.embeddings import cached_path, embed_corpus
from dits.corpora.names import open_corpus
from dits.video.sampling import sample_frames
from tests.fixtures.make_datasets import (
    DIDEMO,
    LSMDC_TEST,
    LSMDC_TRAIN,
    MSRVTT_TRAIN,
    VATEX,
    make_datasets,
    smallest_clips,
)
from tests.helpers.videos import write_video


@pytest.fixture(scope="module")
def datasets(demo, tmp_path_factory):
    return make_datasets(tmp_path_factory.mktemp("datasets"), demo)


def copied(source, target):
    """A copy that a test may damage; links to videos remain links."""
    return shutil.copytree(source, target, symlinks=True)


def counts(corpus):
    return Counter(clip.split for clip in corpus)


def by_id(corpus):
    return {clip.id: clip for clip in corpus}


# --- MSR-VTT ---


def test_msrvtt_has_twenty_captions_in_training_and_those_of_the_csv_in_test(demo, datasets):
    loaded = load_dataset("msrvtt", datasets["msrvtt"])
    clips = by_id(loaded.corpus)
    assert counts(loaded.corpus) == {"train": 6, "validation": 1, "test": 5}
    assert {len(clip.captions) for clip in clips.values() if clip.split != "test"} == {20}
    sentences = json.loads((datasets["msrvtt"] / "MSRVTT_data.json").read_text())["sentences"]
    of_video2 = sorted((item["sen_id"], item["caption"]) for item in sentences if item["video_id"] == "video2")
    assert clips["video2"].captions == tuple(caption for _, caption in of_video2)
    smallest = smallest_clips(demo)
    assert clips["video8"].captions == (smallest[8].captions[1],)
    assert clips["video11"].captions == (smallest[11].captions[0], smallest[11].captions[1])  # two rows
    assert clips["video7"].path == datasets["msrvtt"] / "video7.mp4"
    assert clips["video7"].path.samefile(smallest[7].path)


def test_msrvtt_reports_missing_left_out_and_repeated_content(datasets):
    loaded = load_dataset("msrvtt", datasets["msrvtt"])
    assert loaded.missing == {"train": ("video15",), "validation": (), "test": ("video14",)}
    assert [path.name for path in loaded.unused] == ["video99.mp4"]
    said = " ".join(loaded.notices)
    assert "1 of 7 train videos, the first is video15" in said
    assert "videos without a caption (1, the first is video13)" in said
    assert "Repeated: 1 of 6 test captions" in said
    assert "list 6 test videos, not 1000" in said
    clips = by_id(loaded.corpus)
    assert clips["video7"].captions == clips["video10"].captions


def test_msrvtt_holds_out_the_smallest_hashes_or_none(datasets):
    loaded = load_dataset("msrvtt", datasets["msrvtt"])
    held = min(MSRVTT_TRAIN, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert [clip.id for clip in loaded.corpus if clip.split == "validation"] == [held]
    whole = load_dataset("msrvtt-all", datasets["msrvtt"])
    assert counts(whole.corpus) == {"train": 7, "test": 5}
    smaller = load_dataset("msrvtt-7k", datasets["msrvtt"])
    assert counts(smaller.corpus) == {"train": 4, "validation": 1, "test": 5}
    assert counts(load_dataset("msrvtt-7k-all", datasets["msrvtt"]).corpus) == {"train": 5, "test": 5}


def with_changed_json(source, target, change):
    """A copy of MSR-VTT whose JSON is changed."""
    path = copied(source, target) / "MSRVTT_data.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return target


def test_msrvtt_validates_on_the_listed_videos_of_the_official_validation_split(datasets, tmp_path):
    official = {"video1", "video5", "video8", "video12"}  # video8 is a test video, video5 is in the list of 9k only

    def mark(content):
        for video in content["videos"]:
            video["split"] = "validate" if video["video_id"] in official else "train"

    root = with_changed_json(datasets["msrvtt"], tmp_path / "msrvtt", mark)
    corpus = load_dataset("msrvtt", root).corpus
    assert corpus.split("validation").ids == ["video1", "video5"]
    assert sorted(corpus.split("train").ids) == ["video0", "video2", "video3", "video4", "video6"]
    assert corpus.split("test").ids == load_dataset("msrvtt", datasets["msrvtt"]).corpus.split("test").ids
    assert load_dataset("msrvtt-7k", root).corpus.split("validation").ids == ["video1"]
    whole = load_dataset("msrvtt-all", root).corpus
    assert whole.split("train").ids == load_dataset("msrvtt-all", datasets["msrvtt"]).corpus.split("train").ids


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("videos"),
        lambda content: content.update(videos={"video1": "validate"}),
        lambda content: content.update(videos=["video1", None, {"split": "validate"}, {"video_id": "video1"}]),
    ],
)
def test_msrvtt_without_official_splits_holds_out_videos_by_their_hashes(datasets, tmp_path, change):
    root = with_changed_json(datasets["msrvtt"], tmp_path / "msrvtt", change)
    for name in ("msrvtt", "msrvtt-7k"):
        held_out = load_dataset(name, datasets["msrvtt"]).corpus.split("validation").ids
        assert load_dataset(name, root).corpus.split("validation").ids == held_out


@pytest.mark.parametrize("name", ["msrvtt", "msrvtt-7k"])
def test_a_test_video_without_a_sentence_is_not_trained_on(datasets, tmp_path, name):
    root = copied(datasets["msrvtt"], tmp_path / "msrvtt")
    with (root / "MSRVTT_JSFUSION_test.csv").open("a", encoding="utf-8") as stream:
        stream.write("ret9,msr2,video2,\n")
    assert "video2" not in load_dataset(name, root).corpus.ids
    assert "video2" in load_dataset(name, datasets["msrvtt"]).corpus.split("train").ids


def test_the_validation_split_of_msrvtt_has_497_videos_and_does_not_depend_on_the_order():
    ids = [f"video{n}" for n in range(9000)]
    held = hold_out(ids, 497)
    assert len(held) == 497
    assert held == hold_out(reversed(ids), 497)
    assert held == set(sorted(ids, key=lambda video: hashlib.sha256(video.encode()).hexdigest())[:497])
    assert len(hold_out(ids[:60], 497)) == 6  # never more than a tenth
    assert hold_out(ids[:1], 497) == set()


# --- LSMDC ---


def test_lsmdc_keeps_every_row_or_the_last(datasets):
    every = by_id(load_dataset("lsmdc", datasets["lsmdc"]).corpus)
    last = by_id(load_dataset("lsmdc-last", datasets["lsmdc"]).corpus)
    assert every[LSMDC_TRAIN[0]].captions == ("SOMEONE sits in a café.", "SOMEONE stands up.")
    assert last[LSMDC_TRAIN[0]].captions == ("SOMEONE stands up.",)
    assert every.keys() == last.keys()


def test_lsmdc_strips_the_quote_and_leaves_out_the_unreadable_clip(datasets):
    loaded = load_dataset("lsmdc", datasets["lsmdc"])
    clips = by_id(loaded.corpus)
    assert clips[LSMDC_TRAIN[1]].captions == ('He says "go", and leaves.',)
    assert UNREADABLE not in clips
    assert loaded.missing["train"] == (LSMDC_TRAIN[4],)  # the unreadable clip does not count as missing
    assert f"Left out: the training clip {UNREADABLE}" in " ".join(loaded.notices)
    assert counts(loaded.corpus) == {"train": 4, "validation": 2, "test": 4}


def test_lsmdc_searches_the_movie_folder_and_its_parent(datasets):
    clips = by_id(load_dataset("lsmdc", datasets["lsmdc"]).corpus)
    assert movie_of(UNREADABLE) == "1012_Unbreakable"
    assert clips[LSMDC_TEST[0]].path == datasets["lsmdc"] / "3001_21_JUMP_STREET" / f"{LSMDC_TEST[0]}.avi"
    assert clips[LSMDC_TEST[3]].path == datasets["lsmdc"] / f"{LSMDC_TEST[3]}.mp4"


def test_a_closing_quote_is_removed_with_the_opening_one(datasets, tmp_path):
    root = copied(datasets["lsmdc"], tmp_path / "lsmdc")
    test_file = root / "LSMDC16_challenge_1000_publictect.csv"
    lines = test_file.read_text().splitlines()
    lines[0] = f'"{lines[0]}"'
    test_file.write_text("\n".join(lines))
    test_file.rename(root / "LSMDC16_challenge_1000_publictest.csv")  # spelt right
    assert by_id(load_dataset("lsmdc", root).corpus)[LSMDC_TEST[0]].captions == ("He nods.",)


# --- DiDeMo ---


def test_didemo_joins_descriptions_in_file_order(datasets):
    loaded = load_dataset("didemo", datasets["didemo-json"])
    clips = by_id(loaded.corpus)
    items = json.loads((datasets["didemo-json"] / "train_data.json").read_text())
    name = DIDEMO["train"][1]
    joined = " ".join(item["description"] for item in items if item["video"] == name)
    assert clips[name].captions == (" ".join(joined.split()),)
    assert len(clips[DIDEMO["train"][0]].captions[0].split()) > 77
    assert counts(loaded.corpus) == {"train": 2, "validation": 1, "test": 2}
    assert {(clip.start, clip.end) for clip in clips.values()} == {(0.0, 31.0)}


def test_didemo_finds_the_named_or_the_converted_file(datasets):
    loaded = load_dataset("didemo-json", datasets["didemo-json"])
    files = {clip.id: clip.path.name for clip in loaded.corpus}
    assert files == {
        "26292851@N04_4253489686_265c3c8051.m4v": "26292851@N04_4253489686_265c3c8051.m4v",
        "51035693821@N01_7071386095_a7350f43e0.mpg": "51035693821@N01_7071386095_a7350f43e0.mp4",
        "65430553@N08_7599657594_57ef62657c.avi": "65430553@N08_7599657594_57ef62657c.avi",
        "58792004@N06_8544469262_fd25eddb2e.": "58792004@N06_8544469262_fd25eddb2e.",
        "8485866@N03_2731880094_5632455f46.mpg": "8485866@N03_2731880094_5632455f46.mpg.mp4",
    }
    assert loaded.missing["test"] == ("3@N00_4_b.3gp",)


def test_didemo_reads_printed_tensors(demo, datasets):
    loaded = load_dataset("didemo", datasets["didemo-csv"])  # there is no JSON in this folder
    assert counts(loaded.corpus) == {"train": 2, "validation": 1, "test": 2}
    assert {(clip.start, clip.end) for clip in loaded.corpus} == {(0.0, 31.0)}
    smallest = smallest_clips(demo)
    assert by_id(loaded.corpus)[DIDEMO["val"][0]].captions == (". ".join(smallest[1].captions[:3]),)
    assert printed_number("tensor([[31]])", "") == printed_number("tensor([31])", "") == 31
    assert printed_number("tensor([[2.5]], dtype=float)", "") == 2.5


def test_didemo_lists_select_described_videos(datasets, tmp_path):
    root = copied(datasets["didemo-json"], tmp_path / "didemo")
    (root / "test_list.txt").write_text(f"{DIDEMO['test'][0]}\nnever_described.mp4\n")
    loaded = load_dataset("didemo", root)
    assert [clip.id for clip in loaded.corpus if clip.split == "test"] == [DIDEMO["test"][0]]
    said = " ".join(loaded.notices)
    assert "Not used: 2 videos of test_data.json that are not in test_list.txt." in said
    assert "videos without a caption (1, the first is never_described.mp4)" in said


def test_didemo_prefers_the_official_files(datasets, tmp_path):
    root = copied(datasets["didemo-json"], tmp_path / "didemo")
    for path in datasets["didemo-csv"].glob("*.csv"):
        shutil.copy(path, root)
    captions = {name: load_dataset(name, root).corpus.clips[0].captions for name in DATASETS if "didemo" in name}
    assert captions["didemo"] == captions["didemo-json"] != captions["didemo-csv"]


# --- VATEX and Charades ---


def test_vatex_has_ten_captions_per_video_and_its_own_validation_split(datasets):
    loaded = load_dataset("vatex", datasets["vatex"])
    assert counts(loaded.corpus) == {"train": 3, "validation": 1, "test": 1}
    assert {len(clip.captions) for clip in loaded.corpus} == {10}
    assert loaded.corpus.split("train").ids == VATEX["trn"]
    assert len(loaded.corpus.split("test").queries()) == 10
    assert loaded.missing["test"] == (VATEX["tst"][1],)


def test_vatex_reads_text_lists_and_never_validates_on_the_test_videos(datasets):
    loaded = load_dataset("vatex", datasets["vatex-lists"])
    assert counts(loaded.corpus) == {"train": 3, "validation": 1, "test": 1}
    assert loaded.corpus.split("test").ids == [VATEX["tst"][0]]
    assert "no trn_names.npy" in " ".join(loaded.notices)


def test_vatex_names_may_be_bytes(datasets, tmp_path):
    root = copied(datasets["vatex"], tmp_path / "vatex")
    np.save(root / "trn_names.npy", np.array([name.encode() for name in VATEX["trn"]]))
    assert load_dataset("vatex", root).corpus.ids == load_dataset("vatex", datasets["vatex"]).corpus.ids


def test_charades_takes_the_script_from_folders_as_distributed(datasets):
    loaded = load_dataset("charades", datasets["charades"])
    clips = by_id(loaded.corpus)
    assert counts(loaded.corpus) == {"train": 3, "validation": 1, "test": 2}
    assert clips["46GP8"].captions == ('A person, tired, sits down and says "no".',)
    assert clips["MNB5H"].path == datasets["charades"] / "Charades_v1_480" / "MNB5H.mp4"
    assert loaded.missing["test"] == ("UU5K4",)
    assert "videos without a caption (1, the first is N11GT)" in " ".join(loaded.notices)
    assert counts(load_dataset("charades-all", datasets["charades"]).corpus) == {"train": 4, "test": 2}


# --- The user's own videos ---


def test_own_videos_have_captions_segments_groups_and_splits(datasets):
    loaded = load_table(datasets["own"])
    clips = by_id(loaded.corpus)
    assert clips["holiday/day 1/sea.mp4"].captions == ("the sea, at noon", "waves")
    assert clips["holiday/day 1/sea.mp4"].group == clips["holiday/town.mp4"].group == "holiday"
    assert (clips["party.mp4#t=0,0.5"].start, clips["party.mp4#t=0,0.5"].end) == (0.0, 0.5)
    assert (clips["party.mp4#t=0.5,"].start, clips["party.mp4#t=0.5,"].end) == (0.5, None)
    assert clips["party.mp4#t=0.5,"].group == "party.mp4"
    assert counts(loaded.corpus) == {"train": 2, "validation": 2, "test": 2}
    assert "cat.mp4" in clips  # "./cat.mp4" in the file
    assert loaded.missing["test"] == ("lost.mp4",)
    assert loaded.corpus.name == "videos"


def test_a_table_may_be_in_another_folder_and_contain_absolute_paths(datasets, tmp_path):
    table = tmp_path / "elsewhere.csv"
    table.write_text(f"video,caption\nparty,they dance\n{datasets['own'].parent / 'dog.mp4'},a dog\n")
    loaded = load_table(table, datasets["own"].parent)
    assert loaded.corpus.ids == ["party", "dog.mp4"]
    assert {clip.split for clip in loaded.corpus} == {"test"}
    assert loaded.corpus.clips[0].path.name == "party.mp4"


def test_only_the_segment_of_a_clip_is_embedded(tmp_path, tiny_encoder, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    shades = [np.full((48, 64, 3), value, np.uint8) for value in (30, 220) for _ in range(30)]
    write_video(tmp_path / "two.mp4", shades, size=(64, 48))
    table = tmp_path / "t.csv"
    table.write_text("video,caption,start,end\ntwo.mp4,dark,0,1\ntwo.mp4,bright,1,2\ntwo.mp4,both,,\n")
    corpus = load_table(table).corpus
    embeddings = embed_corpus(corpus, tiny_encoder)
    assert embeddings.times[0].max() < 1 <= embeddings.times[1].min()
    sampled = sample_frames(corpus.clips[1].path, 12, size=tiny_encoder.frame_size, start=1, end=2)
    assert sampled.frames.mean() > 200
    assert (embeddings.frames[0] - embeddings.frames[1]).abs().max() > 1e-3
    ids = corpus.ids
    table.write_text("video,caption,start,end\ntwo.mp4,dark,0,0.5\ntwo.mp4,bright,1,2\ntwo.mp4,both,,\n")
    other = load_table(table).corpus
    assert cached_path(other, tiny_encoder) != cached_path(corpus, tiny_encoder)
    assert ids[1:] == other.ids[1:]


# --- All benchmarks ---


@pytest.mark.parametrize(
    ("name", "folder"),
    [("msrvtt", "msrvtt"), ("lsmdc", "lsmdc"), ("didemo", "didemo-csv"), ("vatex", "vatex"), ("charades", "charades")],
)
def test_every_found_video_decodes_and_no_test_video_is_trained_on(datasets, name, folder):
    corpus = load_dataset(name, datasets[folder]).corpus
    assert len(set(corpus.ids)) == len(corpus)
    for clip in corpus:
        assert sample_frames(clip.path, 1, size=32, start=clip.start, end=clip.end).frames.shape[0] == 1
        assert all(caption == " ".join(caption.split()) != "" for caption in clip.captions)


def test_annotations_may_be_in_another_folder_than_the_videos(datasets, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "root" / "videos").mkdir(parents=True)
    for path in datasets["msrvtt"].iterdir():
        folder = "root/videos" if path.suffix == ".mp4" else "annotations"
        shutil.copy(path, tmp_path / folder, follow_symlinks=False)
    apart = load_dataset("msrvtt", tmp_path / "root", annotations=tmp_path / "annotations").corpus
    assert apart.ids == load_dataset("msrvtt", datasets["msrvtt"]).corpus.ids
    (tmp_path / "annotations").rename(tmp_path / "root" / "annotations")
    assert load_dataset("msrvtt", tmp_path / "root").corpus == apart


def test_opening_a_split_without_videos_is_an_error(datasets, tmp_path):
    root = copied(datasets["lsmdc"], tmp_path / "lsmdc")
    shutil.rmtree(root / "1004_Juno")
    said = []
    corpus = open_corpus(f"lsmdc:{root}", notice=said.append)
    assert len(corpus.split("test")) == 4
    with pytest.raises(
        InputError, match=r"None of the 2 validation videos of LSMDC.* is in .*: put them there"
    ) as error:
        corpus.split("validation")
    assert str(error.value) in said


def test_strict_names_how_many_are_missing_and_the_first(datasets):
    with pytest.raises(CorpusError, match=r"not complete. Missing in .*: 1 of 7 train videos, the first is video15"):
        load_dataset("msrvtt", datasets["msrvtt"], strict=True)
    with pytest.raises(CorpusError, match=r"1 of 3 test videos, the first is lost.mp4"):
        open_corpus(str(datasets["own"]), strict=True)


def test_a_video_in_two_splits_is_not_trained_on(datasets, tmp_path):
    root = copied(datasets["vatex"], tmp_path / "vatex")
    np.save(root / "trn_names.npy", np.array([*VATEX["trn"], VATEX["tst"][0]]))
    loaded = load_dataset("vatex", root)
    assert by_id(loaded.corpus)[VATEX["tst"][0]].split == "test"
    assert loaded.corpus.split("train").ids == VATEX["trn"]
    assert (
        f"two splits, from the earlier one of train, validation and test (1, the first is {VATEX['tst'][0]})"
        in " ".join(loaded.notices)
    )


def test_names_never_lead_out_of_the_folder(tmp_path):
    (tmp_path / "root" / "inner").mkdir(parents=True)
    for path in ("secret.mp4", "root/a.MP4", "root/inner/b.avi", "root/c.mp4/"):
        (tmp_path / path).mkdir() if path.endswith("/") else (tmp_path / path).touch()
    videos = VideoFolders([tmp_path / "root", tmp_path / "nowhere"])
    assert videos.find(["a"]) == tmp_path / "root" / "a.MP4"
    assert videos.find(["inner/b"]) == tmp_path / "root" / "inner" / "b.avi"
    assert videos.find(["c"]) is None  # a folder
    for name in ("../secret", "../secret.mp4", f"{tmp_path}/secret.mp4", "inner/../../secret", "..", "."):
        assert videos.find([name]) is None
    assert videos.unused() == []


def test_folders_and_tables_are_named_as_the_user_gave_them(datasets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(datasets["vatex"])  # no name of a corpus here
    assert open_corpus("vatex:demo").clips[0].path.parent == tmp_path / "demo"
    (tmp_path / "videos.csv").symlink_to(datasets["own"])
    (tmp_path / "dog.mp4").symlink_to(datasets["own"].parent / "dog.mp4")
    assert open_corpus("videos.csv").ids == ["dog.mp4"]  # the only one beside the link
    for name in ("vatex:~nobody-at-all/x", "vatex:a\0b", "a\0b.csv"):
        with pytest.raises(InputError, match="There is no file or folder"):
            open_corpus(name)
