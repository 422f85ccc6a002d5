"""An index on several machines: two nodes of a Ray cluster on this one."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from dits.cli.parser import main
from dits.common.errors import ClusterError
from dits.corpora.corpus import FRAMES
from dits.index.adding.config import AddConfig
from dits.index.adding.ray import RayBackend
from dits.index.adding.run import add_videos
from dits.index.cluster import import_ray, ray_connection
from dits.index.schema import SegmentRow
from dits.index.snapshot import shard_bounds
from dits.index.store import VideoIndex
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig, mean_pool
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery
from dits.search.engine import SearchEngine
from dits.search.indexed import indexed_videos
from dits.search.methods import LoadedMethod
from dits.search.shard import ShardResult
from dits.search.shards import ShardConfig, ShardedSearch, merge_results
from tests.conftest import REPOSITORY
from tests.helpers.videos import stamp, write_video

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
    """Two nodes of one CPU each, of which one can be removed and added again."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        import_ray()
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
    with ray_connection(machines.address) as ray, contextlib.redirect_stdout(open(os.devnull, "w")):
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


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:1", "127.0.0.1:99999", "a:b:c"])
def test_a_cluster_that_is_not_there_is_one_sentence(address, index, tiny_folder, capsys):
    where = ["--encoder", f"local-dir:{tiny_folder}", "--ray", address]
    for command in (["search", TEXT, "--corpus", index.location], ["index", "update", "--index", index.location]):
        assert main([*command, *where]) == 2
        printed = capsys.readouterr()
        assert address in printed.err
        assert printed.err.count("\n") == 1


