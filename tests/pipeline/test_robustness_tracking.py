"""A robustness study in MLflow: a run for each setting, with a tag for each factor."""

import shutil
from pathlib import Path

import pytest
from helpers.made_up_settings import SCALE, SEEDS, SETTINGS, made_up, project_of_settings
from mlflow import MlflowClient

from sepablate.report import robustness as report
from sepablate.tracking import connection, publish

__all__ = ["project_of_settings"]
NAME = "robustness"


@pytest.fixture
def client(
    project_of_settings: Path,
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> MlflowClient:
    """A client of a database in a project with made-up runs and their report."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, connection.DATABASE)
    shutil.copytree(project_of_settings, tmp_path, dirs_exist_ok=True)
    return connection.connect()


@pytest.mark.slow
def test_runs_can_be_grouped_by_factor_and_nothing_is_published_twice(
    client: MlflowClient,
) -> None:
    assert publish(SCALE, [NAME]) == 5 * (6 + SEEDS * SETTINGS) + 1
    experiment = client.get_experiment_by_name(f"{NAME} · {SCALE}")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    trained = [run for run in runs if "setting" in run.data.tags]
    assert len(trained) == 5 * (6 + SEEDS * SETTINGS)
    declared = made_up()
    levels = {each.name: declared.levels(each) for each in declared.settings}
    levels["base"] = declared.levels(None)
    for run in trained:
        tags = run.data.tags
        for factor, level in levels[tags["setting"]].items():
            assert tags[f"factor: {factor}"] == level
        assert run.info.run_name == f"{tags['variant']} seed {tags['seed']}, {tags['setting']}"
    wide = client.search_runs([experiment.experiment_id], "tags.`factor: width` = '1/2'")
    assert len(wide) == 5 * SEEDS
    (parent,) = [run for run in runs if "setting" not in run.data.tags]
    outcomes = {key: v for key, v in parent.data.tags.items() if key.startswith("verdict: ")}
    assert len(outcomes) == 4
    assert parent.data.metrics["pooled/xception_vs_no_residual/k"] == SETTINGS + 1
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"budget.png", "carrying.json", "ROBUSTNESS.md", "robustness.py"} <= files
    assert publish(SCALE, [NAME]) == 0
    shutil.rmtree(f"results/{SCALE}/settings/cifar10")
    Path(f"results/{SCALE}/robustness_runs.tar.gz").unlink()  # which has them still
    report.effects_outputs(NAME, SCALE)
    report.report_outputs(NAME, SCALE)
    publish(SCALE, [NAME])
    left = client.search_runs([experiment.experiment_id], max_results=1000)
    settings = {run.data.tags.get("setting") for run in left}
    assert len(left) == 5 * (6 + SEEDS * (SETTINGS - 1)) + 1
    assert "cifar10" not in settings
    assert "cifar10_eighth" in settings
