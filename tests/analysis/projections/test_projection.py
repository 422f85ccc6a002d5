"""Maps of the embedding space: against closed forms, plain slow versions and invariances."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.spatial.distance import cdist, pdist
from sklearn.manifold import trustworthiness

from analysis.projections import cache as projection_cache
from analysis.projections.cache import cached_map, load_map, save_map
from analysis.projections.projection import Cloud, add_path, nearest, project
from analysis.projections.trust import MAX_POINTS, largest_step, trust
from analysis.projections.umap_layout import _register
from dits.common.errors import InputError

WIDTH, STEPS, PATHS = 64, 11, 20
NO_PATHS = np.zeros((0, 0, WIDTH), np.float32)

# How far registered landmarks may lie from their published places, as shares of the layout's diagonal.
MEDIAN_MOVEMENT, P95_MOVEMENT = 0.01, 0.03


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def even_paths(texts, videos):
    share = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None, None]
    return (1 - share) * texts + share * videos


def two_cones(pairs=300, paths=PATHS, seed=0):
    """Pairs that share a direction of six dimensions, with noise, in two cones with a gap between; even paths of some.

    Lengths differ, as an encoder's do.
    """
    draw = np.random.default_rng(seed)
    shared = unit(draw.normal(size=(pairs, 6)) @ draw.normal(size=(6, WIDTH)))
    gap = 1.2 * unit(draw.normal(size=WIDTH))
    texts, videos = (
        unit(shared + 0.15 * draw.normal(size=(pairs, WIDTH)) + side * gap).astype(np.float32) for side in (1, -1)
    )
    lengths = draw.uniform(1, 10, size=(pairs, 1)).astype(np.float32)
    return Cloud(lengths * texts, videos, even_paths(texts[:paths], videos[:paths]) * lengths[:paths])


@pytest.fixture(scope="module")
def cloud():
    return two_cones()


@pytest.fixture(scope="module")
def landmarks(cloud):
    """Unit vectors in float64, texts first: what the maps are held against."""
    return unit(np.vstack([cloud.texts, cloud.videos]).astype(np.float64))


@pytest.fixture(scope="module")
def umap_map(cloud):
    return project(cloud, "umap")


@pytest.fixture(scope="module")
def other_seed(cloud):
    return project(cloud, "umap", seed=1)


def same_map(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("texts", "videos", "paths"))


class TestLinear:
    def test_the_first_axis_holds_the_whole_distance_of_the_centroids(self, cloud, landmarks):
        drawn = project(cloud, "linear")
        texts, videos = drawn.texts.mean(axis=0), drawn.videos.mean(axis=0)
        true = np.linalg.norm(landmarks[300:].mean(axis=0) - landmarks[:300].mean(axis=0))
        assert videos[0] - texts[0] == pytest.approx(true, abs=1e-5)
        assert texts[0] == pytest.approx(-true / 2, abs=1e-5)
        assert drawn.parameters["gap"] == pytest.approx(true, abs=1e-6)
        assert texts[1] == pytest.approx(videos[1], abs=1e-5)  # nothing of the gap is left across it

    def test_across_the_gap_it_is_the_principal_components_of_the_rest(self, cloud, landmarks):
        texts, videos = landmarks[:300], landmarks[300:]
        direction = unit(videos.mean(axis=0) - texts.mean(axis=0))
        rest = landmarks - landmarks.mean(axis=0)
        rest -= np.outer(rest @ direction, direction)
        left, scales, _ = np.linalg.svd(rest, full_matrices=False)
        drawn = project(cloud, "linear", 3)
        for axis in (1, 2):
            expected = left[:, axis - 1] * scales[axis - 1]
            assert np.abs(drawn.landmarks()[:, axis]) == pytest.approx(np.abs(expected), abs=1e-4)
        assert drawn.axes == ("gap axis", "strongest direction across it", "second strongest direction across it")

    @pytest.mark.parametrize("kind", ["linear", "pca"])
    def test_turning_the_space_changes_nothing(self, cloud, kind):
        turn = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
        turned = project(Cloud(cloud.texts @ turn, cloud.videos @ turn, cloud.paths @ turn), kind)
        drawn = project(cloud, kind)
        assert turned.landmarks() == pytest.approx(drawn.landmarks(), abs=1e-4)
        assert turned.paths == pytest.approx(drawn.paths, abs=1e-4)

    @pytest.mark.parametrize("kind", ["linear", "pca"])
    def test_no_distance_is_drawn_longer_than_it_is(self, cloud, landmarks, kind):
        assert (pdist(project(cloud, kind, 3).landmarks()) <= pdist(landmarks) + 1e-5).all()

    def test_pca_is_the_singular_value_decomposition(self, cloud, landmarks):
        left, scales, _ = np.linalg.svd(landmarks - landmarks.mean(axis=0), full_matrices=False)
        drawn = project(cloud, "pca")
        assert np.abs(drawn.landmarks()) == pytest.approx(np.abs(left[:, :2] * scales[:2]), abs=1e-4)
        share = float(scales[0] ** 2 / np.square(scales).sum())
        assert drawn.parameters["shares"][0] == pytest.approx(share, abs=1e-5)
        assert drawn.axes[0] == f"component 1 ({100 * share:.0f} %)"

    def test_without_a_gap_it_is_pca_and_says_so(self, cloud):
        shuffled = Cloud(cloud.texts, cloud.texts[::-1], cloud.paths)
        drawn = project(shuffled, "linear")
        assert drawn.kind == "pca"
        assert drawn.parameters["asked"] == "linear"
        assert "no gap axis" in drawn.note
        assert same_map(drawn, project(shuffled, "pca"))

    @pytest.mark.parametrize("kind", ["linear", "pca"])
    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_an_added_path_is_drawn_where_it_would_have_been(self, cloud, kind, dimensions):
        before = replace(cloud, paths=cloud.paths[:, :-2])
        drawn = project(before, kind, dimensions)
        more = add_path(before, drawn, cloud.paths[:, -2:])
        assert same_map(replace(more, paths=more.paths[:, :-2]), drawn)
        assert more.paths == pytest.approx(project(cloud, kind, dimensions).paths, abs=1e-6)
        assert more.fits(before.with_paths(cloud.paths[:, -2:]))

    def test_a_path_can_be_the_first_and_a_single_one(self, cloud):
        bare = replace(cloud, paths=NO_PATHS)
        drawn = add_path(bare, project(bare, "linear"), cloud.paths[:, 3])
        assert drawn.paths == pytest.approx(project(cloud, "linear").paths[:, 3:4], abs=1e-6)


class TestUmap:
    def test_the_same_seed_gives_the_same_map_bit_by_bit_and_no_warning(self, cloud, umap_map, other_seed):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            again = project(cloud, "umap")
        assert same_map(again, umap_map)
        assert not [warning for warning in said if issubclass(warning.category, UserWarning)]
        assert not same_map(other_seed, umap_map)

    def test_points_that_coincide_are_drawn_as_one(self, umap_map):
        assert np.array_equal(umap_map.paths[0], umap_map.texts[:PATHS])

    def test_an_even_path_across_the_gap_is_drawn_as_a_path(self, cloud, umap_map):
        assert largest_step(cloud.steps()) < 0.15
        assert largest_step(project(cloud, "linear").paths) < 0.2
        assert largest_step(umap_map.paths) < 0.3

    @pytest.mark.slow
    def test_fitting_first_and_transforming_the_steps_draws_it_as_a_jump(self, cloud):
        """The trap that the joint fit is there for."""
        from umap import UMAP

        naive = UMAP(metric="cosine", random_state=0, n_jobs=1).fit(cloud.landmarks())
        steps = naive.transform(cloud.steps().reshape(-1, WIDTH)).reshape(STEPS, PATHS, 2)
        assert largest_step(steps) > 0.6

    @pytest.mark.parametrize("blas", ["1", pytest.param("2", marks=pytest.mark.slow)])
    def test_another_process_draws_the_same(self, blas, umap_map):
        """Whatever number of threads it has: that changes the last bits of what UMAP starts from."""
        program = (
            "from analysis.projections.projection import project\n"
            "from tests.analysis.projections.test_projection import two_cones\n"
            "print(project(two_cones(), 'umap').landmarks().tobytes().hex())\n"
        )
        environment = os.environ | {"OPENBLAS_NUM_THREADS": blas}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == umap_map.landmarks().tobytes().hex()

    def test_landmarks_stay_where_they_were_when_paths_are_added(self, cloud, umap_map):
        texts, videos = cloud.texts[40:46], cloud.videos[40:46]
        paths = even_paths(unit(texts), unit(videos)).astype(np.float32)
        paths[0] = texts  # at the very points
        more = add_path(cloud, umap_map, paths)
        assert same_map(replace(more, paths=more.paths[:, :PATHS]), umap_map)
        movement = more.parameters["landmark_movement"]
        assert 0 < movement["median"] < MEDIAN_MOVEMENT
        assert movement["median"] < movement["p95"] < P95_MOVEMENT
        added = more.paths[:, PATHS:]
        assert added[0] == pytest.approx(umap_map.texts[40:46], abs=1e-4)
        assert largest_step(added) < 0.3
        assert max(largest_step(added[:, [path]]) for path in range(6)) < 0.4  # and none is torn apart
        to_own = np.linalg.norm(added[-1] - umap_map.videos[40:46], axis=1)
        assert np.median(to_own) < 0.1 * np.median(pdist(umap_map.landmarks()))  # each ends at its video

    def test_registration_undoes_a_similarity(self):
        draw = np.random.default_rng(0)
        layout = draw.normal(size=(30, 2)).astype(np.float32)
        turn = np.array([[0.0, 1.0], [1.0, 0.0]])  # a reflection
        assert _register(3 * layout @ turn + [5, -1], layout[:20]) == pytest.approx(layout, abs=1e-5)

    def test_three_dimensions_without_paths(self, cloud):
        few = Cloud(cloud.texts[:40], cloud.videos[:40], NO_PATHS)
        drawn = project(few, "umap", 3, neighbours=10, min_distance=0.3)
        assert drawn.landmarks().shape == (80, 3)
        assert drawn.paths.shape == (0, 0, 3)
        assert drawn.axes == ("UMAP 1", "UMAP 2", "UMAP 3")
        json.dumps(drawn.parameters)
        assert add_path(few, drawn, cloud.paths[:, 0]).paths.shape == (STEPS, 1, 3)

    def test_below_fifty_points_it_is_the_linear_view_and_says_so(self, cloud):
        few = Cloud(cloud.texts[:24], cloud.videos[:25], cloud.paths)
        drawn = project(few, "umap")
        assert drawn.kind == "linear"
        assert "49 texts and videos are too few" in drawn.note
        assert drawn.parameters["asked"] == "umap"
        assert same_map(drawn, project(few, "linear"))

    def test_importing_the_analysis_does_not_import_umap(self):
        program = "import analysis.projections.cache, analysis.projections.trust, sys; sys.exit('umap' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

    @pytest.mark.slow
    def test_a_fit_leaves_pytorch_its_number_of_threads(self):
        """In a process of its own, for numba's threads start once."""
        program = (
            "import numpy as np, torch; from analysis.projections.umap_layout import UmapSettings, lay_out;"
            "points = np.eye(40, dtype=np.float32); lay_out(points, points[:, :2], UmapSettings());"
            "assert torch.get_num_threads() == 1, torch.get_num_threads()"
        )
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestTrust:
    def test_trustworthiness_is_scikit_learns(self, cloud, landmarks, umap_map):
        expected = trustworthiness(landmarks, umap_map.landmarks(), n_neighbors=12, metric="cosine")
        assert trust(cloud, umap_map, neighbours=12).trustworthiness == pytest.approx(expected, abs=1e-6)

    def test_continuity_is_venna_and_kaskis_definition(self, cloud, landmarks):
        drawn = project(cloud, "linear")
        count, points = 15, len(landmarks)
        true, shown = cdist(landmarks, landmarks, "cosine"), cdist(drawn.landmarks(), drawn.landmarks())
        penalty = 0
        for point in range(points):
            others = [other for other in range(points) if other != point]
            by_truth = sorted(others, key=lambda other: true[point, other])
            by_map = sorted(others, key=lambda other: shown[point, other])
            missing = set(by_truth[:count]) - set(by_map[:count])
            penalty += sum(by_map.index(other) + 1 - count for other in missing)
        expected = 1 - 2 * penalty / (points * count * (2 * points - 3 * count - 1))
        assert trust(cloud, drawn).continuity == pytest.approx(expected, abs=1e-5)

    def test_a_map_that_loses_nothing_is_perfect(self):
        """Points on a circle in a plane: two dimensions hold all of it."""
        angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 60)
        circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(60)], axis=1).astype(np.float32)
        figures = trust(
            cloud := Cloud(circle[:30], circle[30:], np.zeros((0, 0, 3), np.float32)), project(cloud, "pca")
        )
        assert (figures.trustworthiness, figures.continuity) == (pytest.approx(1), pytest.approx(1))
        assert figures.largest_step_drawn is None
        assert "keeps neighbourhoods well" in figures.sentence()

    def test_the_largest_step(self):
        ends = np.array([[0.0, 3.0, 4.0], [0.0, 1.0, 2.0], [5.0, 5.0, 5.0]]).T[:, :, None]  # 3/4, 1/2, and no path
        assert largest_step(ends) == pytest.approx((0.75 + 0.5) / 2)
        assert largest_step(ends[:1]) is None

    def test_the_spread_over_seeds(self, cloud, umap_map, other_seed):
        assert trust(cloud, umap_map).seed_spread is None
        turned = replace(umap_map, texts=-2 * umap_map.texts + 1, videos=-2 * umap_map.videos + 1)
        assert trust(cloud, umap_map, maps_of_other_seeds=[turned]).seed_spread == pytest.approx(0, abs=1e-6)
        one = trust(cloud, umap_map, maps_of_other_seeds=[other_seed])
        two = trust(cloud, umap_map, maps_of_other_seeds=[turned, other_seed])
        assert 0 < one.seed_spread < 1
        assert two.seed_spread == pytest.approx(2 / 3 * one.seed_spread, abs=1e-6)
        assert f"differ by {one.seed_spread:.2f}" in one.sentence()
        linear = project(cloud, "linear")
        assert trust(cloud, linear, maps_of_other_seeds=[linear]).seed_spread is None

    def test_a_step_drawn_too_short_is_said_to_be(self, cloud):
        uneven = cloud.paths.copy()
        uneven[5:] = cloud.paths[-1]
        drawn = replace(project(replace(cloud, paths=uneven), "linear"), paths=project(cloud, "linear").paths)
        assert "do not read the size of steps off the map" in trust(replace(cloud, paths=uneven), drawn).sentence()
        assert "do not read" not in trust(cloud, project(cloud, "linear")).sentence()

    def test_many_points_are_sampled_and_it_is_said(self):
        many = two_cones(pairs=1100, paths=1)
        figures = trust(many, project(many, "linear"))
        assert (figures.points, figures.sampled) == (MAX_POINTS, True)
        assert f"on {MAX_POINTS} points drawn at random" in figures.sentence()
        drawn = project(many, "linear")
        everything = trustworthiness(many.landmarks(), drawn.landmarks(), n_neighbors=15, metric="cosine")
        assert figures.trustworthiness == pytest.approx(everything, abs=0.02)

    def test_few_points_have_fewer_neighbours(self, cloud):
        few = Cloud(cloud.texts[:2], cloud.videos[:2], NO_PATHS)
        assert trust(few, project(few, "linear")).neighbours == 1

    def test_maps_that_do_not_belong_together(self, cloud, umap_map):
        with pytest.raises(InputError, match="another cloud"):
            trust(replace(cloud, paths=NO_PATHS), umap_map)
        with pytest.raises(InputError, match="the same kind"):
            trust(cloud, umap_map, maps_of_other_seeds=[project(cloud, "linear")])


