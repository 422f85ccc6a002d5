import csv
import re
from collections import Counter

import pytest

from dits.common.errors import CorpusError, InputError
from dits.corpora.corpus import Corpus, read_clips, read_queries
from dits.corpora.demo import CAPTIONS, SOURCES, demo_corpus

ROWS = "clip,group,split,caption\na,g1,train,one\na,g1,train,two\nb,g2,test,three\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_clips_with_their_captions_in_order(tmp_path):
    clips = read_clips(write(tmp_path / "captions.csv", ROWS), tmp_path)
    assert [(clip.id, clip.split, clip.captions) for clip in clips] == [
        ("a", "train", ("one", "two")),
        ("b", "test", ("three",)),
    ]
    assert clips[0].path == tmp_path / "a.mp4"


def test_splits_and_queries(tmp_path):
    corpus = Corpus("x", read_clips(write(tmp_path / "captions.csv", ROWS), tmp_path))
    assert corpus.split("test").ids == ["b"]
    assert corpus.split("all").ids == ["a", "b"]
    assert [query.caption for query in corpus.queries()] == ["one", "two", "three"]
    with pytest.raises(InputError, match="no split 'dev'"):
        corpus.split("dev")
    with pytest.raises(InputError, match="validation split of corpus 'x' is empty"):
        corpus.split("validation")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clip,group,split,caption\n../a,g1,train,one\n", "'../a' is not a plain file name"),
        ("clip,group,split,caption\n/etc/a,g1,train,one\n", "'/etc/a' is not a plain file name"),
        ("clip,group,split,caption\n..,g1,train,one\n", "'..' is not a plain file name"),
        ("clip,group,split,caption\na,g1,dev,one\n", "unknown split 'dev'"),
        ("clip,group,split,caption\na,g1,train,one\na,g1,test,two\n", "disagree on its group or split"),
        ("clip,group,split,caption\na,g1,train,one\nb,g1,test,two\n", "group g1 is in two splits"),
    ],
)
def test_refuses_inconsistent_captions(tmp_path, text, says):
    with pytest.raises(CorpusError, match=says):
        read_clips(write(tmp_path / "captions.csv", text), tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"video,caption\na,b\n", "no column 'video_id'"),
        (b"", "no column 'video_id'"),
        (b"video_id,caption\na,\n", "row 2: the column 'caption' is empty"),
        (b"video_id,caption\na\n", "row 2: the column 'caption' is empty"),
        (b"video_id,caption\n", "holds no queries"),
        (b"video_id,caption\na,\xff\xfe\n", "not UTF-8"),
    ],
)
def test_refuses_broken_query_files(tmp_path, content, says):
    path = tmp_path / "queries.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_queries(path)


def test_reads_queries_with_a_byte_order_mark_commas_and_quotes(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_bytes('\ufeffvideo_id,caption\na,"red, ""blue"" and green"\n'.encode())
    assert read_queries(path)[0].caption == 'red, "blue" and green'


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_queries(tmp_path / "none.csv")


class TestDemoCaptions:
    """The promises that assets/demo makes."""

    def test_sizes_of_the_splits(self):
        counts = Counter(clip.split for clip in demo_corpus())
        assert sum(counts.values()) >= 170
        assert counts["test"] >= 60
        assert counts["validation"] >= 30

    def test_no_group_spans_splits_and_test_and_validation_have_one_clip_per_group(self):
        clips = demo_corpus().clips
        for split in ("validation", "test"):
            groups = [clip.group for clip in clips if clip.split == split]
            assert len(groups) == len(set(groups))
        by_group = {}
        for clip in clips:
            assert by_group.setdefault(clip.group, clip.split) == clip.split

    def test_variants_of_one_template_share_a_group(self):
        groups = {}
        for clip in demo_corpus():
            assert groups.setdefault(re.sub(r"-\d+$", "", clip.id), clip.group) == clip.group

    def test_captions_are_five_plain_sentences(self):
        banned = re.compile(r"\b(video|clip|footage|we see)\b|_|\.webp|\d{3}", re.IGNORECASE)
        for clip in demo_corpus():
            assert len(set(clip.captions)) == 5
            for caption in clip.captions:
                assert 6 <= len(caption.split()) <= 20, caption
                assert not banned.search(caption), caption

    def test_every_clip_has_a_source_and_captions_are_unique(self):
        with SOURCES.open() as stream:
            assert [row["clip"] for row in csv.DictReader(stream)] == demo_corpus().ids
        with CAPTIONS.open() as stream:
            captions = [row["caption"].lower() for row in csv.DictReader(stream)]
        assert len(captions) == len(set(captions))
