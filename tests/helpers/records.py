"""Files as trainers and stages write them, and what MLflow then shows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from helpers.project import ROOT
from sepablate.tracking import connection

STUDY = "xception_vs_inception"
STEPS = (8, 16, 24)
BEGAN = 1_700_000_000_000
COLUMNS = ["run_key", "variant", "seed", "step", "metric", "value"]


def key(variant: str, seed: int) -> str:
    return f"{sum(variant.encode()):012x}{seed:04x}"


def config(variant: str) -> dict:
    return {
        "variant": variant,
        "scale": "smoke",
        "model": variant,
        "model.width": 0.0625,
        "dataset": "fashion_mnist",
        "images": 512,
        "seeds": [0, 1],
        "data_digest": "0123456789abcdef",
        "label": variant.title(),
    }


def curve(variant: str, seed: int, evaluations: int = 3, final: bool = True) -> pd.DataFrame:
    draw = np.random.default_rng([seed, len(variant)])
    rows = [
        (step, metric, draw.random())
        for step in STEPS
        for metric in ("learning_rate", "train/loss", "validation/accuracy")
    ][: 3 * evaluations]
    if final:
        rows += [(STEPS[-1], "final/test_accuracy", draw.random())]
    frame = pd.DataFrame(rows, columns=["step", "metric", "value"])
    return frame.assign(run_key=key(variant, seed), variant=variant, seed=seed)[COLUMNS]


def measured(evaluations: int = 3, **more: float) -> dict:
    return {
        "started": BEGAN,
        "evaluations": [[step, BEGAN + 1000 * step] for step in STEPS[:evaluations]],
        "hardware": {"processor": "abacus", "cores": 2, "accelerator": "none"},
        "commit": "c0ffee",
        **more,
    }


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def write_results(variants: tuple[str, ...] = ("xception", "inception_v3")) -> None:
    """What two finished variants leave, two seeds each; the second variant was never measured."""
    root = Path("results/smoke")
    for variant in variants:
        keys = {str(seed): key(variant, seed) for seed in (0, 1)}
        text = json.dumps(config(variant) | {"run_keys": keys})
        write(root / "runs" / variant / "config.json", text)
        for seed in (0, 1):
            curve(variant, seed).to_csv(root / f"runs/{variant}/seed-{seed}.csv", index=False)
    for seed in (0, 1):
        numbers = json.dumps(measured(seconds=30.5, images_per_second=50.25))
        write(root / f"measured/xception/seed-{seed}.json", numbers)
    figures = ("figure.png", "figure.svg", "like_figure_6.png")
    for name in ("table.md", "table.csv", "claims.json", *figures):
        write(root / STUDY / name, f"the {name}")


def write_training(seed: int, evaluations: int, finished: bool = False) -> None:
    """What Xception leaves while it trains."""
    folder = Path(".sepablate/runs") / key("xception", seed)
    took = {"seconds": 30.5, "images_per_second": 50.25} if finished else {}
    more = {"seed": seed, "run_key": key("xception", seed)}
    write(folder / "run.json", json.dumps(config("xception") | more))
    write(folder / "measured.json", json.dumps(measured(evaluations, **took)))
    name = "result.csv" if finished else "curve.csv"
    curve("xception", seed, evaluations, finished).to_csv(folder / name, index=False)


def shown(archived: bool = False) -> dict:
    """All that MLflow has of the study: run id -> name, status, parameters, tags, points."""
    client = MlflowClient(connection.address())
    experiment = client.get_experiment_by_name(f"{STUDY} · smoke")
    if experiment is None:
        return {}
    view = ViewType.DELETED_ONLY if archived else ViewType.ACTIVE_ONLY
    return {
        run.info.run_id: {
            "name": run.info.run_name,
            "status": run.info.status,
            "params": run.data.params,
            "tags": run.data.tags,
            "datasets": [each.dataset.name for each in run.inputs.dataset_inputs],
            "points": sorted(
                (point.key, point.step, point.value, point.timestamp)
                for name in run.data.metrics
                for point in client.get_metric_history(run.info.run_id, name)
            ),
        }
        for run in client.search_runs([experiment.experiment_id], run_view_type=view)
    }


def one(name: str) -> dict:
    (run,) = [run for run in shown().values() if run["name"] == name]
    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Path:
    """The current folder, with studies and an empty MLflow database."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path)
    return tmp_path
