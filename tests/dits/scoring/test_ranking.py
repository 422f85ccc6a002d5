"""The best of many videos, against a full sort."""

import pytest
import torch

from dits.scoring.ranking import ranks_at, top_k


@pytest.mark.parametrize("k", [1, 5, 50])
@pytest.mark.parametrize("cuts", [[20], [1, 19], [7, 7, 6]])
def test_the_best_of_blocks_are_the_best_of_the_whole(cuts, k):
    """With many equal scores, zeros of both signs among them: the lower row comes first."""
    scores = torch.randint(-3, 4, (4, 20), generator=torch.Generator().manual_seed(0)) / 8
    scores[:, 5] = -0.0
    best, expected = top_k(scores.split(cuts, dim=1), k), scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(best.scores, expected.values[:, :k])
    assert torch.equal(best.rows, expected.indices[:, :k])
    assert torch.equal(best.lowest, scores.amin(dim=1))
    assert torch.equal(best.highest, scores.amax(dim=1))
    torch.testing.assert_close(best.mean, scores.mean(dim=1))
    torch.testing.assert_close(best.deviation, scores.std(dim=1))


def test_scores_keep_every_bit():
    scores = torch.randn(3, 1000, generator=torch.Generator().manual_seed(1)) * torch.logspace(-30, 30, 1000)
    best = top_k([scores], 1000)
    assert torch.equal(best.scores, scores.gather(1, best.rows))
    assert torch.equal(best.scores, scores.sort(dim=1, descending=True).values)


def test_one_video_has_no_deviation():
    best = top_k([torch.tensor([[0.25], [-1.0]])], 3)
    assert best.rows.tolist() == [[0], [0]]
    assert best.mean.tolist() == [0.25, -1.0]
    assert best.deviation.tolist() == [0.0, 0.0]


def test_ranks_are_places_in_the_whole_order():
    """With many equal scores, of which the lower row comes first."""
    scores = torch.randint(-3, 4, (50,), generator=torch.Generator().manual_seed(2)) / 8
    places = torch.argsort(scores, descending=True, stable=True).argsort() + 1
    rows = torch.tensor([49, 3, 3, 17])
    assert torch.equal(ranks_at(scores, rows), places[rows])
