"""Figures by step: gap measures, retrieval, path measures, and the ranks of videos."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import (
    DASHES,
    SYMBOLS,
    Palette,
    caption,
    curve,
    faint,
    palette_of,
    panels,
    place,
    shortened,
    step_axis,
    step_names,
    styled,
)
from analysis.measures.trajectory import QUANTILES, StepReport, bands
from dits.common.errors import InputError

PATH_TITLES = {
    "step_length": "Step length",
    "cosine_to_start": "Cosine with the text",
    "cosine_to_target": "Cosine with own video",
    "cosine_to_distractor": "Cosine with best other video",
    "gap_closed": "Share of the gap closed",
    "rank": "Rank of own video",
}
"""Titles of the path measures."""

_RANKS = [factor * 10**power for power in range(7) for factor in (1, 2, 5)]
_BUMP_HEIGHT, _BUMP_MARGIN = 460, {"l": 48, "r": 140, "t": 20, "b": 52}  # pixels
_LABEL_HEIGHT = 14  # pixels


def measure_curves(
    reports: Sequence[StepReport],
    measures: Mapping[str, str],
    theme: str = "light",
    *,
    name: str = "DITS",
    other: Mapping[str, Sequence[StepReport]] | None = None,
) -> go.Figure:
    """Gap measures (a mapping of names in MEASURES to titles) at every step, for one method or several.

    If the methods have different numbers of steps, x is the share of the trajectory.
    """
    palette = palette_of(theme)
    methods = {name: reports, **(other or {})}
    figure, height = panels([_title(title) for title in measures.values()], columns=2, legend=len(methods) > 1)
    same_steps = len({len(steps) for steps in methods.values()}) == 1
    for panel, (field, title) in enumerate(measures.items()):
        for index, (method, steps) in enumerate(methods.items()):
            x = np.arange(len(steps)) if same_steps else np.linspace(0, 1, len(steps))
            line = curve(x, [report.gap[field] for report in steps], method, index, palette)
            line.update(showlegend=panel == 0 and len(methods) > 1, legendgroup=method, meta=title)
            figure.add_trace(line, **place(panel, 2))
    shares = {"tickvals": [0.0, 0.25, 0.5, 0.75, 1.0], "ticktext": ["t", "", "50%", "", "v₀"]}
    figure.update_xaxes(
        step_axis(len(reports), ticks=5) if same_steps else {"title": "share of the trajectory", **shares}
    )
    figure.update_yaxes(nticks=5)
    changes = "; ".join(
        f"{title} from {reports[0].gap[field]:.3f} to {reports[-1].gap[field]:.3f}" for field, title in measures.items()
    )
    description = f"Measures of the gap at every step, from t to v₀, of {', '.join(methods)}. {name}: {changes}."
    return styled(figure, theme, "gap-by-step", description, height)


def retrieval_curve(reports: Sequence[StepReport], theme: str = "light") -> go.Figure:
    """Text-to-video R@1, R@5 and R@10 at every step, with the step's points as queries."""
    palette = palette_of(theme)
    recalls = {
        "R@10": [report.t2v.r10 for report in reports],
        "R@5": [report.t2v.r5 for report in reports],
        "R@1": [report.t2v.r1 for report in reports],
    }
    figure = go.Figure()
    for index, (name, values) in enumerate(recalls.items()):
        figure.add_trace(curve(np.arange(len(reports)), values, name, index, palette))
    figure.update_xaxes(step_axis(len(reports)))
    figure.update_yaxes(title_text="recall (% of texts)", range=[0, 102])
    changes = ", ".join(f"{name} from {values[0]:.1f} to {values[-1]:.1f}" for name, values in recalls.items())
    return styled(figure, theme, "retrieval-by-step", f"Recall in percent at every step: {changes}.", 380)


