import csv
import html
import itertools
import json
import math
import re

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from analysis.figures import (
    PALETTES,
    MapLabels,
    bump_chart,
    embedding_map,
    figure_html,
    figure_rows,
    gap_shift,
    measure_curves,
    pair_histograms,
    path_bands,
    query_curves,
    retrieval_curve,
    similarity_heat_map,
)
from analysis.figures.style import caption, shortened, step_names
from analysis.measures.gap import MEASURES, PairDistances
from analysis.measures.trajectory import PATH_MEASURES, StepReport
from analysis.projections.projection import Map
from dits.common.errors import InputError
from dits.common.files import write_csv
from dits.evaluation.metrics import Metrics

TEXTS, VIDEOS, STEPS, PATHS = 6, 3, 5, 2
HOSTILE = "<script>alert(1)</script> <b>bold</b> & \"quoted\" 'text' <a href='javascript:alert(1)'>link</a>"


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def a_map(size=2, kind="linear", texts=TEXTS, paths=PATHS):
    axes = ("gap", "component", "another")[:size]
    points = values(texts, size), values(VIDEOS, size, seed=1), values(STEPS, paths, size, seed=2)
    return Map(kind, size, *points, {}, axes)


def labels(texts=TEXTS, paths=PATHS):
    return MapLabels(
        texts=tuple(f"{HOSTILE} {index}" for index in range(texts)),
        videos=tuple(f"clip {index}" for index in range(VIDEOS)),
        video_of=np.arange(texts) % VIDEOS,
        paths=(4, -1)[:paths],
        path_names=("a sentence", "a <i>new</i> query")[:paths],
        thumbnails=tuple(f"/clips/{index}.jpg" for index in range(VIDEOS)),
    )


def reports(steps=STEPS, seed=0):
    gap = values(steps, len(MEASURES), seed=seed)
    recall = 100 * np.random.default_rng(seed).random((steps, 6))
    return [
        StepReport(step, steps - 1 - step, dict(zip(MEASURES, gap[step], strict=True)), Metrics(*recall[step]))
        for step in range(steps)
    ]


def measured(steps=STEPS, texts=20):
    arrays = {name: values(steps, texts, seed=seed) for seed, name in enumerate(PATH_MEASURES)}
    return {**arrays, "rank": np.random.default_rng(0).integers(1, 50, (steps, texts))}


def distances(seed=0):
    return PairDistances(*(values(200, seed=seed + part) for part in range(3)))


def ranks(steps=STEPS, videos=40, seed=3):
    return np.argsort(np.argsort(values(steps, videos, seed=seed), axis=1), axis=1) + 1


def every_figure(theme="light"):
    names = [f"{HOSTILE} {index}" for index in range(40)]
    return {
        "flat": embedding_map(a_map(), labels(), theme=theme),
        "deep": embedding_map(a_map(3, "pca"), labels(), chosen=("path", 0), theme=theme),
        "umap": embedding_map(a_map(2, "umap"), labels(), chosen=("video", 1), theme=theme),
        "pairs": pair_histograms({"text <t>": distances(), "v_0": distances(5)}, theme),
        "gap": measure_curves(reports(), {"l2": HOSTILE, "rmg": "RMG"}, theme, other={HOSTILE: reports(7)}),
        "retrieval": retrieval_curve(reports(), theme),
        "bands": path_bands(measured(), theme),
        "query": query_curves(measured(), 3, theme),
        "bump": bump_chart(ranks(), names, chosen=7, theme=theme),
        "heat": similarity_heat_map(values(8, 8), names[:8], theme),
        "shift": gap_shift(np.linspace(0, 1, 5), values(5), values(5, seed=1), theme, marked=0.3),
    }


