"""The figures of a report: measures by step, distances and scores of pairs, and the baseline by arithmetic."""

from functools import partial

import numpy as np

from analysis.figures import (
    gap_shift,
    measure_curves,
    pair_histograms,
    path_bands,
    retrieval_curve,
    similarity_heat_map,
)
from analysis.figures.panels import Panel
from analysis.measures.analysis import Analysis
from analysis.measures.gap import MEASURES, pair_distances

_HEAT_MAP_PAIRS = 40


def step_panels(analysis: Analysis) -> list[Panel]:
    """All figures of a report except the maps."""
    flow, reports = analysis.flow, analysis.reports[0]
    distances = {"text t": pair_distances(flow.points[0], flow.own_videos)}
    panels = []
    if len(reports) > 1:
        distances["aligned v₀"] = pair_distances(flow.points[-1], flow.own_videos)
        panels = [
            Panel(
                "measures",
                "Gap measures by step",
                "Step t is the text itself, v₀ the aligned embedding for retrieval. Each panel has its own scale: read "
                "the axis before the slope.",
                partial(measure_curves, reports, {name: measure.title for name, measure in MEASURES.items()}),
                wide=True,
            ),
            Panel(
                "retrieval",
                "Retrieval by step",
                "Text to video, with the point at each step as the query.",
                partial(retrieval_curve, reports),
            ),
            Panel(
                "paths",
                "How the texts move",
                "Median over the texts, and the bands with 50 % and 90 % of the texts.",
                partial(path_bands, analysis.paths),
                wide=True,
            ),
        ]
    shifts = np.array([(shift.share, shift.centroid_distance, shift.t2v.r1) for shift in analysis.shifts])
    return [
        *panels,
        Panel(
            "pairs",
            "Distances of the pairs",
            "On unit vectors, as in Table 9 and Figures 4 to 6 of the DITS paper.",
            partial(pair_histograms, distances),
            wide=True,
        ),
        Panel(
            "mean-shift",
            "The gap closed by arithmetic",
            "Both clouds move towards each other along the mean gap, and the plain cosine ranks the videos. A smaller "
            "gap does not always mean better retrieval.",
            partial(gap_shift, *shifts.T),
        ),
        heat_map_panel(analysis),
    ]


def heat_map_panel(analysis: Analysis) -> Panel:
    """The scores of a batch of pairs with different videos, at v_0."""
    flow = analysis.flow
    firsts = sorted({int(video): text for text, video in reversed(list(enumerate(flow.video_of)))}.values())
    batch = flow.select_texts(np.array(firsts[:_HEAT_MAP_PAIRS]))
    scores = batch.scores_at(len(batch.points) - 1)[:, batch.video_of]
    return Panel(
        "similarity",
        "Similarity of a batch",
        "Texts in rows, their videos in the same order in columns. The marked diagonal has the pairs.",
        partial(similarity_heat_map, scores, batch.texts),
    )
