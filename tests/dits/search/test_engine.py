"""Search over the demo corpus with what the repository ships."""

import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import InputError
from dits.corpora.demo import demo_corpus
from dits.corpora.embeddings import load_embeddings, shipped_path
from dits.models.pooling import mean_pool
from tests.helpers.plain import xpool_similarity

QUERY = "a dog riding a skateboard"


def test_scores_are_those_of_the_plain_definition(engine):
    """Encoder, sampler step by step, X-Pool pair by pair: the ranking of `dits`, without the exact scorer."""
    result = engine.search(QUERY, "dits", 100)
    model = engine.methods["dits"].model
    text = engine.encoder.encode_text([QUERY])
    with torch.no_grad():
        aligned = model.trajectory(text)[-1]
        scores = xpool_similarity(model.pooling, text, aligned, engine.embeddings.frames)[0]
    order = torch.argsort(scores, descending=True)[:100]
    assert [hit.clip.id for hit in result.hits] == [engine.corpus.ids[i] for i in order]
    assert [hit.score for hit in result.hits] == pytest.approx(scores[order].tolist(), abs=1e-4)


def test_mean_pooling_is_the_cosine_with_the_mean_frame(engine):
    text = F.normalize(engine.encoder.encode_text([QUERY]), dim=-1)
    scores = (text @ mean_pool(engine.embeddings.frames).T)[0]
    assert engine.search(QUERY, "mean", 1).hits[0].score == pytest.approx(float(scores.max()), abs=1e-5)


def test_a_score_is_placed_among_the_querys_scores(engine):
    hits = engine.search(QUERY, "xpool", 100).hits
    model = engine.methods["xpool"].model
    text = engine.encoder.encode_text([QUERY])
    with torch.no_grad():
        scores = xpool_similarity(model.pooling, text, text, engine.embeddings.frames)[0]
    expected = (float(scores.max()) - float(scores.mean())) / float(scores.std())
    assert hits[0].deviations == pytest.approx(expected, abs=1e-2)


def test_frames_carry_xpools_attention(engine):
    hit = engine.search(QUERY, "dits", 1).hits[0]
    row = engine.corpus.ids.index(hit.clip.id)
    pooling = engine.methods["dits"].model.pooling
    with torch.no_grad():
        weights = pooling.attention(engine.encoder.encode_text([QUERY]), engine.embeddings.frames[row : row + 1])
    assert [frame.weight for frame in hit.frames] == pytest.approx(weights[0, 0, 0].tolist(), abs=1e-4)
    assert sum(frame.weight for frame in hit.frames) == pytest.approx(1, abs=1e-4)
    times = [frame.time for frame in hit.frames]
    assert times == sorted(times)
    assert hit.best_moment == max(hit.frames, key=lambda frame: frame.weight).time


def test_mean_pooling_opens_at_the_frame_nearest_to_the_text(engine):
    hit = engine.search(QUERY, "mean", 1).hits[0]
    frames = engine.embeddings.frames[engine.corpus.ids.index(hit.clip.id)]
    nearest = int(F.cosine_similarity(engine.encoder.encode_text([QUERY]), frames, dim=-1).argmax())
    assert hit.best_moment == hit.frames[nearest].time
    assert [frame.weight for frame in hit.frames] == pytest.approx([1 / 12] * 12)


def test_ranks_under_every_method(engine):
    results = engine.search_all(QUERY, 100)
    assert set(results) == {"mean", "xpool", "dits"}
    for method, result in results.items():
        for hit in result.hits:
            assert hit.ranks[method] == hit.rank
    places = {hit.clip.id: hit.rank for hit in results["mean"].hits}
    for hit in results["dits"].hits:
        if hit.clip.id in places:
            assert hit.ranks["mean"] == places[hit.clip.id]


def test_same_query_same_answer(engine):
    assert engine.search(QUERY).as_dict() == engine.search(f"  {QUERY}\n").as_dict()


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\x00\x07", "\u200b", " \u200d\u200b "])
def test_refuses_an_empty_query(engine, text):
    with pytest.raises(InputError, match="query is empty"):
        engine.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "🐶🛹",
        "一只狗在玩滑板",
        "собака на скейте",
        "'; DROP TABLE clips; --",
        '<img src=x onerror="alert(1)">',
        "\ud800 lone surrogate",
        "a" * 300,
    ],
)
def test_takes_any_text(engine, text):
    assert len(engine.search(text, top=3).hits) == 3


def test_says_when_it_cannot_read_a_query(engine):
    assert "no words for most of this query" in engine.search("🐶🛹").notice
    assert engine.search("a dog 🐶 on a skateboard").notice is None


def test_joined_emoji_and_new_emoji_are_kept(engine):
    for text in ("👨\u200d👩\u200d👧", "\U0001fae8"):
        assert engine.search(text, top=1).query == text


def test_says_where_a_long_query_was_cut(engine):
    result = engine.search("a dog rides a skateboard " * 400)
    assert "longer than the encoder reads: it was cut after" in result.notice
    assert engine.search(QUERY).notice is None


@pytest.mark.parametrize("top", [0, -1, 101])
def test_refuses_impossible_counts(engine, top):
    with pytest.raises(InputError, match="from 1 to 100"):
        engine.search(QUERY, top=top)


def test_refuses_an_unknown_method(engine):
    with pytest.raises(InputError, match="no method 'magic'"):
        engine.search(QUERY, "magic")


def test_shipped_embeddings_fit_the_corpus_and_the_encoder(engine):
    corpus = demo_corpus()
    shipped = load_embeddings(shipped_path(corpus, engine.encoder), corpus, engine.encoder)
    assert torch.equal(shipped.frames, engine.embeddings.frames)
    assert engine.notices == ()


def test_shipped_embeddings_are_those_of_the_built_clips(engine):
    """Three clips decoded and embedded anew. They were encoded (H.264) on this machine, and encoders differ between
    processors, so nearly equal will do; no other clip is nearer.
    """
    from dits.corpora.corpus import Corpus
    from dits.corpora.embeddings import embed_corpus

    some = Corpus("demo", engine.corpus.clips[::100])
    fresh = embed_corpus(some, engine.encoder)
    shipped = engine.embeddings.select(some.ids)
    assert float(F.cosine_similarity(fresh.frames, shipped.frames, dim=-1).min()) > 0.97
    means = (F.normalize(of.frames.float().mean(dim=1), dim=-1) for of in (fresh, engine.embeddings))
    nearest = (next(means) @ next(means).T).argmax(dim=1)
    assert [engine.embeddings.ids[row] for row in nearest] == list(some.ids)
    torch.testing.assert_close(fresh.times, shipped.times)
