"""Own videos on the page: the handlers of the tab, and the other tabs over own videos."""

import json
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import gradio as gr
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import DitsError, IndexStoreError, InputError
from dits.index.adding.config import AddConfig
from dits.index.adding.run import add_videos
from dits.index.store import VideoIndex
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.search.engine import SearchEngine
from dits.search.loading import load_engine
from dits.search.methods import LoadedMethod
from tests.helpers.drawn import floats, panels, traces
from tests.helpers.own_videos import request, wait_for, write_clips
from ui.api.endpoints import Api
from ui.components.results import comparison_html, results_html
from ui.runtime.error_messages import show_errors
from ui.services.analyses import Analyst
from ui.services.library import Library
from ui.services.sources import Sources
from ui.services.visitors import OwnLibrary
from ui.tabs.gap import GapHandlers
from ui.tabs.trajectory import TrajectoryHandlers
from ui.tabs.videos import VideosHandlers

CUT = ("every 10 seconds", 10)
SETTINGS = {"query": "a red picture", "method": "dits", "steps": 10, "noise": 0, "seed": 0, "beside": False}


@pytest.fixture(scope="module")
def base(tiny_corpus, tiny_folder):
    return load_engine(str(tiny_corpus), f"local-dir:{tiny_folder}", allow_missing=True)


@pytest.fixture
def library(base, tmp_path):
    return Library(str(tmp_path / "index"), lambda: base, threading.Lock(), AddConfig(workers=1), tmp_path / "derived")


@pytest.fixture
def tab(library):
    return VideosHandlers(OwnLibrary(library))


@pytest.fixture
def clips(tmp_path):
    return write_clips(tmp_path / "clips")


def add(tab, paths, cut=CUT, uploads=None):
    """Add like the page, wait until the run is done, and return what the page shows."""
    show_errors(tab.add)(str(paths), uploads, *cut, request())
    return list(tab.follow(request()))[-1]


def titles(library, query="anything"):
    return {hit.clip.title for hit in library.engine().search(query, "mean", 10).hits}


def test_a_folder_is_added_and_searched(tab, library, clips, tiny_folder):
    running, stop, held, sources, manage, where, _ = add(tab, clips)
    assert "Done: 3 videos added (3 segments)" in running
    assert "<b>3 videos</b> in 3 segments" in held
    assert sources.choices == [(str(clips), str(clips))]
    assert (stop.visible, manage.visible, where.visible, where.value) == (False, True, True, "own")
    assert titles(library) == {"red.mp4", "green.mp4", "blue.mp4"}
    own = load_engine(library.location, f"local-dir:{tiny_folder}", allow_missing=True)
    expected = own.search("a red picture", "mean", 3)
    found = library.engine().search("a red picture", "mean", 3)
    assert [(hit.clip.id, hit.score) for hit in found.hits] == [(hit.clip.id, hit.score) for hit in expected.hits]


def test_the_api_searches_lists_follows_and_evaluates_them(tab, library, clips, base):
    add(tab, clips / "red.mp4")
    api = Api(Sources(SimpleNamespace(engine=lambda: base), OwnLibrary(library)))
    listed, trajectory = api.corpus(own=True), api.trajectory("red", "mean", own=True)
    [clip] = listed["clips"]
    assert (clip["title"], clip["captions"], trajectory["target"]) == ("red.mp4", [], clip["id"])
    found = api.search("red", "mean", 5, True)
    assert [result["id"] for result in found["results"]] == [clip["id"]]
    report = api.evaluate([{"video_id": clip["id"], "caption": "red"}], "mean", "all", True)
    assert report["metrics"]["t2v"]["R@1"] == 100
    assert [step["cosine_to_distractor"] for step in trajectory["steps"]] == [None]  # there is no other clip
    answers = json.dumps([listed, trajectory, found, report])
    assert clip["video"] in answers
    assert str(clips) not in answers
    assert all(result["id"] != clip["id"] for result in api.search("red", "mean", 5)["results"])


def test_progress_is_shown_and_the_page_searches_meanwhile(tab, library, clips, base):
    show_errors(tab.add)(str(clips), None, *CUT, request())
    steps = tab.follow(request())
    first = next(steps)
    assert "<progress" in first[0]
    assert first[1].visible  # the stop button
    assert base.search("some colour", "mean", 1).hits
    with pytest.raises(gr.Error, match="being added already"):
        show_errors(tab.add)(str(clips), None, *CUT, request())
    assert "Done: 3 videos" in list(steps)[-1][0]