def test_nearest_are_the_true_ones(cloud, landmarks):
    found = nearest(cloud, 7 * cloud.texts[5], 4)
    cosines = landmarks @ landmarks[5]
    assert found.texts.tolist() == sorted(range(300), key=lambda text: -cosines[text])[:4]
    assert found.videos.tolist() == sorted(range(300), key=lambda video: -cosines[300 + video])[:4]
    assert found.texts[0] == 5
    assert found.text_cosines[0] == pytest.approx(1, abs=1e-6)
    assert found.video_cosines == pytest.approx(cosines[300 + found.videos], abs=1e-6)
    assert len(nearest(cloud, cloud.texts[0], 1000).videos) == 300


class TestCache:
    @pytest.mark.parametrize("kind", ["linear", "umap"])
    def test_what_is_saved_is_loaded(self, cloud, umap_map, kind, tmp_path):
        drawn = umap_map if kind == "umap" else project(replace(cloud, paths=NO_PATHS), "linear", 3)
        save_map(drawn, tmp_path / "map.safetensors")
        loaded = load_map(tmp_path / "map.safetensors")
        assert same_map(loaded, drawn)
        names = ("kind", "dimensions", "parameters", "axes", "note")
        assert [getattr(loaded, name) for name in names] == [getattr(drawn, name) for name in names]

    def test_a_map_is_made_once(self, cloud, tmp_path, monkeypatch):
        made = cached_map(tmp_path, cloud, "linear")
        monkeypatch.setattr(projection_cache, "project", None)  # nothing is projected any more
        assert same_map(cached_map(tmp_path, two_cones(), "linear"), made)

    def test_a_map_that_cannot_be_kept_is_made_all_the_same(self, cloud, tmp_path):
        (tmp_path / "taken").touch()
        assert same_map(cached_map(tmp_path / "taken", cloud, "linear"), project(cloud, "linear"))

    def test_another_cloud_kind_or_setting_is_another_map(self, cloud, tmp_path):
        cached_map(tmp_path, cloud, "linear")
        cached_map(tmp_path, cloud, "pca")
        cached_map(tmp_path, cloud, "pca", 3)
        cached_map(tmp_path, cloud, "pca", seed=1)
        cached_map(tmp_path, replace(cloud, texts=cloud.texts[::-1]), "pca")
        cached_map(tmp_path, replace(cloud, paths=cloud.paths.reshape(PATHS, STEPS, WIDTH)), "pca")
        assert len(list(tmp_path.iterdir())) == 6

    @pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "pickle", "empty"])
    def test_a_damaged_map_is_refused_and_made_again(self, cloud, damage, tmp_path):
        made = cached_map(tmp_path, cloud, "linear")
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        if damage == "foreign":
            save_file({"texts": np.zeros((1, 2), np.float32)}, path, metadata={"map": "[" * 5000})
        else:
            flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
            contents = {"cut": whole[:-9], "flipped": flipped, "pickle": b"\x80\x04K\x01.", "empty": b""}
            path.write_bytes(contents[damage])
        with pytest.raises(InputError, match="is damaged, or not a map"):
            load_map(path)
        assert same_map(cached_map(tmp_path, cloud, "linear"), made)
        assert path.read_bytes() == whole

    def test_a_missing_map(self, tmp_path):
        with pytest.raises(InputError, match="no map at"):
            load_map(tmp_path / "none.safetensors")


