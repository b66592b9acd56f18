"""MLflow shows what the files say, however often it is told, and never stops a training."""

import json
import shutil
import socket
import sqlite3
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from sepablate.tracking import Live, publish, store, ui

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
    for name in ("table.md", "table.csv", "claims.json", "figure.png", "figure.svg"):
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
    client = MlflowClient(store.address())
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


def wait_for_points(name: str, count: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if store.DATABASE.exists() and any(
            run["name"] == name and len(run["points"]) >= count for run in shown().values()
        ):
            return
        time.sleep(0.2)
    raise AssertionError(f"{name}: no {count} points in 30 s")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to create one; each test gets a copy."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store.connect()
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> pytest.MonkeyPatch:
    (tmp_path / "experiments").symlink_to(Path(__file__).parents[1] / "experiments")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path)
    return monkeypatch


def test_publish_twice_changes_nothing() -> None:
    write_results()
    assert publish("smoke", [STUDY]) == 4
    first = shown()
    assert publish("smoke", [STUDY]) == 0
    assert shown() == first
    assert len(first) == 5


def test_a_run_shows_its_files() -> None:
    write_results()
    publish("smoke", [STUDY])
    run = one("xception seed 1")
    assert run["status"] == "FINISHED"
    frame = curve("xception", 1)
    points = {(metric, step): (value, at) for metric, step, value, at in run["points"]}
    for row in frame.itertuples():
        shown = 0 if row.metric.startswith("final/") else row.step
        assert points.pop((row.metric, shown)) == (row.value, BEGAN + 1000 * row.step)
    assert {name: value for (name, _), (value, _) in points.items()} == {
        "measured/seconds": 30.5,
        "measured/images_per_second": 50.25,
    }
    assert run["params"]["model.width"] == "0.0625"
    assert "seeds" not in run["params"]
    expected = {"variant": "xception", "seed": "1", "study": STUDY, "scale": "smoke"}
    expected |= {"commit": "c0ffee", "data_digest": "0123456789abcdef", "label": "Xception"}
    expected |= {"sepablate.run_key": key("xception", 1), "mlflow.user": "sepablate"}
    assert expected.items() <= run["tags"].items()
    assert run["datasets"] == ["fashion_mnist"]


def test_the_parent_carries_what_the_study_found() -> None:
    write_results()
    publish("smoke", [STUDY])
    client = MlflowClient(store.address())
    runs = shown()
    (parent,) = [run_id for run_id, run in runs.items() if run["name"] == STUDY]
    found = {file.path for file in client.list_artifacts(parent)}
    assert found == {"table.md", "table.csv", "claims.json", "figure.png", "figure.svg"}
    assert "arXiv:1610.02357, section 4.5" in runs[parent]["tags"]["mlflow.note.content"]
    del runs[parent]
    assert {run["tags"]["mlflow.parentRunId"] for run in runs.values()} == {parent}


def test_another_run_key_archives_the_old_run() -> None:
    write_results()
    publish("smoke", [STUDY])
    path = Path("results/smoke/runs/xception/config.json")
    changed = json.loads(path.read_text())
    changed["run_keys"]["0"] = "f" * 16
    path.write_text(json.dumps(changed))
    assert publish("smoke", [STUDY]) == 1
    assert one("xception seed 0")["tags"]["sepablate.run_key"] == "f" * 16
    assert [run["name"] for run in shown(archived=True).values()] == ["xception seed 0"]


def test_runs_that_left_the_files_are_archived() -> None:
    write_results()
    publish("smoke", [STUDY])
    Path("results/smoke/runs/inception_v3/seed-1.csv").unlink()
    assert publish("smoke", [STUDY]) == 1
    assert len(shown()) == 4


def test_a_diverged_run_has_failed() -> None:
    write_results()
    path = Path("results/smoke/runs/xception/seed-0.csv")
    frame = curve("xception", 0, evaluations=1, final=False)
    frame.loc[len(frame)] = [key("xception", 0), "xception", 0, 11, "final/diverged_at_step", 11.0]
    frame.to_csv(path, index=False)
    publish("smoke", [STUDY])
    run = one("xception seed 0")
    assert run["status"] == "FAILED"
    assert run["tags"]["diverged"] == "true"


