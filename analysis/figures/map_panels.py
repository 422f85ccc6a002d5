"""Maps of a flow: which points are landmarks, whose way is drawn, and how far each map can be trusted."""

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
"""How many texts, and how many videos, are drawn at most: above, a random sample of the texts and their videos."""

HEADINGS = {
    "linear": "Linear view: along the gap, and the strongest direction across it",
    "pca": "Principal components of texts and videos",
    "umap": "UMAP of texts, videos and every step",
}


@dataclass(frozen=True)
class DrawnFlow:
    """What a map shows of a flow: the cloud of its points, and their names."""

    cloud: Cloud
    labels: MapLabels

    def video_of(self, kind: str, index: int) -> int:
        """The video that a point of the map is, belongs to, or is followed to.

        Raises:
            InputError: the map has no such point.
        """
        self._require(kind, index)
        if kind == "video":
            return index
        return int(self.labels.video_of[index]) if kind == "text" else self.labels.video_of_path(index)

    def point(self, kind: str, index: int, step: int = 0) -> tuple[str, np.ndarray]:
        """The name of a point of the map, and its vector (d,); of a way, at a step counted from 0.

        Raises:
            InputError: the map has no such point.
        """
        self._require(kind, index)
        if kind != "path":
            return getattr(self.labels, f"{kind}s")[index], getattr(self.cloud, f"{kind}s")[index]
        steps = len(self.cloud.paths)
        require(0 <= step < steps, f"The ways on the map have {steps} points, counted from 0: there is no {step}.")
        return f"{self.labels.path_names[index]}, step {step_names(steps)[step]}", self.cloud.paths[step, index]

    def with_paths(self, points: np.ndarray, names: Sequence[str], ends: Sequence[int]) -> "DrawnFlow":
        """The same with further ways (S, P, d), of new sentences, and the videos that they are followed to."""
        labels, before = self.labels, self.labels.ends or (-1,) * len(self.labels.paths)
        paths, path_names = (*labels.paths, *[-1] * len(names)), (*labels.path_names, *names)
        named = replace(labels, paths=paths, path_names=path_names, ends=(*before, *ends))
        return DrawnFlow(self.cloud.with_paths(points), named)

    def _require(self, kind: str, index: int) -> None:
        counts = {name: len(getattr(self.labels, f"{name}s")) for name in ("text", "video", "path")}
        require(0 <= index < counts.get(kind, 0), f"The map has no {kind[:20]} {index}.")


def drawn_flow(flow: Flow, paths: int = 24, seed: int = 0, thumbnails: Sequence[str] = ()) -> DrawnFlow:
    """The landmarks of a flow and the ways of `paths` of its texts, of as many different videos as there are.

    Args:
        flow: what is drawn.
        paths: how many ways, at most.
        seed: of the sample, where there are more points than MAX_LANDMARKS.
        thumbnails: (V) an address of a picture of each video.
    """
    texts, videos = _landmarks(flow, seed)
    position = {int(video): index for index, video in enumerate(videos)}
    video_of = np.array([position[int(flow.video_of[text])] for text in texts])
    followed = _spread(video_of, paths) if len(flow.points) > 1 else []
    rows, names = torch.from_numpy(texts), video_names(flow)
    cloud = Cloud(
        texts=flow.queries[rows].numpy(),
        videos=flow.videos[torch.from_numpy(videos)].numpy(),
        paths=flow.points[:, rows[followed]].numpy(),
    )
    labels = MapLabels(
        texts=tuple(flow.texts[text] for text in texts),
        videos=tuple(names[video] for video in videos),
        video_of=video_of,
        paths=tuple(followed),
        path_names=tuple(flow.texts[texts[text]] for text in followed),
        thumbnails=tuple(thumbnails[video] for video in videos) if thumbnails else (),
    )
    return DrawnFlow(cloud, labels)


def video_names(flow: Flow) -> list[str]:
    """What the videos are called on figures: the first of their texts, or their ids where they have none."""
    first = {int(video): text for video, text in zip(reversed(flow.video_of), reversed(flow.texts), strict=True)}
    return [first.get(index, name) for index, name in enumerate(flow.video_ids)]


def map_panels(
    drawn: DrawnFlow,
    kinds: Sequence[str],
    dimensions: int = 2,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path | None = None,
) -> list[Panel]:
    """A map of each kind with how far to trust it. UMAP is fitted for every seed, and the first is drawn.

    Raises:
        InputError: there are too few points, or they cannot be drawn (see `project`).
    """
    drawings = (trusted_map(drawn.cloud, kind, dimensions, seeds, folder) for kind in kinds)
    return [map_panel(made, trusted, drawn.labels) for made, trusted in drawings]


def map_panel(made: Map, trusted: Trust, labels: MapLabels, **drawn: Any) -> Panel:
    """A map with how far to trust it; `drawn` says what stands out on it (see `embedding_map`).

    The panel is named by the kind that was asked for, which another may stand in for.
    """
    note = " ".join(filter(None, (made.note, trusted.sentence())))
    draw = partial(embedding_map, made, labels, **drawn)
    return Panel(f"map-{made.parameters['asked']}", HEADINGS[made.kind], note, draw, wide=made.kind == "umap")


def trusted_map(
    cloud: Cloud, kind: str, dimensions: int = 2, seeds: Sequence[int] = (0, 1, 2), folder: Path | None = None
) -> tuple[Map, Trust]:
    """A map, kept in `folder` (by default in the cache), and how far to trust it.

    Raises:
        InputError: see `project`.
    """
    folder = folder or cache_root() / "maps"
    drawn = seeds if kind == "umap" else seeds[:1]
    maps = [cached_map(folder, cloud, kind, dimensions, seed=seed) for seed in drawn]
    return maps[0], trust(cloud, maps[0], maps_of_other_seeds=maps[1:])


def _landmarks(flow: Flow, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the texts and videos that are drawn."""
    texts = np.arange(len(flow.texts))
    if len(texts) > MAX_LANDMARKS:
        texts = np.sort(np.random.default_rng(seed).choice(texts, MAX_LANDMARKS, replace=False))
    all_fit = len(flow.videos) <= MAX_LANDMARKS
    return texts, np.arange(len(flow.videos)) if all_fit else np.unique(flow.video_of[texts])


def _spread(video_of: np.ndarray, count: int) -> list[int]:
    """So many texts, evenly over the videos: the first text of each."""
    _, firsts = np.unique(video_of, return_index=True)
    firsts = np.sort(firsts)
    return firsts[np.linspace(0, len(firsts) - 1, min(count, len(firsts))).round().astype(int)].tolist()