def trace(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def coordinates(trace, size=2):
    return np.stack([np.asarray(trace[axis], float) for axis in "xyz"[:size]], axis=1)


@pytest.mark.parametrize("size", [2, 3])
def test_a_map_draws_the_points_it_was_given(size):
    points, figure = a_map(size), embedding_map(a_map(size), labels())
    assert np.array_equal(coordinates(trace(figure, "text"), size), points.texts)
    assert np.array_equal(coordinates(trace(figure, "video"), size), points.videos)
    paths = coordinates(trace(figure, "trajectory of a text"), size).reshape(PATHS, STEPS + 1, size)
    assert np.array_equal(paths[:, :-1].transpose(1, 0, 2), points.paths)
    assert np.isnan(paths[:, -1]).all()
    pairs = coordinates(trace(figure, "pair"), size).reshape(TEXTS, 3, size)
    assert np.array_equal(pairs[:, 0], points.texts)
    assert np.array_equal(pairs[:, 1], points.videos[labels().video_of])
    assert np.isnan(pairs[:, 2]).all()
    assert "pair" not in [trace.name for trace in embedding_map(a_map(size), labels(), pairs=False).data]


@pytest.mark.parametrize("size", [2, 3])
def test_frames_move_the_points_of_now_along_the_trajectories(size):
    points, figure = a_map(size), embedding_map(a_map(size), labels())
    assert np.array_equal(coordinates(trace(figure, "now"), size), points.paths[-1])
    assert np.array_equal(coordinates(trace(embedding_map(points, labels(), step=1), "now"), size), points.paths[1])
    assert [frame.name for frame in figure.frames] == [str(step) for step in range(STEPS)]
    for step, frame in enumerate(figure.frames):
        assert [figure.data[index].name for index in frame.traces] == ["now"]
        assert np.array_equal(coordinates(frame.data[0], size), points.paths[step])
        assert [data[:3] for data in frame.data[0].customdata] == [["path", path, step] for path in range(PATHS)]
    slider = figure.layout.sliders[0]
    assert slider.active == STEPS - 1
    assert [list(step.args[0]) for step in slider.steps] == [[frame.name] for frame in figure.frames]
    assert [step.label for step in slider.steps] == ["t", "1", "2", "3", "v₀"]
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["Play", "Stop"]


def test_every_point_says_what_it_is():
    figure = embedding_map(a_map(), labels())
    assert [list(data) for data in trace(figure, "text").customdata] == [
        ["text", index, 0, f"/clips/{index % VIDEOS}.jpg"] for index in range(TEXTS)
    ]
    assert [list(data) for data in trace(figure, "video").customdata] == [
        ["video", index, None, f"/clips/{index}.jpg"] for index in range(VIDEOS)
    ]
    points = [list(data) for data in trace(figure, "trajectory of a text").customdata if data[2] is not None]
    thumbnails = ["/clips/1.jpg", ""]  # of text 4's video, and of a new query that has none
    assert points == [["path", path, step, thumbnails[path]] for path in range(PATHS) for step in range(STEPS)]


def test_a_chosen_point_is_highlighted_with_its_video_and_its_trajectory():
    points, names = a_map(), labels()
    by_text, by_path = (embedding_map(points, names, chosen=chosen) for chosen in (("text", 4), ("path", 0)))
    for figure in (by_text, by_path):
        assert np.array_equal(coordinates(trace(figure, "chosen")), [points.texts[4], points.videos[1]])
        assert np.array_equal(coordinates(trace(figure, "chosen trajectory"))[:-1], points.paths[:, 0])
        assert trace(figure, "trajectory of a text").opacity < 1
    new_query = embedding_map(points, names, chosen=("path", 1))
    assert np.array_equal(coordinates(trace(new_query, "chosen trajectory"))[:-1], points.paths[:, 1])
    assert "chosen" not in [trace.name for trace in new_query.data]
    with pytest.raises(InputError, match="no text 6"):
        embedding_map(points, names, chosen=("text", TEXTS))
    with pytest.raises(InputError, match="no cat 0"):
        embedding_map(points, names, chosen=("cat", 0))
    with pytest.raises(InputError, match="no step 5"):
        embedding_map(points, names, step=STEPS)


def test_a_map_without_trajectories_has_no_animation():
    figure = embedding_map(a_map(paths=0), labels(paths=0))
    assert [trace.name for trace in figure.data] == ["pair", "text", "video"]
    assert not figure.frames
    assert not figure.layout.sliders


def test_axes_are_as_long_as_each_other_where_coordinates_mean_something():
    assert embedding_map(a_map(), labels()).layout.yaxis.scaleanchor == "x"
    assert embedding_map(a_map(3), labels()).layout.scene.aspectmode == "data"
    umap = embedding_map(a_map(kind="umap"), labels()).layout
    assert umap.yaxis.scaleanchor is None
    assert umap.xaxis.showticklabels is umap.yaxis.showticklabels is False
    assert [umap.xaxis.title.text, umap.yaxis.title.text] == ["gap", "component"]


def test_many_points_are_drawn_with_webgl():
    assert {trace.type for trace in embedding_map(a_map(), labels()).data} == {"scatter"}
    many = embedding_map(a_map(texts=6_000), labels(6_000))
    assert trace(many, "text").type == trace(many, "pair").type == "scattergl"
    assert trace(many, "now").type == "scatter"


def test_histograms_count_as_numpy_does():
    before, after = distances(), distances(5)
    figure = pair_histograms({"before": before, "after": after})
    for panel, name in enumerate(("l1", "l2", "cosine")):
        pair = [getattr(before, name), getattr(after, name)]
        edges = np.histogram_bin_edges(np.concatenate(pair), 40)
        outlines = [trace for trace in figure.data[4 * panel : 4 * panel + 4] if trace.line.shape == "hv"]
        means = [trace for trace in figure.data[4 * panel : 4 * panel + 4] if trace.line.dash == "dash"]
        for outline, mean, column in zip(outlines, means, pair, strict=True):
            assert np.array_equal(outline.x, edges)
            assert np.array_equal(outline.y[:-1], np.histogram(column, edges)[0])
            assert (sum(outline.y), outline.y[-1]) == (200, 0)
            assert list(mean.x) == pytest.approx([column.mean()] * 2)


def test_curves_are_the_reports():
    steps, other = reports(), reports(seed=1)
    figure = measure_curves(steps, {"l2": "L2", "rmg": "RMG"}, name="ours", other={"theirs": other})
    drawn = {(trace.meta, trace.name): (list(trace.x), list(trace.y)) for trace in figure.data}
    assert drawn == {
        (title, name): (list(range(STEPS)), [report.gap[field] for report in method])
        for field, title in (("l2", "L2"), ("rmg", "RMG"))
        for name, method in (("ours", steps), ("theirs", other))
    }
    assert list(figure.layout.xaxis.ticktext) == ["t", "1", "2", "3", "v₀"]
    longer = measure_curves(steps, {"l2": "L2"}, other={"theirs": reports(9)})
    assert [list(trace.x) for trace in longer.data] == [[0, 0.25, 0.5, 0.75, 1], list(np.linspace(0, 1, 9))]
    recalls = retrieval_curve(steps)
    for name, field in (("R@1", "r1"), ("R@5", "r5"), ("R@10", "r10")):
        assert list(trace(recalls, name).y) == [getattr(report.t2v, field) for report in steps]


def test_bands_lie_between_quantiles():
    arrays = measured()
    figure = path_bands(arrays)
    for panel, array in enumerate(arrays.values()):
        wide, narrow, median = figure.data[3 * panel : 3 * panel + 3]
        assert [wide.name, narrow.name, median.name] == ["90% of texts", "50% of texts", "median"]
        assert np.allclose(median.y, np.median(array, axis=1))
        for band, low in ((wide, 5), (narrow, 25)):
            lower, upper = np.percentile(array, [low, 100 - low], axis=1)
            assert np.allclose(band.y, [*lower, *upper[::-1]])


def test_a_querys_curves_are_its_column():
    arrays = measured()
    figure = query_curves(arrays, 3)
    columns = ("cosine_to_start", "cosine_to_target", "cosine_to_distractor", "gap_closed", "step_length")
    assert [list(trace.y) for trace in figure.data] == [list(arrays[name][:, 3]) for name in columns]
    with pytest.raises(InputError, match="no text 20"):
        query_curves(arrays, 20)


def test_a_bump_chart_has_who_was_ever_among_the_first_in_the_order_of_the_end():
    order, names = ranks(), [f"clip {video}" for video in range(40)]
    outsider = int(order.min(axis=0).argmax())
    assert order[:, outsider].min() > 4
    figure = bump_chart(order, names, top=4, chosen=outsider)
    expected = {video for video in range(40) if min(order[:, video]) <= 4} | {outsider}
    drawn = {line.customdata[0][1]: list(line.y) for line in figure.data}
    assert drawn == {video: list(order[:, video]) for video in expected}
    assert all(line.name == names[line.customdata[0][1]] for line in figure.data)
    ends = [line.y[-1] for line in figure.data]
    assert ends == sorted(ends, reverse=True)  # the first is drawn last, on top
    last = {rank: video for video, rank in enumerate(order[-1])}
    named = [(rank, last[rank]) for rank in (1, 2, 3, 4)] + [(order[-1, outsider], outsider)]
    assert [label.text for label in figure.layout.annotations] == [f"{rank} clip {video}" for rank, video in named]
    thickest = max(figure.data, key=lambda line: line.line.width)
    assert thickest.customdata[0][1] == outsider
    bottom, top = figure.layout.yaxis.range
    assert bottom > top  # rank 1 is on top


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_of_one_colour_in_a_bump_chart_differ_in_dashes_and_markers(theme):
    figure = bump_chart(ranks(), [f"clip {video}" for video in range(40)], theme=theme)
    named = [line for line in figure.data if line.mode == "lines+markers"]
    assert len(named) == 8
    for look in ("dash", "symbol"):
        drawn = [(line.line.color, line.line.dash if look == "dash" else line.marker.symbol) for line in named]
        assert len(set(drawn)) == len(drawn)
    assert len({line.marker.symbol for line in named}) == 8  # without any colour


@pytest.mark.parametrize("videos", [8, 3_000])
def test_names_beside_a_bump_chart_do_not_lie_on_each_other(videos):
    figure = bump_chart(ranks(videos=videos), [f"clip {video}" for video in range(videos)])
    axis, layout = figure.layout.yaxis, figure.layout
    height = layout.height - layout.margin.t - layout.margin.b
    bottom, top = axis.range
    places = [(label.y - top) / (bottom - top) * height - label.yshift for label in layout.annotations]
    assert len(places) == 8
    assert (np.diff(places) >= 12).all()


def test_a_heat_map_marks_its_diagonal():
    scores = values(5, 5)
    figure = similarity_heat_map(scores, [f"pair {index}" for index in range(5)])
    heat, boxes, highest = figure.data
    assert np.array_equal(heat.z, scores)
    centres = coordinates(boxes).reshape(5, 6, 2)[:, :4].mean(axis=1)
    assert np.array_equal(centres, np.stack([np.arange(5), np.arange(5)], axis=1))
    assert [scores[y, x] for x, y in zip(highest.x, highest.y, strict=True)] == list(scores.max(axis=1))
    assert heat.hovertext[1][3] == "text: pair 1<br>video: pair 3"


def test_the_shift_has_a_panel_for_the_distance_and_one_for_recall():
    fractions, gaps, recalls = np.linspace(0, 1, 5), values(5), values(5, seed=1)
    figure = gap_shift(fractions, gaps, recalls, marked=0.25)
    assert [list(line.x) for line in figure.data] == [list(fractions)] * 2
    assert [list(line.y) for line in figure.data] == [list(gaps), list(recalls)]
    assert {line.yaxis for line in figure.data} == {"y", "y2"}
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(0.25, 0.25)] * 2
    assert not gap_shift(fractions, gaps, recalls).layout.shapes


