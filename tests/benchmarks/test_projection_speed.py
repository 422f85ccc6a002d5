"""How fast maps of the embedding space are made, measured on this machine: `make bench`."""

import subprocess
import sys

import numpy as np
import pytest

from analysis.projections.cache import cached_map
from analysis.projections.projection import Cloud, add_path, project
from analysis.projections.trust import trust
from tests.analysis.projections.test_projection import even_paths

pytestmark = pytest.mark.benchmark

WIDTH = 512


def cloud_of(texts, videos, paths, seed=0):
    draw = np.random.default_rng(seed)
    spots = draw.normal(size=(40, WIDTH))
    gap = draw.normal(size=WIDTH)
    found = [
        (spots[draw.integers(40, size=count)] + 0.7 * draw.normal(size=(count, WIDTH)) + side * gap).astype(np.float32)
        for count, side in ((texts, 1), (videos, -1))
    ]
    return Cloud(*found, even_paths(found[0][:paths], found[1][:paths]))


@pytest.fixture(scope="module")
def cloud():
    """As large as the demo corpus's test split."""
    return cloud_of(320, 64, 64)


@pytest.fixture(scope="module")
def query():
    other = cloud_of(320, 64, 1, seed=1)
    return other.paths


def test_a_first_umap_in_a_cold_process(benchmark):
    """Imports and compilation by numba included."""
    program = (
        "from analysis.projections.projection import project\n"
        "from tests.benchmarks.test_projection_speed import cloud_of\n"
        "project(cloud_of(320, 64, 64), 'umap')\n"
    )
    benchmark.pedantic(subprocess.run, args=([sys.executable, "-c", program],), kwargs={"check": True}, rounds=1)


@pytest.mark.parametrize("kind", ["linear", "pca", "umap"])
def test_a_map_of_the_demo_corpus(benchmark, cloud, kind):
    benchmark.pedantic(project, args=(cloud, kind), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("kind", ["linear", "umap"])
def test_a_query_on_the_map_of_the_demo_corpus(benchmark, cloud, query, kind):
    """Promise: linear under 1 second, UMAP under 6."""
    drawn = project(cloud, kind)
    more = benchmark.pedantic(add_path, args=(cloud, drawn, query), rounds=3, warmup_rounds=1)
    benchmark.extra_info.update(more.parameters)


def test_a_cached_map_of_the_demo_corpus(benchmark, cloud, tmp_path):
    benchmark(cached_map, tmp_path, cloud, "linear")


def test_figures_of_trust(benchmark):
    """The points are so many that the measures are sampled."""
    many = cloud_of(5000, 5000, 64)
    benchmark.pedantic(trust, args=(many, project(many, "linear")), rounds=3)


def test_ten_thousand_points_by_umap(benchmark, cloud):
    """In a process that has compiled. Promise: under 60 seconds on 2 cores."""
    project(cloud, "umap")
    benchmark.pedantic(project, args=(cloud_of(5000, 5000, 64), "umap"), rounds=1)
