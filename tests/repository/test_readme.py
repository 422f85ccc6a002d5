"""Checks the commands, code, numbers and links of the README, the pages of docs/ and CONTRIBUTING.md."""

import json
import re

import numpy as np
import pytest

from analysis.measures.gap import MEASURES
from dits.cli.parser import main
from dits.corpora.datasets import DATASETS
from dits.corpora.demo import demo_folder
from dits.models.retrieval import METHODS
from tests.helpers.documents import REPOSITORY, anchors_of, commands_of, documents, inline_code_of, links_of, prose_of
from tests.helpers.following import DocumentRunner, commands_of_make, parse_command, skip_reason
from tests.helpers.videos import stamp, write_video

README = REPOSITORY / "README.md"
FOLLOWED = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMAND = re.compile(r"python -m |python app\.py|make |pip install|torchrun ")
"""The beginning of inline code that is a command."""

TARGETS = re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def name_of(path):
    return str(path.relative_to(REPOSITORY))


each = pytest.mark.parametrize("path", FOLLOWED, ids=name_of)
every = pytest.mark.parametrize("path", documents(), ids=name_of)


@pytest.fixture
def here(demo, tmp_path, monkeypatch):
    """A folder with the assets and some embeddings, with a home of a few videos and a cache of only the demo clips.

    The registries are restored afterwards.
    """
    for number, name in enumerate(("walk.mp4", "snow.mp4", "old/sea.mp4")):
        path = tmp_path / "home" / "Videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, [stamp(50 * number + n, 64, 48) for n in range(12)], size=(64, 48))
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "assets").symlink_to(REPOSITORY / "assets")
    text, video = np.random.default_rng(0).normal(size=(2, 50, 8))
    np.savez(folder / "embeddings.npz", text=text, video=video)
    clips = demo_folder()
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    demo_folder().parent.mkdir(parents=True)
    demo_folder().symlink_to(clips)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.chdir(folder)
    before = [(registry, dict(registry)) for registry in (METHODS, DATASETS, MEASURES)]
    yield folder
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


# Commands and code


@each
def test_a_document_runs(path, here):
    """Every command is parsed by its program's parser; quick commands and all code are run."""
    DocumentRunner(here).run(path, slow=False)


@pytest.mark.slow
@each
def test_a_document_runs_with_its_slow_commands(path, here, app_url):
    """As above, but slow commands are run, too, and the app's API is called."""
    done = DocumentRunner(here, app_url).run(path, slow=True)
    assert done or path.name in ("results.md", "encoder.md", "hosting.md")


@each
def test_inline_commands_are_parsed_by_their_programs(path):
    for code in filter(COMMAND.match, inline_code_of(path)):
        for words in commands_of(code):
            parse_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "curl http://127.0.0.1:7860",
        "python -m dits search 'a dog' --best 3",
        "python -m dits train magic --out x",
        "python -m dits analyse",
        "python -m analysis gap",
        "python -m tests.nothing",
        "python app.py --public",
        "torchrun --nproc-per-node 2 -m dits train dits --jointly --out x",
        "make love",
        "pip install -r nothing.txt",
    ],
)
def test_an_invalid_command_is_refused(line):
    (words,) = commands_of(line)
    with pytest.raises(AssertionError):
        parse_command(words)


def test_commands_are_skipped_for_a_reason():
    assert skip_reason(["search", "a dog"]) is None
    assert skip_reason(["search", "a dog", "--encoder", "ViT-B-32/openai"]) == "weights are downloaded"
    assert skip_reason(["train", "dits", "--joint", "--out", "runs"]) == "it takes minutes or hours"


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "clean"])
def test_make_runs_valid_commands(target, tmp_path):
    """Every command of every target, as the real make and shell run it, is parsed by its program's parser."""
    commands = commands_of_make(target, tmp_path)
    assert commands
    for program, *words in commands:
        match words:
            case ["-m", "pip", "install", "--quiet", requirement]:
                assert requirement in _required_by_tests()
            case ["-m", "pip", "install", *options]:
                files = [options[place + 1] for place, option in enumerate(options) if option == "--requirement"]
                assert files
                assert all((REPOSITORY / file).is_file() for file in files)
            case ["pip", "compile", *options] if program == "uv":
                assert "requirements.txt" in options
            case ["-m", "pytest", *options]:
                assert all((REPOSITORY / option).exists() for option in options if option.startswith("tests"))
            case ["-m", "venv", *_]:
                pass
            case [script, *_] if script.endswith(".py") and script != "app.py":
                assert (REPOSITORY / script).is_file()
            case _ if program == "python":
                parse_command(["python", *words])


