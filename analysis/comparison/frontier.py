"""Alignment against ranking: DITS with an alignment term or with noise of several strengths, and the point to choose.

The chosen point closes most of the gap among those that rank as well as the best one, within the noise of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.comparison.methods import ENTRIES, Entry
from analysis.comparison.runs import Plan
from analysis.comparison.statistics import Estimate, VideoBootstrap, over_seeds
from dits.ablations.tables import Variant
from dits.evaluation.significance import BootstrapConfig, Difference

WEIGHTS, SCALES = "alignment weight", "noise scale"
REFERENCE = "reference"


@dataclass(frozen=True)
class Setting:
    """A point of a sweep: what is trained, the sweep that it belongs to, and its value there.

    References, mean pooling and X-Pool, have no value; neither sweep moves them.
    """

    entry: Entry
    sweep: str
    value: float | None


@dataclass(frozen=True)
class Point:
    """What a setting reaches.

    Attributes:
        setting: the setting.
        ranking: R@1, R@5, R@10 and their sum ("recalls"), text to video, with intervals over videos.
        closed: the share of the distance of the frozen encoder's centroids that is closed, with Student's interval over
            seeds.
        to_best: the sum of the recalls minus that of the best setting of a sweep, paired over videos.
        to_references: the same for each reference that has results, by its title.
    """

    setting: Setting
    ranking: dict[str, Estimate]
    closed: Estimate
    to_best: Difference
    to_references: dict[str, Difference]

    @property
    def is_candidate(self) -> bool:
        """Whether the point can be chosen: a setting of a sweep that ranks within the noise of the best one."""
        return self.setting.sweep != REFERENCE and within_noise(self.to_best)


def settings_of(weights: Sequence[float], scales: Sequence[float]) -> list[Setting]:
    """DITS with each weight of the alignment term and without noise, and with each noise scale and without the term.

    The setting without both begins both sweeps, and stands once, as the weight 0. The references come last.
    """
    quiet = [Setting(_entry("weight", weight, 0.0, weight), WEIGHTS, weight) for weight in (0.0, *weights)]
    noisy = [Setting(_entry("noise", scale, scale, 0.0), SCALES, scale) for scale in scales]
    references = [Setting(ENTRIES[name], REFERENCE, None) for name in ("mean", "xpool")]
    return [*quiet, *noisy, *references]


def points_of(
    plan: Plan, settings: Sequence[Setting], results: Sequence[dict[str, Any]], config: BootstrapConfig
) -> list[Point]:
    """The points of the settings that have results, in their order."""
    runs = {s.entry.name: [result for result in results if result["method"] == s.entry.name] for s in settings}
    measured = [setting for setting in settings if runs[setting.entry.name]]
    (queries,) = plan.queries
    bootstrap = VideoBootstrap(plan.queries[queries].video_of, config)
    ranks = {name: np.array([run["ranks"][queries]["t2v"] for run in found]) for name, found in runs.items() if found}
    ranking = {name: bootstrap.estimates(values) for name, values in ranks.items()}
    swept = [setting.entry.name for setting in measured if setting.sweep != REFERENCE]
    references = {s.entry.name: s.entry.title for s in measured if s.sweep == REFERENCE}
    best = ranks[max(swept, key=lambda name: ranking[name]["recalls"].value)]
    return [
        Point(
            setting,
            ranking[setting.entry.name],
            over_seeds([run["alignment"]["closed_from_frozen"] for run in runs[setting.entry.name]]),
            bootstrap.differences(ranks[setting.entry.name], best)["recalls"],
            {
                title: bootstrap.differences(ranks[setting.entry.name], ranks[name])["recalls"]
                for name, title in references.items()
            },
        )
        for setting in measured
    ]


def within_noise(to_best: Difference) -> bool:
    """Whether the 95 % interval of the difference to the best includes 0: the data do not show that it ranks worse."""
    return to_best.low <= 0 <= to_best.high


def chosen(points: Sequence[Point]) -> Point:
    """The point that closes most among the candidates; the best one is always a candidate."""
    return max((point for point in points if point.is_candidate), key=lambda point: point.closed.value)


def _entry(name: str, value: float, noise: float, weight: float) -> Entry:
    variant = Variant("dits", {"sampler.noise_scale": noise}, {"alignment_weight": weight})
    return Entry(f"dits-{name}-{value:g}", f"DITS, {'alignment ' if name == 'weight' else ''}{name} {value:g}", variant)
