"""CONTRIBUTING.md holds what it says of the code: folders that are there, and walks that a real call takes."""

import re
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from dits.corpora.embeddings import corpus_embeddings
from dits.corpora.names import open_corpus
from dits.search.engine import SearchEngine
from tests.helpers.documents import REPOSITORY
from ui.services.engine_loading import EngineLoader
from ui.services.sources import Sources
from ui.services.visitors import OwnLibrary
from ui.tabs.search import SearchHandlers

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
HOP = re.compile(r"^\d+\. `([\w/]+\.py)`: `([\w.]+)` ", re.MULTILINE)


def section(heading):
    return re.search(rf"^#+ {heading}\n(.*?)^##", TEXT, re.MULTILINE | re.DOTALL)[1]


def walk(heading):
    return [(file, name.split(".")[-1]) for file, name in HOP.findall(section(heading))]


@contextmanager
def first_calls(functions):
    """Collects the functions, as (file, name), in the order in which any thread calls them for the first time."""
    called = []

    def watch(frame, event, argument):
        if event == "call":
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(REPOSITORY):
                function = (path.relative_to(REPOSITORY).as_posix(), frame.f_code.co_name)
                if function in functions and function not in called:
                    called.append(function)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield called
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def test_every_package_has_its_line_in_the_layout():
    named = set(re.findall(r"`((?:dits|analysis|ui)/\w+)/`|`(\w+)/`", section("Layout")))
    named = {"/".join(filter(None, pair)) for pair in named}
    for package in ("dits", "analysis", "ui"):
        folders = {path.parent.name for path in (REPOSITORY / package).glob("*/__init__.py")}
        assert {folder for folder in folders if not {folder, f"{package}/{folder}"} & named} <= {"web"}
    assert all((REPOSITORY / name).is_dir() for name in named if name.startswith(("dits/", "analysis/", "ui/")))


def test_a_query_walks_from_the_page_to_the_ranking_as_written(engine):
    hops = walk("A query, from the page to the ranking")
    assert len(hops) > 10
    loader = EngineLoader("demo", "bundled", None)
    parts = (engine.corpus, engine.encoder, engine.embeddings, {"dits": engine.methods["dits"]})
    loader.replace(SearchEngine(*parts, batch_queries=True))
    handlers = SearchHandlers(loader, Sources(loader, OwnLibrary(None)))
    with first_calls(hops) as called:
        ranking, _ = handlers.show("two boxers in a ring", "dits", 5)
    assert "boxers" in ranking
    assert called == hops


def test_a_clip_walks_from_the_file_to_the_embedding_as_written(tiny_corpus, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path))
    hops = walk("A clip, from the file to the embedding")
    assert len(hops) > 5
    corpus = open_corpus(str(tiny_corpus))
    with first_calls(hops) as called:
        corpus_embeddings(corpus, tiny_encoder)
    assert called == hops
