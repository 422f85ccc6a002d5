"""The handlers of the analysis tabs on the demo corpus, without a browser."""

import threading
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import DitsError, InputError
from tests.helpers.drawn import floats, panels, traces
from tests.helpers.plain import xpool_similarity
from ui.components.panels import MAX_CHOSEN, read_choice
from ui.runtime.cache import Cache
from ui.runtime.error_messages import show_errors
from ui.services.analyses import Analyst
from ui.services.sources import Sources
from ui.tabs.gap import GapHandlers
from ui.tabs.trajectory import TrajectoryHandlers

QUERY = "a dog runs on the beach"
SETTINGS = {"method": "dits", "steps": 10, "noise": 0, "seed": 0, "beside": False}
SHOWN = SETTINGS | {"view": "Linear", "three": False}
GAP = {"split": "validation", "first": "dits", "second": "shift", "side": "mean", "view": "Linear", "three": False}


@pytest.fixture(scope="module")
def analyst(engine):
    return Analyst(engine)


@pytest.fixture(scope="module")
def trajectory(analyst):
    return TrajectoryHandlers(lambda source: analyst)


@pytest.fixture(scope="module")
def gap(analyst):
    return GapHandlers(lambda source: analyst)


def chosen(*points, name="map-linear"):
    """The event that a browser sends when points are chosen."""
    return gr.EventData(None, {"name": name, "points": list(points)})


# Trajectory


@pytest.mark.parametrize("method", ["dits", "dits-l2", "shift"])
def test_the_trajectory_on_the_map_is_the_samplers(trajectory, analyst, engine, method):
    """Along the gap axis, against a separate projection of a separate run of the model."""
    numbers, drawn, _ = trajectory.show(QUERY, **SHOWN | {"method": method})
    with torch.inference_mode():
        points = analyst.model(method).trajectory(engine.encoder.encode_text([QUERY]))[:, 0]
    captions = engine.encoder.encode_text([clip.captions[0] for clip in engine.corpus])
    videos = F.normalize(F.normalize(engine.embeddings.frames, dim=-1).mean(dim=1), dim=-1)
    texts = F.normalize(captions, dim=-1)
    axis = F.normalize(videos.mean(dim=0) - texts.mean(dim=0), dim=0)
    expected = ((F.normalize(points, dim=-1) - torch.cat([texts, videos]).mean(dim=0)) @ axis).numpy()
    path = traces(panels(drawn)["map-linear"])["trajectory of the query"]
    offset = np.array(floats(path["x"])[: len(points)]) - expected
    assert np.ptp(offset) < 1e-3  # the map chooses the zero of the axis
    assert f"{len(points) - 1} step" in numbers


@pytest.mark.parametrize("method", ["dits", "dits-l2"])
def test_the_trajectory_alone_fits_its_own_axes(trajectory, method):
    drawn = panels(trajectory.show(QUERY, **SHOWN | {"method": method})[1])
    alone, whole = drawn["trajectory-linear"], drawn["map-linear"]
    for axis in "xy":
        path = np.array(floats(traces(whole)["trajectory of the query"][axis])[:-1])
        low, high = alone["figure"]["layout"][f"{axis}axis"]["range"]
        assert low < path.min() <= path.max() < high
    assert "times as large" in alone["note"]


def test_the_clip_followed_is_ringed_and_ranks_first_in_search(trajectory, engine):
    figure = panels(trajectory.show(QUERY, **SHOWN)[1])["map-linear"]
    [[kind, index, *_]] = traces(figure)["the clip followed"]["customdata"]
    first = engine.search(QUERY, "dits", 1).hits[0].clip
    assert (kind, engine.corpus.clips[index].id) == ("video", first.id)


def test_diffusion_is_drawn_from_three_starts_that_differ(trajectory, analyst):
    numbers, drawn, _ = trajectory.show(QUERY, **SHOWN | {"beside": True})
    beside = traces(panels(drawn)["map-linear"])["diffusion"]
    paths = {point[1] for point in beside["customdata"]}
    assert len(paths) == 3
    starts = {tuple(floats(beside[axis])[at] for axis in "xy") for at in (0, 12, 24)}
    assert len(starts) == 3
    assert "Diffusion from 3 Gaussian starts" in numbers


