"""The HTML of results: its contents, and that all text in it is escaped."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dits.corpora.corpus import Clip
from dits.search.results import FrameWeight, Hit, SearchResult
from ui.components.results import comparison_html, error_html, progress_html, results_html
from ui.services.media import CORPUS_MEDIA


def hit(rank, name, ranks, weights=None):
    weights = weights or [k / 78 for k in range(1, 13)]
    frames = tuple(FrameWeight(0.5 * k, weight) for k, weight in enumerate(weights))
    clip = Clip(name, Path(f"/clips/{name}.mp4"), "test", name, (f"caption of {name}",))
    return Hit(rank, clip, 0.5 - rank / 10, 3.0 - rank, frames, 5.5, ranks)


RESULT = SearchResult(
    query="two dogs",
    encoder="bundled",
    method="dits",
    hits=(hit(1, "a", {"dits": 1, "xpool": 4, "mean": 1}), hit(2, "b", {"dits": 2, "xpool": 1, "mean": 9})),
    spread=(-0.1, 0.1, 0.4),
)


def test_cards_carry_rank_score_meaning_and_best_moment():
    page = results_html(RESULT)
    assert 'src="/clip/corpus/a"' in page
    assert "cosine <b>0.400</b>" in page
    assert "2.0 sd above the mean" in page
    assert 'data-moment="5.500"' in page
    assert page.count('class="marked"') == 6  # three frames on each of two strips


def test_cards_show_the_ranks_of_the_other_methods():
    text = re.sub(r"<[^>]+>", "", results_html(RESULT))
    assert "X-Pool 4 ▼3 · Mean pooling 1 =" in text
    assert "X-Pool 1 ▲1 · Mean pooling 9 ▼7" in text


def test_uniform_weights_mark_no_frame():
    even = replace(RESULT, hits=(hit(1, "a", {"dits": 1}, [1 / 12] * 12),))
    assert 'class="marked"' not in results_html(even)
    assert "All frames have the same weight" in results_html(even)


def test_corpora_without_strips_show_no_broken_pictures(tmp_path):
    assert "<img" not in results_html(RESULT) + comparison_html({"dits": RESULT}, "dits")
    clip = replace(RESULT.hits[0].clip, path=tmp_path / "a.mp4")
    (tmp_path / "a.jpg").touch()
    assert "/thumbnail/corpus/a" in results_html(replace(RESULT, hits=(replace(RESULT.hits[0], clip=clip),)))


def test_comparison_shows_what_each_method_gained_and_lost():
    xpool = replace(RESULT, method="xpool", hits=(replace(RESULT.hits[1], rank=1), replace(RESULT.hits[0], rank=4)))
    page = comparison_html({"dits": RESULT, "xpool": xpool}, "dits")
    changes = re.findall(r'class="change"><b class="(\w+)"[^>]*>(.*?)</b>', page)
    assert changes == [("up", "▲1"), ("down", "▼3")]


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '" onmouseover="x', "<img src=x onerror=y>", "a & b"])
def test_queries_and_captions_are_text(text):
    clip = replace(RESULT.hits[0].clip, captions=(text,), id=text)
    page = results_html(replace(RESULT, query=text, notice=text, hits=(replace(RESULT.hits[0], clip=clip),)))
    page += error_html(text) + progress_html(text, 1, 2)
    page += comparison_html({"dits": replace(RESULT, hits=(replace(RESULT.hits[0], clip=clip),))}, "dits")
    assert text not in page


def test_names_cannot_break_out_of_a_url():
    clip = replace(RESULT.hits[0].clip, id='../a "b" #1?/\udcff')
    assert CORPUS_MEDIA.video(clip) == "/clip/corpus/..%2Fa%20%22b%22%20%231%3F%2F%ED%B3%BF"


def test_no_page_contains_a_path_of_the_machine():
    assert "/clips/" not in results_html(RESULT) + comparison_html({"dits": RESULT, "xpool": RESULT}, "dits")


def test_long_queries_are_shortened_in_the_title():
    assert "…" in results_html(replace(RESULT, query="dog " * 100))


def test_progress_counts():
    assert "Preparing: 3 of 9" in progress_html("Preparing", 3, 9)
    assert "value" not in progress_html("Loading", 0, 1)