def path_bands(measured: Mapping[str, np.ndarray], theme: str = "light") -> go.Figure:
    """Median and quantile bands of path measures (S, N) over the texts at every step."""
    palette = palette_of(theme)
    titles = {name: PATH_TITLES.get(name, name) for name in measured}
    figure, height = panels([_title(title) for title in titles.values()], columns=2)
    for panel, (name, values) in enumerate(measured.items()):
        for trace in _band_traces(bands(values).T, palette):
            trace.update(showlegend=panel == 0, legendgroup=trace.name, meta=titles[name])
            figure.add_trace(trace, **place(panel, 2))
        figure.update_xaxes(**step_axis(len(values), ticks=5), **place(panel, 2))
        figure.update_yaxes(**_path_axis(name), **place(panel, 2))
    changes = "; ".join(
        f"{titles[name]} from {np.median(values[0]):.3g} to {np.median(values[-1]):.3g}"
        for name, values in measured.items()
    )
    texts = next(iter(measured.values())).shape[1]
    description = f"Quantile bands over {texts} texts at every step, from t to v₀. Medians: {changes}."
    return styled(figure, theme, "trajectories-by-step", description, height)


def query_curves(measured: Mapping[str, np.ndarray], text: int, theme: str = "light") -> go.Figure:
    """Path measures (S, N) of one text at every step: its cosines, the share of the gap closed, the step lengths.

    Raises:
        InputError: there is no such text.
    """
    palette = palette_of(theme)
    steps, texts = measured["gap_closed"].shape
    if not 0 <= text < texts:
        raise InputError(f"There is no text {text}: {texts} are measured, counted from 0.")
    column = {name: values[:, text] for name, values in measured.items()}
    x = np.arange(steps)
    figure, height = panels(["Cosine with", PATH_TITLES["gap_closed"], PATH_TITLES["step_length"]], panel_height=150)
    cosines = {
        "the text": ("cosine_to_start", palette.text),
        "its own video": ("cosine_to_target", palette.video),
        "the best other": ("cosine_to_distractor", palette.muted),
    }
    for index, (name, (key, colour)) in enumerate(cosines.items()):
        figure.add_trace(curve(x, column[key], name, index, palette, colour).update(meta="Cosine"), **place(0))
    for panel, key in ((1, "gap_closed"), (2, "step_length")):
        line = curve(x, column[key], PATH_TITLES[key], 0, palette, palette.ink)
        figure.add_trace(line.update(showlegend=False), **place(panel))
        figure.update_yaxes(**_path_axis(key), **place(panel))
    figure.update_xaxes(step_axis(steps))
    own, best = column["cosine_to_target"], column["cosine_to_distractor"]
    description = (
        f"One text at every step, from t to v₀: its cosine with its own video goes from {own[0]:.3f} to {own[-1]:.3f}, "
        f"with the best other video from {best[0]:.3f} to {best[-1]:.3f}; the share of the gap closed at v₀ is "
        f"{column['gap_closed'][-1]:.1%}."
    )
    return styled(figure, theme, "text-by-step", description, height)


def bump_chart(
    ranks: np.ndarray, names: Sequence[str], *, top: int = 8, chosen: int | None = None, theme: str = "light"
) -> go.Figure:
    """Ranks (S, V) at every step of the chosen video, and of all that are among the first `top` at any step.

    Videos that end among the first are labelled. Customdata is ["video", index, step], as on a map.
    """
    palette = palette_of(theme)
    steps = len(ranks)
    drawn = [
        int(video) for video in np.argsort(ranks[-1], kind="stable") if video == chosen or ranks[:, video].min() <= top
    ]
    labelled = [video for video in drawn if video == chosen or ranks[-1, video] <= top]
    styles = {video: _bump_style(index, video == chosen, palette) for index, video in enumerate(labelled)}
    unlabelled = {"mode": "lines", "line": {"color": faint(palette.muted, 0.5), "width": 1}}
    figure = go.Figure()
    for video in reversed(drawn):  # the last trace is on top
        label = caption(names[video])
        figure.add_trace(
            go.Scatter(
                x=np.arange(steps),
                y=ranks[:, video],
                name=shortened(names[video], 40),
                hovertext=[
                    f"{label}<br>rank {rank} at step {step}"
                    for rank, step in zip(ranks[:, video], step_names(steps), strict=True)
                ],
                hovertemplate="%{hovertext}<extra></extra>",
                customdata=[["video", video, step] for step in range(steps)],
                **styles.get(video, unlabelled),
            )
        )
    worst = int(ranks[:, drawn].max())
    logarithmic = worst > 2 * top
    ends = [(int(ranks[-1, video]), names[video], styles[video]["line"]["color"]) for video in labelled]
    _label_ends(figure, ends, worst, logarithmic)
    figure.update_xaxes(step_axis(steps))
    figure.update_yaxes(
        title_text="rank (logarithmic)" if logarithmic else "rank",
        type="log" if logarithmic else "linear",
        range=_rank_range(worst, logarithmic),
        tickvals=[rank for rank in _RANKS if rank <= worst] if logarithmic else np.arange(1, worst + 1),
    )
    first, last = (names[int(row.argmin())] for row in (ranks[0], ranks[-1]))
    description = f"Ranks of {len(drawn)} videos at every step. The first is {first} at the text and {last} at v₀."
    return styled(figure, theme, "ranks-by-step", description, _BUMP_HEIGHT, showlegend=False, margin=_BUMP_MARGIN)