def test_without_diffusion_weights_the_checkbox_is_disabled_with_a_reason(engine, monkeypatch):
    monkeypatch.setattr(Analyst, "_methods", lambda self: {"dits": "DITS", "mean": "Mean pooling"})
    tab = TrajectoryHandlers(lambda source: other)
    other = Analyst(engine)
    beside = tab.opened(None, "", QUERY, "", None)[-1]
    assert not beside.interactive
    assert "no weights of the diffusion baseline" in beside.info
    with pytest.raises(InputError, match="no weights of the diffusion baseline"):
        tab.show(QUERY, **SHOWN | {"beside": True})


@pytest.mark.parametrize("method", ["mean", "xpool"])
def test_a_method_without_steps_does_not_move_the_query(trajectory, method):
    numbers, drawn, _ = trajectory.show(QUERY, **SHOWN | {"method": method})
    assert "does not move the query" in numbers
    assert list(panels(drawn)) == ["map-linear"]


@pytest.mark.parametrize("steps", [0, 1, 40])
def test_any_number_of_steps_is_drawn(trajectory, steps):
    numbers, drawn, _ = trajectory.show(QUERY, **SHOWN | {"steps": steps})
    assert numbers.count("<th scope='col'>") == steps + 1
    assert "map-linear" in panels(drawn)


def test_noise_and_its_seed_move_the_trajectory(trajectory):
    def coordinates(**more):
        figure = panels(trajectory.show(QUERY, **SHOWN | more)[1])["map-linear"]
        return tuple(floats(traces(figure)["trajectory of the query"]["x"])[:-1])

    runs = [coordinates(), coordinates(noise=1), coordinates(noise=1, seed=1), coordinates(noise=1)]
    assert len(set(runs)) == 3
    assert runs[1] == runs[3]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"query": ""}, "query is empty"),
        ({"query": " \n\t "}, "query is empty"),
        ({"query": None}, "must be a text"),
        ({"query": 7}, "must be a text"),
        ({"method": "magic"}, "no method 'magic'"),
        ({"method": None}, "no method 'None'"),
        ({"method": ["dits"]}, "no method"),
        ({"method": "../dits"}, "no method"),
        ({"view": "t-SNE"}, "no map 't-SNE'"),
        ({"view": {}}, "no map"),
        ({"steps": -1}, "T' must be a whole number from 0 to 40"),
        ({"steps": 41}, "T' must be a whole number from 0 to 40"),
        ({"steps": 2.5}, "T' must be a whole number"),
        ({"steps": None}, "T' must be a whole number"),
        ({"steps": "10"}, "T' must be a whole number"),
        ({"steps": True}, "T' must be a whole number"),
        ({"steps": 10**400}, "T' must be a whole number from 0 to 40"),
        ({"steps": float("inf")}, "T' must be a whole number from 0 to 40"),
        ({"noise": float("nan")}, "noise must be a number from 0 to 1"),
        ({"noise": float("inf")}, "noise must be a number from 0 to 1"),
        ({"noise": -0.1}, "noise must be a number from 0 to 1"),
        ({"noise": 10**400}, "noise must be a number from 0 to 1"),
        ({"noise": None}, "noise must be a number from 0 to 1"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 2**32}, "seed must be a whole number"),
        ({"seed": 10**400}, "seed must be a whole number"),
        ({"seed": float("nan")}, "seed must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
    ],
)
def test_bad_settings_of_a_trajectory_are_one_sentence(trajectory, more, says):
    with pytest.raises(gr.Error, match=says):
        show_errors(trajectory.show)(*({"query": QUERY} | SHOWN | more).values())


def test_markup_in_a_query_is_text(trajectory):
    numbers, drawn, _ = trajectory.show("<img src=x onerror=alert(1)> dog", **SHOWN)
    path = traces(panels(drawn)["map-linear"])["trajectory of the query"]
    assert "<img src=x" not in numbers + "".join(path["hovertext"])
    assert "&lt;img src=x" in path["hovertext"][0]


