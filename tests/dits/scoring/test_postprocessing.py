"""Post-processing against plain loops over the published formulas."""

import math

import numpy as np
import pytest

from dits.evaluation.metrics import ranks_by_direction, ranks_of, video_to_text_ranks
from dits.scoring.postprocessing import dual_softmax, query_bank, querybank_norm


def random_scores(queries, candidates, seed=0):
    return np.random.default_rng(seed).uniform(-0.2, 0.6, size=(queries, candidates)).astype(np.float32)


@pytest.mark.parametrize("temperature", [1.0, 100.0])
def test_dual_softmax_equals_the_formula(temperature):
    scores = random_scores(7, 5)
    expected = np.empty((7, 5))
    for c in range(5):
        total = sum(math.exp(temperature * float(scores[q, c])) for q in range(7))
        for q in range(7):
            expected[q, c] = float(scores[q, c]) * math.exp(temperature * float(scores[q, c])) / total
    np.testing.assert_allclose(dual_softmax(scores, temperature), expected, rtol=1e-9)


def test_dual_softmax_uses_the_other_queries():
    """The ranking of one query depends on the other queries."""
    query = np.array([[0.50, 0.49]])
    alone = ranks_of(dual_softmax(query), np.array([1]))
    among = ranks_of(dual_softmax(np.vstack([query, [[0.9, 0.1]]])), np.array([1, 0]))
    assert (alone[0], among[0]) == (2, 1)


def plain_querybank_norm(scores, bank, beta):
    """Bogolin et al. 2022, the dynamic inverted softmax, one score at a time."""
    activated = {max(range(bank.shape[1]), key=lambda c: row[c]) for row in bank}
    result = []
    for row in scores.astype(float):
        if max(range(len(row)), key=lambda c: row[c]) in activated:
            masses = [sum(math.exp(beta * float(other[c])) for other in bank) for c in range(len(row))]
            row = [math.exp(beta * s) / mass for s, mass in zip(row, masses, strict=True)]
        result.append(list(row))
    return np.array(result)


def test_querybank_norm_ranks_as_the_plain_formula_does():
    scores, bank = random_scores(40, 9), random_scores(6, 9, seed=1)
    prepared = query_bank([bank[:4], bank[4:]], temperature=20)
    assert 1 < prepared.activated.sum() < 9  # both cases of the formula occur
    targets = np.random.default_rng(2).integers(0, 9, size=40)
    expected = ranks_of(plain_querybank_norm(scores, bank, 20), targets)
    assert ranks_of(querybank_norm(scores, prepared), targets).tolist() == expected.tolist()
    assert expected.tolist() != ranks_of(scores, targets).tolist()


def test_querybank_norm_is_the_logarithm_of_the_formula_where_it_applies():
    scores, bank = random_scores(30, 4), random_scores(50, 4, seed=1)
    prepared = query_bank([bank])
    assert prepared.activated.all()
    np.testing.assert_allclose(np.exp(querybank_norm(scores, prepared)), plain_querybank_norm(scores, bank, 20.0))


def test_a_bank_in_blocks_is_the_bank_in_one():
    bank = random_scores(11, 6)
    whole, parts = query_bank([bank]), query_bank(np.array_split(bank, 4))
    np.testing.assert_allclose(parts.log_mass, whole.log_mass)
    assert parts.activated.tolist() == whole.activated.tolist()


def test_queries_keep_their_scores_where_the_bank_activates_none_of_their_first():
    bank = query_bank([np.array([[0.9, 0.1, 0.1]])])
    scores = np.array([[0.2, 0.8, 0.1], [0.8, 0.2, 0.1]])
    found = querybank_norm(scores, bank)
    assert found[0].tolist() == scores[0].tolist()
    assert found[1].tolist() != scores[1].tolist()


def test_a_hub_no_longer_comes_first_for_everything():
    """Video 0 is near to every text; both methods find the right video behind it."""
    rng = np.random.default_rng(3)
    near = lambda own: 0.35 + 0.05 * rng.random((30, 10)) + own  # noqa: E731
    hub = np.zeros(10)
    hub[0] = 0.2
    targets = np.tile(np.arange(1, 10), 4)[:30]
    scores = near(0.12 * (targets[:, None] == np.arange(10))) + hub
    bank = near(0) + hub
    assert ranks_of(scores, targets).mean() == 2
    assert ranks_of(dual_softmax(scores), targets).mean() < 1.5
    assert ranks_of(querybank_norm(scores, query_bank([bank])), targets).mean() == 1


def test_both_directions_see_their_queries_in_rows():
    scores, targets = random_scores(12, 5), np.arange(12) % 5
    ranks = ranks_by_direction(scores, targets, dual_softmax, dual_softmax)
    assert ranks["t2v"].tolist() == ranks_of(dual_softmax(scores), targets).tolist()
    assert ranks["v2t"].tolist() == video_to_text_ranks(dual_softmax(scores.T).T, targets).tolist()
    assert ranks["v2t"].tolist() != video_to_text_ranks(dual_softmax(scores), targets).tolist()