def _required_by_tests():
    """The requirements in requirements-dev.txt, as pip reads them."""
    lines = (REPOSITORY / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition(" #")[0].strip() for line in lines]


# Numbers


@pytest.mark.slow
def test_the_table_of_results_equals_the_output_of_its_command(here, capsys):
    assert main(["evaluate", "--split", "test", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = rows_of(README, "| method | R@1 |")
    for (name, *cells), method in zip(rows, ("mean", "xpool", "dits"), strict=True):
        values, bounds = report["methods"][method], report["intervals"][method]
        measured = [("t2v", "R@1"), ("t2v", "R@5"), ("t2v", "R@10"), ("t2v", "MnR"), ("v2t", "R@1")]
        for cell, (direction, metric) in zip(cells, measured, strict=True):
            expected = [values[direction][metric], *bounds[direction][metric]]
            assert numbers(cell) == pytest.approx(expected, abs=0.051), (name, metric)


@pytest.mark.parametrize(("row", "method", "step"), [(0, "dits", 0), (1, "dits", -1), (2, "dits-l2", -1)])
def test_the_table_of_the_gap_equals_the_report(row, method, step):
    report = json.loads((REPOSITORY / "reports" / "gap" / method / "analysis.json").read_text())["steps"][step]
    _, *cells = rows_of(README, "| embedding | cosine")[row]
    for name, cell in zip(("cosine", "centroid_distance", "rmg"), cells, strict=False):
        assert numbers(cell) == pytest.approx([report[name], *report["intervals"][name]], abs=0.00051), name
    assert numbers(cells[3]) == pytest.approx([report["separability"]], abs=0.0051)
    assert numbers(cells[4]) == pytest.approx([report["t2v"]["R@1"]], abs=0.051)


def test_the_times_of_search_are_those_of_the_report():
    measured = json.loads((REPOSITORY / "reports" / "index" / "results.json").read_text())["videos"]
    times = [round(measured[size]["milliseconds"]["dits"]["query"]["median"]) for size in ("10000", "100000")]
    text = " ".join(prose_of(README).split())
    assert f"among 10,000 videos in {times[0]} ms, among 100,000 in {times[1]} ms" in text


def test_the_times_under_load_are_those_of_the_report():
    report = json.loads((REPOSITORY / "reports" / "load" / "results.json").read_text())
    calm, hurried = (report["load"][name] for name in ("with a pause of 1 to 3 seconds", "without a pause"))
    text = " ".join(prose_of(README).split())
    assert f"get 95 % of the answers within {calm['search']['p95 ms']} ms and no errors" in text
    assert f"without a pause, within {hurried['search']['p95 ms'] / 1000:.1f} seconds" in text
    assert calm["people"] == hurried["people"] == 50
    assert {*calm["errors"], *hurried["errors"], *report["memory"]["many queries"]["errors"]} == set()
    memory = [at["MB"] for at in report["memory"]["many queries"]["memory"]]
    assert memory[-1] < 1.02 * memory[len(memory) // 2]


def rows_of(path, header):
    """The rows of cells of the table with the given header."""
    text = path.read_text(encoding="utf-8")
    lines = text[text.index(header) :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def numbers(cell):
    return [float(number) for number in re.findall(r"\d+\.\d+", cell)]


# Links


@every
def test_links_lead_to_files_and_headings(path):
    for link in links_of(path):
        if re.match(r"https?://|mailto:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.is_relative_to(REPOSITORY), link
        assert file.exists(), link
        assert not anchor or anchor in anchors_of(file), link


@each
def test_named_paths_exist(path):
    for code in inline_code_of(path):
        if re.fullmatch(r"(analysis|assets|dits|docs|reports|tests|ui)/[\w./-]*", code):
            assert (REPOSITORY / code).exists(), code