def test_a_new_query_of_the_search_tab_replaces_the_query(trajectory):
    seen, fresh, own, methods, _ = trajectory.opened(None, "", "a cat", "", None)
    assert (own, fresh, methods.value) == ("a cat", False, "dits")
    assert trajectory.opened(seen, "numbers", "a cat", "my own", "shift")[1:3] == (True, "my own")
    assert trajectory.opened(seen, "", "a cat", "my own", "shift")[1:3] == (False, "my own")
    assert trajectory.opened(seen, "numbers", "a dog", "my own", "shift")[1:3] == (False, "a dog")
    assert trajectory.opened(seen, "numbers", "a dog", "my own", "gone")[3].value == "dits"


def test_only_dits_has_steps_and_noise_to_choose(trajectory):
    assert [[part.interactive for part in trajectory.settings(name)] for name in ("dits", "dits-l2", "mean")] == [
        [True] * 3,
        [True] * 3,
        [False] * 3,
    ]


# Chosen points


def test_a_chosen_clip_is_listed_with_its_true_neighbours(trajectory, engine):
    html = trajectory.chosen(QUERY, **SETTINGS, event=chosen(["video", 5, None]))
    videos = F.normalize(F.normalize(engine.embeddings.frames, dim=-1).mean(dim=1), dim=-1)
    cosines, order = (videos @ videos[5]).sort(descending=True)
    nearest = html.split("Nearest clips")[1].split("</ol>")[0].split("<li>")[1:]
    assert engine.corpus.clips[5].captions[0].split("&")[0][:20] in html
    for row, video, cosine in zip(nearest, order[:5], cosines, strict=False):
        assert engine.corpus.clips[int(video)].captions[0].split("'")[0][:15] in row
        assert f"{cosine:.3f}" in row


def test_a_point_of_the_trajectory_is_listed_with_its_clip(trajectory, analyst, engine):
    """The first path after those of the landmarks; the neighbours are those of the chosen step."""
    new = len(analyst.landmarks("dits-l2").labels.paths)
    last = trajectory.chosen(QUERY, **SETTINGS | {"method": "dits-l2"}, event=chosen(["path", new, 10]))
    first = trajectory.chosen(QUERY, **SETTINGS | {"method": "dits-l2"}, event=chosen(["path", new, 0]))
    assert f"{QUERY} (dits-l2), step v₀" in last
    assert f"{QUERY} (dits-l2), step t" in first
    assert last.split("nearest to")[1] != first.split("nearest to")[1]
    assert engine.search(QUERY, "dits", 1).hits[0].clip.id in first


def test_many_chosen_points_are_cut_and_counted(gap):
    html = gap.chosen("test", "dits", "shift", chosen(*(["text", index, 0, ""] for index in range(100))))
    assert f"Chosen: {MAX_CHOSEN} of 100 points" in html
    assert html.count("<video") <= MAX_CHOSEN


def test_a_trajectory_on_the_second_map_belongs_to_the_second_method(gap, analyst):
    def texts(name):
        return gap.chosen("validation", "dits", "dits-l2", chosen(["path", 0, 10], name=name)).split("nearest to")[1]

    assert texts("map-linear-dits") != texts("map-linear-dits-l2")


@pytest.mark.parametrize(
    "points",
    [
        None,
        [],
        "text",
        {"text": 1},
        7,
        [7],
        ["text"],
        [[]],
        [["text"]],
        [["text", 0]],
        [["text", "0", 0]],
        [["text", 0.0, 0]],
        [["text", True, 0]],
        [["text", None, 0]],
        [[None, 0, 0]],
        [[["text"], 0, 0]],
        [["path", 0, "1"]],
        [["path", 0, [1]]],
        [["text", -1, 0]],
        [["text", 10**30, 0]],
        [["video", -1, None]],
        [["video", 229, None]],
        [["path", -1, 0]],
        [["path", 10**9, 0]],
        [["path", 0, -1]],
        [["path", 0, 11]],
        [["nobody", 0, 0]],
        [["__class__", 0, 0]],
        [["<script>alert(1)</script>", 0, 0]],
        [["text", 0, 0], ["text", 10**9, 0]],
    ],
)
def test_hostile_choices_are_one_sentence(trajectory, gap, points):
    event = gr.EventData(None, {"points": points})
    for choose in (
        lambda: show_errors(trajectory.chosen)(QUERY, *SETTINGS.values(), event),
        lambda: show_errors(gap.chosen)("validation", "dits", "shift", event),
    ):
        with pytest.raises(gr.Error) as caught:
            choose()
        assert "<" not in caught.value.message


