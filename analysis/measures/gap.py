"""Measures of the modality gap between any paired text and video embeddings.

All take texts (N, d) and their videos (N, d) of any norm, and normalise them, as the papers do. The caller chooses the
video vectors: a video pooled by its own text is closer to that text by construction than the mean of its frames.

Measures of pairs are means over the N pairs. All others count a repeated vector as one point, so a video counts once
however many captions it has. `analysis.measures.bootstrap` computes confidence intervals.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from analysis.measures.distributions import frechet, mean_cosine, mmd, separability, uniformity
from analysis.measures.neighbours import cross_modal_neighbours, hubness
from analysis.measures.points import Points, check_pairs, distinct_points, unit
from dits.common.errors import require


@dataclass(frozen=True)
class PairDistances:
    """Distances of N texts from their own videos, on unit vectors, as in the paper's histograms.

    Attributes:
        l1: (N,) sums of absolute differences (Table 9, Figure 6 of the DITS paper).
        l2: (N,) Euclidean distances (Figures 3 and 4).
        cosine: (N,) cosines (Table 9, Figures 5 and 6).
    """

    l1: np.ndarray
    l2: np.ndarray
    cosine: np.ndarray


@dataclass(frozen=True)
class MeasureInput:
    """Unit vectors in double precision, prepared once for all measures.

    Attributes:
        pairs: the distance of each text from its own video.
        text: the distinct texts.
        video: the distinct videos.
        text_sample: the distinct texts, or a sample if there are more than `SAMPLE_ABOVE`.
        video_sample: the distinct videos, or a sample.
        seed: the seed of further random draws.
    """

    pairs: PairDistances
    text: Points
    video: Points
    text_sample: Points
    video_sample: Points
    seed: int


@dataclass(frozen=True)
class Measure:
    """A measure and its description for tables.

    Attributes:
        title: its name in tables.
        reading: one sentence on its range, the meaning of small and large values, and its pitfall.
        source: the paper that defines or reports it.
        compute: the measure itself.
    """

    title: str
    reading: str
    source: str
    compute: Callable[[MeasureInput], float]

    def as_dict(self) -> dict[str, str]:
        """The description as JSON values."""
        return {"title": self.title, "reading": self.reading, "source": self.source}


SAMPLED = frozenset(("separability", "uniformity_text", "uniformity_video", "mmd", "cross_modal_neighbours", "hubness"))
"""The measures that use a sample if a modality has more than `SAMPLE_ABOVE` points; all others are exact."""


def gap_measures(texts: Tensor, videos: Tensor, *, seed: int = 0) -> dict[str, float]:
    """All of `MEASURES`, by name, for texts (N, d) and their videos (N, d).

    The seed determines the folds of separability, the points for the median distance of the mmd and, if a modality has
    more than `SAMPLE_ABOVE` distinct points, the sample for the measures of `SAMPLED`.

    Raises:
        InputError: see `check_pairs`; or all texts belong to one video.
    """
    check_pairs(texts, videos)
    paired_text, paired_video = unit(texts), unit(videos)
    text, video = distinct_points(paired_text, paired_video)
    inputs = MeasureInput(
        pairs=_pair_distances(paired_text, paired_video),
        text=text,
        video=video,
        text_sample=text.sample(seed),
        video_sample=video.sample(seed),
        seed=seed,
    )
    return {name: measure.compute(inputs) for name, measure in MEASURES.items()}


def pair_distances(texts: Tensor, videos: Tensor) -> PairDistances:
    """The distances between texts (N, d) and their videos (N, d).

    Raises:
        InputError: see `check_pairs`.
    """
    check_pairs(texts, videos)
    return _pair_distances(unit(texts), unit(videos))


def centroid_gap(texts: Tensor, videos: Tensor) -> Tensor:
    """The gap vector (d,): the mean of the distinct unit videos minus the mean of the distinct unit texts.

    Its length is the centroid distance (Liang et al. 2022).

    Raises:
        InputError: see `check_pairs`.
    """
    check_pairs(texts, videos)
    return _centroid_gap(*distinct_points(unit(texts), unit(videos)))


def shift_along_gap(texts: Tensor, videos: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Unit texts (N, d) and videos (N, d), both moved towards each other by half a fraction of the gap vector.

    Both are normalised again (Liang et al. 2022). At 0 they do not move, at 1 the centroids coincide up to the
    normalisation, and below 0 the gap widens.

    Raises:
        InputError: see `check_pairs`; or the fraction is not a finite number, or a point is moved to the origin.
    """
    require(math.isfinite(fraction), f"The fraction of the gap to move by must be a finite number, not {fraction}.")
    half = fraction / 2 * centroid_gap(texts, videos)
    moved_texts, moved_videos = unit(texts) + half, unit(videos) - half
    require(
        bool((moved_texts != 0).any(dim=1).all() and (moved_videos != 0).any(dim=1).all()),
        f"Moved by {fraction} of the gap, a point falls on the origin: choose another fraction.",
    )
    return unit(moved_texts).to(texts.dtype), unit(moved_videos).to(videos.dtype)