@pytest.mark.parametrize("theme", PALETTES)
def test_every_figure_is_valid_and_described(theme):
    for figure in every_figure(theme).values():
        assert go.Figure(figure.to_dict()).to_dict() == figure.to_dict()
        assert len(json.loads(pio.to_json(figure))["data"]) == len(figure.data)
        assert re.fullmatch(r"[a-z0-9-]+", figure.layout.meta["name"])
        assert figure.layout.meta["description"].endswith(".")
        assert figure.layout.title.text is None
        look = figure.layout.template.layout
        assert look.paper_bgcolor == look.plot_bgcolor == "rgba(0,0,0,0)"
        assert look.font.color == PALETTES[theme].ink
    with pytest.raises(InputError, match="one of light, dark, not 'blue'"):
        retrieval_curve(reports(), "blue")


def shown_texts(value, key=""):
    """Every string of a figure that plotly reads as markup."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name not in ("meta", "template", "legendgroup", "customdata"):
                yield from shown_texts(part, name)
    elif isinstance(value, list | tuple | np.ndarray):
        for part in value:
            yield from shown_texts(part, key)
    elif isinstance(value, str) and not key.endswith("template"):
        yield value


def test_no_text_becomes_markup():
    allowed = re.compile(r'<br>|<span style="font-size:11px">|</span>')
    for figure in every_figure().values():
        for text in shown_texts(figure.to_dict()):
            assert "<" not in allowed.sub("", text)
    hover = trace(every_figure()["flat"], "text").hovertext[0]
    assert html.unescape(hover.replace("<br>", " ")) == f"{HOSTILE} 0"


def test_captions_are_wrapped_and_cleaned_of_what_cannot_be_seen():
    assert caption("one two three", width=8) == "one two<br>three"
    assert caption("word " * 10_000, lines=3).count("<br>") == 2
    assert max(len(line) for line in caption("x" * 500, width=20).split("<br>")) <= 20
    assert caption("a\u202eb\ud800c\x00\nd") == "abc d"
    assert shortened("a & b") == "a &amp; b"
    assert shortened("0123456789", 6) == "01234…"
    assert [step_names(count) for count in (1, 2, 3)] == [["t"], ["t", "v₀"], ["t", "1", "v₀"]]


def test_rows_hold_all_that_is_drawn(tmp_path):
    for figure in every_figure().values():
        columns, rows = figure_rows(figure)
        assert columns == ("trace", "x", "y", "z", "text")
        points = sum(
            trace.z.size if trace.type == "heatmap" else sum(not math.isnan(x) for x in trace.x)
            for trace in figure.data
        )
        assert len(rows) == points
        write_csv(tmp_path / "figure.csv", columns, rows)
        with (tmp_path / "figure.csv").open(newline="", encoding="utf-8") as stream:
            read = list(csv.reader(stream))
        assert read[1:] == [["" if cell is None else str(cell) for cell in row] for row in rows]
    points = a_map(3)
    _, rows = figure_rows(embedding_map(points, labels()))
    assert [row[1:] for row in rows if row[0] == "text"] == [
        (*point, f"{HOSTILE} {index}") for index, point in enumerate(points.texts.tolist())
    ]
    scores = values(2, 2)
    _, rows = figure_rows(similarity_heat_map(scores, ["a", "b"]))
    assert rows[:4] == [
        ("cosine", x, y, scores[y, x], f"text: {'ab'[y]} video: {'ab'[x]}") for y in range(2) for x in range(2)
    ]
    _, rows = figure_rows(measure_curves(reports(), {"l2": "L2"}))
    assert {row[0] for row in rows} == {"L2: DITS"}


def test_a_page_holds_all_it_needs_and_no_markup_of_others():
    figure = bump_chart(ranks(), [f"{HOSTILE} {index}" for index in range(40)])
    page = figure_html(figure, HOSTILE)
    assert f"<title>{html.escape(HOSTILE)}</title>" in page
    assert "<script>alert" not in page
    assert "<b>bold" not in page
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    assert "plotly.js v" in page
    assert html.escape(figure.layout.meta["description"]) in page


# Machado, Oliveira and Fernandes 2009, at full severity, on linear RGB.
VISION = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def linear_rgb(colour):
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(colour, page):
    """WCAG 2.1's ratio."""
    luminance = [np.array([0.2126, 0.7152, 0.0722]) @ linear_rgb(each) + 0.05 for each in (colour, page)]
    return max(luminance) / min(luminance)


