"""The report of an analysis: its numbers against plain computations, its words against its numbers, its files."""

import csv
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import analysis.measures.analysis
import analysis.measures.points
import analysis.measures.trajectory
from analysis.flow import flow_of, with_sampling
from analysis.measures.analysis import SHIFTS, ReportConfig, analyse, mean_shift
from analysis.measures.gap import MEASURES, gap_measures
from analysis.report.files import write_report
from analysis.report.page import measures_table, report_page
from analysis.report.wording import findings, title_of
from dits.common.errors import InputError, StorageError
from dits.evaluation.metrics import METRIC_NAMES, evaluate_scores
from dits.models.pooling import mean_pool
from dits.scoring.gallery import build_gallery
from tests.helpers.flows import VIDEO_OF, a_flow, a_model, frames, points

HOSTILE = ("</script><script>alert(1)</script>", "<!--<script>", "<img src=x onerror=alert(1)>", "a & b 'c' \"d\"")
CAPTIONS = tuple(f"{HOSTILE[index % 4]} {index}" for index in range(10))
IN_STEPS = (
    "l2", "l1", "cosine", "centroid_distance", "rmg", "separability", "uniformity_text", "uniformity_video",
    "cone_text", "cone_video",
)  # fmt: skip
QUICK = ReportConfig(resamples=20)


@pytest.fixture(scope="module")
def analysis_of_dits():
    return analyse([a_flow(name="corpus", split="test", captions=CAPTIONS)], QUICK)


@pytest.fixture(scope="module")
def analysis_of_seeds():
    noisy = [with_sampling(a_model(), noise=1.0, seed=seed) for seed in range(3)]
    return analyse([a_flow(model) for model in noisy], QUICK)


@pytest.fixture
def report(analysis_of_dits):
    return json.loads(json.dumps(analysis_of_dits.as_dict(), allow_nan=False))


@pytest.fixture(scope="module")
def written(analysis_of_dits, tmp_path_factory):
    """A report on disk, and what writing it returned."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITS_CACHE", str(folder / "cache"))
        return folder / "out", write_report(folder / "out", analysis_of_dits, paths=4)


class Tags(HTMLParser):
    """The tags of a page as a browser reads them, its scripts, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)
        self.text += data


def plain_scores(texts, videos):
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (texts, videos)]
    return unit[0] @ unit[1].T