Value = TypeVar("Value", float, Tensor)


def relative_modality_gap(cosine: Value, cone_text: Value, cone_video: Value) -> Value:
    """RMG (Schrodi et al. 2024, "Two Effects, One Trigger") from three mean cosines: of pairs, texts and videos.

    With d(a, b) = (1 - cos) / 2, RMG = P / (P + W). P is the mean distance of pairs. W is the average of the two mean
    distances within the modalities, over distinct points and without the diagonal. The official code replaces P = 0
    by 0.001; here it stays 0.
    """
    paired = (1 - cosine) / 2
    within = ((1 - cone_text) / 2 + (1 - cone_video) / 2) / 2
    return paired / (paired + within)


def _centroid_gap(text: Points, video: Points) -> Tensor:
    return video.units.mean(dim=0) - text.units.mean(dim=0)


def _pair_distances(texts: Tensor, videos: Tensor) -> PairDistances:
    difference = videos - texts
    return PairDistances(
        l1=difference.abs().sum(dim=1).numpy(),
        l2=difference.norm(dim=1).numpy(),
        cosine=(texts * videos).sum(dim=1).clamp(-1, 1).numpy(),
    )


MEASURES: dict[str, Measure] = {
    "l2": Measure(
        "L2 distance of pairs",
        "From 0 (the text equals its video) through 1.41 (a right angle) to 2; its square is 2 - 2 cosine, so it has "
        "the same information as the cosine.",
        "Wang et al. 2024 (DITS), Figures 3 and 4; Schrodi et al. 2024 (L2I)",
        lambda gap: float(gap.pairs.l2.mean()),
    ),
    "l1": Measure(
        "L1 distance of pairs",
        "From 0 up; it grows with the square root of the dimension and is small for vectors with few large "
        "coordinates, so compare it only between spaces of the same dimension, preferably of the same encoder.",
        "Wang et al. 2024 (DITS), Table 9",
        lambda gap: float(gap.pairs.l1.mean()),
    ),
    "cosine": Measure(
        "Cosine of pairs",
        "From -1 to 1, higher is closer; it also rises for wrong pairs when a space narrows to a cone, so read it "
        "together with the cones.",
        "Wang et al. 2024 (DITS), Table 9",
        lambda gap: float(gap.pairs.cosine.mean()),
    ),
    "alignment": Measure(
        "Alignment",
        "Mean squared distance of pairs, from 0 (all pairs coincide) to 4; a space that has collapsed to a point is "
        "perfectly aligned, so read it together with uniformity.",
        "Wang and Isola 2020, alpha = 2",
        lambda gap: float(np.square(gap.pairs.l2).mean()),
    ),
    "centroid_distance": Measure(
        "Distance of centroids",
        "From 0 (the same centre) to 2, 0.82 for CLIP on COCO; two clouds with the same centre can still be "
        "distinguishable, and with n points and no gap it can be as large as the square root of 2 / n.",
        "Liang et al. 2022",
        lambda gap: float(_centroid_gap(gap.text, gap.video).norm()),
    ),
    "rmg": Measure(
        "Relative modality gap",
        "From 0 (pairs coincide) to 1; 0.5 means that a pair is as far apart as two points of one modality, so it "
        "falls both when the modalities spread out and when pairs get closer.",
        "Schrodi et al. 2024",
        lambda gap: relative_modality_gap(
            float(gap.pairs.cosine.mean()), mean_cosine(gap.text.units), mean_cosine(gap.video.units)
        ),
    ),
    "separability": Measure(
        "Linear separability",
        "Accuracy of a linear classifier of the modality on held-out points, from 0.5 (chance) to 1 (separable), "
        "averaged over both modalities; it saturates at 1 long before the gap is wide, and is low with few points.",
        "Fahim et al. 2024; logistic regression, cross-validated",
        lambda gap: separability(gap.text_sample.units, gap.video_sample.units, gap.seed),
    ),
    "uniformity_text": Measure(
        "Uniformity of texts",
        "Lower is more even: 0 if all texts coincide, about -4 for random directions in many dimensions; it is "
        "independent of the videos, and near-duplicates of a text raise it.",
        "Wang and Isola 2020, t = 2",
        lambda gap: float(uniformity(gap.text_sample)),
    ),
    "uniformity_video": Measure(
        "Uniformity of videos",
        "Lower is more even: 0 if all videos coincide, about -4 for random directions in many dimensions; it is "
        "independent of the texts, and near-duplicates of a video raise it.",
        "Wang and Isola 2020, t = 2",
        lambda gap: float(uniformity(gap.video_sample)),
    ),
    "cone_text": Measure(
        "Cone of texts",
        "Mean cosine of two distinct texts: 0 if they fill the sphere, towards 1 in a narrow cone (0.51 for CLIP on "
        "COCO); several captions of one video raise it, because they are similar.",
        "Liang et al. 2022",
        lambda gap: mean_cosine(gap.text.units),
    ),
    "cone_video": Measure(
        "Cone of videos",
        "Mean cosine of two distinct videos: 0 if they fill the sphere, towards 1 in a narrow cone (0.47 for CLIP's "
        "images on COCO); a corpus about one subject raises it in any space.",
        "Liang et al. 2022",
        lambda gap: mean_cosine(gap.video.units),
    ),
    "frechet": Measure(
        "Frechet distance",
        "Squared distance of Gaussians fitted to both clouds, from 0 (the same mean and covariance) up; few points, "
        "especially fewer than dimensions, overestimate it, so compare only equal numbers of points.",
        "Dowson and Landau 1982; Heusel et al. 2017 (FID)",
        lambda gap: frechet(gap.text.units, gap.video.units),
    ),
    "mmd": Measure(
        "Maximum mean discrepancy",
        "Squared and unbiased: 0 on average (sometimes slightly negative) if both clouds have the same distribution, "
        "2 at most; the bandwidth is the data's median distance, so values of different data are not comparable.",
        "Gretton et al. 2012, Equation 4; Gaussian kernel, median heuristic",
        lambda gap: float(mmd(gap.text_sample, gap.video_sample, seed=gap.seed)),
    ),
    "cross_modal_neighbours": Measure(
        "Cross-modal neighbours",
        "Share of the other modality among the 10 nearest neighbours, divided by the share expected by chance: 0 is "
        "no mixing, 1 full mixing, above 1 closer to the other modality than to its own; it can be 0 even with a "
        "small gap, and is always 1 with at most 11 points.",
        "Ours, after Schilling 1986; k = 10",
        lambda gap: cross_modal_neighbours(gap.text_sample.units, gap.video_sample.units),
    ),
    "hubness": Measure(
        "Hubness of videos",
        "Skewness of how often a video is among a text's 10 nearest: 0 is even, above 1 a few hubs are near many "
        "texts; it describes ranking rather than the gap, and is always 0 with at most 10 videos.",
        "Radovanovic et al. 2010; k = 10",
        lambda gap: hubness(gap.text_sample.units, gap.video_sample.units),
    ),
}
"""All measures by name, in the order of tables. `gap_measures` computes them and reports print them."""