@pytest.mark.parametrize("data", [None, {}, [], "points", 7, {"points": {}}])
def test_an_event_without_points_is_one_sentence(data):
    with pytest.raises(InputError, match="Click a point"):
        read_choice(gr.EventData(None, data))


# The gap


def test_the_table_has_the_retrieval_that_evaluation_finds(gap, engine):
    """R@1 at v_0 under DITS, every video pooled by every caption."""
    numbers, _, _, _ = gap.show(**GAP)
    part = engine.corpus.split("validation")
    frames = engine.embeddings.select(part.ids).frames
    model = engine.methods["dits"].model
    found = []
    with torch.inference_mode():
        for index, clip in enumerate(part):
            texts = engine.encoder.encode_text(list(clip.captions))
            scores = xpool_similarity(model.pooling, texts, model.trajectory(texts)[-1], frames)
            found += (scores.argmax(dim=1) == index).tolist()
    row = numbers.split("Text to video R@1")[1].split("</tr>")[0]
    assert row.split("</td>")[1].endswith(f">{100 * np.mean(found):.1f}")


def test_the_gap_tab_shows_both_methods_in_table_and_figures(gap):
    numbers, figures, maps, none = gap.show(**GAP)
    assert "<th scope='col'>DITS</th><th scope='col'>Mean shift</th>" in numbers
    names = {trace.get("name") for trace in panels(figures)["measures"]["figure"]["data"]}
    assert {"DITS", "Mean shift"} <= names
    assert list(panels(maps)) == ["map-linear-dits", "map-linear-shift"]
    assert none == ""


def test_one_method_compared_with_itself_is_shown_once(gap):
    numbers, _, maps, _ = gap.show(**GAP | {"second": "dits"})
    assert list(panels(maps)) == ["map-linear-dits"]
    assert numbers.count("<th scope='col'>DITS</th>") == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"split": "holdout"}, "no split 'holdout'"),
        ({"split": "all"}, "no split 'all'"),
        ({"split": None}, "no split 'None'"),
        ({"split": ["test"]}, "no split"),
        ({"first": "magic"}, "no method 'magic'"),
        ({"second": "<b>"}, "no method '&lt;b&gt;'"),
        ({"second": 3}, "no method '3'"),
        ({"side": "max"}, "no vector of a clip 'max'"),
        ({"view": "t-SNE"}, "no map 't-SNE'"),
    ],
)
def test_bad_choices_of_the_gap_are_one_sentence(gap, more, says):
    with pytest.raises(gr.Error, match=says):
        show_errors(gap.show)(*(GAP | more).values())


def test_what_was_chosen_stays_chosen(gap):
    seen, fresh, split, first, second = gap.opened(None, "", None, None, None)
    assert (fresh, split.value, first.value, second.value) == (False, "test", "dits", "dits-l2")
    again = gap.opened(seen, "numbers", "train", "mean", "shift")
    assert (again[1], *(part.value for part in again[2:])) == (True, "train", "mean", "shift")


# Cached results


def test_a_page_is_computed_once(engine, monkeypatch):
    calls = []
    monkeypatch.setattr("ui.tabs.gap._measures", lambda *_: calls.append("measures") or ("numbers", "[]"))
    monkeypatch.setattr("ui.tabs.gap._maps", lambda *_: calls.append("maps") or "[]")
    monkeypatch.setattr("ui.tabs.trajectory._page", lambda *_: calls.append("trajectory") or ("numbers", "[]"))
    analyst = Analyst(engine)
    gap, trajectory = GapHandlers(lambda source: analyst), TrajectoryHandlers(lambda source: analyst)
    for _ in range(2):
        gap.show(**GAP)
        trajectory.show(QUERY, **SHOWN)
    assert calls == ["measures", "maps", "trajectory"]
    gap.show(**GAP | {"view": "PCA"})  # the measures are cached
    trajectory.show(QUERY, **SHOWN | {"noise": 1})
    assert calls == ["measures", "maps", "trajectory", "maps", "trajectory"]


