import pytest
import torch

from dits.common.errors import CorpusError
from dits.corpora.embeddings import (
    FRAMES,
    cached_path,
    corpus_embeddings,
    embed_corpus,
    load_embeddings,
    save_embeddings,
)
from dits.corpora.names import open_corpus
from dits.video.sampling import sample_frames


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
