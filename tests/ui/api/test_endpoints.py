"""The API endpoints: on the running app against the library and plain formulas, and over own videos."""

import json
import math
import threading
import urllib.request

import gradio as gr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradio_client.exceptions import AppError

from analysis.captions import caption_embeddings
from ui.api import validation
from ui.api.endpoints import MAX_PAIRS, MAX_TEXTS, VERSION, Api
from ui.runtime.error_messages import show_errors
from ui.services.engine_loading import EngineLoader
from ui.services.library import Library
from ui.services.sources import Sources
from ui.services.visitors import Limits, OwnLibrary, VisitorLibraries

SENTENCE = "a dog riding a skateboard"
ENDPOINTS = ["/search", "/corpus", "/trajectory", "/gap", "/evaluate", "/embed"]
METRICS = ["R@1", "R@5", "R@10", "R@50", "MdR", "MnR"]


def unit(vectors):
    return F.normalize(vectors, dim=-1)


@pytest.fixture(scope="module")
def described(engine):
    """Twelve captions of five clips of the test split, as the API takes them."""
    clips = [clip for clip in engine.corpus if clip.split == "test"][:5]
    return [{"video_id": clip.id, "caption": caption} for clip in clips for caption in clip.captions][:12]


@pytest.fixture(scope="module")
def means(engine):
    """The mean of the unit frames of every clip (V, d): the paper's mean pooling."""
    return unit(engine.embeddings.frames).mean(dim=1)


def test_exactly_these_endpoints_are_public_and_typed(served):
    endpoints = served.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ENDPOINTS
    for name, endpoint in endpoints.items():
        assert endpoint["description"].endswith("."), name
        for parameter in endpoint["parameters"]:
            assert parameter["type"].keys() & {"type", "enum", "oneOf"}, (name, parameter)
            assert parameter["python_type"]["description"].endswith("."), (name, parameter)
        [answer] = endpoint["returns"]
        assert answer["type"]["properties"]["api"] == {"type": "integer"}, name
    [queries, *_] = endpoints["/evaluate"]["parameters"]
    assert queries["type"]["items"]["required"] == ["video_id", "caption"]
    assert endpoints["/search"]["parameters"][1]["type"]["enum"] == ["dits", "xpool", "mean"]


def test_answers_have_the_fields_that_are_documented_and_the_version(served, described):
    endpoints = served.view_api(return_format="dict", print_info=False)["named_endpoints"]
    arguments = {
        "/search": {"query": SENTENCE},
        "/corpus": {},
        "/trajectory": {"query": SENTENCE},
        "/gap": {"split": "validation"},
        "/evaluate": {"queries": described},
        "/embed": {"texts": [SENTENCE], "method": "dits"},
    }
    for name in ENDPOINTS:
        answer = served.predict(**arguments[name], api_name=name)
        assert answer["api"] == VERSION == 1
        assert answer.keys() == endpoints[name]["returns"][0]["type"]["properties"].keys(), name
        json.dumps(answer, allow_nan=False)


def test_search_has_defaults_and_titles(served, engine):
    found = served.predict(query=SENTENCE, api_name="/search")
    assert (found["method"], len(found["results"])) == ("dits", 5)
    titles = {clip.id: clip.captions[0] for clip in engine.corpus}
    assert [result["title"] for result in found["results"]] == [titles[result["id"]] for result in found["results"]]


def test_the_corpus_is_listed_in_pages(served, engine):
    pages = [served.predict(offset=offset, limit=100, api_name="/corpus") for offset in (0, 100, 200, 300)]
    clips = [clip for page in pages for clip in page["clips"]]
    assert [clip["id"] for clip in clips] == engine.corpus.ids
    assert [clip["captions"] for clip in clips] == [list(clip.captions) for clip in engine.corpus]
    assert [len(page["clips"]) for page in pages] == [100, 100, len(engine.corpus) - 200, 0]
    assert {page["videos"] for page in pages} == {len(engine.corpus)}
    assert set(pages[0]["search"]) == set(engine.methods) <= set(pages[0]["methods"])
    assert set(pages[0]["splits"]) == {"train", "validation", "test"}


