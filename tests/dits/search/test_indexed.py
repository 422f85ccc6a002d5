"""Search over an index: exactly, and by candidates from its vector index."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import IndexStoreError
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.index.adding.config import AddConfig
from dits.index.adding.run import add_videos
from dits.index.schema import FileRow
from dits.index.snapshot import open_snapshot
from dits.index.status import status_of
from dits.index.store import VideoIndex
from dits.models.checkpoint import find_weights
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery
from dits.search.candidates import candidate_search, make_vector_index
from dits.search.engine import SearchEngine
from dits.search.loading import load_engine
from dits.search.methods import LoadedMethod
from dits.search.ranker import Candidates
from dits.search.recall import BEST, candidate_recall, recall
from tests.helpers.index_rows import DIM, row_of, rows
from tests.helpers.plain import xpool_similarity

CPU = torch.device("cpu")
MANY = 700  # more than the sample that represents the gallery


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def index(tmp_path, tiny_encoder):
    made = VideoIndex.create(str(tmp_path / "index"), tiny_encoder)
    made.write(rows(range(MANY)))
    return made


@pytest.fixture
def methods():
    """Mean pooling and X-Pool, of the tiny encoder's width."""
    torch.manual_seed(3)
    models = {name: RetrievalModel(ModelConfig(name, PoolingConfig(dim=DIM))).eval() for name in ("mean", "xpool")}
    for parameter in models["xpool"].pooling.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return models


def engine_of(snapshot, encoder, models, candidates=None):
    ids = tuple(name.decode() for name in snapshot.ids)
    embeddings = CorpusEmbeddings(encoder.id, ids, snapshot.frames, snapshot.times)
    loaded = {name: LoadedMethod(model, build_gallery(model, snapshot.frames), None) for name, model in models.items()}
    return SearchEngine(Corpus("index", snapshot.clips), encoder, embeddings, loaded, find_candidates=candidates)


def ids_near(index, vector, count):
    ids = dict(zip(*(list(values) for values in index.row_ids()), strict=True))
    return [ids[place] for place in index.nearest(vector.numpy(), count) if place in ids]


def no_notice(text):
    pytest.fail(text)


def test_an_index_is_searched_like_a_corpus_of_the_same_clips(demo, tmp_path, monkeypatch):
    """The same scores, order, ranks and best moments by every method, from the files on."""
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "clips"
    folder.mkdir()
    clips = demo.clips[::100]
    for clip in clips:
        shutil.copy(clip.path, folder / f"{clip.id}.mp4")
    lines = [f'{clip.id},{clip.id},test,"a caption"' for clip in clips]
    (folder / "captions.csv").write_text("\n".join(["clip,group,split,caption", *lines]) + "\n")
    corpus = load_engine(str(folder))
    index = VideoIndex.create(str(tmp_path / "index"), corpus.encoder)
    add_videos(index, corpus.encoder, [str(folder)], AddConfig(segment="whole", workers=1))
    indexed = load_engine(index.location)
    for query in ("a dog riding a skateboard", clips[1].captions[0]):
        expected = corpus.search_all(query, len(clips))
        for method, result in indexed.search_all(query, len(clips)).items():
            assert result.exact
            assert result.spread == pytest.approx(expected[method].spread, abs=1e-6)
            for hit, other in zip(result.hits, expected[method].hits, strict=True):
                assert hit.clip.path.stem == other.clip.id
                assert (hit.rank, hit.ranks) == (other.rank, other.ranks)
                assert hit.score == pytest.approx(other.score, abs=1e-6)
                assert hit.deviations == pytest.approx(other.deviations, abs=1e-4)
                assert hit.best_moment == other.best_moment
                assert [f.weight for f in hit.frames] == pytest.approx([f.weight for f in other.frames], abs=1e-5)


def test_ranking_is_exact_if_all_segments_are_candidates(index, tiny_encoder, methods):
    index.make_vector_index()
    snapshot = open_snapshot(index)
    everything = candidate_search(index, snapshot, CPU, no_notice, exact_up_to=0, count=MANY)
    some = everything(torch.randn(1, DIM))
    assert torch.equal(some.rows, torch.arange(MANY))
    assert 0 < int(some.sample.sum()) < MANY
    exact = engine_of(snapshot, tiny_encoder, methods).search_all("a dog", 20)
    searched = engine_of(snapshot, tiny_encoder, methods, everything).search_all("a dog", 20)
    for method, result in searched.items():
        assert not result.exact
        assert [(h.clip.id, h.score, h.ranks) for h in result.hits] == [
            (h.clip.id, h.score, h.ranks) for h in exact[method].hits
        ]
        assert [h.best_moment for h in result.hits] == [h.best_moment for h in exact[method].hits]


