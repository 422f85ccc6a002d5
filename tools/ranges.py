"""Runs a part of the tests where requirements.txt is taken at its lower or its newest end: `make test-ranges`.

Each end of each interpreter gets a fresh environment of about 8 GB, which is deleted at once. The results go to
reports/ranges: JSON of each environment, and a table of all.
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
"""The ends of the ranges, and uv's names of them. What the requirements require in turn is always the newest."""

TESTS = (
    "test_alignment", "test_analysis_tabs", "test_app", "test_bootstrap", "test_checkpoint", "test_clips",
    "test_corpus", "test_decoding", "test_demo", "test_embeddings", "test_encoders", "test_evaluation", "test_features",
    "test_figures", "test_files", "test_gap", "test_index_adding", "test_index_embedding", "test_index_search",
    "test_index_snapshot", "test_maps", "test_methods", "test_model", "test_own_videos", "test_postprocessing",
    "test_projection", "test_ranking", "test_report", "test_scoring", "test_search", "test_segments",
    "test_significance", "test_training", "test_trajectory", "test_ui", "test_video", "test_visitors",
)  # fmt: skip
"""Whatever leans on a package of requirements.txt; not the browser, the data sets and the training of the encoder."""


def main() -> None:
    """Runs the tests, writes the report, and ends with 1 where an end fails."""
    parser = argparse.ArgumentParser(prog="python -m tools.ranges", description=__doc__)
    parser.add_argument("--python", nargs="+", default=[sys.executable], metavar="PATH", help="interpreters")
    parser.add_argument("--ends", nargs="+", default=list(ENDS), choices=ENDS)
    args = parser.parse_args()
    passed = [run(python, end) for python in args.python for end in args.ends]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in REPORT.glob("*.json")]
    (REPORT / "README.md").write_text(report(results), encoding="utf-8")
    sys.exit(not all(passed))


def run(python: str, end: str) -> bool:
    """Whether the tests pass at an end under an interpreter; what was found is written down."""
    with tempfile.TemporaryDirectory(prefix="dits-ranges-") as folder:
        environment = Path(folder) / "venv"
        own = environment / "bin" / "python"
        began = time.monotonic()
        _uv("venv", "--quiet", "--no-python-downloads", "--python", python, str(environment))
        _uv(
            "pip", "install", "--quiet", "--python", str(own), "--only-binary", ":all:", "--link-mode", "hardlink",
            "--cache-dir", str(Path(folder) / "cache"), "--resolution", ENDS[end],
            "--requirement", "requirements.txt", *_PYTEST,
        )  # fmt: skip
        installed = time.monotonic()
        files = [f"tests/{name}.py" for name in TESTS]
        command = [str(own), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *files]
        code, said = _ran(command)
        versions = {package["name"]: package["version"] for package in _listed(own)}
    release = _version_of(python)
    write_json(
        REPORT / f"python{'.'.join(release.split('.')[:2])}-{end}.json",
        {
            "python": release,
            "end": end,
            "passed": code == 0,
            "result": said[-1].strip("= "),
            "measured": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "seconds": {"installing": round(installed - began), "testing": round(time.monotonic() - installed)},
            "versions": versions,
        },
    )
    return code == 0


def report(results: Sequence[dict[str, Any]]) -> str:
    """The table, as Markdown: a column for each environment, a row for each requirement."""
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
_LONGEST = 3600  # seconds

_HEAD = """# The ranges of requirements.txt, tested at both ends

`make test-ranges` installs requirements.txt into fresh environments, once with the lowest releases that its ranges
allow and once with the newest there are, and runs a part of the tests in each ({machine}): `tools/ranges.py` says
which. Written by that command; everything that was installed is in the JSON files beside this one. An empty cell is a
package that this platform does not need.

"""


def _ran(command: Sequence[str]) -> tuple[int | None, list[str]]:
    """The exit code of a command, and the lines that it prints, which are shown too; no code where it hangs."""
    lines = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        alarm = threading.Timer(_LONGEST, process.kill)
        alarm.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines += [line.strip()] if line.strip() else []
        alarm.cancel()
    hung = process.returncode == -signal.SIGKILL
    return (None, [*lines, f"hung for {_LONGEST // 60} minutes"]) if hung else (process.returncode, lines)


def _listed(python: Path) -> Any:
    return json.loads(_uv("pip", "list", "--quiet", "--format", "json", "--python", str(python)))


def _version_of(python: str) -> str:
    command = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.check_output(command, text=True).strip()


def _uv(*arguments: str) -> str:
    return subprocess.run(["uv", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