def spoiled(values, value):
    values = values.copy()
    values[3] = value
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": np.ones((1, WIDTH), np.float32)}, "at least two texts and two videos; there are 1 and 300"),
        ({"texts": np.ones((9, WIDTH), np.float32)}, "All texts are one point"),
        ({"videos": np.arange(1, 10, dtype=np.float32)[:, None] * np.ones(WIDTH, np.float32)}, "All videos are one"),
        ({"texts": spoiled(two_cones().texts, np.nan)}, "NaN or an infinite number in texts"),
        ({"videos": spoiled(two_cones().videos, np.inf)}, "NaN or an infinite number in videos"),
        ({"videos": spoiled(two_cones().videos.astype(np.float64), 1e300)}, "NaN or an infinite number in videos"),
        ({"paths": spoiled(two_cones().paths, 0)}, "zeros in paths"),
        ({"texts": np.ones((9, 5), np.float32)}, "the same width, and theirs are 5, 64 and 64"),
        ({"texts": np.ones(WIDTH, np.float32)}, "should have 2 axes"),
        ({"texts": np.ones((9, WIDTH), np.int64)}, "floating-point numbers; texts are int64"),
        ({"texts": np.array([["a"]], dtype=object)}, "floating-point numbers; texts are object"),
    ],
)
def test_what_cannot_be_mapped(cloud, change, message):
    with pytest.raises(InputError, match=message):
        replace(cloud, **change)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("tsne", {}, "no map of kind 'tsne'"),
        ("linear", {"dimensions": 4}, "2 or 3 dimensions, not 4"),
        ("umap", {"neighbours": 1000}, "needs more than 1000 different points, and there are 800"),
        ("umap", {"neighbours": 1}, "at least 2 neighbours"),
        ("umap", {"seed": -1}, "whole number from 0; -1 is not"),
        ("umap", {"min_distance": 1.5}, "between 0 and 1; 1.5 is not"),
        ("umap", {"min_distance": float("nan")}, "between 0 and 1; nan is not"),
    ],
)
def test_invalid_options_are_refused(cloud, kind, options, message):
    with pytest.raises(InputError, match=message):
        project(cloud, kind, **options)