def test_a_run_that_is_stopped_keeps_what_it_stored_and_is_gone_on_with(tab, library, tmp_path):
    long = write_clips(tmp_path / "long", seconds=12)
    show_errors(tab.add)(str(long), None, "another length", 0.25, request())
    wait_for(lambda: library.runs.progress is not None)
    tab.stop(request())
    last = list(tab.follow(request()))[-1]
    assert "Stopped" in last[0]
    stored = library.status().segments if library.status() else 0
    assert stored < 144
    assert "Done" in add(tab, long, ("another length", 0.25))[0]
    assert library.status().segments == 144


def test_another_run_waits_for_its_turn_and_can_be_stopped_there(base, tmp_path, clips):
    app_lock = threading.Lock()
    library = Library(str(tmp_path / "index"), lambda: base, app_lock)
    with app_lock:
        library.add([str(clips)], "whole")
        wait_for(lambda: library.runs.waiting)
        library.runs.stop()
        wait_for(lambda: not library.runs.running)
    assert library.status() is None


def test_failed_files_are_listed_with_their_escaped_reasons(tab, clips):
    (clips / "<img src=x onerror=alert(1)>.mp4").write_text("no video")
    shutil.copy(clips / "red.mp4", clips / "red too.mp4")
    held = add(tab, clips)[2]
    assert "1 file could not be read" in held
    assert "&lt;img src=x" in held
    assert "<img" not in held
    assert "1 file identical to another file" in held
    (clips / "green.mp4").unlink()
    tab.update(request())
    assert "1 file missing from the disk" in list(tab.follow(request()))[-1][2]


def test_removing_forgets_what_was_added(tab, library, clips):
    add(tab, f"{clips / 'red.mp4'}\n\n '{clips / 'blue.mp4'}' ")
    assert titles(library) == {"red.mp4", "blue.mp4"}
    show_errors(tab.remove)(str(clips / "red.mp4"), request())
    assert titles(library) == {"blue.mp4"}
    assert (clips / "red.mp4").exists()
    with pytest.raises(gr.Error, match="Nothing was added from"):
        show_errors(tab.remove)(str(clips / "red.mp4"), request())
    show_errors(tab.remove)(str(clips), request())
    with pytest.raises(InputError, match="no videos of yours yet"):
        library.engine()
    assert not list(tab.follow(request()))[-1][5].visible


