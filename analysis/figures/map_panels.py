"""Maps of a flow: their landmarks, their trajectories, and their trust measures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.figures import MapLabels, embedding_map
from analysis.figures.panels import Panel
from analysis.figures.style import step_names
from analysis.flow import Flow
from analysis.projections.cache import cached_map
from analysis.projections.projection import Cloud, Map
from analysis.projections.trust import Trust, trust
from dits.common.errors import require
from dits.common.files import cache_root

MAX_LANDMARKS = 2000
"""Maximum number of texts and of videos on a map; for more, a random sample of the texts and their videos."""

HEADINGS = {
    "linear": "Linear view: along the gap, and the strongest direction across it",
    "pca": "Principal components of texts and videos",
    "umap": "UMAP of texts, videos and every step",
}


@dataclass(frozen=True)
class DrawnFlow:
    """The points of a flow that a map shows, and their labels."""

    cloud: Cloud
    labels: MapLabels

    def video_of(self, kind: str, index: int) -> int:
        """The video of a point of the map: itself, that of a text, or that of a trajectory (-1 if unknown).

        Raises:
            InputError: the map has no such point.
        """
        self._require(kind, index)
        if kind == "video":
            return index
        return int(self.labels.video_of[index]) if kind == "text" else self.labels.video_of_path(index)

    def point(self, kind: str, index: int, step: int = 0) -> tuple[str, np.ndarray]:
        """The name and the vector (d,) of a point of the map; for a trajectory, at a step counted from 0.

        Raises:
            InputError: the map has no such point.
        """
        self._require(kind, index)
        if kind != "path":
            return getattr(self.labels, f"{kind}s")[index], getattr(self.cloud, f"{kind}s")[index]
        steps = len(self.cloud.paths)
        require(0 <= step < steps, f"The trajectories have {steps} points, counted from 0: there is no {step}.")
        return f"{self.labels.path_names[index]}, step {step_names(steps)[step]}", self.cloud.paths[step, index]

    def with_paths(self, points: np.ndarray, names: Sequence[str], ends: Sequence[int]) -> "DrawnFlow":
        """The flow with further trajectories (S, P, d) of new queries, and their target videos."""
        labels, old_ends = self.labels, self.labels.ends or (-1,) * len(self.labels.paths)
        paths, path_names = (*labels.paths, *[-1] * len(names)), (*labels.path_names, *names)
        more_labels = replace(labels, paths=paths, path_names=path_names, ends=(*old_ends, *ends))
        return DrawnFlow(self.cloud.with_paths(points), more_labels)

    def _require(self, kind: str, index: int) -> None:
        counts = {name: len(getattr(self.labels, f"{name}s")) for name in ("text", "video", "path")}
        require(0 <= index < counts.get(kind, 0), f"The map has no {kind[:20]} {index}.")


def drawn_flow(flow: Flow, paths: int = 24, seed: int = 0, thumbnails: Sequence[str] = ()) -> DrawnFlow:
    """The landmarks of a flow, and the trajectories of texts of different videos.

    Args:
        flow: the flow.
        paths: maximum number of trajectories.
        seed: the seed of the sample if there are more points than MAX_LANDMARKS.
        thumbnails: (V) the address of a picture of each video.
    """
    texts, videos = _landmarks(flow, seed)
    position = {int(video): index for index, video in enumerate(videos)}
    video_of = np.array([position[int(flow.video_of[text])] for text in texts])
    moving = _spread(video_of, paths) if len(flow.points) > 1 else []
    rows, names = torch.from_numpy(texts), video_names(flow)
    cloud = Cloud(
        texts=flow.queries[rows].numpy(),
        videos=flow.videos[torch.from_numpy(videos)].numpy(),
        paths=flow.points[:, rows[moving]].numpy(),
    )
    labels = MapLabels(
        texts=tuple(flow.texts[text] for text in texts),
        videos=tuple(names[video] for video in videos),
        video_of=video_of,
        paths=tuple(moving),
        path_names=tuple(flow.texts[texts[text]] for text in moving),
        thumbnails=tuple(thumbnails[video] for video in videos) if thumbnails else (),
    )
    return DrawnFlow(cloud, labels)


def video_names(flow: Flow) -> list[str]:
    """The names of the videos in figures: the first of their texts, or their ids if they have no text."""
    first = {int(video): text for video, text in zip(reversed(flow.video_of), reversed(flow.texts), strict=True)}
    return [first.get(index, name) for index, name in enumerate(flow.video_ids)]


def map_panels(
    drawn: DrawnFlow,
    kinds: Sequence[str],
    dimensions: int = 2,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path | None = None,
) -> list[Panel]:
    """A map of each kind with its trust measures. UMAP is fitted for every seed, and the first map is drawn.

    Raises:
        InputError: there are too few points, or they cannot be mapped (see `project`).
    """
    maps = (trusted_map(drawn.cloud, kind, dimensions, seeds, folder) for kind in kinds)
    return [map_panel(map, measures, drawn.labels) for map, measures in maps]


def map_panel(map: Map, measures: Trust, labels: MapLabels, **options: Any) -> Panel:
    """A map with its trust measures; the options are those of `embedding_map`.

    The panel's name has the requested kind, even if another kind replaces it.
    """
    note = " ".join(filter(None, (map.note, measures.sentence())))
    draw = partial(embedding_map, map, labels, **options)
    return Panel(f"map-{map.parameters['asked']}", HEADINGS[map.kind], note, draw, wide=map.kind == "umap")


def trusted_map(
    cloud: Cloud, kind: str, dimensions: int = 2, seeds: Sequence[int] = (0, 1, 2), folder: Path | None = None
) -> tuple[Map, Trust]:
    """A map, cached in `folder` (by default a folder of the cache), and its trust measures.

    Raises:
        InputError: see `project`.
    """
    folder = folder or cache_root() / "maps"
    used_seeds = seeds if kind == "umap" else seeds[:1]
    maps = [cached_map(folder, cloud, kind, dimensions, seed=seed) for seed in used_seeds]
    return maps[0], trust(cloud, maps[0], maps_of_other_seeds=maps[1:])


def _landmarks(flow: Flow, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the texts and videos on the map."""
    texts = np.arange(len(flow.texts))
    if len(texts) > MAX_LANDMARKS:
        texts = np.sort(np.random.default_rng(seed).choice(texts, MAX_LANDMARKS, replace=False))
    all_fit = len(flow.videos) <= MAX_LANDMARKS
    return texts, np.arange(len(flow.videos)) if all_fit else np.unique(flow.video_of[texts])


def _spread(video_of: np.ndarray, count: int) -> list[int]:
    """At most `count` texts, evenly over the videos: the first text of each."""
    _, firsts = np.unique(video_of, return_index=True)
    firsts = np.sort(firsts)
    return firsts[np.linspace(0, len(firsts) - 1, min(count, len(firsts))).round().astype(int)].tolist()
