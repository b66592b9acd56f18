"""The plan: what DVC says it would run, the runs behind it, and how their times add up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, contents, edit_params, sepablate
from test_pipeline import dvc

from sepablate import scales, study
from sepablate.planning import forecast, pipeline, work
from sepablate.planning.calibration import Cost
from sepablate.planning.pipeline import CACHED, RUNS, UNCHANGED, Stage
from sepablate.training import stage

PRINTED = """Stage 'fetch' didn't change, skipping
Stage 'train@xception' is cached - skipping run, checking out outputs
Running stage 'train@xception':
> python -m sepablate train xception --scale smoke

Running stage 'experiments/dvc.yaml:train@norm_between':
> python -m sepablate train norm_between --scale smoke
"""


def test_what_dvc_prints_is_read() -> None:
    found = pipeline.parse(PRINTED)
    assert [each.state for each in found] == [UNCHANGED, CACHED, RUNS]
    assert [each.variant for each in found] == [None, "xception", "norm_between"]
    assert [each.pipeline for each in found] == ["", "", "experiments/dvc.yaml"]


def test_new_runs_let_what_reads_them_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names = (
        "pointwise_activation",
        "residual_connections",
        "report",
        "experiments/dvc.yaml:report",
    )
    trained = Stage("train@no_residual", RUNS)
    stages = [trained, *(Stage(name, UNCHANGED) for name in names)]
    woken = forecast.woken(stages, {"no_residual"})
    assert [each.state for each in woken] == [RUNS, UNCHANGED, RUNS, RUNS, UNCHANGED]
    assert forecast.woken(stages, set()) == stages


@pytest.fixture
def smoke(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    edit_params(project, seeds=[0, 1, 2], precision="fp32")
    monkeypatch.chdir(project)
    stage._resolved.cache_clear()
    yield project
    stage._resolved.cache_clear()


def test_times_add_up_to_the_slowest_process(smoke: Path) -> None:
    jobs = stage.seed_jobs("xception", "smoke", {})
    cost = Cost(1.0, 0.1, 0.001, 0.5, checkpoint_bytes=10, memory_bytes=10)
    scale, _ = scales.load("smoke")
    evaluated = 2 * (4 * 250 + 500)
    whole = 1.0 + 0.1 * scale.steps + 4 * 0.5 + 0.001 * evaluated
    assert cost.seconds(jobs[0].run) == pytest.approx(whole)
    half = scale.steps // 2  # two of the four evaluations are behind it
    rest = whole - 0.1 * half - 2 * 0.5 - 0.001 * 2 * 2 * 250
    assert cost.seconds(jobs[0].run, half) == pytest.approx(rest)
    for processes, rounds in ((1, 3), (2, 2), (3, 1), (8, 1)):
        each = work.Work([jobs])
        assert forecast.training_seconds(each, cost, processes) == pytest.approx(rounds * whole)
    rounds = work.Work([jobs[:1], jobs[1:]])  # which wait for one another
    assert forecast.training_seconds(rounds, cost, 3) == pytest.approx(2 * whole)


def test_trials_of_a_learning_rate_are_planned_before_the_rest(smoke: Path) -> None:
    trials, rest = work.of("no_residual_tuned", "smoke").rounds
    rates = study.variant("no_residual_tuned").learning_rates
    assert len(trials) == len(rates) * stage.TRIAL_SEEDS
    assert [job.run.seed for job in rest] == [2]
    checkpoint = trials[0].folder / f"checkpoint-{5:09d}-{'0' * 32}.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    planned = work.of("no_residual_tuned", "smoke")
    assert planned.half == {f"seed 0 at {rates[0]}": 5}
    assert (len(planned.finished), len(planned.left)) == (0, len(trials) + 1)


def test_a_folder_that_is_no_project_is_one_line(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path_factory.mktemp("empty")
    for folder, words in ((empty, "params.yaml"), (project, "git")):  # the copy has no .git
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GIT_CEILING_DIRECTORIES": "/"}
        command = [sys.executable, "-m", "sepablate", "plan"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    monkeypatch.chdir(project)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="dvc is not installed"):
        pipeline.ask("smoke", False)


@pytest.mark.slow
def test_plan_follows_a_pipeline_from_nothing_to_the_end(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    edit_params(project, epochs=4, seeds=[0, 1])
    only_two_variants(project)
    before = kept(project)
    assert table(project) == {
        "fetch": ["runs", "?"],
        "train@xception": ["runs", "0", "0", "2"],
        "train@no_residual": ["runs", "0", "0", "2"],
    }
    assert kept(project) == before

    dvc(project, "repro", "train@xception")
    interrupt(project, "no_residual")
    found = table(project)
    assert found["train@xception"] == ["unchanged", "2", "0", "0"]
    state, finished, half, to_do = found["train@no_residual"]
    assert (state, finished) == ("runs", "0")
    assert int(half) >= 1
    assert int(half) + int(to_do) == 2

    dvc(project, "repro")
    done = sepablate(project, "plan")
    assert done.stdout == "smoke: nothing to do, all 3 stages are up to date\n"
    monkeypatch.chdir(project)
    at_laptop = pipeline.ask("laptop", False)
    assert [each.state for each in at_laptop] == [RUNS, RUNS, RUNS]


def only_two_variants(project: Path) -> None:
    path = project / "dvc.yaml"
    stages = yaml.safe_load(path.read_text())["stages"]
    stages["train"]["foreach"] = {
        "xception": "xception_vs_inception",
        "no_residual": "residual_connections",
    }
    shorter = {"stages": {name: stages[name] for name in ("fetch", "train")}}
    path.write_text(yaml.safe_dump(shorter, sort_keys=False))


def kept(project: Path) -> dict[str, bytes]:
    """All that a plan must leave alone: DVC has a folder for what is temporary."""
    free = (".sepablate/", ".dvc/tmp/", ".git/", ".dvc/cache/")
    return {
        name: content
        for name, content in contents(project).items()
        if not name.startswith(free) and "__pycache__" not in name
    }


def table(project: Path) -> dict[str, list[str]]:
    """The cells of each stage, a train stage's without the time."""
    done = sepablate(project, "plan")
    assert done.returncode == 0, done.stderr
    assert all(f"\n{name} " in done.stdout for name in ("time", "memory", "disk"))
    rows = (line.split() for line in done.stdout.splitlines())
    found = {row[0]: row[1:] for row in rows if row and row[0].startswith(("fetch", "train@"))}
    return {name: row[:4] for name, row in found.items() if not name.endswith(":")}


def interrupt(project: Path, variant: str) -> None:
    """Train a variant until there is a checkpoint."""
    runs = project / ".sepablate/runs"
    command = [sys.executable, "-m", "sepablate", "train", variant, "--no-mlflow"]
    process = subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(runs.glob("*/checkpoint-*.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == os.EX_TEMPFAIL
