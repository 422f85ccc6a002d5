import os

import pytest
import torch

from dits.common.errors import CorpusError
from dits.corpora.corpus import Clip, Corpus
from dits.corpora.embeddings import (
    FRAMES,
    cached_path,
    corpus_embeddings,
    embed_clips,
    embed_corpus,
    load_embeddings,
    save_embeddings,
    shipped_path,
)
from dits.corpora.names import open_corpus
from dits.video.sampling import sample_frames
from tests.helpers.videos import write_video


@pytest.fixture
def corpus(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path))
    return open_corpus(str(tiny_corpus))


def test_embeddings_are_those_of_the_sampled_frames(corpus, tiny_encoder):
    embeddings = embed_corpus(corpus, tiny_encoder)
    assert embeddings.frames.shape == (12, FRAMES, 32)
    sampled = sample_frames(corpus.clips[3].path, FRAMES, size=tiny_encoder.frame_size)
    expected = tiny_encoder.encode_frames(tiny_encoder.preprocess(sampled.frames)[None])[0]
    torch.testing.assert_close(embeddings.frames[3], expected, atol=5e-3, rtol=1e-3)  # rounded to float16
    assert embeddings.times[3].tolist() == pytest.approx(sampled.times.tolist())


def test_a_frame_that_a_short_clip_repeats_is_embedded_once(tiny_encoder, tmp_path):
    path = write_video(tmp_path / "short.mp4", 5, size=(64, 48), fps=2)
    sampled = sample_frames(path, FRAMES, size=tiny_encoder.frame_size)
    assert len(set(sampled.times.tolist())) == 5
    sizes = []
    hook = tiny_encoder.module.visual.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    try:
        frames, times = embed_clips([Clip("short", path, "test", "g", ())], tiny_encoder)
    finally:
        hook.remove()
    assert sum(sizes) == 5
    assert times[0].tolist() == pytest.approx(sampled.times.tolist())
    expected = tiny_encoder.encode_frames(tiny_encoder.preprocess(sampled.frames)[None])[0]
    torch.testing.assert_close(frames[0], expected.half().float(), atol=2**-10, rtol=2**-10)  # rounded to float16


def test_embeddings_are_cached_and_read_back(corpus, tiny_encoder):
    seen = []
    first = corpus_embeddings(corpus, tiny_encoder, lambda done, total: seen.append(done))
    assert seen == list(range(1, 13))
    again = corpus_embeddings(corpus, tiny_encoder, lambda done, total: seen.append(done))
    assert len(seen) == 12
    assert torch.equal(again.frames, first.frames)
    assert torch.equal(again.times, first.times)


def test_damaged_embeddings_are_computed_again_with_a_notice(corpus, tiny_encoder):
    path = cached_path(corpus, tiny_encoder)
    corpus_embeddings(corpus, tiny_encoder)
    path.write_bytes(path.read_bytes()[:2000])
    notices = []
    corpus_embeddings(corpus, tiny_encoder, notice=notices.append)
    assert notices == [f"The embeddings in {path} are damaged. They are computed again."]
    load_embeddings(path, corpus, tiny_encoder)


def test_refuses_embeddings_of_other_videos(corpus, tiny_encoder, tmp_path):
    test = corpus.split("test")
    save_embeddings(tmp_path / "test.safetensors", test, embed_corpus(test, tiny_encoder))
    with pytest.raises(CorpusError, match="of other videos or of another encoder"):
        load_embeddings(tmp_path / "test.safetensors", corpus, tiny_encoder)


def test_selecting_keeps_the_given_order(corpus, tiny_encoder):
    embeddings = embed_corpus(corpus, tiny_encoder)
    chosen = embeddings.select(["clip7", "clip2"])
    assert torch.equal(chosen.frames[0], embeddings.frames[7])
    with pytest.raises(CorpusError, match="no embeddings of clip99"):
        embeddings.select(["clip99"])