def test_a_trajectory_is_measured_as_plain_formulas_have_it(served, engine, means):
    trajectory = served.predict(query=SENTENCE, method="dits", top=3, api_name="/trajectory")
    model, frames = engine.methods["dits"].model, engine.embeddings.frames
    with torch.inference_mode():
        text = engine.encoder.encode_text([SENTENCE])
        points = model.trajectory(text)[:, 0]
        scores = F.cosine_similarity(points[:, None], model.pooled(text, frames)[0][None], dim=-1)
    target = int(scores[-1].argmax())
    assert trajectory["target"] == engine.corpus.ids[target]
    assert [step["timestep"] for step in trajectory["steps"]] == list(range(10, -1, -1))
    cosines = unit(points) @ unit(means).T
    others = torch.cat([cosines[:, :target], cosines[:, target + 1 :]], dim=1)
    lengths = [0.0, *(unit(points)[1:] - unit(points)[:-1]).norm(dim=-1).tolist()]
    apart = (unit(points) - unit(means)[target]).norm(dim=-1)
    expected = {
        "cosine_to_start": unit(points) @ unit(text)[0],
        "cosine_to_target": cosines[:, target],
        "cosine_to_distractor": others.max(dim=1).values,
        "step_length": lengths,
        "gap_closed": 1 - apart / apart[0],
        "rank": 1 + (scores > scores[:, [target]]).sum(dim=1),
    }
    for name, values in expected.items():
        measured = [step[name] for step in trajectory["steps"]]
        assert measured == pytest.approx(list(map(float, values)), abs=1e-5), name
    ranks = 1 + (scores[:, None, :] > scores[:, :, None]).sum(dim=2)
    leading = [video for video in ranks[-1].argsort().tolist() if ranks[:, video].min() <= 3]
    assert [video["id"] for video in trajectory["videos"]] == [engine.corpus.ids[video] for video in leading]
    assert [video["ranks"] for video in trajectory["videos"]] == [ranks[:, video].tolist() for video in leading]
    assert [video["title"] for video in trajectory["videos"]] == [engine.corpus.clips[video].title for video in leading]


def test_a_trajectory_has_the_requested_steps_and_noise(served):
    def cosines(**settings):
        steps = served.predict(query=SENTENCE, method="dits", **settings, api_name="/trajectory")["steps"]
        return [step["cosine_to_start"] for step in steps]

    assert [len(cosines(steps=steps)) for steps in (0, 3, 40)] == [1, 4, 41]
    assert cosines(steps=3, noise=0.0) == cosines(steps=3)
    assert cosines(steps=3, noise=1.0, seed=5) == cosines(steps=3, noise=1.0, seed=5)
    assert cosines(steps=3, noise=1.0, seed=5) != cosines(steps=3, noise=1.0, seed=6)


def test_the_gap_is_measured_as_plain_formulas_have_it(served, engine, means):
    gap = served.predict(split="validation", method="dits", api_name="/gap")
    rows = [row for row, clip in enumerate(engine.corpus) if clip.split == "validation"]
    pairs = [(row, caption) for row in rows for caption in engine.corpus.clips[row].captions]
    texts = caption_embeddings(engine.encoder, [caption for _, caption in pairs])
    model = engine.methods["dits"].model
    with torch.inference_mode():
        v0, own = model.align(texts), torch.tensor([rows.index(row) for row, _ in pairs])
        pooled = model.pooled(texts, engine.embeddings.frames[rows])
    videos = unit(means[rows])
    assert (gap["pairs"], gap["videos"], len(gap["steps"])) == (len(pairs), len(rows), 11)
    for step, points in ((0, texts), (-1, v0)):
        found, cosines = gap["steps"][step], (unit(points) * videos[own]).sum(dim=1)
        scores = F.cosine_similarity(points[:, None], pooled, dim=-1)
        apart = (unit(points).mean(dim=0) - videos.mean(dim=0)).norm()
        assert found["cosine"] == pytest.approx(float(cosines.mean()), abs=1e-5)
        assert found["l2"] == pytest.approx(float((2 - 2 * cosines).sqrt().mean()), abs=1e-4)
        assert found["centroid_distance"] == pytest.approx(float(apart), abs=1e-5)
        assert found["t2v"]["R@1"] == pytest.approx(100 * float((scores.argmax(dim=1) == own).float().mean()))
        low, high = found["intervals"]["cosine"]
        assert low < found["cosine"] < high
    assert "intervals" not in gap["steps"][5]
    assert set(gap["measures"]) <= set(gap["steps"][5])


