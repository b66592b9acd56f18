"""The plan: what DVC says it would run, the runs that it counts, and how their times add up."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT, edit_params, sepablate

from sepablate import scales, study
from sepablate.execution import train_variant
from sepablate.planning import forecast, pipeline, table, work
from sepablate.planning.calibration import Cost
from sepablate.planning.pipeline import RUNS, UNCHANGED, Stage
from sepablate.store import layout


def test_stages_have_the_names_and_the_order_that_dvc_lists(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    monkeypatch.chdir(project)
    command = [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert [stage.name for stage in pipeline.query_dvc("smoke", True)] == listed
    last = Stage("experiments/dvc.yaml:train@norm_between", RUNS)
    assert (last.pipeline, last.variant) == ("experiments/dvc.yaml", "norm_between")
    assert (Stage("fetch", RUNS).pipeline, Stage("fetch", RUNS).variant) == ("", None)


def test_changed_stages_are_read_from_dvc(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    monkeypatch.chdir(project)
    done = subprocess.CompletedProcess([], 0, '{"fetch": [{"changed outs": {}}]}', "a warning")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    stages = pipeline.query_dvc(scales.current(), False)
    assert [stage.name for stage in stages if stage.state == RUNS] == ["fetch"]
    assert {stage.state for stage in stages[1:]} == {UNCHANGED}


def test_a_study_is_planned_without_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stages = pipeline.of_study("operation_order")
    names = ["train@xception", "train@pointwise_first", "operation_order", "report"]
    assert [stage.name for stage in stages] == names
    assert [stage.variant for stage in stages[:2]] == ["xception", "pointwise_first"]
    assert stages[2].compared_variants == {"xception", "pointwise_first"}
    assert stages[3].reports
    for words, line in {
        ("order",): "study 'order' in experiments/: did you mean borders?; choose",
        ("operation_order", "--all"): "plan operation_order: leave out --all",
    }.items():
        done = sepablate(ROOT, "plan", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"sepablate: {line}")


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
    mark_dependents = forecast.mark_dependents(stages, {"no_residual"})
    assert [each.state for each in mark_dependents] == [RUNS, UNCHANGED, RUNS, RUNS, UNCHANGED]
    assert forecast.mark_dependents(stages, set()) == stages


@pytest.fixture
def smoke(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    edit_params(project, seeds=[0, 1, 2], precision="fp32")
    monkeypatch.chdir(project)
    return project


def test_runs_that_were_pulled_are_not_to_do(smoke: Path) -> None:
    stages = [Stage("train@xception", UNCHANGED), Stage("train@no_residual", RUNS)]
    marked, runs = forecast.mark_running(stages, "smoke")
    assert (marked, [*runs]) == (stages, stages[1:])
    assert len(runs[stages[1]].unfinished) == 3


def test_times_add_up_to_the_slowest_process(smoke: Path) -> None:
    jobs = train_variant.seed_jobs("xception", "smoke", {})
    cost = Cost(1.0, 0.1, 0.001, 0.5, checkpoint_bytes=10, memory_bytes=10)
    scale, _ = scales.load("smoke")
    evaluated = 2 * (4 * 250 + 500)
    whole = 1.0 + 0.1 * scale.steps + 4 * 0.5 + 0.001 * evaluated
    assert cost.seconds(jobs[0].run) == pytest.approx(whole)
    half = scale.steps // 2  # two of the four evaluations are done
    rest = whole - 0.1 * half - 2 * 0.5 - 0.001 * 2 * 2 * 250
    assert cost.seconds(jobs[0].run, half) == pytest.approx(rest)
    for processes, rounds in ((1, 3), (2, 2), (3, 1), (8, 1)):
        runs = work.StageRuns([jobs])
        assert forecast.training_seconds(runs, lambda _: cost, processes) == pytest.approx(
            rounds * whole
        )
    in_turn = work.StageRuns([jobs[:1], jobs[1:]])
    assert forecast.training_seconds(in_turn, lambda _: cost, 3) == pytest.approx(2 * whole)


def test_trials_of_a_learning_rate_are_planned_before_the_rest(smoke: Path) -> None:
    trials, rest = work.stage_runs("no_residual_tuned", "smoke").rounds
    rates = study.variant("no_residual_tuned").learning_rates
    assert len(trials) == len(rates) * train_variant.TRIAL_SEEDS
    assert [job.run.seed for job in rest] == [2]
    checkpoint = trials[0].folder / f"checkpoint-{5:09d}-{'0' * 32}.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    planned = work.stage_runs("no_residual_tuned", "smoke")
    assert planned.started == {f"seed 0 at {rates[0]}": 5}
    assert (len(planned.finished), len(planned.unfinished)) == (0, len(trials) + 1)


def test_settings_are_planned_each_at_its_own_cost(smoke: Path) -> None:
    declared = study.load_robustness("robustness").settings[1:3]  # a quarter and half the budget
    text = (smoke / "experiments/robustness.py").read_text()
    for setting in study.load_robustness("robustness").settings:
        if setting not in declared:
            text = re.sub(rf'        Setting\("{setting.name}".*\n', "", text)
    (smoke / "experiments/robustness.py").write_text(text)
    stage = Stage("experiments/dvc.yaml:train_robustness", RUNS)
    assert (stage.settings, stage.variant) == ("robustness", None)
    planned = work.settings_runs("robustness", "smoke")
    assert len(planned.unfinished) == 2 * 5 * 3
    assert {job.run.scale.steps for job in planned.unfinished} == {2, 4}
    networks = forecast.networks_of([planned.unfinished])
    assert len(networks) == 5  # the budget does not change the time of a step
    reads = Stage("experiments/dvc.yaml:robustness", UNCHANGED)
    (marked,) = forecast.mark_dependents([reads], {"robustness"})
    assert marked.state == RUNS


def test_a_plan_says_what_is_trained_and_why_another_trains_again(
    smoke: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = work.stage_runs("xception", "smoke")
    config = runs.unfinished[0].run.config
    path = layout.variant_config("smoke", "xception")
    path.parent.mkdir(parents=True)
    rows = [
        forecast.Row(Stage("train@xception", RUNS), runs, 1.0),
        forecast.Row(Stage("train@no_residual", RUNS), work.StageRuns([]), 1.0),
    ]
    totals = {"seconds": 2.0, "memory": 0, "disk": 0, "memory_free": None, "disk_free": 9}
    again = "train@xception: trains again: source that decides its numbers is not that of results"
    for changes, said in (
        ({}, False),
        ({"source_digest": "another"}, True),
        ({"source_digest": "another", "kernels": "fused"}, False),  # a choice of the machine
    ):
        path.write_text(json.dumps({**config, **changes}))
        table.show(forecast.Forecast(rows, processes=0, **totals))
        printed = capsys.readouterr().out
        assert (again in printed) == said
        assert "\ntime    2 s, nothing trains\n" in printed
        cells = {
            line.split()[0]: line.split()[1:3] for line in printed.splitlines() if line.strip()
        }
        assert cells["train@xception"] == ["runs", "0"]
        assert cells["train@no_residual"] == ["trained", "0"]
        assert cells["trained:"] == ["all", "runs"]


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
        pipeline.query_dvc("smoke", False)


def test_another_scale_than_the_selected_one_runs_everything(smoke: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=smoke, check=True)
    before = {path for path in smoke.rglob("*") if ".git" not in path.parts}
    at_laptop = pipeline.query_dvc("laptop", False)
    assert len(at_laptop) > 10
    assert {each.state for each in at_laptop} == {RUNS}
    free = smoke / ".dvc/tmp"
    after = {path for path in smoke.rglob("*") if ".git" not in path.parts}
    assert {path for path in after - before if free not in (path, *path.parents)} == set()


@pytest.mark.parametrize(
    ("load", "remark"),
    [
        (0.0, ""),
        (1.0, ""),
        (1.06, ", which is busy (load average 1.1, 2 cores): the times will be too long"),
    ],
)
def test_a_busy_machine_is_named(load: float, remark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    assert forecast.busy(2) == remark