class TestNumbers:
    def test_the_json_has_what_is_promised(self, report):
        assert (report["corpus"], report["split"], report["method"]) == ("corpus", "test", "dits")
        assert (report["pairs"], report["videos"], report["noise_seeds"]) == (10, 5, 1)
        assert [step["step"] for step in report["steps"]] == [0, 1, 2, 3]
        for step in report["steps"]:
            assert all(isinstance(step[name], float) for name in IN_STEPS)
            assert tuple(step["t2v"]) == METRIC_NAMES
            assert set(MEASURES) < set(step)
        assert ["intervals" in step for step in report["steps"]] == [True, False, False, True]

    def test_first_and_last_step_are_text_and_aligned_embedding(self, report):
        model, own = a_model(), mean_pool(frames())[VIDEO_OF]
        gallery = build_gallery(model, frames())
        with torch.inference_mode():
            pooled = model.pooling(points(10), frames())
            ends = {0: (points(10), None), -1: (model.align(points(10)), gallery.scores(points(10)))}
            ends[0] = (points(10), torch.cosine_similarity(points(10)[:, None], pooled, dim=-1))
        for step, (texts, scores) in ends.items():
            expected = gap_measures(texts, own)
            assert {name: report["steps"][step][name] for name in MEASURES} == pytest.approx(expected, abs=1e-6)
            assert report["steps"][step]["t2v"] == evaluate_scores(scores, VIDEO_OF)["t2v"]

    def test_a_trajectory_from_noise_is_reported_from_its_text(self):
        steps = analyse([a_flow(a_model("diffusion"))], ReportConfig(resamples=0)).as_dict()["steps"]
        expected = gap_measures(points(10), mean_pool(frames())[VIDEO_OF])
        assert {name: steps[0][name] for name in MEASURES} == pytest.approx(expected, abs=1e-6)
        assert len(steps) == 5  # the text, noise, and a point after each of three steps
        assert steps[1]["path"]["step_length"]["mean"] > 0.1

    def test_several_seeds_are_mean_and_standard_deviation(self, analysis_of_seeds):
        report = analysis_of_seeds.as_dict()
        assert report["noise_seeds"] == 3
        runs = [analyse([flow], ReportConfig(resamples=0)).as_dict()["steps"] for flow in analysis_of_seeds.flows]
        for number, step in enumerate(report["steps"]):
            for name in MEASURES:
                values = [run[number][name] for run in runs]
                assert step[name] == pytest.approx(np.mean(values))
                assert step["spread"][name] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
            for name in METRIC_NAMES:
                values = [run[number]["t2v"][name] for run in runs]
                assert step["t2v"][name] == pytest.approx(np.mean(values))
                assert step["spread"]["t2v"][name] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        assert report["steps"][0]["spread"]["l2"] == 0  # the text is the same under every seed
        assert report["steps"][-1]["spread"]["l2"] > 0

    def test_closing_the_gap_is_moving_and_normalising(self):
        flow = a_flow()
        texts, videos = points(10).double().numpy(), mean_pool(frames()).double().numpy()
        texts /= np.linalg.norm(texts, axis=1, keepdims=True)
        videos /= np.linalg.norm(videos, axis=1, keepdims=True)
        gap = videos.mean(axis=0) - texts.mean(axis=0)
        for shift, share in zip(mean_shift(flow), SHIFTS, strict=True):
            to, back = texts + share / 2 * gap, videos - share / 2 * gap
            scores = plain_scores(to, back)
            centres = [(rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0) for rows in (to, back)]
            assert shift.share == share
            assert shift.centroid_distance == pytest.approx(np.linalg.norm(centres[1] - centres[0]), abs=1e-6)
            assert shift.cosine == pytest.approx(scores[np.arange(10), VIDEO_OF].mean(), abs=1e-6)
            assert shift.t2v.as_dict() == evaluate_scores(scores, VIDEO_OF)["t2v"]

    def test_no_gap_closed_is_plain_retrieval(self, report):
        scores = plain_scores(points(10).numpy(), mean_pool(frames()).numpy())
        assert report["mean_shift"][0]["t2v"] == evaluate_scores(scores, VIDEO_OF)["t2v"]

    def test_what_is_sampled_is_said(self, monkeypatch, report):
        assert report["sampled"] == {}
        monkeypatch.setattr(analysis.measures.trajectory, "MAX_QUERIES", 6)
        monkeypatch.setattr(analysis.measures.points, "SAMPLE_ABOVE", 8)
        measured = analyse([a_flow()], QUICK)
        sampled = measured.as_dict()
        assert sampled["sampled"] == {"retrieval and paths": 6, "quadratic measures": 8}
        assert measured.paths["rank"].shape == (4, 6)
        assert sampled["pairs"] == 10
        assert sampled["steps"][0]["cosine"] == report["steps"][0]["cosine"]  # a mean over all pairs all the same
        text = " ".join(findings(sampled))
        assert "sample of 6: retrieval and paths." in text
        assert "sample of 8: quadratic measures." in text

    def test_one_video_has_no_distractor_and_its_report_no_nan(self):
        flow = flow_of(a_model(), points(4), frames(1), np.zeros(4, dtype=int), video_side="pooled")
        report = analyse([flow], QUICK).as_dict()
        json.dumps(report, allow_nan=False)
        assert "cosine_to_distractor" not in report["steps"][0]["path"]
        assert "cosine_to_target" in report["steps"][0]["path"]

    def test_nothing_to_analyse(self):
        with pytest.raises(InputError, match="nothing to analyse"):
            analyse([])
        with pytest.raises(InputError, match="negative: -1"):
            ReportConfig(resamples=-1)


class TestWords:
    @pytest.mark.parametrize(
        ("before", "after", "says"),
        [
            (0.2, 0.3, "rises from 0.200 to 0.300"),
            (0.3, 0.2, "falls from 0.300 to 0.200"),
            (0.2001, 0.2004, "stays at 0.200"),
            (0.2004, 0.2006, "rises from 0.200 to 0.201"),
        ],
    )
    def test_changes_are_those_of_the_numbers(self, report, before, after, says):
        first, last = report["steps"][0], report["steps"][-1]
        first["rmg"], last["rmg"] = before, after
        first["t2v"]["R@5"], last["t2v"]["R@5"] = 100 * before, 100 * after
        sentences = findings(report)
        assert f"the relative modality gap {says}." in sentences[1]
        tens = {"rises from 0.200 to 0.300": "R@5 rises from 20.0 to 30.0", "stays at 0.200": "R@5 stays at 20.0"}
        assert tens.get(says, "") in sentences[2]

    def test_every_number_is_the_reports(self, report):
        first, last, shifts = report["steps"][0], report["steps"][-1], report["mean_shift"]
        text = " ".join(findings(report))
        assert text.startswith("10 texts and 5 videos; each video is the mean of its frames")
        for name in ("centroid_distance", "cosine", "rmg"):
            assert f"from {first[name]:.3f} to {last[name]:.3f}" in text
        closed = last["path"]["gap_closed"]
        assert f"closes {closed['mean']:.1%} of the distance" in text
        assert f"percentile {closed['quantiles'][0]:.1%} to {closed['quantiles'][-1]:.1%})" in text
        assert f"its longest step has {report['largest_step_share']:.0%} of its length" in text
        assert f"from {shifts[0]['centroid_distance']:.3f} to {shifts[-1]['centroid_distance']:.3f}" in text
        best = max(shift["t2v"]["R@1"] for shift in shifts)
        assert f"it is highest, {best:.1f}, with" in text

    def test_titles_name_the_method_or_the_steps(self, report):
        assert title_of(report) == "The modality gap of corpus, test split, under DITS"
        assert title_of(report | {"method": "dits-l2", "split": "all"}) == "The modality gap of corpus, under dits-l2"
        given = report | {"method": "given", "split": "all", "corpus": "clip.npz"}
        assert title_of(given) == "The modality gap of clip.npz, under the steps given"
        assert title_of(given | {"steps": report["steps"][:1]}) == "The modality gap of clip.npz"

    def test_seeds_and_intervals_are_said(self, analysis_of_seeds, report):
        several = analysis_of_seeds.as_dict()
        page = Tags(report_page(several, [], [])).text
        assert "Measures and retrieval are means over 3 seeds of the noise" in page
        assert "figures and maps are those of the first seed" in page
        last = several["steps"][-1]
        low, high = last["intervals"]["l2"]
        cell = f"{last['l2']:.3f} ± {last['spread']['l2']:.3f}<br><small>{low:.3f} to {high:.3f}</small>"
        assert cell in measures_table(several)
        assert f"{last['t2v']['R@1']:.1f} ± {last['spread']['t2v']['R@1']:.1f}</td>" in measures_table(several)
        assert "seeds" not in Tags(report_page(report, [], [])).text
        assert "bootstrap" in measures_table(report)
        assert "bootstrap" not in measures_table(analyse([a_flow()], ReportConfig(resamples=0)).as_dict())