def test_live_then_publish_doubles_nothing() -> None:
    live = Live([STUDY], "smoke", [key("xception", seed) for seed in (0, 1)], period=0.1)
    write_training(0, evaluations=1)
    wait_for_points("xception seed 0", 3)
    assert one("xception seed 0")["status"] == "RUNNING"
    write_training(0, evaluations=2)
    wait_for_points("xception seed 0", 6)
    write_training(0, evaluations=3, finished=True)
    write_training(1, evaluations=2)
    live.close()
    assert one("xception seed 0")["status"] == "FINISHED"
    assert one("xception seed 1")["status"] == "KILLED"
    followed = shown()

    write_results()
    publish("smoke", [STUDY])
    completed = shown()
    assert followed.keys() < completed.keys()
    assert {run["status"] for run in completed.values()} == {"FINISHED"}
    store.DATABASE.rename("followed.db")
    publish("smoke", [STUDY])
    rebuilt = {run["name"]: run["points"] for run in shown().values()}
    assert rebuilt == {run["name"]: run["points"] for run in completed.values()}


def test_an_interrupted_run_is_resumed_in_place() -> None:
    for evaluations, finished, status in ((1, False, "KILLED"), (3, True, "FINISHED")):
        write_training(0, evaluations, finished)
        with Live([STUDY], "smoke", [key("xception", 0)], period=0.1):
            pass
        assert one("xception seed 0")["status"] == status
    assert len(shown()) == 2
    assert len(one("xception seed 0")["points"]) == 12


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def follow_to_the_end() -> float:
    """Seconds that a training waits for MLflow."""
    write_training(0, evaluations=2)
    began = time.monotonic()
    live = Live([STUDY], "smoke", [key("xception", 0)], period=0.1)
    waited = time.monotonic() - began
    time.sleep(1)
    began = time.monotonic()
    live.close()
    return waited + time.monotonic() - began


def warns_once(capfd: pytest.CaptureFixture[str]) -> bool:
    lines = capfd.readouterr().err.splitlines()
    return len(lines) == 1 and lines[0].startswith("MLflow: ")


def test_a_closed_port_costs_a_warning(project, capfd) -> None:
    project.setenv("MLFLOW_TRACKING_URI", closed_port())
    assert follow_to_the_end() < 7
    assert warns_once(capfd)


def test_a_server_that_never_answers_costs_a_warning(project, capfd) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        project.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert follow_to_the_end() < 7
    assert warns_once(capfd)


def test_a_suite_waits_and_warns_once(project, capfd) -> None:
    project.setenv("MLFLOW_TRACKING_URI", closed_port())
    follow_to_the_end()
    assert warns_once(capfd)
    for _ in range(2):  # the stages that follow
        live = Live([STUDY], "smoke", [key("xception", 0)], period=0.1)
        time.sleep(0.5)
        live.close()
    assert store.given_up()
    assert capfd.readouterr().err == ""
    project.delenv("MLFLOW_TRACKING_URI")
    write_results()
    assert publish("smoke", [STUDY])  # asked for, it tries
    assert not store.given_up()


def test_a_read_only_database_costs_a_warning(project, capfd) -> None:
    uri = f"sqlite:///file:{store.DATABASE.resolve()}?mode=ro&uri=true"
    project.setenv("MLFLOW_TRACKING_URI", uri)
    assert follow_to_the_end() < 7
    assert warns_once(capfd)
    write_results()
    with pytest.raises(OSError, match="readonly database"):
        publish("smoke", [STUDY])


def test_a_locked_database_costs_a_warning(capfd) -> None:
    lock = sqlite3.connect(store.DATABASE)
    lock.execute("BEGIN EXCLUSIVE")
    assert follow_to_the_end() < 7
    assert warns_once(capfd)
    lock.close()


def test_live_tries_again_after_a_failure(project, capfd) -> None:
    project.setenv("MLFLOW_TRACKING_URI", closed_port())
    write_training(0, evaluations=1)
    with Live([STUDY], "smoke", [key("xception", 0)], period=0.1):
        time.sleep(1)
        project.delenv("MLFLOW_TRACKING_URI")
        wait_for_points("xception seed 0", 3)
    assert warns_once(capfd)


def test_the_ui_is_for_this_machine_only() -> None:
    arguments, environment = store.ui_command(5017)
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--allowed-hosts") + 1] == "localhost:5017,127.0.0.1:5017"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_port_that_cannot_be_had_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port}: Address already in use"):
            ui(port)
    with pytest.raises(ValueError, match="port 70000: choose a number from 1 to 65535"):
        ui(70000)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="scale 'lapdog'"):
        publish("lapdog", [STUDY])
    write_results()
    with pytest.raises(ValueError, match="study 'xeption'"):
        publish("smoke", ["xeption"])