def test_dimensions_need_points_and_width(cloud):
    flat = Cloud(cloud.texts[:, :2], cloud.videos[:, :2], cloud.paths[..., :2])
    with pytest.raises(InputError, match="width 2 cannot be mapped in 3"):
        project(flat, "linear", 3)
    few = Cloud(cloud.texts[[0, 1, 1]], cloud.texts[[0, 1, 1]] * 2, NO_PATHS)
    with pytest.raises(InputError, match="more than 2 different points, and there are 2"):
        project(few, "linear")


def test_what_cannot_be_added(cloud):
    drawn = project(cloud, "linear")
    with pytest.raises(InputError, match="have 11 points each, and the new one has 5"):
        add_path(cloud, drawn, cloud.paths[:5, 0])
    with pytest.raises(InputError, match="the same width"):
        add_path(cloud, drawn, cloud.paths[:, 0, :7])
    with pytest.raises(InputError, match="of another cloud"):
        add_path(replace(cloud, paths=NO_PATHS), drawn, cloud.paths)
    with pytest.raises(InputError, match="width 7, and the cloud has 64"):
        nearest(cloud, np.ones(7, np.float32), 3)
    with pytest.raises(InputError, match="at least one neighbour"):
        nearest(cloud, cloud.texts[0], 0)
