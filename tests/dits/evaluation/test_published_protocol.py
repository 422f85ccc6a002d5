"""X-Pool's retrieval against its published definition, written out one pair at a time, and the leak beside it.

The oracle shares no code with dits: its own LayerNorm, softmax, grouping of captions and ranks.
"""

import math

import numpy as np
import pytest
import torch

from dits.common.errors import InputError
from dits.evaluation.leak import leaky_scores
from dits.evaluation.metrics import evaluate_scores, ranks_of, video_to_text_ranks
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery

DIM = 32


def random_model(dim=DIM, seed=0):
    """X-Pool with every weight far from its initial value."""
    torch.manual_seed(seed)
    model = RetrievalModel(ModelConfig(method="xpool", pooling=PoolingConfig(dim=dim))).eval()
    for parameter in model.pooling.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def random_features(texts, videos, seed=1):
    """Texts near their videos, as trained encoders give them; not normalised."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    centres = draw(videos, DIM)
    targets = np.random.default_rng(seed).integers(0, videos, size=texts - videos)
    targets = np.random.default_rng(seed).permutation(np.concatenate([np.arange(videos), targets]))
    frames = 3 * (centres[:, None] + 0.7 * draw(videos, 12, DIM))
    return 2 * (centres[torch.from_numpy(targets)] + 1.5 * draw(texts, DIM)), frames, targets


def layer_norm(x, weights, name):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def pooled_by(text, video, weights):
    """One video (F, d) pooled by one text (d,), as X-Pool defines it (Gorti et al. 2022, section 3; one head)."""
    query = linear(layer_norm(text, weights, "norm_in"), weights, "query")
    normed = [layer_norm(frame, weights, "norm_in") for frame in video]
    logits = np.array([query @ linear(frame, weights, "key") / math.sqrt(len(text)) for frame in normed])
    attention = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    mixed = sum(a * linear(frame, weights, "value") for a, frame in zip(attention, normed, strict=True))
    attended = layer_norm(linear(mixed, weights, "output"), weights, "norm_attended")
    return layer_norm(attended + linear(attended, weights, "linear"), weights, "norm_out")


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def doubles(model, texts, frames):
    weights = {name: value.double().cpu().numpy() for name, value in model.pooling.state_dict().items()}
    return texts.double().numpy(), frames.double().numpy(), weights


def published_scores(model, texts, frames):
    """(texts, videos): video i pooled by text j for the pair (j, i)."""
    texts, frames, weights = doubles(model, texts, frames)
    return np.array([[cosine(text, pooled_by(text, video, weights)) for video in frames] for text in texts])


def published_leaky_scores(model, texts, frames):
    """(texts, videos): video i pooled by caption i, whatever text j is. The mistake."""
    texts, frames, weights = doubles(model, texts, frames)
    pooled = [pooled_by(texts[i], frames[i], weights) for i in range(len(frames))]
    return np.array([[cosine(text, video) for video in pooled] for text in texts])


def published_ranks(scores, targets):
    """X-Pool's protocol: captions grouped by video and padded with -inf, ranks by two sorts, counted from 0.

    Text to video: every caption's rank, in the order of the texts. Video to text: the best caption of each group.
    """
    videos = scores.shape[1]
    most = max(np.bincount(targets))
    grouped = np.full((videos, most, videos), -np.inf)
    place = []
    for text, video in enumerate(targets):
        place.append((video, sum(targets[:text] == video)))
        grouped[place[-1]] = scores[text]
    sorted_twice = np.argsort(np.argsort(-grouped, axis=-1), axis=-1)
    t2v = [sorted_twice[video, k, video] for video, k in place]
    assert np.isfinite(grouped[np.arange(videos), :, np.arange(videos)]).sum() == len(t2v)  # no padding among them
    best = grouped.max(axis=1)  # (groups of texts, videos)
    v2t = np.argsort(np.argsort(-best.T, axis=-1), axis=-1)[np.arange(videos), np.arange(videos)]
    return np.array(t2v), v2t


def published_metrics(ranks):
    recalls = {f"R@{k}": 100 * sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5, 10, 50)}
    return recalls | {"MdR": float(np.median(ranks) + 1), "MnR": float(np.mean(ranks) + 1)}


def assert_ours_is_the_published(model, texts, frames, targets):
    ours = build_gallery(model, frames).scores(texts)
    published = published_scores(model, texts, frames)
    np.testing.assert_allclose(ours.numpy(), published, atol=1e-5)
    t2v, v2t = published_ranks(published, targets)
    assert ranks_of(ours.numpy(), targets).tolist() == (t2v + 1).tolist()
    assert video_to_text_ranks(ours.numpy(), targets).tolist() == (v2t + 1).tolist()
    found = evaluate_scores(ours, targets)
    assert found["t2v"] == pytest.approx(published_metrics(t2v))
    assert found["v2t"] == pytest.approx(published_metrics(v2t))
    return found


@pytest.mark.parametrize(("texts", "videos"), [(60, 60), (75, 24), (130, 60)])
def test_random_features_rank_as_published(texts, videos):
    """Equal counts, and one to several captions per video."""
    features = random_features(texts, videos)
    found = assert_ours_is_the_published(random_model(), *features)
    assert 5 < found["t2v"]["R@1"] < 95  # neither chance nor perfection, where any ranking would do


def test_the_demo_corpus_ranks_as_published(engine):
    """The shipped X-Pool on 24 test videos, with two to five captions each."""
    clips = engine.corpus.split("test").clips[:24]
    captions = [(i, text) for i, clip in enumerate(clips) for text in clip.captions[: 2 + i % 4]]
    texts = engine.encoder.encode_text([text for _, text in captions])
    frames = engine.embeddings.select([clip.id for clip in clips]).frames
    model = engine.methods["xpool"].model
    assert_ours_is_the_published(model, texts, frames, np.array([i for i, _ in captions]))


def test_the_leak_is_the_mistake_and_not_the_score():
    model = random_model()
    texts, frames, targets = random_features(40, 40)
    assert sorted(targets) == list(range(40))
    texts = texts[torch.from_numpy(np.argsort(targets))]
    leaky = leaky_scores(model, texts, frames)
    np.testing.assert_allclose(leaky.numpy(), published_leaky_scores(model, texts, frames), atol=1e-5)
    proper = build_gallery(model, frames).scores(texts)
    torch.testing.assert_close(leaky.diagonal(), proper.diagonal())  # a pair's own score is the same in both
    off = ~torch.eye(40, dtype=torch.bool)
    assert (leaky - proper)[off].abs().mean() > 0.01


def test_the_leak_inflates_the_demo_corpus(engine):
    clips = engine.corpus.split("test").clips
    texts = engine.encoder.encode_text([clip.captions[0] for clip in clips])
    frames = engine.embeddings.select([clip.id for clip in clips]).frames
    own = np.arange(len(clips))
    for method in ("xpool", "dits"):
        model = engine.methods[method].model
        proper = evaluate_scores(build_gallery(model, frames).scores(texts), own)["t2v"]
        leaky = evaluate_scores(leaky_scores(model, texts, frames), own)["t2v"]
        assert leaky["R@1"] > proper["R@1"] + 3


def test_mean_pooling_has_nothing_to_leak():
    model = RetrievalModel(ModelConfig(method="mean")).eval()
    texts, frames, _ = random_features(9, 9)
    torch.testing.assert_close(leaky_scores(model, texts, frames), build_gallery(model, frames).scores(texts))


def test_the_leak_needs_one_caption_per_video():
    texts, frames, _ = random_features(9, 5)
    with pytest.raises(InputError, match="9 texts and 5 videos"):
        leaky_scores(random_model(), texts, frames)


def test_permuting_the_gallery_changes_nothing_and_permuting_queries_permutes_ranks():
    """From features to ranks; with the leak, the permuted gallery would give other ranks."""
    model = random_model()
    texts, frames, targets = random_features(70, 30)
    ranks = ranks_of(build_gallery(model, frames).scores(texts).numpy(), targets)
    by_video = video_to_text_ranks(build_gallery(model, frames).scores(texts).numpy(), targets)
    rng = np.random.default_rng(0)
    columns, rows = rng.permutation(30), rng.permutation(70)
    moved = np.argsort(columns)[targets]
    scores = build_gallery(model, frames[torch.from_numpy(columns)]).scores(texts).numpy()
    assert ranks_of(scores, moved).tolist() == ranks.tolist()
    assert video_to_text_ranks(scores, moved).tolist() == by_video[columns].tolist()
    scores = build_gallery(model, frames).scores(texts[torch.from_numpy(rows)]).numpy()
    assert ranks_of(scores, targets[rows]).tolist() == ranks[rows].tolist()
    assert video_to_text_ranks(scores, targets[rows]).tolist() == by_video.tolist()


def test_videos_without_captions_are_distractors_only():
    model = random_model()
    texts, frames, targets = random_features(20, 8)
    more = torch.cat([frames, random_features(5, 5, seed=9)[1]])
    alone, among = (evaluate_scores(build_gallery(model, videos).scores(texts), targets) for videos in (frames, more))
    assert among["v2t"] == alone["v2t"]
    assert among["t2v"]["MnR"] > alone["t2v"]["MnR"]