class TestFiles:
    def test_all_that_is_promised_is_there(self, written):
        folder, report = written
        assert {path.name for path in folder.iterdir()} == {
            "report.html", "analysis.json", "steps.csv", "pairs.csv", "figures",
        }  # fmt: skip
        assert json.loads((folder / "analysis.json").read_text()) == json.loads(json.dumps(report))
        names = {"measures", "retrieval", "paths", "pairs", "mean-shift", "similarity"}
        names |= {"map-linear", "map-pca", "map-umap"}
        files = {f"{name}.{kind}" for name in names for kind in ("html", "csv")}
        assert {path.name for path in (folder / "figures").iterdir()} == files | {"plotly.min.js"}
        assert set(report["maps"]) == {"map-linear", "map-pca", "map-umap"}
        assert "too few" in report["maps"]["map-umap"]

    def test_tables_hold_the_numbers(self, written):
        folder, report = written
        with (folder / "steps.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert [float(row["rmg"]) for row in rows] == [step["rmg"] for step in report["steps"]]
        assert [float(row["R@1"]) for row in rows] == [step["t2v"]["R@1"] for step in report["steps"]]
        assert [float(row["mean rank"]) for row in rows] == [step["path"]["rank"]["mean"] for step in report["steps"]]
        with (folder / "pairs.csv").open(newline="", encoding="utf-8") as stream:
            pairs = list(csv.DictReader(stream))
        assert [row["text"] for row in pairs] == list(CAPTIONS)
        assert [row["video"] for row in pairs] == [f"video {video}" for video in VIDEO_OF]
        for column, step in (("t", 0), ("v_0", -1)):
            mean = np.mean([float(row[f"cosine {column}"]) for row in pairs])
            assert mean == pytest.approx(report["steps"][step]["cosine"])

    def test_the_page_works_offline(self, written):
        page = Tags((written[0] / "report.html").read_text(encoding="utf-8"))
        assert {name for _, attributes in page.tags for name in attributes if name in ("src", "href")} == set()
        assert {tag for tag, _ in page.tags} & {"link", "iframe", "img", "base"} == set()
        style = (written[0] / "report.html").read_text(encoding="utf-8").split("</style>")[0]
        assert "url(" not in style
        assert "@import" not in style

    def test_captions_are_text_whatever_they_hold(self, written):
        text = (written[0] / "report.html").read_text(encoding="utf-8")
        page = Tags(text)
        assert [tag for tag, _ in page.tags].count("script") == 2
        drawing = text[text.rindex("<script>") + len("<script>") :]
        assert drawing.index("</script>") == drawing.rindex("</script>")
        assert "<!--" not in drawing
        assert "onerror" in drawing  # the captions are there, as text
        for path in (written[0] / "figures").glob("*.html"):
            figure = Tags(path.read_text(encoding="utf-8"))
            assert not any("onerror" in attributes for _, attributes in figure.tags)
            assert "alert(1)</script>" not in path.read_text(encoding="utf-8")

    def test_hostile_names_are_text_too(self, report):
        page = Tags(report_page(report | {"corpus": HOSTILE[0]}, [], []))
        assert [tag for tag, _ in page.tags].count("script") == 2
        assert HOSTILE[0] in page.text

    def test_where_the_disk_refuses_nothing_is_written(self, analysis_of_dits, tmp_path, monkeypatch):
        monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
        out = tmp_path / "out"
        out.touch()
        with pytest.raises(StorageError, match="is not a folder"):
            write_report(out, analysis_of_dits)
        out.unlink()
        out.mkdir()
        (out / "figures").touch()
        with pytest.raises(StorageError, match="is not a folder"):
            write_report(out, analysis_of_dits)
        assert [path.name for path in out.iterdir()] == ["figures"]
