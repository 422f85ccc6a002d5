"""The features of a corpus: what they are, and that they are computed once."""

from dataclasses import replace

import pytest
import torch

from analysis.comparison.features import corpus_features
from analysis.comparison.preparation import prepare, shown_command
from dits.common.errors import InputError
from dits.corpora.embeddings import embed_corpus
from dits.corpora.names import open_corpus
from dits.models.network import AlignmentConfig
from dits.training.config import TrainingConfig
from tests.conftest import TINY, write_open_clip_folder


@pytest.fixture
def tiny(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    return open_corpus(str(tiny_corpus))


def features_of(corpus, encoder, more=None):
    return corpus_features(corpus, encoder, more or {}, lambda *_: None, print)


def test_the_projected_features_are_the_encoders_embeddings(tiny, tiny_encoder):
    """Up to the rounding to float16 in both caches."""
    corpus = features_of(tiny, tiny_encoder)
    features = corpus.read()
    for name, split in (("train", corpus.train), ("test", corpus.queries["all"])):
        clips = tiny.split(name)
        data = features.part(split, "frozen")
        captions = [caption for clip in clips for caption in clip.captions]
        torch.testing.assert_close(data.texts, tiny_encoder.encode_text(captions), rtol=0, atol=5e-3)
        torch.testing.assert_close(data.frames, embed_corpus(clips, tiny_encoder, workers=0).frames, rtol=0, atol=5e-3)
        assert data.video_of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    one = features.part(corpus.queries["one"], "joint")
    torch.testing.assert_close(one.texts, features.part(corpus.queries["all"], "joint").texts[::2])
    assert corpus.frame_count == 12
    assert corpus.temperature == pytest.approx(tiny_encoder.temperature)


def test_they_are_computed_once_and_known_by_what_they_are_made_of(tiny, tiny_encoder, monkeypatch):
    first = features_of(tiny, tiny_encoder)
    more = {"clip2": ["another caption", "a third"]}
    extended = features_of(tiny, tiny_encoder, more)
    monkeypatch.setattr("torch.nn.functional.conv2d", None)  # the image tower cannot run
    again = features_of(tiny, tiny_encoder, more)
    assert again.key == extended.key != first.key
    assert again.texts == extended.texts
    assert len(extended.queries["all"].captions) == 8
    captions = [*first.queries["all"].captions, *extended.queries["all"].captions]
    assert len(captions) == 16


def test_one_caption_a_video_is_one_query_set(tiny, tiny_encoder):
    single = replace(tiny, clips=tuple(replace(clip, captions=clip.captions[:1]) for clip in tiny))
    assert list(features_of(single, tiny_encoder).queries) == ["one"]


def test_an_encoder_without_linear_projections_is_compared_frozen(tiny_corpus, tiny, tmp_path):
    """Its features are its embeddings."""
    resnet = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}  # pools and projects by attention
    write_open_clip_folder(tmp_path / "resnet", TINY | {"vision_cfg": resnet})

    def plan(joint):
        return prepare(
            str(tiny_corpus), f"local-dir:{tmp_path / 'resnet'}", TrainingConfig(temperature=0.0),
            lambda dim: AlignmentConfig(dim=dim, heads=4), joint, "test", lambda *_: None, print,
        )  # fmt: skip

    frozen = plan(joint=False)
    assert frozen.corpus.projections == {}
    assert frozen.training.temperature == pytest.approx(frozen.corpus.temperature)
    data = frozen.corpus.read().part(frozen.corpus.train, "frozen")
    assert data.texts.shape[1] == data.frames.shape[2] == 32
    with pytest.raises(InputError, match="cannot be trained: compare in the frozen mode alone"):
        plan(joint=True)


def test_the_shown_command_names_no_folder_of_the_machine():
    shown = shown_command(
        ["compare", "--corpus", "msrvtt:/home/me/data", "--encoder=local-dir:/home/me/enc", "--out", "reports/x"]
    )
    assert shown == "python -m analysis compare --corpus msrvtt:DIR --encoder=local-dir:DIR --out reports/x"
    assert shown_command(["compare", "--corpus", "demo"]) == "python -m analysis compare --corpus demo"
