"""Gap measures against closed forms, slow definitions and other libraries; their invariances, traps and bad input."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import sqrtm
from scipy.stats import skew
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from analysis.measures import distributions, neighbours, points
from analysis.measures.distributions import frechet, frechet_distance, mean_cosine, mmd, separability, uniformity
from analysis.measures.gap import (
    MEASURES,
    SAMPLED,
    centroid_gap,
    gap_measures,
    pair_distances,
    shift_along_gap,
)
from analysis.measures.neighbours import cross_modal_neighbours, hubness
from analysis.measures.points import check_pairs, distinct_points, sample_size, unit
from dits.common.errors import InputError

OF_PAIRS = ("l2", "l1", "cosine", "alignment", "rmg")
"""What a pair that stands twice counts twice in; rmg through its mean over pairs."""


def vectors(count=12, dim=8, seed=0, centre=0.0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + centre


def captioned(videos=30, captions=3, dim=16, seed=0):
    """Several captions a video, each near it but for a common shift: a cone, a gap and pairs that matter."""
    video = vectors(videos, dim, seed, centre=0.3).repeat_interleave(captions, 0)
    return video + vectors(len(video), dim, seed + 1) + vectors(1, dim, seed + 2), video


def distinct(texts, videos):
    return distinct_points(unit(texts), unit(videos))


def close(found, expected, **tolerance):
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, **tolerance), name


# Closed forms


def test_identical_sets_have_no_gap():
    measures = gap_measures(vectors(), 2 * vectors())
    for name in ("l1", "l2", "alignment", "centroid_distance", "rmg", "frechet", "mmd"):
        assert measures[name] == pytest.approx(0, abs=1e-6), name
    assert measures["cosine"] == pytest.approx(1)
    assert measures["separability"] == 0.5
    assert measures["cone_text"] == measures["cone_video"]
    assert measures["uniformity_text"] == measures["uniformity_video"]


def test_four_points_worked_by_hand():
    """Texts to the right and up, videos up and to the left, so that the second text lies on the first video."""
    measures = gap_measures(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    assert measures["cosine"] == pytest.approx(0)
    assert measures["l1"] == pytest.approx(2)
    assert measures["l2"] == pytest.approx(math.sqrt(2))
    assert measures["alignment"] == pytest.approx(2)
    assert measures["centroid_distance"] == pytest.approx(1)  # (1/2, 1/2) and (-1/2, 1/2)
    assert measures["rmg"] == pytest.approx(0.5)  # every distance, within and across, is 1/2
    assert measures["cone_text"] == pytest.approx(0)
    assert measures["cone_video"] == pytest.approx(0)
    assert measures["uniformity_text"] == pytest.approx(-4)  # squared distance 2
    assert measures["uniformity_video"] == pytest.approx(-4)
    assert measures["frechet"] == pytest.approx(3)  # 1 of the means, two covariances of trace 1 and product 0
    # The median of the six distances is sqrt(2); of the texts and the other pair's videos one lies at 2, one at 0.
    assert measures["mmd"] == pytest.approx(2 * math.exp(-1 / 2) - (math.exp(-1) + 1), abs=1e-6)
    assert measures["cross_modal_neighbours"] == pytest.approx(1)  # three neighbours are all there are
    assert measures["hubness"] == 0


def test_antipodal_sets_are_as_far_apart_as_can_be():
    texts = vectors(40, 8, centre=1.0)
    measures = gap_measures(texts, -texts)
    assert measures["cosine"] == pytest.approx(-1)
    assert measures["l2"] == pytest.approx(2)
    assert measures["alignment"] == pytest.approx(4)
    assert measures["centroid_distance"] == pytest.approx(2 * float(F.normalize(texts, dim=-1).mean(dim=0).norm()))
    assert measures["rmg"] == pytest.approx(1 / (1 + (1 - measures["cone_text"]) / 2))
    assert measures["separability"] == 1
    assert measures["cross_modal_neighbours"] == 0


def test_cone_and_uniformity_of_known_points():
    """Three unit vectors at right angles: cosine 0, squared distance 2; one direction twice is one point."""
    axes = torch.eye(3)
    measures = gap_measures(axes, torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0]]))
    assert (measures["cone_text"], measures["uniformity_text"]) == pytest.approx((0, -4), abs=1e-6)
    assert measures["cone_video"] == pytest.approx(0)
    narrow = gap_measures(axes, torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [1.0, -0.0, 0]]))
    assert narrow["cone_video"] == pytest.approx(0.8)
    assert narrow["uniformity_video"] == pytest.approx(-0.8, abs=1e-6)


def test_pair_distances_are_those_of_unit_vectors():
    texts, videos = vectors(seed=1), vectors(seed=2)
    t, v = F.normalize(texts, dim=-1).numpy(), F.normalize(videos, dim=-1).numpy()
    found = pair_distances(texts, 7 * videos)
    np.testing.assert_allclose(found.l1, np.diag(pairwise_distances(t, v, "l1")), rtol=1e-5)
    np.testing.assert_allclose(found.l2, np.diag(pairwise_distances(t, v, "l2")), rtol=1e-5)
    np.testing.assert_allclose(found.cosine, 1 - np.diag(pairwise_distances(t, v, "cosine")), atol=1e-6)
    np.testing.assert_allclose(found.l2**2, 2 - 2 * found.cosine, atol=1e-12)


# Within the modalities


def test_rmg_equals_its_definition_pair_by_pair():
    """Both sides with the half, no diagonal, and a video that two texts share once within its modality."""
    texts, videos = F.normalize(vectors(6, seed=1), dim=-1), F.normalize(vectors(3, seed=2), dim=-1)
    distance = lambda a, b: (1 - float(a @ b)) / 2  # noqa: E731
    inside = [
        np.mean([distance(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (texts, videos)
    ]
    paired = np.mean([distance(texts[i], videos[i // 2]) for i in range(6)])
    expected = paired / (paired + sum(inside) / 2)
    assert gap_measures(texts, videos.repeat_interleave(2, 0))["rmg"] == pytest.approx(expected, abs=1e-6)


def test_cone_and_uniformity_equal_their_definitions_point_by_point():
    text, video = distinct(*captioned())
    assert (len(text), len(video)) == (90, 30)
    for side in (text, video):
        x = side.units.numpy()
        pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
        assert mean_cosine(side.units) == pytest.approx(np.mean([x[i] @ x[j] for i, j in pairs]))
        spread = np.mean([math.exp(-2 * ((x[i] - x[j]) ** 2).sum()) for i, j in pairs])
        assert float(uniformity(side)) == pytest.approx(math.log(spread), abs=1e-6)


# Distributions


def test_frechet_of_diagonal_gaussians_has_a_closed_form():
    rng = np.random.default_rng(0)
    mean_a, mean_b, a, b = torch.from_numpy(rng.uniform(0.1, 2, (4, 6)))
    expected = ((mean_a - mean_b) ** 2).sum() + ((a.sqrt() - b.sqrt()) ** 2).sum()
    found = frechet_distance(mean_a, torch.diag(a), mean_b, torch.diag(b))
    assert found == pytest.approx(float(expected))


def test_frechet_of_one_dimension_has_a_closed_form():
    texts, videos = vectors(9, 1, seed=1).double(), 3 * vectors(7, 1, seed=2).double() + 1
    expected = (texts.mean() - videos.mean()) ** 2 + (texts.std() - videos.std()) ** 2
    assert frechet(texts, videos) == pytest.approx(float(expected))


@pytest.mark.parametrize(("rank_a", "rank_b"), [(8, 8), (3, 8), (2, 3)])
def test_frechet_equals_the_matrix_square_root_at_any_rank(rank_a, rank_b):
    a, b = (vectors(rank, 8, seed).double() for seed, rank in enumerate((rank_a, rank_b)))
    a, b = a.T @ a, b.T @ b
    # SciPy's square root is of the product itself, which need not be symmetric; a singular one it may not find.
    tiny = 1e-12 * np.eye(8)
    root = np.trace(sqrtm((a.numpy() + tiny) @ (b.numpy() + tiny))).real
    expected = float(a.trace() + b.trace()) - 2 * root
    assert frechet_distance(torch.zeros(8), a, torch.zeros(8), b) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(torch.zeros(8), a, torch.zeros(8), a) == pytest.approx(0, abs=1e-9)


def test_frechet_of_orthogonal_ranks_is_the_sum_of_traces():
    a, b = torch.diag(torch.tensor([2.0, 1.0, 0.0, 0.0])), torch.diag(torch.tensor([0.0, 0.0, 0.0, 5.0]))
    assert frechet_distance(torch.zeros(4), a, torch.ones(4), b) == pytest.approx(4 + 3 + 5)


def test_frechet_counts_a_repeated_caption_once():
    texts, videos = captioned()
    t, v = (x.units.numpy() for x in distinct(texts, videos))
    root = np.trace(sqrtm(np.cov(t.T) @ np.cov(v.T))).real
    expected = ((t.mean(0) - v.mean(0)) ** 2).sum() + np.trace(np.cov(t.T)) + np.trace(np.cov(v.T)) - 2 * root
    again = [*range(len(texts)), 0, 0, 0]
    assert gap_measures(texts[again], videos[again])["frechet"] == pytest.approx(expected, abs=1e-6)


def test_mmd_equals_its_definition_over_points_of_different_videos():
    texts, videos = captioned(12, 3)
    text, video = distinct(texts, videos)
    t, v = text.units.numpy(), video.units.numpy()
    union = np.concatenate([t, v])
    width = np.median(pairwise_distances(union)[np.triu_indices(len(union), 1)])
    kernel = lambda a, b: math.exp(-((a - b) ** 2).sum() / (2 * width**2))  # noqa: E731
    of = [i // 3 for i in range(36)]
    within_text = np.mean([kernel(t[i], t[j]) for i in range(36) for j in range(36) if of[i] != of[j]])
    within_video = np.mean([kernel(v[i], v[j]) for i in range(12) for j in range(12) if i != j])
    across = np.mean([kernel(t[i], v[j]) for i in range(36) for j in range(12) if of[i] != j])
    assert float(mmd(text, video)) == pytest.approx(within_text + within_video - 2 * across, abs=1e-6)


def test_mmd_is_zero_on_average_without_a_gap_however_alike_pairs_are():
    """Texts and videos of one distribution, three texts a video, each close to it."""

    def sample(seed):
        video = vectors(20, 6, seed)
        noise = vectors(80, 6, seed + 10_000).view(4, 20, 6)
        near = [0.9 * video + math.sqrt(1 - 0.81) * part for part in noise]  # all four spread alike
        return float(mmd(*distinct(torch.cat(near[:3]), near[3].repeat(3, 1))))

    values = [sample(seed) for seed in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(200)
    assert min(values) < 0 < max(values)


def test_separability_is_chance_for_one_distribution_and_one_for_two():
    assert separability(unit(vectors(300)), unit(vectors(300, seed=1))) == pytest.approx(0.5, abs=0.08)
    assert separability(unit(vectors(40, centre=1.0)), unit(vectors(40, seed=1, centre=-1.0))) == 1


def test_separability_gives_nothing_for_the_larger_modality():
    """Always saying text would be right five times of six."""
    assert separability(unit(vectors(500)), unit(vectors(100, seed=1))) == pytest.approx(0.5, abs=0.08)


def test_separability_holds_identical_points_out_together():
    """If a text and a video are the same vector, one of them is classified correctly and the other is not."""
    texts = vectors(50, 64)
    assert gap_measures(texts, texts.flip(0))["separability"] == 0.5


# Neighbours


def test_cross_modal_neighbours_equal_scikit_learns():
    text, video = (side.units.numpy() for side in distinct(*captioned()))
    union = np.concatenate([text, video])
    nearest = NearestNeighbors(n_neighbors=10).fit(union).kneighbors(return_distance=False)
    share_text, share_video = (nearest[:90] >= 90).mean(), (nearest[90:] < 90).mean()
    expected = (share_text / (30 / 119) + share_video / (90 / 119)) / 2
    assert cross_modal_neighbours(torch.from_numpy(text), torch.from_numpy(video)) == pytest.approx(expected)


def test_cross_modal_neighbours_are_one_under_perfect_mixing_of_unequal_numbers():
    found = [cross_modal_neighbours(unit(vectors(300, 6, s)), unit(vectors(60, 6, s + 100))) for s in range(10)]
    assert np.mean(found) == pytest.approx(1, abs=4 * np.std(found) / math.sqrt(10))
    assert np.std(found) < 0.05


def test_hubness_equals_the_skewness_of_scikit_learns_counts():
    text, video = (side.units.numpy() for side in distinct(*captioned()))
    nearest = NearestNeighbors(n_neighbors=10).fit(video).kneighbors(text, return_distance=False)
    expected = skew(np.bincount(nearest.ravel(), minlength=30))
    assert hubness(torch.from_numpy(text), torch.from_numpy(video)) == pytest.approx(expected)


def test_hubness_rises_with_videos_that_answer_every_text():
    texts, videos = unit(vectors(200, 32, centre=2.0)), unit(vectors(100, 32, 1))
    hubs = videos.clone()
    hubs[:10] = unit(texts.mean(dim=0) + 0.01 * vectors(10, 32, 2))
    assert hubness(texts, hubs) == pytest.approx((0.9 - 0.1) / 0.3)  # ten of a hundred always, ninety never
    assert hubness(unit(vectors(200, 32, 5)), videos) < 1.5  # texts all around have no hubs in common
    assert hubness(texts, videos[:10]) == 0


# Invariances, blocks and samples


def test_rotation_and_length_change_nothing_but_l1():
    texts, videos = captioned(dim=16)
    rotation = torch.linalg.qr(vectors(16, 16, 9).double()).Q
    before = gap_measures(texts.double(), videos.double())
    after = gap_measures(1e-30 * texts.double() @ rotation, 1e200 * videos.double() @ rotation)
    before.pop("l1"), after.pop("l1")
    assert after == pytest.approx(before, abs=1e-5)


def test_order_of_pairs_changes_nothing_but_the_folds():
    texts, videos = captioned()
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(3))
    before, after = gap_measures(texts, videos), gap_measures(texts[order], videos[order])
    assert after.pop("separability") == pytest.approx(before.pop("separability"), abs=0.1)
    assert after == pytest.approx(before, abs=1e-6)


def test_a_list_of_pairs_that_stands_twice_is_the_same_list():
    texts, videos = captioned()
    close(gap_measures(texts.repeat(2, 1), videos.repeat(2, 1)), gap_measures(texts, videos), abs=1e-9)


def test_a_pair_that_stands_often_counts_once_but_in_means_over_pairs():
    texts, videos = captioned()
    again = [*range(len(texts)), *[0] * 50]
    before, after = gap_measures(texts, videos), gap_measures(texts[again], videos[again])
    for name in before:
        assert (after[name] == pytest.approx(before[name], abs=1e-9)) == (name not in OF_PAIRS), name


def test_vectors_that_differ_by_rounding_are_one_point():
    """What an encoder computes again in another batch differs in the last digits of single precision."""
    texts, videos = captioned(40, 4, 64)
    whole = gap_measures(texts, videos)
    digits = 1 + 1e-7 * vectors(160, 64, 5)
    again = torch.cat([texts, texts[:80] * digits[:80]]), torch.cat([videos * digits, videos[:80]])
    t, v = distinct(*again)
    assert (len(t), len(v)) == (160, 40)
    found = gap_measures(*again)
    for name in set(MEASURES) - set(OF_PAIRS):
        assert found[name] == pytest.approx(whole[name], abs=1e-5), name
    apart = texts.clone()
    apart[1] = texts[0] + 1e-4 * vectors(1, 64, 6)
    assert len(distinct(apart, videos)[0]) == 160


def test_blocks_change_nothing(monkeypatch):
    texts, videos = captioned()
    whole = gap_measures(texts, videos)
    monkeypatch.setattr(distributions, "_BLOCK_NUMBERS", 700)
    monkeypatch.setattr(neighbours, "_BLOCK_NUMBERS", 700)
    close(gap_measures(texts, videos), whole, abs=1e-7)


def test_above_a_number_of_points_some_measures_look_at_a_sample(monkeypatch):
    assert sample_size(10_000) is None
    assert sample_size(10_001) == points.SAMPLE_ABOVE == 10_000
    texts, videos = captioned(400, 1)
    whole = gap_measures(texts, videos)
    monkeypatch.setattr(points, "SAMPLE_ABOVE", 200)
    some, same, other = (gap_measures(texts, videos, seed=seed) for seed in (1, 1, 2))
    assert some == same
    for name in whole:
        assert (some[name] == whole[name]) == (name not in SAMPLED), name
        assert (some[name] == other[name]) == (name not in SAMPLED), name
    for name in ("separability", "uniformity_text", "uniformity_video", "mmd"):
        assert some[name] == pytest.approx(whole[name], abs=0.08), name


def test_any_floating_point_type_is_measured_alike():
    texts, videos = captioned()
    mixed = gap_measures(texts.double().requires_grad_(), videos)
    close(mixed, gap_measures(texts, videos), abs=1e-6)
    close(gap_measures(texts.bfloat16(), videos.half()), mixed, abs=0.05)


# The gap vector


def test_the_gap_vector_has_the_length_of_the_centroid_distance():
    texts, videos = captioned()
    t, v = (side.units for side in distinct(texts, videos))
    gap = centroid_gap(texts, videos)
    torch.testing.assert_close(gap, v.mean(dim=0) - t.mean(dim=0))
    assert float(gap.norm()) == pytest.approx(gap_measures(texts, videos)["centroid_distance"])


def test_moving_along_the_gap_is_liangs_formula_and_closes_it():
    texts, videos = captioned(100, 1, 64)
    stay = shift_along_gap(texts, videos, 0)
    torch.testing.assert_close(stay[0], F.normalize(texts, dim=-1))
    torch.testing.assert_close(stay[1], F.normalize(videos, dim=-1))
    gap = centroid_gap(texts, videos)
    direction, length = gap / gap.norm(), 0.4 * gap.norm()
    moved = shift_along_gap(texts, videos, 0.4)
    torch.testing.assert_close(moved[0], F.normalize(unit(texts) + length / 2 * direction, dim=-1).float())
    torch.testing.assert_close(moved[1], F.normalize(unit(videos) - length / 2 * direction, dim=-1).float())
    left = [float(centroid_gap(*shift_along_gap(texts, videos, f)).norm()) for f in (-0.5, 0, 0.5, 1)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.1 * left[1]


def test_a_shift_must_be_finite_and_leave_a_direction():
    texts, videos = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    for fraction in (math.nan, math.inf):
        with pytest.raises(InputError, match="finite"):
            shift_along_gap(texts, videos, fraction)
    with pytest.raises(InputError, match="origin"):
        shift_along_gap(texts, videos, 2)  # the gap is (-1, 0): the first text moves by all of it


# What is said about them, and bad input


def test_every_measure_is_explained_in_one_sentence():
    assert list(gap_measures(vectors(), vectors(seed=1))) == list(MEASURES)
    assert set(MEASURES) >= SAMPLED
    assert len({measure.title for measure in MEASURES.values()}) == len(MEASURES)
    for measure in MEASURES.values():
        assert measure.reading.endswith(".")
        assert ". " not in measure.reading
        assert measure.source


GOOD = vectors(4)


def changed(row, value):
    points = GOOD.clone()
    points[row] = value
    return points


@pytest.mark.parametrize(
    ("texts", "videos", "message"),
    [
        (GOOD, GOOD[:3], "4 texts and 3 videos"),
        (GOOD, GOOD[:, :5], "8 dimensions and the videos 5"),
        (GOOD[:1], GOOD[:1], "at least two pairs of text and video, not 1"),
        (GOOD[:0], GOOD[:0], "at least two pairs of text and video, not 0"),
        (GOOD[0], GOOD[0], "table"),
        (GOOD.long(), GOOD, "The texts must be .* floating-point numbers, not torch.int64"),
        (GOOD, GOOD.to(torch.complex64), "The videos must be .* floating-point numbers, not torch.complex64"),
        (changed(2, math.nan), GOOD, "text embedding in row 2 .* not finite"),
        (GOOD, changed(1, -math.inf), "video embedding in row 1 .* not finite"),
        (changed(3, 0.0), GOOD, "text embedding in row 3 .* zero"),
        (GOOD[:, :0], GOOD[:, :0], "text embedding in row 0 .* zero"),
        (torch.ones(4, 8), GOOD, "two distinct texts and two distinct videos: all text embeddings"),
        (GOOD, GOOD[:1] * torch.tensor([[1.0], [2.0], [4.0], [0.5]]), "all video embeddings"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(texts, videos, message):
    for measure in (gap_measures, pair_distances, centroid_gap, check_pairs):
        with pytest.raises(InputError, match=message):
            measure(texts, videos)


def test_texts_that_all_belong_to_one_video_are_no_pairs():
    with pytest.raises(InputError, match="belong to one video"):
        gap_measures(GOOD[[0, 1, 0]], GOOD[[0, 0, 1]])


def test_valid_pairs_are_returned_unchanged():
    texts, videos = check_pairs(GOOD, 3 * GOOD)
    assert texts is GOOD
    assert torch.equal(videos, 3 * GOOD)
