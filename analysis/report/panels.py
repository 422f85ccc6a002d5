"""The figures of a report: what changes from step to step, pair by pair, and what arithmetic does instead."""

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
    """The figures of numbers: what changes from step to step, pair by pair, and what arithmetic does instead."""
    flow, reports = analysis.flow, analysis.reports[0]
    before = pair_distances(flow.points[0], flow.own_videos)
    distances = {"text t": before}
    panels = []
    if len(reports) > 1:
        distances["aligned v₀"] = pair_distances(flow.points[-1], flow.own_videos)
        panels = [
            Panel(
                "measures",
                "Gap measures against step",
                "Step t is the text itself, v₀ what retrieval uses. Each panel has its own scale: read the axis before "
                "the slope.",
                partial(measure_curves, reports, {name: measure.title for name, measure in MEASURES.items()}),
                wide=True,
            ),
            Panel(
                "retrieval",
                "Retrieval against step",
                "Text to video, when the point of that step stands for the text.",
                partial(retrieval_curve, reports),
            ),
            Panel(
                "paths",
                "How the texts move",
                "Median over the texts, and the bands that hold half and nine tenths of them.",
                partial(path_bands, analysis.paths),
                wide=True,
            ),
        ]
    panels.append(
        Panel(
            "pairs",
            "Distances of the pairs",
            "On unit vectors, as in Table 9 and Figures 4 to 6 of the DITS paper.",
            partial(pair_histograms, distances),
            wide=True,
        )
    )
    shifts = analysis.shifts
    panels.append(
        Panel(
            "mean-shift",
            "The gap closed by arithmetic",
            "Both clouds moved towards each other along the mean gap, ranked by the plain cosine. Whether a smaller "
            "gap ranks better is to be seen, not assumed.",
            partial(
                gap_shift,
                np.array([shift.share for shift in shifts]),
                np.array([shift.centroid_distance for shift in shifts]),
                np.array([shift.t2v.r1 for shift in shifts]),
            ),
        )
    )
    panels.append(heat_map_panel(analysis))
    return panels


def heat_map_panel(analysis: Analysis) -> Panel:
    """The scores of a batch of pairs, each of another video, at v_0."""
    flow = analysis.flow
    firsts = sorted({int(video): text for text, video in reversed(list(enumerate(flow.video_of)))}.values())
    batch = flow.of_texts(np.array(firsts[:_HEAT_MAP_PAIRS]))
    scores = batch.scores_at(len(batch.points) - 1)[:, batch.video_of]
    return Panel(
        "similarity",
        "Similarity of a batch",
        "Texts in rows, their videos in the same order in columns: the marked diagonal holds the pairs.",
        partial(similarity_heat_map, scores, batch.texts),
    )