def cielab(linear):
    white = np.array([0.95047, 1, 1.08883])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(linear, 0, 1) / white
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(first, second, vision):
    return np.linalg.norm(cielab(vision @ linear_rgb(first)) - cielab(vision @ linear_rgb(second)))


@pytest.mark.parametrize("theme", PALETTES)
def test_colours_stand_out_from_the_page(theme):
    palette = PALETTES[theme]
    assert {"light": "#ffffff", "dark": "#0b0f19"}[theme] == palette.page
    marks = [palette.text, palette.between, palette.video, palette.muted, *palette.series]
    assert min(contrast(colour, palette.page) for colour in marks) >= 3
    assert contrast(palette.ink, palette.page) >= 7


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", PALETTES)
def test_colours_that_are_drawn_together_differ_to_colour_blind_readers(theme, vision):
    palette = PALETTES[theme]
    together = [
        (palette.text, palette.video, palette.ink),  # maps
        (palette.text, palette.video, palette.muted),  # a query's cosines
        (palette.muted, palette.series[0]),  # before and after
        palette.series,  # methods
    ]
    for colours in together:
        for first, second in itertools.combinations(colours, 2):
            assert difference(first, second, VISION[vision]) >= 15, (first, second)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", PALETTES)
def test_steps_go_from_the_texts_colour_to_the_videos_without_turning_back(theme, vision):
    palette = PALETTES[theme]
    steps = [difference(colour, palette.video, VISION[vision]) for colour in (palette.text, palette.between)]
    assert steps[0] > steps[1] + 15
    assert difference(palette.text, palette.between, VISION[vision]) >= 15
    assert [colour for _, colour in palette.steps] == [palette.text, palette.between, palette.video]
