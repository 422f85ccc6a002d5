"""The handlers of the search tab."""

import gradio as gr
import pytest

from dits.search.loading import load_engine
from ui.services.engine_loading import EngineLoader
from ui.services.sources import Sources
from ui.services.visitors import OwnLibrary
from ui.tabs.search import SearchHandlers


@pytest.fixture(scope="module")
def handlers(tiny_corpus, tiny_folder):
    loader = EngineLoader(str(tiny_corpus), f"local-dir:{tiny_folder}", None)
    loader.replace(load_engine(str(tiny_corpus), f"local-dir:{tiny_folder}", ["mean"]))
    return SearchHandlers(loader, Sources(loader, OwnLibrary(None)))


@pytest.mark.parametrize(
    ("top", "says"),
    [
        (True, "must be a whole number"),
        (False, "must be a whole number"),
        (2.5, "must be a whole number"),
        ("3", "must be a whole number"),
        (None, "must be a whole number"),
        (float("nan"), "must be a whole number"),
        (0, "must be from 1 to 100"),
        (101, "must be from 1 to 100"),
        (10**400, "must be from 1 to 100"),
    ],
)
def test_a_wrong_number_of_results_is_one_sentence(handlers, top, says):
    with pytest.raises(gr.Error, match=f"The number of results {says}"):
        handlers.show("some colour", "mean", top)


@pytest.mark.parametrize("top", [2, 2.0])
def test_a_whole_number_of_results_is_accepted(handlers, top):
    ranking, _ = handlers.show("some colour", "mean", top)
    assert ranking.count('class="card"') == 2
