"""How far apart texts and videos lie: measures of the modality gap, on any paired embeddings.

All take texts (N, d) and the videos that belong to them (N, d), of any norm; they are normalised here, as the papers
do before they measure. Which vector stands for a video is for the caller to say: a video pooled by its own text lies
closer to that text by construction than the mean of its frames does.

A measure of pairs is a mean over the N pairs. Every other measure takes a repeated vector as one point, so that a
video counts once however many captions it has. `analysis.measures.bootstrap` says how sure the numbers are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from analysis.measures.distributions import frechet, mean_cosine, mmd, separability, uniformity
from analysis.measures.neighbours import cross_modal_neighbours, hubness
from analysis.measures.points import Points, checked, different_points, unit
from analysis.measures.points import sampled as sampled
from dits.common.errors import require


@dataclass(frozen=True)
class PairDistances:
    """How far each of N texts lies from its own video, on unit vectors: what the paper's histograms show.

    Attributes:
        l1: (N,) sums of absolute differences (Table 9, Figure 6 of the DITS paper).
        l2: (N,) Euclidean distances (Figures 3 and 4).
        cosine: (N,) cosines (Table 9, Figures 5 and 6).
    """

    l1: np.ndarray
    l2: np.ndarray
    cosine: np.ndarray


@dataclass(frozen=True)
class Gap:
    """One place along the way from text to video, as measures look at it: unit vectors in double precision.

    Attributes:
        pairs: how far each text lies from its own video.
        text: the different texts.
        video: the different videos.
        some_text: the different texts, or a sample where there are more than `SAMPLE_ABOVE`.
        some_video: the different videos, or a sample.
        seed: of whatever else is drawn.
    """

    pairs: PairDistances
    text: Points
    video: Points
    some_text: Points
    some_video: Points
    seed: int


@dataclass(frozen=True)
class Measure:
    """An entry of the registry: a measure, and what a table says about it.

    Attributes:
        title: its name, as tables print it.
        reading: one sentence on its range, what smaller and larger mean, and its trap.
        source: who defined it, or which paper reports it.
        of: takes it.
    """

    title: str
    reading: str
    source: str
    of: Callable[[Gap], float]

    def as_dict(self) -> dict[str, str]:
        """What a table says about it, as JSON values."""
        return {"title": self.title, "reading": self.reading, "source": self.source}


SAMPLED = frozenset(("separability", "uniformity_text", "uniformity_video", "mmd", "cross_modal_neighbours", "hubness"))
"""The measures that look at a sample where a modality has more points than `sampled` says; all others are exact."""


def gap_measures(texts: Tensor, videos: Tensor, *, seed: int = 0) -> dict[str, float]:
    """Every one of `MEASURES`, by name, of pairs: texts (N, d) and videos (N, d).

    The seed draws the folds of separability, the points that the median distance of the mmd is taken of, and, above
    `SAMPLE_ABOVE` different points of one modality, those that the measures of `SAMPLED` look at.

    Raises:
        InputError: see `checked`; or all texts belong to one video.
    """
    checked(texts, videos)
    paired_text, paired_video = unit(texts), unit(videos)
    text, video = different_points(paired_text, paired_video)
    gap = Gap(
        pairs=_pair_distances(paired_text, paired_video),
        text=text,
        video=video,
        some_text=text.sample(seed),
        some_video=video.sample(seed),
        seed=seed,
    )
    return {name: measure.of(gap) for name, measure in MEASURES.items()}


def pair_distances(texts: Tensor, videos: Tensor) -> PairDistances:
    """The distances of each text (N, d) and the video that belongs to it (N, d).

    Raises:
        InputError: see `checked`.
    """
    checked(texts, videos)
    return _pair_distances(unit(texts), unit(videos))


def centroid_gap(texts: Tensor, videos: Tensor) -> Tensor:
    """The gap vector (d,): the mean of the different videos less that of the different texts, of unit vectors.

    Its length is the centroid distance (Liang et al. 2022).

    Raises:
        InputError: see `checked`.
    """
    checked(texts, videos)
    return _centroid_gap(*different_points(unit(texts), unit(videos)))


def shift_along_gap(texts: Tensor, videos: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Texts (N, d) and videos (N, d) as unit vectors, moved towards each other along the gap vector, half-way each.

    Liang et al. 2022: half the fraction is added to texts and taken from videos, and both are normalised again. At 0
    they stay, at 1 the centroids coincide up to that normalisation, below 0 the gap widens.

    Raises:
        InputError: see `checked`; or the fraction is not a finite number, or a point is moved to the origin.
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

    With d(a, b) = (1 - cos) / 2: the mean over pairs, over itself plus half the sum of the two mean distances within
    the modalities, each over different points and without the diagonal. The official code sets a mean over pairs of 0
    to 0.001; here it stays 0.
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
        "From 0 (a text lies on its video) over 1.41 (a right angle) to 2; its square is 2 - 2 cosine, so it says the "
        "same as the cosine does, in other units.",
        "Wang et al. 2024 (DITS), Figures 3 and 4; Schrodi et al. 2024 (L2I)",
        lambda gap: float(gap.pairs.l2.mean()),
    ),
    "l1": Measure(
        "L1 distance of pairs",
        "From 0 up; it grows with the square root of the dimension and falls where few coordinates carry a vector, so "
        "compare it only between spaces of one dimension, best of one encoder.",
        "Wang et al. 2024 (DITS), Table 9",
        lambda gap: float(gap.pairs.l1.mean()),
    ),
    "cosine": Measure(
        "Cosine of pairs",
        "From -1 to 1, higher is closer; it rises for wrong pairs too when a space narrows to a cone, so read it next "
        "to the cones.",
        "Wang et al. 2024 (DITS), Table 9",
        lambda gap: float(gap.pairs.cosine.mean()),
    ),
    "alignment": Measure(
        "Alignment",
        "Mean squared distance of pairs, from 0 (all pairs coincide) to 4; a space that has collapsed to a point is "
        "perfectly aligned, so read it next to uniformity.",
        "Wang and Isola 2020, alpha = 2",
        lambda gap: float(np.square(gap.pairs.l2).mean()),
    ),
    "centroid_distance": Measure(
        "Distance of centroids",
        "From 0 (one centre) to 2, 0.82 for CLIP on COCO; two clouds of one centre can still be told apart, and from "
        "n points it comes out at up to the square root of 2 / n where there is no gap.",
        "Liang et al. 2022",
        lambda gap: float(_centroid_gap(gap.text, gap.video).norm()),
    ),
    "rmg": Measure(
        "Relative modality gap",
        "From 0 (pairs coincide) to 1; 0.5 means that a pair is as far apart as two points of one modality, so it "
        "falls when the modalities spread out as well as when pairs meet.",
        "Schrodi et al. 2024",
        lambda gap: relative_modality_gap(
            float(gap.pairs.cosine.mean()), mean_cosine(gap.text.units), mean_cosine(gap.video.units)
        ),
    ),
    "separability": Measure(
        "Linear separability",
        "Share of held-out points whose modality a linear classifier tells, from 0.5 (chance) to 1 (fully apart), "
        "both modalities counting alike; it saturates at 1 long before the gap is wide, and few points leave it low.",
        "Fahim et al. 2024; logistic regression, cross-validated",
        lambda gap: separability(gap.some_text.units, gap.some_video.units, gap.seed),
    ),
    "uniformity_text": Measure(
        "Uniformity of texts",
        "Lower is more even: 0 where all texts are in one place, about -4 for random directions in many dimensions; "
        "it says nothing about the videos, and near copies of one text raise it.",
        "Wang and Isola 2020, t = 2",
        lambda gap: float(uniformity(gap.some_text)),
    ),
    "uniformity_video": Measure(
        "Uniformity of videos",
        "Lower is more even: 0 where all videos are in one place, about -4 for random directions in many dimensions; "
        "it says nothing about the texts, and near copies of one video raise it.",
        "Wang and Isola 2020, t = 2",
        lambda gap: float(uniformity(gap.some_video)),
    ),
    "cone_text": Measure(
        "Cone of texts",
        "Mean cosine of two different texts: 0 where they fill the sphere, towards 1 in a narrow cone (0.51 for CLIP "
        "on COCO); several captions of one video raise it, because they are alike.",
        "Liang et al. 2022",
        lambda gap: mean_cosine(gap.text.units),
    ),
    "cone_video": Measure(
        "Cone of videos",
        "Mean cosine of two different videos: 0 where they fill the sphere, towards 1 in a narrow cone (0.47 for "
        "CLIP's images on COCO); a corpus about one subject raises it in any space.",
        "Liang et al. 2022",
        lambda gap: mean_cosine(gap.video.units),
    ),
    "frechet": Measure(
        "Frechet distance",
        "Squared distance of Gaussians fitted to both clouds, from 0 (one mean and covariance) up; it comes out too "
        "large from few points, above all fewer than dimensions, so compare only equal numbers of points.",
        "Dowson and Landau 1982; Heusel et al. 2017 (FID)",
        lambda gap: frechet(gap.text.units, gap.video.units),
    ),
    "mmd": Measure(
        "Maximum mean discrepancy",
        "Squared and unbiased, 0 on average (slightly negative at times) where both clouds have one distribution, 2 "
        "at most; its kernel is as wide as the data's median distance, so values of different data share no scale.",
        "Gretton et al. 2012, Equation 4; Gaussian kernel, median heuristic",
        lambda gap: float(mmd(gap.some_text, gap.some_video, seed=gap.seed)),
    ),
    "cross_modal_neighbours": Measure(
        "Cross-modal neighbours",
        "Share of the 10 nearest neighbours that are of the other modality, over the share expected by chance: 0 is "
        "none, 1 full mixing, above 1 closer to the other modality than to one's own; a small gap can leave it at 0, "
        "and with 11 points or fewer it is 1 whatever they are.",
        "Ours, after Schilling 1986; k = 10",
        lambda gap: cross_modal_neighbours(gap.some_text.units, gap.some_video.units),
    ),
    "hubness": Measure(
        "Hubness of videos",
        "Skewness of how often a video is among a text's 10 nearest: 0 is even, above 1 a few hubs answer many texts; "
        "it is about ranking rather than the gap, and 0 with 10 videos or fewer whatever they are.",
        "Radovanovic et al. 2010; k = 10",
        lambda gap: hubness(gap.some_text.units, gap.some_video.units),
    ),
}
"""Every measure by name, in the order of tables: what is entered here, `gap_measures` takes and reports print."""