def _bump_style(index: int, chosen: bool, palette: Palette) -> dict[str, Any]:
    """A thick line in the videos' colour for the chosen video; others differ in colour, dashes and markers."""
    others = (*palette.series, palette.text)
    colour = palette.video if chosen else others[index % len(others)]
    dash = "solid" if chosen else DASHES[(index // len(others)) % len(DASHES)]
    symbol = "square" if chosen else SYMBOLS[index % len(SYMBOLS)]
    return {
        "mode": "lines+markers",
        "line": {"color": colour, "width": 4 if chosen else 1.5, "dash": dash},
        "marker": {"color": colour, "symbol": symbol, "size": 10 if chosen else 7},
        "cliponaxis": False,
    }


def _rank_range(worst: int, logarithmic: bool) -> list[float]:
    """The axis range, with the worst rank at the bottom and the first at the top."""
    return [float(np.log10(worst * 1.1)), float(np.log10(0.9))] if logarithmic else [worst + 0.5, 0.5]


def _label_ends(figure: go.Figure, ends: Sequence[tuple[int, str, str]], worst: int, logarithmic: bool) -> None:
    """Adds labels (rank, name, colour) beside the last step, from the first rank downwards, without overlaps."""
    bottom, top = _rank_range(worst, logarithmic)
    pixels = (_BUMP_HEIGHT - _BUMP_MARGIN["t"] - _BUMP_MARGIN["b"]) / (bottom - top)
    free = -np.inf
    for rank, name, colour in ends:
        at = float(np.log10(rank)) if logarithmic else float(rank)
        below = max((at - top) * pixels, free)
        free = below + _LABEL_HEIGHT
        figure.add_annotation(
            x=1,
            xref="paper",
            xanchor="left",
            xshift=8,
            y=at,
            yshift=(at - top) * pixels - below,
            text=f"{rank} {shortened(name)}",
            font={"size": 11, "color": colour},
            showarrow=False,
        )


def _band_traces(quantiles: np.ndarray, palette: Palette) -> list[go.Scatter]:
    """Quantiles (5, S), from the lowest to the highest, as two filled bands and the median."""
    x = np.arange(quantiles.shape[1])
    traces = []
    for low, opacity in ((0, 0.18), (1, 0.32)):
        share = QUANTILES[-1 - low] - QUANTILES[low]
        traces.append(
            go.Scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([quantiles[low], quantiles[-1 - low][::-1]]),
                name=f"{share:.0%} of texts",
                mode="lines",
                line={"width": 0},
                fill="toself",
                fillcolor=faint(palette.series[0], opacity),
                hoverinfo="skip",
            )
        )
    median = curve(x, quantiles[2], "median", 0, palette)
    median.hovertemplate = "%{hovertext}<extra></extra>"
    median.hovertext = [
        f"median {middle:.3g}<br>50% of texts {lower:.3g} to {upper:.3g}<br>90% of texts {lowest:.3g} to {highest:.3g}"
        for lowest, lower, middle, upper, highest in quantiles.T
    ]
    return [*traces, median]


def _path_axis(name: str) -> dict[str, Any]:
    if name == "rank":
        return {"autorange": "reversed", "type": "log", "tickvals": _RANKS}
    return {"tickformat": ".1%", "nticks": 5} if name == "gap_closed" else {"nticks": 5}


def _title(text: str) -> str:
    """The title of one of two panels side by side, short enough for a phone."""
    return caption(text, 18, 2)
