"""The page's events with an encoder without weights, on real engines, without a server."""

import shutil
import threading

import gradio as gr
import pytest

from dits.common.errors import DitsError
from dits.models.checkpoint import find_weights
from dits.training.prepare import prepare
from tests.conftest import write_open_clip_folder
from ui.services.engine_loading import EngineLoader
from ui.services.sources import Sources
from ui.services.visitors import Limits, VisitorLibraries
from ui.tabs.search import SearchHandlers


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def handlers_over(tmp_path):
    """Create handlers over a corpus and an encoder, with libraries of visitors."""

    def create(corpus, encoder):
        loader = EngineLoader(str(corpus), encoder, None)
        return SearchHandlers(loader, Sources(loader, VisitorLibraries(loader.engine, Limits(), tmp_path / "visitors")))

    return create


@pytest.fixture
def handlers(tiny_folder, handlers_over):
    """Create handlers over a loaded engine."""

    def loaded(corpus, encoder=tiny_folder):
        handlers = handlers_over(corpus, f"local-dir:{encoder}")
        list(handlers.load("dits"))
        return handlers

    return loaded


def preparing_threads():
    return [thread for thread in threading.enumerate() if thread.name == "weights-preparer"]


def test_preparation_starts_once_for_all_visitors(handlers, tiny_corpus):
    visitors = handlers(tiny_corpus)
    with pytest.raises(gr.Error, match="'dits' has no weights"):
        visitors.show("some colour", "dits", 3)
    followers = [visitors.prepare() for _ in range(3)]
    seen = [next(follower) for follower in followers]
    assert len(preparing_threads()) == 1
    *_, panel, progress, button = seen[2]
    assert (panel.visible, button.visible) == (True, False)
    assert "<progress" in progress
    for follower in followers:
        status, radio, panel, offer, button = list(follower)[-1]
        assert "DITS weights" in status
        assert [label for label, _ in radio.choices] == ["DITS", "X-Pool", "Mean pooling"]
        assert (panel.visible, offer, button.visible) == (False, "", False)
    assert "ranked by DITS" in visitors.show("some colour", "dits", 3)[0]
    visitors.preparer.start()
    assert preparing_threads() == []  # no weights are missing now


def test_weights_of_the_command_are_used_by_the_page(handlers, tiny_corpus, tiny_folder):
    prepare(f"local-dir:{tiny_folder}", str(tiny_corpus))
    loaded = handlers(tiny_corpus)
    status, radio = list(loaded.load("dits"))[-1]
    assert "DITS weights" in status
    assert radio.value == "dits"
    assert "ranked by DITS" in loaded.show("some colour", "dits", 3)[0]


def test_a_corpus_without_training_data_is_searched_without_a_button(handlers, tiny_corpus, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(tiny_corpus, folder)
    text = (folder / "captions.csv").read_text().replace(",train,", ",test,").replace(",validation,", ",test,")
    (folder / "captions.csv").write_text(text)
    loaded = handlers(folder)
    _, radio, panel, offer, button = list(loaded.follow())[-1]
    assert ("DITS (no weights yet)", "dits") in [tuple(choice) for choice in radio.choices]
    assert (panel.visible, button.visible) == (True, False)
    assert "has no train and no validation split" in offer
    assert "ranked by Mean pooling" in loaded.show("some colour", "mean", 3)[0]


def test_weights_of_another_encoder_are_replaced(handlers, tiny_corpus, tiny_folder, tiny_encoder, tmp_path):
    """A folder of weights renamed for another encoder: rejected with a message on the page, then trained again."""
    write_open_clip_folder(tmp_path / "other", seed=3)
    prepare(f"local-dir:{tmp_path / 'other'}", str(tiny_corpus))
    (folder,) = (tmp_path / "cache" / "weights").iterdir()
    folder.rename(find_weights("dits", tiny_encoder.id).parent)
    loaded = handlers(tiny_corpus)
    offer = list(loaded.follow())[-1][3]
    assert offer.count("were trained for the encoder other-") == 2
    status, _, panel, *_ = list(loaded.prepare())[-1]
    assert panel.visible is False
    assert "DITS weights" in status


def test_a_failed_preparation_shows_its_reason_and_can_be_repeated(handlers, tiny_corpus, tmp_path):
    loaded = handlers(tiny_corpus)
    blocking = tmp_path / "cache" / "weights"
    blocking.write_text("a file")
    *_, offer, button = list(loaded.prepare())[-1]
    assert 'class="problem"' in offer
    assert "is not a folder" in offer
    assert button.visible is True
    blocking.unlink()
    assert "DITS weights" in list(loaded.prepare())[-1][0]


def test_nothing_is_prepared_before_the_engine_is_loaded(handlers_over, tiny_corpus, tmp_path):
    handlers = handlers_over(tiny_corpus, f"local-dir:{tmp_path}")
    with pytest.raises(gr.Error, match="Not ready yet"):
        list(handlers.prepare())
    list(handlers.load("dits"))
    with pytest.raises(DitsError, match="not an OpenCLIP configuration"):
        handlers.preparer.start()
    assert preparing_threads() == []


def test_an_unreachable_hub_is_reported_on_the_page_with_advice(handlers_over, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    handlers = handlers_over(tiny_corpus, "ViT-B-32/openai")
    status = list(handlers.load("dits"))[-1][0]
    assert 'role="alert">The encoder ViT-B-32/openai could not be downloaded' in status
    for advice in ("connect to the network", "ViT-B-32/FILE.safetensors", "local-dir:FOLDER", "&#x27;bundled&#x27;"):
        assert advice in status
    assert all(list(update) == ["__type__"] for update in next(handlers.follow()))  # nothing else changes