def test_without_ray_its_package_is_named(index, tiny_folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    where = ["--encoder", f"local-dir:{tiny_folder}"]
    assert main(["search", TEXT, "--corpus", index.location, *where, "--ray", "auto"]) == 2
    assert 'pip install "ray[data]"' in capsys.readouterr().err
    assert main(["search", TEXT, "--corpus", index.location, *where, "--method", "mean"]) == 0


def test_shards_are_of_a_cluster_and_of_an_index(index, tmp_path, capsys):
    assert main(["search", TEXT, "--corpus", index.location, "--shards", "2"]) == 2
    assert "--ray ADDRESS" in capsys.readouterr().err
    assert main(["search", TEXT, "--ray", "auto"]) == 2
    assert "demo is not an index" in capsys.readouterr().err


@pytest.fixture(
    scope="module", params=["xpool", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mean", "dits"))]
)
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
    loaded = LoadedMethod(model, build_gallery(model, embeddings.frames), None)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_lost_machine_is_said_and_the_query_after_its_return_is_whole(sharded, machines, index, tiny_encoder):
    model = RetrievalModel(ModelConfig("mean")).eval()
    search = sharded(model)
    whole = search.search(TEXT, 100)
    machines.kill()
    with pytest.raises(ClusterError, match=r"^Shard [12] of 2 is lost") as error:
        search.search(TEXT, 100)
    search._config = ShardConfig(partial=True)
    some = search.search(TEXT, 100)
    [sentence] = some.missing
    assert (some.exact, some.as_dict()["missing"]) == (False, [sentence])
    assert str(error.value).startswith(sentence)
    engine = one_machine(index, tiny_encoder, model)
    scores = engine.methods["mean"].gallery.scores(tiny_encoder.encode_text([TEXT]))[0]
    first, last = shard_bounds(ROWS, 2)[1 if sentence.startswith("Shard 1") else 0]  # of the shard that is left
    order = first + torch.argsort(scores[first:last], descending=True, stable=True)[:100]
    assert [hit.clip for hit in some.hits] == [engine.corpus.clips[row] for row in order.tolist()]
    assert [hit.score for hit in some.hits] == scores[order].tolist()
    machines.add()
    again = search.search(TEXT, 100)
    assert (again.exact, again.missing, again.hits) == (True, (), whole.hits)


@pytest.mark.slow
def test_from_the_command_line(machines, index, tiny_folder, capsys):
    """A separate process that gets the address of the cluster."""
    search = ["search", TEXT, "--corpus", index.location, "--encoder", f"local-dir:{tiny_folder}", "--method", "mean"]
    command = [sys.executable, "-m", "dits", *search, "--json", "--ray", machines.address]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "Opening the shards: 2/2")
    found = json.loads(done.stdout)
    assert main([*search, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert [(hit["id"], hit["score"]) for hit in found["results"]] == [
        (hit["id"], hit["score"]) for hit in expected["results"]
    ]
    assert found["missing"] == []
    done = subprocess.run([*command, "--shards", "3"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "no room for 3 shards" in done.stderr


@pytest.fixture
def folder(tmp_path):
    """Three videos, one of six segments of two seconds, and what is none."""
    for number, frames in enumerate((60, 10, 10)):
        pictures = [stamp(100 * number + n, 64, 48) for n in range(frames)]
        write_video(tmp_path / f"{number}.mp4", pictures, fps=5, size=(64, 48))
    (tmp_path / "broken.mp4").write_text("no video")
    return tmp_path


@pytest.mark.slow
def test_videos_that_the_cluster_reads_and_embeds_give_the_same_rows(
    connection, folder, tmp_path_factory, tiny_folder, tiny_encoder
):
    indexes = [VideoIndex.create(str(tmp_path_factory.mktemp(name)), tiny_encoder) for name in ("here", "there")]
    config = AddConfig(segment="1s", workers=1)
    backend = RayBackend(connection, f"local-dir:{tiny_folder}", tiny_encoder, config)
    reported = []
    here = add_videos(indexes[0], tiny_encoder, [str(folder)], config)
    there = add_videos(indexes[1], tiny_encoder, [str(folder)], config, reported.append, backend)
    assert there == here
    assert (there.added, there.failed, there.segments) == (3, 1, 16)  # one file takes two jobs
    assert (reported[-1].done, reported[-1].files, reported[-1].segments) == (4, 4, 16)
    columns = [field.name for field in indexes[0]._table.schema]
    assert indexes[1].rows(columns, None).to_pylist() == indexes[0].rows(columns, None).to_pylist()
    assert add_videos(indexes[1], tiny_encoder, [str(folder)], config, None, backend).unchanged == 4


@pytest.mark.slow
def test_a_file_that_ends_its_reader_is_recorded(connection, folder, tmp_path_factory, tiny_folder, tiny_encoder):
    """A reader gets no time at all: its process is ended, and the run goes on."""
    index = VideoIndex.create(str(tmp_path_factory.mktemp("slow")), tiny_encoder)
    config = AddConfig(workers=1, seconds=1e-6)
    backend = RayBackend(connection, f"local-dir:{tiny_folder}", tiny_encoder, config)
    assert add_videos(index, tiny_encoder, [str(folder)], config, None, backend).failed == 4
    assert all("took longer than" in file.reason for file in index.files().values())


def test_spreads_of_parts_are_that_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1000, generator=generator).double() * 1e-3 + 0.3
    for edges in ([0, 1, 1000], [0, 0, 512, 512, 1000], [0, 999, 1000]):
        parts = [scores[first:last] for first, last in itertools.pairwise(edges)]
        whole = merge_results([answer_of(part) for part in parts], 5)
        assert whole.mean == pytest.approx(float(scores.mean()), rel=1e-12)
        assert whole.deviation == pytest.approx(float(scores.std()), rel=1e-9)
        assert (whole.lowest, whole.highest) == (float(scores.min()), float(scores.max()))


def answer_of(scores):
    if not len(scores):
        return ShardResult(0)
    deviation = float(scores.std()) if len(scores) > 1 else 0.0
    return ShardResult(len(scores), (), float(scores.mean()), deviation, float(scores.min()), float(scores.max()))
