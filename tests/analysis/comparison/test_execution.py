"""Many runs: results are kept, go on after an interruption, and do not depend on the number of processes."""

import os
from dataclasses import replace

import pytest

from analysis.comparison.execution import results_of
from analysis.comparison.methods import ENTRIES, Entry
from analysis.comparison.runs import Run
from dits.ablations.tables import Variant
from dits.common.errors import InputError, StorageError

RUNS = [Run(ENTRIES[name], mode, seed) for seed in (1, 2) for mode, name in (("frozen", "xpool"), ("joint", "mlp"))]


def without_times(results):
    return [{name: value for name, value in result.items() if name != "ms"} for result in results]


def collect(plan, folder, runs=RUNS, jobs=1, report=lambda line: None):
    results, failures = results_of(plan, runs, folder, jobs, report)
    assert failures == []
    return without_times(results)


def test_interrupted_runs_go_on_where_they_stopped(plan, tmp_path):
    lines = []

    def stop_after_two(line):
        lines.append(line)
        if line.startswith("2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(plan, tmp_path / "runs", report=stop_after_two)
    assert len(list((tmp_path / "runs").iterdir())) == 2
    resumed = []
    results = collect(plan, tmp_path / "runs", report=resumed.append)
    assert resumed[0] == "2 of 4 runs to compute, 1 at a time"
    assert "elapsed, about 0 min 00 s left" in resumed[-1]
    assert len(resumed) == 3
    assert results == collect(plan, tmp_path / "undisturbed")


def test_a_run_that_another_program_has_computed_is_read(plan, tmp_path):
    """It began later, and computed the same result in the meantime."""

    def copy_the_last(line):
        if line.startswith("1/"):
            for path in (tmp_path / "done").iterdir():
                os.replace(path, tmp_path / "runs" / path.name)

    expected = collect(plan, tmp_path / "done")
    assert collect(plan, tmp_path / "runs", report=copy_the_last) == expected
    assert list((tmp_path / "done").iterdir()) == []


def test_a_damaged_result_is_named(plan, tmp_path):
    collect(plan, tmp_path, RUNS[:1])
    (path,) = tmp_path.glob("*xpool*.json")
    path.write_text(path.read_text()[:100])
    with pytest.raises(StorageError, match=f"{path} is not a result of a run: remove it"):
        collect(plan, tmp_path, RUNS[:1])


def test_a_run_that_fails_does_not_end_the_others(plan, tmp_path):
    broken = Run(Entry("broken", "broken", Variant("xpool", {}, {"learning_rate": float("inf")})), "frozen", 1)
    lines = []
    results, failures = results_of(plan, [broken, RUNS[0]], tmp_path, 1, lines.append)
    assert [result["method"] for result in results] == ["xpool"]
    assert [(run.label, "is not finite" in reason) for run, reason in failures] == [("frozen, broken, seed 1", True)]
    assert "is not finite" in lines[1]


def test_at_least_one_job(plan, tmp_path):
    with pytest.raises(InputError, match="The jobs must be 1 or more, not 0"):
        results_of(plan, RUNS, tmp_path, 0, print)


@pytest.mark.slow
def test_processes_give_the_same_results_as_one(plan, tmp_path):
    broken = replace(RUNS[0], entry=Entry("broken", "broken", Variant("xpool", {}, {"learning_rate": float("inf")})))
    results, failures = results_of(plan, [*RUNS, broken], tmp_path / "two", 2, lambda line: None)
    assert without_times(results) == collect(plan, tmp_path / "one")
    assert [run.label for run, _ in failures] == ["frozen, broken, seed 1"]
