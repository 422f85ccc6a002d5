import math
import tracemalloc

import numpy as np
import pytest
import torch

from dits.common.errors import InputError
from dits.corpora.corpus import Query
from dits.evaluation.metrics import evaluate_scores, match_queries, metrics_of, ranks_of, video_to_text_ranks


def brute_force_rank(row, target):
    """The mean of the best and the worst place that the target can take among its ties, by sorting."""
    ordered = sorted(row, reverse=True)
    places = [place for place, score in enumerate(ordered, start=1) if score == row[target]]
    return sum(places) / len(places)


def test_ranks_equal_brute_force_with_many_ties():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, size=(40, 9)).astype(float)
    targets = rng.integers(0, 9, size=40)
    expected = [brute_force_rank(list(row), target) for row, target in zip(scores, targets, strict=True)]
    assert ranks_of(scores, targets).tolist() == expected


def test_constant_scores_rank_in_the_middle():
    assert ranks_of(np.zeros((3, 9)), np.array([0, 4, 8])).tolist() == [5, 5, 5]


def test_video_to_text_equals_brute_force_with_uneven_captions():
    rng = np.random.default_rng(1)
    targets = np.array([0, 0, 0, 1, 3, 3, 4])  # video 2 has no caption
    scores = rng.integers(0, 5, size=(7, 5)).astype(float)
    expected = []
    for video in (0, 1, 3, 4):
        groups = [max(scores[t, video] for t in range(7) if targets[t] == g) for g in (0, 1, 3, 4)]
        expected.append(brute_force_rank(groups, (0, 1, 3, 4).index(video)))
    assert video_to_text_ranks(scores, targets).tolist() == expected


def test_permuting_gallery_and_queries_changes_nothing():
    rng = np.random.default_rng(2)
    scores, targets = rng.normal(size=(30, 12)), rng.integers(0, 12, size=30)
    columns, rows = rng.permutation(12), rng.permutation(30)
    moved = np.argsort(columns)[targets][rows]
    assert evaluate_scores(scores[:, columns][rows], moved) == evaluate_scores(scores, targets)


def test_metrics_of_known_ranks():
    metrics = metrics_of(np.array([1, 2, 5, 6, 11])).as_dict()
    assert metrics == {"R@1": 20, "R@5": 60, "R@10": 80, "R@50": 100, "MdR": 5, "MnR": 5}


def test_recalls_count_ranks_up_to_k():
    ranks = np.array([1, 1.5, 5, 5.5, 10, 10.5, 50, 50.5, 51, 300])
    metrics = metrics_of(ranks).as_dict()
    assert [metrics[f"R@{k}"] for k in (1, 5, 10, 50)] == [10, 30, 50, 70]


def test_perfect_and_worst_scores():
    targets = np.arange(20)
    perfect = evaluate_scores(torch.eye(20), targets)
    assert perfect["t2v"] == perfect["v2t"] == {"R@1": 100, "R@5": 100, "R@10": 100, "R@50": 100, "MdR": 1, "MnR": 1}
    assert evaluate_scores(-torch.eye(20), targets)["t2v"]["MnR"] == 20


def test_negative_scores_count():
    """A correct video with a negative cosine is found all the same."""
    assert evaluate_scores(torch.eye(3) - 2, np.arange(3))["t2v"]["R@1"] == 100


def test_refuses_scores_that_are_no_numbers():
    with pytest.raises(InputError, match="NaN"):
        ranks_of(np.array([[1.0, math.nan]]), np.array([0]))


@pytest.mark.parametrize("transposed", [False, True])
def test_refuses_damaged_scores_in_either_direction(transposed):
    scores = np.eye(4)
    scores[(1, 2) if not transposed else (2, 1)] = math.nan
    for ranks in (ranks_of, video_to_text_ranks):
        with pytest.raises(InputError, match="NaN"):
            ranks(scores, np.arange(4))


def test_memory_at_the_size_of_vatex():
    """15,000 texts by 1,500 videos: beside the scores themselves, no more than three copies of them."""
    scores = np.random.default_rng(0).random((15_000, 1_500), dtype=np.float32)
    targets = np.arange(15_000) % 1_500
    tracemalloc.start()
    try:
        evaluate_scores(scores, targets)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * scores.nbytes


def test_queries_of_other_videos_are_skipped_and_counted():
    queries = [Query("b", "one"), Query("x", "two"), Query("a", "three"), Query("b", "four")]
    matched = match_queries(queries, ["a", "b", "c"])
    assert matched.targets.tolist() == [1, 0, 1]
    assert [query.caption for query in matched.queries] == ["one", "three", "four"]
    assert matched.skipped == 1


def test_refuses_queries_without_any_video():
    with pytest.raises(InputError, match="None of the 1 queries"):
        match_queries([Query("x", "one")], ["a"])


def test_refuses_a_gallery_with_repeated_videos():
    with pytest.raises(InputError, match="more than once"):
        match_queries([Query("a", "one")], ["a", "a"])