def test_a_small_set_is_evaluated_as_counting_does(served, engine, means, described):
    report = served.predict(queries=described, method="mean", api_name="/evaluate")
    place = {name: row for row, name in enumerate(engine.corpus.ids)}
    scores = unit(engine.encoder.encode_text([query["caption"] for query in described])) @ unit(means).T
    own = [place[query["video_id"]] for query in described]
    t2v = [1 + sum(score > row[video] for score in row) for row, video in zip(scores.tolist(), own, strict=True)]
    clips = sorted(set(own))
    best = {
        (clip, of): max(scores[text, clip] for text, video in enumerate(own) if video == of)
        for clip in clips
        for of in clips
    }
    v2t = [1 + sum(best[clip, of] > best[clip, clip] for of in clips) for clip in clips]
    assert [rank["rank"] for rank in report["ranks"]["t2v"]] == t2v
    assert [rank["rank"] for rank in report["ranks"]["v2t"]] == v2t
    assert [{"video_id": r["video_id"], "caption": r["caption"]} for r in report["ranks"]["t2v"]] == described
    assert [rank["video_id"] for rank in report["ranks"]["v2t"]] == [engine.corpus.ids[clip] for clip in clips]
    assert report["n"] == {"t2v": 12, "v2t": len(clips)}
    assert (report["queries"], report["videos"]) == (12, len(engine.corpus))
    for direction, ranks in (("t2v", t2v), ("v2t", v2t)):
        metrics = report["metrics"][direction]
        assert list(metrics) == list(report["intervals"][direction]) == METRICS
        assert metrics["R@5"] == pytest.approx(100 * np.mean([rank <= 5 for rank in ranks]))
        assert (metrics["MdR"], metrics["MnR"]) == pytest.approx((np.median(ranks), np.mean(ranks)))
        low, high = report["intervals"][direction]["MnR"]
        assert low <= metrics["MnR"] <= high


def test_sentences_are_evaluated_among_a_split(served, engine, described):
    report = served.predict(queries=described[:1], method="dits", split="test", api_name="/evaluate")
    part = engine.corpus.split("test")
    among = engine.with_corpus(part, engine.embeddings.select(part.ids))
    hits = among.search(described[0]["caption"], "dits", len(part)).hits
    [rank] = [hit.rank for hit in hits if hit.clip.id == described[0]["video_id"]]
    assert report["ranks"] == {"t2v": [described[0] | {"rank": rank}]}  # one clip has no other direction
    assert (report["videos"], report["n"], report["intervals"]) == (len(part), {"t2v": 1}, {"t2v": {}})


def test_more_scores_than_fit_are_refused(api, described, monkeypatch):
    monkeypatch.setattr("ui.services.analyses.MAX_SCORES", 229 * 12 - 1)
    with pytest.raises(gr.Error, match="12 queries and 229 clips are too many here: send fewer"):
        api_call(api, "evaluate", {"queries": described})()
    assert api.evaluate(described[:11])["queries"] == 11


def test_texts_are_embedded_and_moved(served, engine):
    texts = [SENTENCE, "  a horse\tat night "]
    found = served.predict(texts=texts, method="dits", api_name="/embed")
    expected = engine.encoder.encode_text([SENTENCE, "a horse at night"])
    with torch.inference_mode():
        moved = engine.methods["dits"].model.align(expected)
    assert found["texts"] == [SENTENCE, "a horse at night"]
    assert torch.tensor(found["text"]).shape == (2, found["dimension"])
    assert torch.allclose(torch.tensor(found["text"]), expected, atol=1e-5)
    assert torch.allclose(torch.tensor(found["v_0"]), moved, atol=1e-5)
    alone = served.predict(texts=["a dog " * 200], api_name="/embed")
    assert alone["v_0"] is None
    assert "longer than the encoder reads" in alone["notices"][0]


