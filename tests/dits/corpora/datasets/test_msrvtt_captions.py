"""All sentences of MSR-VTT's JSON for given videos."""

import json

import pytest

from dits.common.errors import CorpusError
from dits.corpora.datasets.annotations import MissingAnnotationsError
from dits.corpora.datasets.msrvtt_captions import all_captions


@pytest.fixture
def folder(tmp_path):
    sentences = [
        {"caption": " a  dog ", "video_id": "video7", "sen_id": 0},
        {"caption": "a cat", "video_id": "video8", "sen_id": 1},
        {"caption": "", "video_id": "video7", "sen_id": 2},
        {"caption": "a dog runs", "video_id": "video7", "sen_id": 3},
    ]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "MSRVTT_data.json").write_text(json.dumps({"sentences": sentences, "videos": []}))
    return tmp_path


@pytest.mark.parametrize("name", ["msrvtt", "msrvtt-7k", "msrvtt-all", "msrvtt-7k-all"])
def test_the_sentences_of_the_videos_in_the_files_order(name, folder):
    known = all_captions(f"{name}:{folder}", ["video7", "video9"])
    assert known == {"video7": ["a dog", "a dog runs"]}


@pytest.mark.parametrize("name", ["demo", "didemo:somewhere", "own.csv", "some/msrvtt"])
def test_other_corpora_have_no_more(name):
    assert all_captions(name, ["video7"]) == {}


def test_a_missing_or_other_file_is_named(folder):
    path = folder / "annotations" / "MSRVTT_data.json"
    path.write_text("{}")
    with pytest.raises(CorpusError, match="has no list 'sentences'"):
        all_captions(f"msrvtt:{folder}", [])
    path.unlink()
    with pytest.raises(MissingAnnotationsError, match=r"There is no MSRVTT_data\.json"):
        all_captions(f"msrvtt:{folder}", [])
