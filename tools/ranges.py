"""Runs a part of the tests with the lowest and the newest releases in requirements.txt: `make test-ranges`.

Each end of the ranges gets a fresh environment of about 8 GB per interpreter, which is deleted afterwards. The results
are written to reports/ranges: a JSON file per environment, and a table of all.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from dits.common.files import write_json
from tools.requirements import ROOT, read_requirements

REPORT = ROOT / "reports" / "ranges"

ENDS = {"lowest": "lowest-direct", "newest": "highest"}
"""The ends of the ranges, with uv's names for them. Indirect requirements always get their newest release."""

TESTS = (
    "analysis/figures/test_figures.py", "analysis/figures/test_map_panels.py",
    "analysis/measures/test_bootstrap.py", "analysis/measures/test_gap.py", "analysis/measures/test_trajectory.py",
    "analysis/projections/test_projection.py", "analysis/report/test_report.py", "analysis/test_features.py",
    "dits/common/test_files.py", "dits/corpora/test_clip_loader.py", "dits/corpora/test_corpus.py",
    "dits/corpora/test_decode_check.py", "dits/corpora/test_demo.py", "dits/corpora/test_embeddings.py",
    "dits/encoders/test_openclip.py", "dits/evaluation/test_metrics.py", "dits/evaluation/test_significance.py",
    "dits/index/adding/test_embedding.py", "dits/index/adding/test_run.py", "dits/index/test_snapshot.py",
    "dits/models/test_alignment.py", "dits/models/test_checkpoint.py", "dits/models/test_methods.py",
    "dits/models/test_retrieval.py", "dits/scoring/test_exact.py", "dits/scoring/test_postprocessing.py",
    "dits/scoring/test_ranking.py", "dits/search/test_engine.py", "dits/search/test_indexed.py",
    "dits/training/test_trainer.py", "dits/video/test_sampling.py", "dits/video/test_segments.py",
    "ui/components/test_results.py", "ui/server/test_app.py", "ui/services/test_visitors.py",
    "ui/tabs/test_analysis_tabs.py", "ui/tabs/test_own_videos.py",
)  # fmt: skip
"""Tests that use a package of requirements.txt, without those of browser, data sets and the encoder's training."""


def main() -> None:
    """Runs the tests, writes the report, and exits with 1 if the tests fail in an environment."""
    parser = argparse.ArgumentParser(prog="python -m tools.ranges", description=__doc__)
    parser.add_argument("--python", nargs="+", default=[sys.executable], metavar="PATH", help="interpreters")
    parser.add_argument("--ends", nargs="+", default=list(ENDS), choices=ENDS)
    args = parser.parse_args()
    passed = [run(python, end) for python in args.python for end in args.ends]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in REPORT.glob("*.json")]
    (REPORT / "README.md").write_text(report(results), encoding="utf-8")
    sys.exit(not all(passed))


def run(python: str, end: str) -> bool:
    """Runs the tests at an end with an interpreter, and writes the result; returns whether they pass."""
    with tempfile.TemporaryDirectory(prefix="dits-ranges-") as folder:
        environment = Path(folder) / "venv"
        venv_python = str(environment / "bin" / "python")
        started = time.monotonic()
        _uv("venv", "--quiet", "--no-python-downloads", "--python", python, str(environment))
        _uv(
            "pip", "install", "--quiet", "--python", venv_python, "--only-binary", ":all:", "--link-mode", "hardlink",
            "--cache-dir", str(Path(folder) / "cache"), "--resolution", ENDS[end],
            "--requirement", "requirements.txt", *_PYTEST,
        )  # fmt: skip
        installed = time.monotonic()
        files = [f"tests/{name}" for name in TESTS]
        code, lines = _run_command([venv_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *files])
        packages = json.loads(_uv("pip", "list", "--quiet", "--format", "json", "--python", venv_python))
    version_command = [python, "-c", "import platform; print(platform.python_version())"]
    release = subprocess.check_output(version_command, text=True).strip()
    write_json(
        REPORT / f"python{'.'.join(release.split('.')[:2])}-{end}.json",
        {
            "python": release,
            "end": end,
            "passed": code == 0,
            "result": lines[-1].strip("= "),
            "measured": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "seconds": {"installing": round(installed - started), "testing": round(time.monotonic() - installed)},
            "versions": {package["name"]: package["version"] for package in packages},
        },
    )
    return code == 0


def report(results: Sequence[dict[str, Any]]) -> str:
    """The page of results in Markdown: a table with a column per environment and a row per requirement."""
    results = sorted(results, key=lambda result: ([int(part) for part in result["python"].split(".")], result["end"]))
    rows = [
        ["", *(f"Python {result['python']}, {result['end']}" for result in results)],
        ["---", *("---:" for _ in results)],
        ["tests", *(("passed" if result["passed"] else "**failed**") for result in results)],
        ["", *(re.sub(r" in .*", "", result["result"]) for result in results)],
        ["on", *(result["measured"] for result in results)],
        ["install and test, s", *("{installing} + {testing}".format(**result["seconds"]) for result in results)],
    ]
    for requirement in read_requirements():
        releases = [result["versions"].get(canonicalize_name(requirement.name), "") for result in results]
        rows.append([f"{requirement.name}{requirement.specifier}", *releases])
    machine = " and ".join(dict.fromkeys(result["machine"] for result in results))
    return _HEAD.format(machine=machine) + "".join(f"| {' | '.join(row)} |\n" for row in rows)


_PYTEST = ("pytest>=9,<10",)
_TIMEOUT = 3600  # seconds

_HEAD = """# The ranges of requirements.txt, tested at both ends

`make test-ranges` installs requirements.txt into fresh environments, once with the lowest releases in its ranges and
once with the newest, and runs a part of the tests in each ({machine});
`tools/ranges.py` lists them. The command writes this page. The JSON files in this folder list all installed packages.
An empty cell is a package that this platform does not need.

"""


def _run_command(command: Sequence[str]) -> tuple[int | None, list[str]]:
    """Runs a command and prints its output; returns its exit code, None after a timeout, and its non-empty lines."""
    lines = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        alarm = threading.Timer(_TIMEOUT, process.kill)
        alarm.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines += [line.strip()] if line.strip() else []
        alarm.cancel()
    timed_out = process.returncode == -signal.SIGKILL
    return (None, [*lines, f"hung for {_TIMEOUT // 60} minutes"]) if timed_out else (process.returncode, lines)


def _uv(*arguments: str) -> str:
    return subprocess.run(["uv", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