def test_dropped_files_are_kept_where_gradio_does_not_delete_them(tab, library, clips, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    kept = tmp_path / "data" / "dits" / "dropped"
    again = Path(shutil.copytree(clips, tmp_path / "again"))
    add(tab, "", uploads=[str(clips / "red.mp4")])
    (again / "below").mkdir()
    (again / "green.mp4").rename(again / "below" / "red.mp4")  # another file of the same name
    add(tab, "", uploads=[str(again / "below" / "red.mp4"), str(again / "red.mp4")])
    shutil.rmtree(clips)
    shutil.rmtree(again)
    tab.update(request())
    assert "0 missing" in list(tab.follow(request()))[-1][0]
    assert titles(library) == {"red.mp4", "red (2).mp4"}
    assert sorted(os.listdir(kept)) == ["red (2).mp4", "red.mp4"]
    tab.remove(str(kept / "red.mp4"), request())
    assert os.listdir(kept) == ["red (2).mp4"]
    with pytest.raises(gr.Error, match=r"The upload red\.mp4 is missing"):
        add(tab, "", uploads=[str(again / "red.mp4")])


@pytest.mark.parametrize(
    ("paths", "cut", "says"),
    [
        ("", CUT, "Nothing to add"),
        (" \n ", CUT, "Nothing to add"),
        ("/nowhere/<b>at all</b>", CUT, "no file or folder /nowhere/&lt;b&gt;"),
        ("/tmp\0", CUT, "NUL"),
        ("/\ud800", CUT, "is not a valid path"),
        ("x" * 200_000, CUT, "too long"),
        ("y" * 5_000, CUT, "no file or folder"),
        (None, CUT, "must be a text"),
        (["/tmp"], CUT, "must be a text"),
        ("/tmp", ("by magic", 10), "cannot be cut"),
        ("/tmp", (None, 10), "cannot be cut"),
        ("/tmp", ("another length", 0), "lasts from 0"),
        ("/tmp", ("another length", float("nan")), "lasts from 0"),
        ("/tmp", ("another length", None), "lasts from 0"),
        ("/tmp", ("another length", "10"), "lasts from 0"),
        ("/tmp", ("another length", 10**400), "lasts from 0"),
    ],
)
def test_what_cannot_be_added_is_one_sentence(tab, library, paths, cut, says):
    with pytest.raises(gr.Error, match=says):
        show_errors(tab.add)(paths, None, *cut, request())
    assert library.status() is None


@pytest.mark.parametrize("path", [None, "", 7, "\0", "/\ud800", ["/tmp"]])
def test_what_cannot_be_removed_is_one_sentence(tab, clips, path):
    add(tab, clips / "red.mp4")
    with pytest.raises(gr.Error):
        show_errors(tab.remove)(path, request())


def test_an_index_that_is_damaged_is_one_sentence(tab, library, clips, base):
    add(tab, clips / "red.mp4")
    for file in Path(library.location).rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    fresh = VideosHandlers(OwnLibrary(Library(library.location, lambda: base, threading.Lock())))
    assert 'class="problem"' in list(fresh.follow(request()))[-1][0]


def test_a_new_engine_of_the_page_gives_its_methods_to_own_videos(base, clips, tmp_path):
    now = [base]
    library = Library(str(tmp_path / "index"), lambda: now[0], threading.Lock(), AddConfig(workers=1))
    add(VideosHandlers(OwnLibrary(library)), clips)
    before = library.engine()
    assert library.engine() is before
    model = RetrievalModel(ModelConfig("mean")).eval()
    now[0] = SearchEngine(
        base.corpus, base.encoder, base.embeddings, {"mean": LoadedMethod(model, base.methods["mean"].gallery, "new")}
    )
    assert library.engine().methods["mean"].model is model


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [IndexStoreError("The disk is away."), ValueError("The disk is away.")])
def test_a_failed_load_is_reported_until_a_load_succeeds(tab, library, clips, monkeypatch, error):
    """No search returns the videos of an older version of the index."""
    add(tab, clips / "red.mp4")
    with monkeypatch.context() as patch:
        patch.setattr("ui.services.library.search_index", Mock(side_effect=error))
        add(tab, clips / "blue.mp4")
        with pytest.raises(DitsError, match="disk is away"):
            library.engine()
    assert titles(library) == {"red.mp4", "blue.mp4"}


# The other tabs


@pytest.fixture(scope="module")
def own(engine, tmp_path_factory):
    """A library of three clips in parts of a second, with the engine that the app runs."""
    folder = tmp_path_factory.mktemp("own")
    library = Library(str(folder / "index"), lambda: engine, threading.Lock(), AddConfig(workers=1), folder / "derived")
    index = VideoIndex.create(library.location, engine.encoder)
    add_videos(index, engine.encoder, [str(write_clips(folder / "clips", 2))], AddConfig(segment="1s", workers=1))
    return library


@pytest.fixture(scope="module")
def trajectory(own):
    return TrajectoryHandlers(lambda source: own.analyst())


def test_the_trajectory_leads_over_own_clips_to_the_first_search_result(trajectory, own, engine):
    numbers, drawn, _ = trajectory.show(**SETTINGS, view="Linear", three=False)
    figure = traces(panels(drawn)["map-linear"])
    first = own.engine().search(SETTINGS["query"], "dits", 1).hits[0].clip
    assert f"<q>{first.title}</q>" in numbers
    assert "circles on the map are captions of the demo clips" in numbers
    [[kind, index, *_]] = figure["the clip followed"]["customdata"]
    assert (kind, own.engine().corpus.clips[index].id) == ("video", first.id)
    assert len(figure["video"]["customdata"]) == 6
    assert numbers.count(f"/thumbnail/{own.token}/") == 3 * 11
    with torch.inference_mode():
        points = engine.methods["dits"].model.trajectory(engine.encoder.encode_text([SETTINGS["query"]]))[:, 0]
    captions = F.normalize(engine.encoder.encode_text([clip.captions[0] for clip in engine.corpus]), dim=-1)
    videos = F.normalize(F.normalize(own.engine().embeddings.frames.float(), dim=-1).mean(dim=1), dim=-1)
    axis = F.normalize(videos.mean(dim=0) - captions.mean(dim=0), dim=0)
    expected = (F.normalize(points, dim=-1) @ axis).numpy()
    offset = np.array(floats(figure["trajectory of the query"]["x"])[: len(points)]) - expected
    assert np.ptp(offset) < 1e-3  # the map chooses the zero of the axis