BAD = [
    ("search", {"query": SENTENCE, "own": "yes"}, "own must be true or false"),
    ("search", {"query": SENTENCE, "top": True}, "must be a whole number"),
    ("search", {"query": SENTENCE, "top": 10**400}, "from 1 to 100, not that"),
    ("search", {"query": SENTENCE, "method": ["dits"]}, "The method must be a text"),
    ("search", {"query": SENTENCE, "method": "x" * 10_000}, "There is no method 'x{40}' here"),
    ("search", {"query": {"path": "here"}}, "The query must be a text"),
    ("corpus", {"offset": -1}, "The offset must be from 0"),
    ("corpus", {"limit": 1001}, "The limit must be from 1 to 1000, not 1001"),
    ("corpus", {"limit": 2.5}, "The limit must be a whole number"),
    ("trajectory", {"query": ""}, "The query is empty"),
    ("trajectory", {"query": None}, "The query must be a text"),
    ("trajectory", {"query": SENTENCE, "method": "../../etc/passwd"}, "There is no method"),
    ("trajectory", {"query": SENTENCE, "method": {"a": 1}}, "There is no method"),
    ("trajectory", {"query": SENTENCE, "steps": 41}, "T' must be from 0 to 40, not 41"),
    ("trajectory", {"query": SENTENCE, "steps": "ten"}, "T' must be a whole number"),
    ("trajectory", {"query": SENTENCE, "noise": math.nan}, "The noise must be a number from 0 to 1, not nan"),
    ("trajectory", {"query": SENTENCE, "noise": 10**400}, "The noise must be a number from 0 to 1, not that"),
    ("trajectory", {"query": SENTENCE, "noise": [1]}, "The noise must be a number"),
    ("trajectory", {"query": SENTENCE, "seed": 2**32}, "The seed must be from 0 to 4294967295"),
    ("trajectory", {"query": SENTENCE, "top": 0}, "leading clips must be from 1 to 100, not 0"),
    ("trajectory", {"query": SENTENCE, "method": "mean", "steps": 3}, "Mean pooling has no T' or noise to choose"),
    ("gap", {"split": "everything"}, "There is no split 'everything' here: choose one of"),
    ("gap", {"split": ["test"]}, "There is no split"),
    ("gap", {"method": 5}, "There is no method '5' here"),
    ("gap", {"video_side": "left"}, "There is no vector of a clip 'left' here"),
    ("evaluate", {"queries": []}, f"The queries must be from 1 to {MAX_PAIRS}, not 0"),
    ("evaluate", {"queries": [{}] * (MAX_PAIRS + 1)}, f"not {MAX_PAIRS + 1}"),
    ("evaluate", {"queries": SENTENCE}, "The queries must be a list"),
    ("evaluate", {"queries": [SENTENCE]}, "must have a video_id and a caption"),
    ("evaluate", {"queries": [{"video_id": "a", "caption": "b", "c": "d"}]}, "and nothing else"),
    ("evaluate", {"queries": [{"video_id": 1, "caption": "b"}]}, "The video_id must be a text"),
    ("evaluate", {"queries": [{"video_id": "a", "caption": None}]}, "The caption must be a text"),
    ("evaluate", {"queries": [{"video_id": "a", "caption": " "}]}, "The query is empty"),
    ("evaluate", {"queries": [{"video_id": "/etc/passwd", "caption": "b"}]}, "There is no video '/etc/passwd' among"),
    ("evaluate", {"queries": [{"video_id": "a", "caption": "b"}], "split": "all of it"}, "There is no split"),
    ("evaluate", {"queries": [{"video_id": "a", "caption": "b"}], "method": None}, "There is no method"),
    ("embed", {"texts": []}, f"The texts must be from 1 to {MAX_TEXTS}, not 0"),
    ("embed", {"texts": ["a"] * (MAX_TEXTS + 1)}, f"not {MAX_TEXTS + 1}"),
    ("embed", {"texts": "a"}, "The texts must be a list"),
    ("embed", {"texts": ["a", 5]}, "Each of the texts must be a text"),
    ("embed", {"texts": ["a", "\u200b"]}, "The query is empty"),
    ("embed", {"texts": ["a"], "method": "magic"}, "There is no method 'magic' here"),
]


@pytest.fixture(scope="module")
def loader(demo, engine):
    """A loader with the engine of the page."""
    loader = EngineLoader("demo", "bundled", None)
    loader.replace(engine)
    return loader


@pytest.fixture(scope="module")
def api(loader):
    """The endpoints without a server."""
    return Api(Sources(loader, OwnLibrary(Library("nowhere", loader.engine, threading.Lock()))))