def test_candidates_are_the_nearest_by_their_means(index):
    """Estimated from a bit a dimension, turned at random: nine in ten of the thirty nearest of all are among the two
    hundred that it finds, for eight texts.
    """
    index.make_vector_index()
    snapshot = open_snapshot(index)
    unit = F.normalize(F.normalize(snapshot.frames.float(), dim=-1).mean(dim=1), dim=-1)
    both = 0
    for vector in torch.randn(8, DIM, generator=torch.Generator().manual_seed(5)):
        nearest = (unit @ vector).argsort(descending=True)[:30].tolist()
        found = ids_near(index, vector, 200)
        assert len(set(found)) == 200
        both += len(set(found) & {snapshot.ids[row].decode() for row in nearest})
    assert both >= 0.9 * 8 * 30


def test_rows_that_were_added_after_the_vector_index_are_candidates(index):
    index.make_vector_index()
    vector = torch.randn(DIM, generator=torch.Generator().manual_seed(6))
    added = row_of(MANY + 1, vector.expand(12, DIM))
    index.write([added])
    assert ids_near(index, vector, 5)[0] == added.id
    snapshot = open_snapshot(index)
    some = candidate_search(index, snapshot, CPU, no_notice, exact_up_to=0, count=5)(vector[None])
    assert snapshot.ids.tolist().index(added.id.encode()) in some.rows.tolist()


def test_removed_missing_and_failed_videos_are_no_candidates(index):
    index.make_vector_index()
    index.forget([b"/v/3.mp4"])
    index.mark([b"/v/4.mp4"], "ok", "missing")
    index.write([FileRow(b"/v/broken.mp4", 1, 1, "", "whole", "failed", "It is broken.")])
    snapshot = open_snapshot(index)
    assert len(snapshot) == MANY - 2
    everything = candidate_search(index, snapshot, CPU, no_notice, exact_up_to=0, count=2 * MANY)
    assert torch.equal(everything(torch.randn(1, DIM)).rows, torch.arange(MANY - 2))
    assert rows([3])[0].id not in ids_near(index, torch.ones(DIM), 2 * MANY)


def test_without_a_vector_index_all_are_scored_with_a_notice(index):
    notices = []
    snapshot = open_snapshot(index)
    assert candidate_search(index, snapshot, CPU, notices.append, exact_up_to=100) is None
    assert "optimize" in notices[0]
    assert candidate_search(index, snapshot, CPU, no_notice, exact_up_to=MANY) is None
    assert "without a vector index" in make_vector_index(index)
    assert not index.has_vector_index
    assert "has a vector index of 700 segments" in make_vector_index(index, always=True)
    assert index.has_vector_index


def test_candidates_are_found_while_the_index_changes(index):
    """Rows change places in the table, and there are some that the snapshot does not have."""
    index.make_vector_index()
    snapshot = open_snapshot(index)
    find = candidate_search(index, snapshot, CPU, no_notice, exact_up_to=0, count=3)
    before = find(snapshot.frames[350, :1].float()).rows.tolist()
    index.forget([f"/v/{n}.mp4".encode() for n in range(0, MANY, 7) if rows([n])[0].id != snapshot.ids[350].decode()])
    index.write(rows(range(MANY, MANY + 50)))
    index.compact(always=True)
    own = [find(snapshot.frames[row].float().mean(dim=0)[None]).rows.tolist() for row in (350, 351, 352)]
    assert 350 in before
    assert 350 in own[0]


@pytest.mark.parametrize("method", ["mean", "xpool"])
def test_recall_is_what_a_full_sort_says(index, methods, method):
    frames = open_snapshot(index).frames
    model = methods[method]
    texts = torch.randn(6, DIM, generator=torch.Generator().manual_seed(7))
    thirds = torch.arange(0, MANY, 3)
    candidates = lambda aligned: Candidates(thirds, torch.ones(len(thirds), dtype=torch.bool))  # noqa: E731
    measured = recall(LoadedMethod(model, build_gallery(model, frames), None), texts, candidates)
    with torch.no_grad():
        if method == "mean":
            unit = F.normalize(F.normalize(frames.float(), dim=-1).mean(dim=1), dim=-1)
            scores = F.normalize(texts, dim=-1) @ unit.T
        else:
            scores = xpool_similarity(model.pooling, texts, texts, frames.float())
    best = scores.argsort(dim=1, descending=True)[:, :BEST]
    expected = [len({row for row in of_text.tolist() if row % 3 == 0}) / BEST for of_text in best]
    assert measured == pytest.approx(sum(expected) / len(expected))
    assert 0 < measured < 1


def test_recall_in_the_status(index, tiny_encoder):
    with pytest.raises(IndexStoreError, match=r"has no vector index .*optimize --vector-index"):
        candidate_recall(index, tiny_encoder)
    index.make_vector_index()
    found = candidate_recall(index, tiny_encoder)
    assert set(found) == {"mean"}  # there are no weights for this encoder
    assert not find_weights("xpool", tiny_encoder.id, None).is_file()
    assert 0.5 < found["mean"] <= 1
    assert status_of(index, found).as_dict()["recall"] == found
    assert "recall@10 of candidates, mean" in status_of(index, found).as_text()
    assert "recall" not in status_of(index).as_dict()