@pytest.mark.parametrize("point", [["video", 4, None], ["path", 0, 3], ["text", 7, 0]])
def test_chosen_points_show_own_clips(trajectory, own, point):
    html = trajectory.chosen(**SETTINGS, event=gr.EventData(None, {"name": "map-linear", "points": [point]}))
    assert html.count(f'src="/clip/{own.token}/') == (point[0] != "text")
    assert ".mp4" in html.split("Nearest clips")[1]


def test_methods_that_need_pairs_are_not_offered(trajectory):
    _, _, _, methods, _ = trajectory.opened(None, "", "a cat", "", "shift")
    names = [name for _, name in methods.choices]
    assert "shift" not in names
    assert {"dits", "xpool", "mean"} <= set(names)
    assert methods.value == "dits"


def test_the_gap_says_that_it_needs_pairs(own):
    gap = GapHandlers(lambda source: own.analyst())
    gap.opened(None, "", None, None, None)
    numbers, figures, maps, none = gap.show(None, None, None, "mean", "Linear", False)
    assert "measured on pairs" in numbers
    assert "CSV file" in numbers
    assert (figures, maps, none) == ("[]", "[]", "")


def test_of_many_clips_those_in_the_results_are_drawn(own, monkeypatch):
    """With room for five of six: the first two of each method are there, and the trajectory leads to the same clip."""
    monkeypatch.setattr("ui.services.analyses.MAX_LANDMARKS", 5)
    monkeypatch.setattr("ui.services.analyses.MAX_RESULTS", 1)
    analyst = Analyst(own.engine(), own.media)
    part = analyst.for_query(SETTINGS["query"])
    assert len(part.engine.corpus) == 5
    assert analyst.for_query(SETTINGS["query"]) is part
    found = {hit.clip.id for result in own.engine().search_all(SETTINGS["query"], 1).values() for hit in result.hits}
    assert found <= set(part.engine.corpus.ids)
    flow = part.query_flow(SETTINGS["query"], "dits")
    first = own.engine().search(SETTINGS["query"], "dits", 1).hits[0]
    assert part.engine.corpus.clips[flow.video_of[0]].id == first.clip.id


def test_cards_play_their_part_with_a_picture(own):
    results = own.engine().search_all(SETTINGS["query"], 6)
    page = results_html(results["dits"], own.media) + comparison_html(results, "dits", media=own.media)
    for hit in results["dits"].hits:
        address = f"/clip/{own.token}/{hit.clip.id}#t={hit.clip.start:.3f},{hit.clip.end:.3f}"
        assert f'src="{address}" poster="/thumbnail/{own.token}/{hit.clip.id}" data-start="' in page
        assert hit.clip.start <= hit.best_moment <= hit.clip.end
    assert str(own.location) not in page
    assert "/gradio_api/file=" not in page


# What is served


def test_only_what_is_in_the_index_now_is_given_away(own):
    segment = own.engine().embeddings.ids[0]
    assert own.file(segment).name.endswith(".mp4")
    assert own.thumbnail(segment)[:3] == b"\xff\xd8\xff"
    for other in ("", "x", "../" + segment, segment + "0", segment[:-1], "' OR ''='", "\0", "\ud800", "z" * 10_000):
        assert own.file(other) is None
        assert own.thumbnail(other) is None


def test_what_is_no_regular_file_any_more_is_not_given_away(library, tab, clips):
    add(tab, clips)
    ids = {clip.path.name: clip.id for clip in library.engine().corpus}
    (clips / "red.mp4").unlink()
    os.mkfifo(clips / "red.mp4")
    (clips / "green.mp4").unlink()
    (clips / "green.mp4").mkdir()
    assert library.file(ids["red.mp4"]) is None
    assert library.file(ids["green.mp4"]) is None
    assert library.file(ids["blue.mp4"]) == clips / "blue.mp4"
    tab.remove(str(clips / "blue.mp4"), request())
    assert library.file(ids["blue.mp4"]) is None
