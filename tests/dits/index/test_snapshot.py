"""Snapshots: what they hold, what they take over from the one before, and how they are cut."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch

from dits.common.errors import IndexStoreError
from dits.index.snapshot import open_snapshot, shard_bounds
from dits.index.store import VideoIndex
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import derive
from tests.helpers.index_rows import DIM, rows


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def index(tmp_path, tiny_encoder):
    return VideoIndex.create(str(tmp_path / "index"), tiny_encoder)


@pytest.fixture
def model():
    torch.manual_seed(3)
    made = RetrievalModel(ModelConfig("xpool", PoolingConfig(dim=DIM))).eval()
    for parameter in made.pooling.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def assert_holds(snapshot, expected):
    """The rows' own numbers, in the order of their ids."""
    expected = sorted(expected, key=lambda row: row.id)
    assert [name.decode() for name in snapshot.ids] == [row.id for row in expected]
    assert [clip.id for clip in snapshot.clips] == [row.id for row in expected]
    assert [clip.path.name for clip in snapshot.clips] == [row.path.decode()[3:] for row in expected]
    np.testing.assert_array_equal(snapshot.frames.numpy(), np.stack([row.frames for row in expected]))
    np.testing.assert_array_equal(snapshot.times.numpy(), np.stack([row.times for row in expected]))


class Counted:
    """A model's `derive` that counts the videos that it is given."""

    def __init__(self, model):
        self.model, self.videos = model, 0

    def __call__(self, frames):
        self.videos += len(frames)
        return derive(self.model, frames)


def test_a_snapshot_holds_what_is_stored(index):
    index.write(rows(range(30)))
    assert_holds(open_snapshot(index), rows(range(30)))


def test_the_same_version_is_not_read_again(index):
    index.write(rows(range(5)))
    first = open_snapshot(index)
    assert open_snapshot(index, progress=lambda done, total: pytest.fail("it is read")).folder == first.folder


@pytest.mark.parametrize("added", [3, 200])
def test_a_new_snapshot_takes_over_the_rows_of_the_one_before(index, model, added):
    """A few new rows are looked up, many are read with all others; what is derived of old rows is not derived again."""
    index.write(rows(range(100)))
    before, counted = open_snapshot(index), Counted(model)
    before.derived("xpool-1", counted)
    assert counted.videos == 100
    index.write(rows(range(100, 100 + added)))
    index.forget([b"/v/5.mp4", b"/v/70.mp4"])
    kept = [n for n in range(100 + added) if n not in (5, 70)]
    read = []
    after = open_snapshot(index, progress=lambda done, total: read.append((done, total)))
    assert_holds(after, rows(kept))
    assert read[0][0] > 98
    assert read[-1] == (len(kept), len(kept))
    derived = after.derived("xpool-1", counted)
    assert counted.videos == 100 + added
    expected = derive(model, after.frames)
    assert set(derived) == set(expected)
    for name, array in expected.items():
        assert torch.equal(derived[name], array), name  # to the last bit: scores do not depend on an index's past
    assert not before.folder.exists()


def test_what_is_derived_is_not_taken_over_under_other_weights(index, model):
    index.write(rows(range(10)))
    open_snapshot(index).derived("xpool-1", partial(derive, model))
    index.write(rows(range(10, 12)))
    counted = Counted(model)
    open_snapshot(index).derived("xpool-2", counted)
    assert counted.videos == 12


def test_removed_rows_alone_make_a_new_snapshot_that_derives_nothing(index, model):
    index.write(rows(range(10)))
    open_snapshot(index).derived("xpool-1", partial(derive, model))
    index.forget([b"/v/4.mp4"])
    after = open_snapshot(index)
    assert_holds(after, rows(n for n in range(10) if n != 4))
    counted = Counted(model)
    assert len(after.derived("xpool-1", counted)["grams"]) == 9
    assert counted.videos == 0


def test_an_index_that_is_emptied_and_filled_again(index, model):
    index.write(rows(range(4)))
    open_snapshot(index).derived("xpool-1", partial(derive, model))
    index.forget([f"/v/{n}.mp4".encode() for n in range(4)])
    assert len(open_snapshot(index)) == 0
    index.write(rows(range(6)))
    after = open_snapshot(index)
    assert_holds(after, rows(range(6)))
    assert torch.equal(after.derived("xpool-1", partial(derive, model))["grams"], derive(model, after.frames)["grams"])


def test_an_index_that_is_made_anew_in_the_same_place_shares_nothing(index, tmp_path, tiny_encoder):
    """Its versions count from the beginning again."""
    index.write(rows(range(3)))
    open_snapshot(index)
    shutil.rmtree(tmp_path / "index")
    again = VideoIndex.create(str(tmp_path / "index"), tiny_encoder)
    again.write(rows(range(3, 6)))
    assert_holds(open_snapshot(again), rows(range(3, 6)))


@pytest.mark.parametrize(("count", "parts"), [(0, 2), (1, 3), (130, 2), (1000, 4), (8192 * 5 + 3, 5), (8192 * 2, 2)])
def test_parts_are_whole_blocks_that_follow_each_other(count, parts):
    edges = shard_bounds(count, parts)
    assert len(edges) == parts
    assert [start for start, _ in edges] == [0, *(end for _, end in edges[:-1])]
    assert edges[-1][1] == count
    step = 8192 if count >= parts * 8192 else 64
    assert all(start % step == 0 or start == count for start, _ in edges)
    sizes = [-(-(end - start) // step) for start, end in edges]
    assert max(sizes) - min(sizes) <= 1


def test_parts_of_a_snapshot_hold_the_whole(index):
    index.write(rows(range(150)))
    whole = open_snapshot(index)
    parts = [open_snapshot(index, (n, 2)) for n in range(2)]
    assert [len(part) for part in parts] == [end - start for start, end in shard_bounds(150, 2)]
    assert torch.equal(torch.cat([part.frames for part in parts]), whole.frames)
    assert np.array_equal(np.concatenate([part.ids for part in parts]), whole.ids)


def test_rows_that_vanish_while_they_are_read_are_said(index, monkeypatch):
    index.write(rows(range(5)))
    listed = index.rows

    def then_removed(*arguments):
        table = listed(*arguments)
        index._table.delete("path = X'2f762f332e6d7034'")
        return table

    monkeypatch.setattr(index, "rows", then_removed)
    with pytest.raises(IndexStoreError, match="changed while it was read"):
        open_snapshot(index)