@pytest.mark.parametrize(("endpoint", "arguments", "says"), BAD)
def test_bad_values_are_one_sentence(api, endpoint, arguments, says):
    sent = api_call(api, endpoint, arguments)
    with pytest.raises(gr.Error, match=says) as error:
        sent()
    assert "\n" not in error.value.message
    assert len(error.value.message) < 300


def api_call(api, endpoint, arguments):
    """A call as Gradio makes it: all arguments in their order, with errors for the page."""
    handler = getattr(api, endpoint)
    values = [arguments.get(name, default) for name, _, default, _ in gr.utils.get_function_params(handler)]
    return lambda: show_errors(handler)(*values)


@pytest.mark.parametrize(
    ("endpoint", "arguments", "says"),
    [
        ("/trajectory", {"query": SENTENCE, "method": "<b>x</b>"}, "There is no method '&lt;b&gt;x&lt;/b&gt;' here"),
        ("/gap", {"split": "everything"}, "There is no split 'everything' here"),
        (
            "/evaluate",
            {"queries": [{"video_id": "nobody", "caption": "x"}]},
            "There is no video 'nobody' among the 229",
        ),
        ("/embed", {"texts": []}, "The texts must be from 1 to 100"),
        ("/corpus", {"limit": 0}, "The limit must be from 1 to 1000"),
    ],
)
def test_clients_get_that_sentence(served, endpoint, arguments, says):
    with pytest.raises(AppError, match=says):
        served.predict(**arguments, api_name=endpoint)


def test_halves_of_characters_are_refused(app_url):
    for endpoint, values in (
        ("search", [SENTENCE, "\ud800", 1, False]),
        ("evaluate", [[{"video_id": "\ud800", "caption": "b"}], "dits", "all", False]),
    ):
        assert "A text contains half a character (an unpaired surrogate)." in posted(app_url, endpoint, values)


def posted(app_url, endpoint, values):
    """The answer of the app to a call without a client, as curl makes it."""
    address = f"{app_url}gradio_api/call/{endpoint}"
    body = json.dumps({"data": values}).encode()
    sent = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(sent, timeout=60) as response:
        event = json.load(response)["event_id"]
    with urllib.request.urlopen(f"{address}/{event}", timeout=60) as stream:
        return stream.read().decode()


def test_searches_do_not_wait_for_slow_calls(served, described):
    long = served.submit(queries=described * 12, method="dits", api_name="/evaluate")
    waiting = served.submit(queries=described * 12, method="xpool", api_name="/evaluate")
    assert served.predict(query=SENTENCE, api_name="/search")["results"]
    assert not waiting.done()
    assert [job.result(timeout=120)["queries"] for job in (long, waiting)] == [144, 144]


def test_visitors_of_a_hosted_app_have_no_videos_in_the_api(loader, tmp_path):
    visitors = VisitorLibraries(loader.engine, Limits(), tmp_path / "visitors")
    try:
        hosted = Api(Sources(loader, visitors))
        for endpoint, first in (("search", {"query": "red"}), ("corpus", {}), ("trajectory", {"query": "red"})):
            with pytest.raises(gr.Error, match="Open the page in a browser"):
                api_call(hosted, endpoint, first | {"own": True, "method": "mean"})()
    finally:
        visitors.close()


def test_before_the_corpus_is_loaded_every_endpoint_says_so(tiny_corpus):
    waiting = Api(Sources(EngineLoader(str(tiny_corpus), "bundled", None), OwnLibrary(None)))
    for name in ENDPOINTS:
        arguments = {"query": SENTENCE, "queries": [{"video_id": "a", "caption": "b"}], "texts": ["a"]}
        with pytest.raises(gr.Error, match="Not ready yet"):
            api_call(waiting, name.strip("/"), arguments)()


def test_numbers_that_json_does_not_have_are_null():
    values = {"a": [1, 2.5, math.nan], "b": (math.inf, -math.inf), "c": {"d": "nan", "e": None, "f": True}}
    assert validation.finite(values) == {
        "a": [1, 2.5, None],
        "b": [None, None],
        "c": {"d": "nan", "e": None, "f": True},
    }


@pytest.mark.parametrize("value", [5, 5.0])
def test_whole_numbers_may_come_as_fractions(value):
    assert validation.integer(value, "It", 1, 5) == 5