def test_an_interrupted_embedding_continues_where_it_stopped(corpus, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("dits.corpora.embeddings._CLIPS_PER_PART", 5)
    seen = []

    def interrupt(done, total):
        seen.append((done, total))
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus_embeddings(corpus, tiny_encoder, interrupt)
    resumed = corpus_embeddings(corpus, tiny_encoder, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in [*range(1, 8), *range(6, 13)]]
    torch.testing.assert_close(resumed.frames, embed_corpus(corpus, tiny_encoder).frames, atol=5e-3, rtol=1e-3)
    assert torch.equal(corpus_embeddings(corpus, tiny_encoder).frames, resumed.frames)
    assert list((tmp_path / "embeddings").iterdir()) == [cached_path(corpus, tiny_encoder)]


# --- Parts of a corpus ---


@pytest.fixture
def embed(corpus, tiny_encoder):
    """Embeds some videos of a corpus; returns the embeddings and the numbers that the progress showed."""

    def run(ids=None, of=corpus):
        seen = []
        return corpus_embeddings(of, tiny_encoder, lambda done, total: seen.append((done, total)), ids=ids), seen

    return run


def test_only_the_videos_that_are_asked_for_are_embedded(corpus, tiny_encoder, embed):
    ids = corpus.split("test").ids
    embeddings, seen = embed(ids)
    assert seen == [(done, 4) for done in range(1, 5)]
    assert embeddings.ids == tuple(ids)
    assert torch.equal(embeddings.frames, embed_corpus(corpus.split("test"), tiny_encoder).frames)
    reverse, seen = embed(ids[::-1])
    assert seen == []
    assert torch.equal(reverse.frames, embeddings.frames.flip(0))
    assert torch.equal(reverse.times, embeddings.times.flip(0))


def test_splits_share_what_is_cached_and_the_whole_replaces_them(corpus, tiny_encoder, tmp_path, embed):
    test, train = corpus.split("test").ids, corpus.split("train").ids
    embed(test)
    both, seen = embed(train + test)
    assert seen == [(done, 8) for done in range(5, 9)]
    assert len(list((tmp_path / "embeddings").iterdir())) == 1  # the file of both splits has replaced that of one
    again, seen = embed(test)
    assert seen == []
    assert torch.equal(again.frames, both.frames[4:])
    whole, seen = embed()
    assert seen == [(done, 12) for done in range(9, 13)]
    assert torch.equal(whole.frames, embed_corpus(corpus, tiny_encoder).frames)
    assert list((tmp_path / "embeddings").iterdir()) == [cached_path(corpus, tiny_encoder)]
    part, seen = embed(train)
    assert seen == []
    assert torch.equal(part.frames, whole.select(train).frames)


def test_an_interrupted_split_continues_for_another_request(corpus, tiny_encoder, monkeypatch, embed):
    monkeypatch.setattr("dits.corpora.embeddings._CLIPS_PER_PART", 3)

    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    test, train = corpus.split("test").ids, corpus.split("train").ids
    with pytest.raises(KeyboardInterrupt):
        corpus_embeddings(corpus, tiny_encoder, interrupt, ids=test)
    embeddings, seen = embed(train + test)
    assert seen == [(done, 8) for done in range(4, 9)]
    assert torch.equal(embeddings.select(test).frames, embed_corpus(corpus.split("test"), tiny_encoder).frames)


def test_corpora_of_the_same_files_share_cached_clips(corpus, embed):
    embed(corpus.split("test").ids)
    _, seen = embed(of=Corpus("smaller", corpus.split("test").clips))
    assert seen == []


def test_changed_files_and_other_parts_of_a_file_are_other_clips(corpus, embed):
    clip = corpus.split("test").clips[0]
    embed([clip.id])
    start = Corpus("parts", (Clip(clip.id, clip.path, "test", "g", (), 0.0, 0.2), *corpus.split("train").clips))
    assert len(embed([clip.id], start)[1]) == 1
    status = clip.path.stat()
    try:
        os.utime(clip.path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert len(embed([clip.id])[1]) == 1
    finally:
        os.utime(clip.path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("damage", [lambda data: data[:2000], lambda data: b"", lambda data: b"\xff" * 4000])
def test_damaged_parts_are_computed_again(corpus, tmp_path, embed, damage):
    ids = corpus.split("test").ids
    embeddings, _ = embed(ids)
    (path,) = (tmp_path / "embeddings").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again, seen = embed(ids)
    assert len(seen) == 4
    assert torch.equal(again.frames, embeddings.frames)
    assert embed(ids)[1] == []


def test_a_part_comes_from_the_shipped_embeddings_of_the_whole(corpus, tiny_encoder, tmp_path, monkeypatch, embed):
    monkeypatch.setattr("dits.corpora.embeddings.ASSETS", tmp_path / "assets")
    shipped = embed_corpus(corpus, tiny_encoder)
    save_embeddings(shipped_path(corpus, tiny_encoder), corpus, shipped)
    part, seen = embed(["clip7", "clip2"])
    assert seen == []
    assert torch.equal(part.frames, shipped.frames[[7, 2]])
    assert not (tmp_path / "embeddings").exists()


def test_videos_of_other_corpora_are_refused_before_any_work(embed):
    with pytest.raises(CorpusError, match=r"There is no video clip99 in corpus 'tiny'"):
        embed(["clip2", "clip99"])
