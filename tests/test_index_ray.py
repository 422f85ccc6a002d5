"""An index on several machines: two nodes of a Ray cluster on this one."""

import contextlib
import json
import os
import time

import numpy as np
import pytest
import torch

from dits.cli import main
from dits.corpus import FRAMES
from dits.errors import ClusterError, InputError
from dits.index.cluster import connected, imported
from dits.index.engine import indexed_videos
from dits.index.schema import SegmentRow
from dits.index.shard import Answer
from dits.index.shards import ShardConfig, ShardedSearch, merged
from dits.index.store import VideoIndex
from dits.model import ModelConfig, RetrievalModel
from dits.network import AlignmentConfig
from dits.pooling import PoolingConfig, mean_pool
from dits.search import LoadedMethod, SearchEngine

ray = pytest.importorskip("ray")

ROWS = 1000
STORE = 80 * 2**20  # the least that Ray takes
TEXT = "somebody walks along the beach"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder of this module's own, which the cluster's processes know as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


class Machines:
    """Two nodes of one CPU each, and a way to lose and to get one."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        imported()
        node = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=node)
        self._node = node
        self.add()
        self.address = self._cluster.address

    def add(self):
        self._second = self._cluster.add_node(**self._node)

    def kill(self):
        """Returns once the cluster knows that the node is gone."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        until(lambda: sum(node["Alive"] for node in ray.nodes()) == 1)

    def end(self):
        self._cluster.shutdown()


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def machines(cache):
    machines = Machines()
    yield machines
    machines.end()


@pytest.fixture(scope="module")
def connection(machines):
    with connected(machines.address) as ray, contextlib.redirect_stdout(open(os.devnull, "w")):  # noqa: SIM115
        yield ray


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_encoder):
    """A thousand embedded segments; of every five, the last has the same frames as the first."""
    index = VideoIndex.create(str(tmp_path_factory.mktemp("many") / "index"), tiny_encoder)
    frames = torch.randn(ROWS, FRAMES, index.dim, generator=torch.Generator().manual_seed(0)).half()
    frames[4::5] = frames[::5]
    means = mean_pool(frames.float()).numpy()
    index.write(
        [
            SegmentRow(
                path=f"/videos/{n}.mp4".encode(),
                size=1,
                mtime=1,
                video=f"{n * 7919 % ROWS:020x}",  # ids are in another order than rows
                segmenting="whole",
                segments=1,
                duration=12.0,
                start=0.0,
                end=12.0,
                times=np.arange(FRAMES) + n / ROWS,
                thumbnail=b"",
                mean=means[n],
                frames=frames[n].numpy(),
            )
            for n in range(ROWS)
        ]
    )
    return index


@pytest.fixture(scope="module", params=["mean", "xpool", "dits"])
def model(request, index):
    torch.manual_seed(1)
    network = AlignmentConfig(dim=index.dim, depth=1, heads=2)
    config = ModelConfig(request.param, pooling=PoolingConfig(dim=index.dim), network=network)
    model = RetrievalModel(config).eval()
    for parameter in model.parameters():  # nothing is left at a zero that makes a layer nothing
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def one_machine(index, encoder, model):
    corpus, embeddings, _, _ = indexed_videos(index.location, encoder, None, lambda sentence: None)
    loaded = LoadedMethod(model, model.gallery(embeddings.frames), None)
    return SearchEngine(corpus, encoder, embeddings, {model.config.method: loaded})


@pytest.fixture
def sharded(connection, index, tiny_encoder):
    """Opens a search over two shards; it is closed after the test."""
    opened = []

    def open_search(model, **config):
        opened.append(ShardedSearch(connection, index, tiny_encoder, model, None, ShardConfig(**config)))
        return opened[-1]

    yield open_search
    for search in opened:
        search.close()


def test_two_shards_rank_as_one_machine_does(sharded, index, tiny_encoder, model):
    search = sharded(model)
    assert len(search) == 2
    expected = one_machine(index, tiny_encoder, model).search(TEXT, model.config.method, 100)
    found = search.search(TEXT, 100)
    assert [(hit.clip, hit.score) for hit in found.hits] == [(hit.clip, hit.score) for hit in expected.hits]
    assert len({hit.score for hit in found.hits}) < 100  # ties, which ids decide
    assert found.spread == pytest.approx(expected.spread, abs=1e-6)
    for ours, theirs in zip(found.hits, expected.hits, strict=True):
        assert (ours.rank, ours.ranks) == (theirs.rank, theirs.ranks)
        assert ours.deviations == pytest.approx(theirs.deviations, abs=1e-4)
        assert ours.best_moment == theirs.best_moment
        assert [frame.time for frame in ours.frames] == [frame.time for frame in theirs.frames]
        assert [frame.weight for frame in ours.frames] == pytest.approx([f.weight for f in theirs.frames], abs=1e-6)
    assert (found.exact, found.missing, found.notice) == (True, (), expected.notice)


def test_a_machine_that_is_lost_is_said_and_the_next_query_after_its_return_is_whole(
    sharded, machines, index, tiny_encoder
):
    model = RetrievalModel(ModelConfig("mean")).eval()
    strict = sharded(model)
    whole = strict.search(TEXT, 100)
    machines.kill()
    with pytest.raises(ClusterError, match=r"Shard [12] of 2 is lost") as error:
        strict.search(TEXT, 100)
    lost = str(error.value)
    strict._config = ShardConfig(partial=True)
    some = strict.search(TEXT, 100)
    assert not some.exact
    [sentence] = some.missing
    assert lost.startswith(sentence)
    left = {hit.clip.id for hit in some.hits}
    expected = [hit for hit in strict_order(index, tiny_encoder, model) if hit.clip.id in left]
    assert [(hit.clip, hit.score) for hit in some.hits] == [(hit.clip, hit.score) for hit in expected]
    assert 0 < len(left & {hit.clip.id for hit in whole.hits}) < 100
    machines.add()
    again = strict.search(TEXT, 100)
    assert (again.exact, again.missing, again.hits) == (True, (), whole.hits)


def strict_order(index, encoder, model):
    return one_machine(index, encoder, model).search(TEXT, "mean", 100).hits