def test_a_query_is_encoded_once(engine, monkeypatch):
    texts = []
    encode = engine.encoder.encode_text
    monkeypatch.setattr(engine.encoder, "encode_text", lambda batch: texts.append(batch) or encode(batch))
    analyst = Analyst(engine)
    first = analyst.query_flow(QUERY, "dits", 10, 0.0, 0)
    assert analyst.query_flow(QUERY, "dits", 10, 0.0, 0) is first
    assert texts == [[QUERY]]


def test_warming_computes_the_default_page(engine, monkeypatch):
    done, calls = threading.Event(), []
    monkeypatch.setattr("ui.tabs.gap._measures", lambda *asked: calls.append(asked[1:]) or ("numbers", "[]"))
    monkeypatch.setattr("ui.tabs.gap._maps", lambda *asked: calls.append(asked[1:]) or done.set() or "[]")
    analyst = Analyst(engine)
    gap = GapHandlers(lambda source: analyst)
    gap.warm()
    assert done.wait(30)
    _, _, split, first, second = gap.opened(None, "", None, None, None)
    gap.show(split.value, first.value, second.value, "mean", "Linear", False)
    assert calls == [("test", "dits", "dits-l2", "mean"), ("test", "dits", "dits-l2", "Linear", False)]


def test_warming_before_the_engine_is_loaded_raises_nothing():
    def absent(source):
        raise DitsError("Not ready yet")

    gap = GapHandlers(absent)
    gap._warming.acquire()
    gap._warm()  # as its thread runs it
    assert gap._warming.acquire(blocking=False)


def test_a_replaced_engine_has_a_new_analyst(engine):
    loader = SimpleNamespace(engine=lambda: loader.now, now=engine)
    sources = Sources(loader, None)
    first = sources.analyst()
    assert sources.analyst() is first
    loader.now = engine.with_prepared()
    assert loader.now is not engine
    assert sources.analyst() is not first
    assert sources.analyst().engine is loader.now


def test_concurrent_threads_compute_a_value_once():
    cache, calls, values = Cache(), [], []
    asking, all_ask = [], threading.Event()

    def make():
        calls.append(threading.get_ident())
        assert all_ask.wait(30)
        return object()

    def ask():
        asking.append(1)
        if len(asking) == 8:
            all_ask.set()
        values.append(cache("key", make))

    _run(ask for _ in range(8))
    assert len(calls) == 1
    assert len(set(map(id, values))) == 1


def test_one_value_does_not_wait_for_another():
    cache, release = Cache(), threading.Event()
    slow = threading.Thread(target=cache, args=("slow", lambda: release.wait(30)))
    slow.start()
    try:
        assert cache("quick", lambda: 1) == 1
    finally:
        release.set()
        slow.join()


def test_one_value_may_be_computed_from_another():
    cache = Cache()
    assert cache("sum", lambda: cache("part", lambda: 1) + cache("part", lambda: 2)) == 2


def test_a_failure_is_not_cached():
    cache = Cache()
    with pytest.raises(InputError):
        cache("key", lambda: _fail())
    assert len(cache) == 0
    assert cache("key", lambda: 1) == 1


def test_the_values_used_last_stay():
    cache, computed = Cache(2), []
    for key in "abacab":
        cache(key, lambda key=key: computed.append(key) or key)
    assert computed == ["a", "b", "c", "b"]
    assert len(cache) == 2


def _fail():
    raise InputError("no")


def _run(targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_linear_view_is_added_to_other_views(trajectory, gap):
    _, figures, _ = trajectory.show(QUERY, **SHOWN | {"view": "PCA"})
    assert [name for name in panels(figures) if name.startswith("map")] == ["map-pca", "map-linear"]
    _, _, maps, _ = gap.show(**GAP | {"view": "PCA"})
    assert list(panels(maps)) == ["map-pca-dits", "map-pca-shift", "map-linear-dits", "map-linear-shift"]


def test_a_trajectory_from_noise_is_shown_from_the_query_on(trajectory):
    numbers, _, _ = trajectory.show(QUERY, **SHOWN | {"method": "diffusion"})
    cells = numbers.split("cosine to the query")[1].split("</tr>")[0].split('<td class="number">')[1:]
    cosines = [float(cell.split("<")[0]) for cell in cells]
    assert len(cosines) == 12  # the query, the noise, and ten steps
    assert cosines[0] == 1
    assert cosines[1] < 0.9
