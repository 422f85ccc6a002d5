"""Repeated captions: the count, and the ceilings against what scores can reach."""

from itertools import product

import numpy as np
import pytest
import torch

from dits.corpora.corpus import Query
from dits.evaluation.metrics import evaluate_scores, match_queries
from dits.evaluation.repeated_captions import repeated_captions
from dits.models.baselines import PriorConfig, StochasticConfig
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import METHODS, ModelConfig, RetrievalModel
from dits.models.sampler import SamplerConfig
from dits.scoring.gallery import build_gallery


def scores_of_texts(queries, by_text):
    """A matrix in which identical texts have identical rows."""
    return np.array([by_text[query.caption] for query in queries])


def msrvtt_like():
    """As MSR-VTT's 1k-A test split: 1,000 videos with one caption each, of which 995 are different."""
    captions = [f"a sentence {number}" for number in range(995)] + [f"a sentence {number}" for number in range(5)]
    return [Query(f"video{number}", caption) for number, caption in enumerate(captions)]


def test_five_repeated_rows_among_a_thousand():
    queries = msrvtt_like()
    found = repeated_captions(queries)
    assert (found.queries, found.distinct, found.repeated) == (1000, 995, 5)
    assert (found.t2v_ceiling, found.t2v_tied, found.v2t_ceiling) == (99.5, 99.0, 99.0)
    own = np.array([[a.caption == b.caption for b in queries] for a in queries], dtype=float)
    tied = evaluate_scores(own, np.arange(1000))
    assert (tied["t2v"]["R@1"], tied["v2t"]["R@1"]) == (found.t2v_tied, found.v2t_ceiling)
    decided = own + 0.1 * own * (np.arange(1000) < 500)  # the earlier video of every pair first
    assert evaluate_scores(decided, np.arange(1000))["t2v"]["R@1"] == found.t2v_ceiling


def test_a_text_three_times_is_two_repeats():
    found = repeated_captions([Query(video, "the same") for video in "abc"] + [Query("d", "another")])
    assert (found.distinct, found.repeated) == (2, 2)
    assert (found.t2v_ceiling, found.t2v_tied, found.v2t_ceiling) == (50, 25, 25)


def test_different_captions_leave_perfection_in_reach():
    found = repeated_captions([Query("a", "one"), Query("a", "two"), Query("b", "three")])
    assert (found.repeated, found.t2v_ceiling, found.t2v_tied, found.v2t_ceiling) == (0, 100, 100, 100)


@pytest.mark.parametrize(
    "rows",
    [
        ["a same", "b same", "c other"],
        ["a same", "a same", "b same", "b other"],
        ["a same", "a own", "b same"],
        ["a x", "a y", "b x", "b y", "c y"],
    ],
)
def test_no_scores_reach_more_than_the_ceilings_and_some_reach_them(rows):
    """Every matrix of three levels of score, identical texts having identical rows."""
    queries = [Query(*row.split()) for row in rows]
    videos = sorted({query.video_id for query in queries})
    texts = sorted({query.caption for query in queries})
    targets = match_queries(queries, videos).targets
    best = {"t2v": 0.0, "v2t": 0.0}
    for values in product(range(3), repeat=len(texts) * len(videos)):
        by_text = dict(zip(texts, np.reshape(values, (len(texts), -1)), strict=True))
        found = evaluate_scores(scores_of_texts(queries, by_text), targets)
        best = {direction: max(best[direction], found[direction]["R@1"]) for direction in best}
    ceilings = repeated_captions(queries)
    assert best == pytest.approx({"t2v": ceilings.t2v_ceiling, "v2t": ceilings.v2t_ceiling})


@pytest.mark.parametrize("kind", ["xpool", "mean"])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        *((method, {}) for method in METHODS),
        ("prior", {"prior": PriorConfig(variance=0.0)}),
        ("prior", {"prior": PriorConfig(prior_at_inference=False)}),
        ("tmass", {"stochastic": StochasticConfig(text_noise="normal", text_noise_std=0.5)}),
        ("dits", {"sampler": SamplerConfig(steps=3, inference_noise_scale=0.5)}),
        ("dits", {"sampler": SamplerConfig(steps=1, inference_noise_scale=0.5)}),
        ("dits", {"sampler": SamplerConfig(steps=3, start="gaussian", condition="text")}),
        ("dits", {"sampler": SamplerConfig(steps=3, condition="video")}),
        ("dits", {"sampler": SamplerConfig(steps=3, condition="video", inference_noise_scale=0.5)}),
    ],
)
def test_a_method_that_draws_ranks_identical_texts_differently_and_no_other_does(method, settings, kind):
    """What the ceilings take for granted, by the scores themselves."""
    torch.manual_seed(0)
    parts = {"network": AlignmentConfig(dim=32, depth=1, heads=4, zero_init=False), **settings}
    model = RetrievalModel(ModelConfig(method, PoolingConfig(kind=kind, dim=32), **parts)).eval()
    texts = torch.randn(1, 32).expand(70, -1)  # more than are scored at once
    scores = build_gallery(model, torch.randn(5, 12, 32)).scores(texts)
    assert model.alignment.is_stochastic == bool((scores - scores[:1]).abs().max() > 1e-4)
