"""MLflow shows what the files say, however often it is updated."""

import contextlib
import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
from helpers import fork_server
from helpers.project import ROOT
from helpers.records import BEGAN, STUDY, curve, folder, key, one, shown, write_results
from mlflow import MlflowClient

from sepablate.errors import UserError
from sepablate.tracking import connection, publish, ui
from sepablate.tracking.records import Record
from sepablate.tracking.summary import saved_view

__all__ = ["folder"]
pytestmark = pytest.mark.usefixtures("folder")


def test_publish_twice_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_results()
    assert publish("smoke", [STUDY]) == 5
    assert "" not in capsys.readouterr().err.splitlines()  # a bar's, where there is no terminal
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
        "system/seconds": 30.5,
        "system/images_per_second": 50.25,
    }
    assert run["params"]["model.width"] == "0.0625"
    assert "seeds" not in run["params"]
    expected = {"variant": "xception", "seed": "1", "study": STUDY, "scale": "smoke"}
    expected |= {"commit": "c0ffee", "data_digest": "0123456789abcdef", "label": "Xception"}
    expected |= {"sepablate.run_key": key("xception", 1), "mlflow.user": "sepablate"}
    expected |= {"mlflow.source.git.commit": "c0ffee", "mlflow.source.type": "LOCAL"}
    expected |= {"mlflow.source.name": "sepablate train xception --scale smoke"}
    assert expected.items() <= run["tags"].items()
    assert run["datasets"] == ["fashion_mnist"]


def test_the_parent_carries_what_the_study_found() -> None:
    write_results()
    publish("smoke", [STUDY])
    client = MlflowClient(connection.address())
    runs = shown()
    (parent,) = [run_id for run_id, run in runs.items() if run["name"] == STUDY]
    found = {file.path for file in client.list_artifacts(parent)}
    named = {"table.md", "table.csv", "claims.json", "figure.png", "figure.svg"}
    assert found == named | {"like_figure_6.png", f"{STUDY}.py"}
    assert "arXiv:1610.02357, section 4.5" in runs[parent]["tags"]["mlflow.note.content"]
    del runs[parent]
    assert {run["tags"]["mlflow.parentRunId"] for run in runs.values()} == {parent}


def test_a_saved_view_shows_the_final_results_by_variant() -> None:
    """In the form in which MLflow's own page saves one."""
    write_results()
    publish("smoke", [STUDY])
    client = MlflowClient(connection.address())
    experiment = client.get_experiment_by_name(f"{STUDY} · smoke")
    saved = json.loads(experiment.tags["mlflow.sharedViewState.final"])
    assert saved["name"] == "Final results by variant"
    assert isinstance(saved["createdAt"], int)
    state = json.loads(saved["state"])
    assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "variant"}]
    assert state["selectedColumns"][0] == state["orderByKey"] == "metrics.`final/test_accuracy`"
    found = client.search_runs([experiment.experiment_id], state["searchFilter"])
    assert len(found) == 4
    end = f"{experiment.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=final"
    assert connection.views(client) == {experiment.name: end}


def test_a_saved_view_begins_with_the_score_and_not_with_its_details() -> None:
    names = ("map", "map_50", "map_75", "map_small")
    finals = [f"final/test_{name}{end}" for name in names for end in ("", "_averaged")]
    record = Record("0" * 16, 0, {"variant": "a"}, [(1, name, 0.5) for name in finals], {})
    state = json.loads(json.loads(saved_view([record], 0))["state"])
    assert state["orderByKey"] == "metrics.`final/test_map_averaged`"
    shown_first = [f"metrics.`final/test_{name}_averaged`" for name in names]
    assert state["selectedColumns"][:4] == shown_first


def test_files_that_are_gone_come_back() -> None:
    write_results()
    publish("smoke", [STUDY])
    before = files()
    shutil.rmtree("mlartifacts")
    assert publish("smoke", [STUDY]) == 1
    assert files() == before
    Path(sorted(before)[0]).unlink()
    assert publish("smoke", [STUDY]) == 1
    assert files() == before
    assert publish("smoke", [STUDY]) == 0


def test_a_moved_project_writes_to_its_new_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results()
    publish("smoke", [STUDY])
    old, new = Path.cwd(), tmp_path_factory.mktemp("moved") / "project"
    shutil.copytree(old, new, symlinks=True)
    shutil.rmtree(old / "mlartifacts")
    monkeypatch.chdir(new)
    shutil.rmtree("mlartifacts")
    assert publish("smoke", [STUDY]) == 5
    assert len(shown()) == 5
    assert files()
    assert publish("smoke", [STUDY]) == 0
    assert not (old / "mlartifacts").exists()


def test_a_study_of_which_only_the_baseline_is_trained_gets_no_experiment() -> None:
    write_results()
    assert publish("smoke", ["residual_connections"]) == 0
    assert publish("smoke", [STUDY]) == 5
    names = [each.name for each in MlflowClient(connection.address()).search_experiments()]
    assert sorted(names) == ["Default", f"{STUDY} · smoke"]


def test_a_database_without_its_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    write_results()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://user@localhost/runs")
    with pytest.raises(UserError, match="mysql://user@localhost/runs: needs MySQLdb; install it"):
        publish("smoke", [STUDY])


@pytest.mark.parametrize("uri", ["sqlite:////proc", "sqlite:///other.db", "file:mlruns", "x://y"])
def test_an_mlflow_of_another_kind_is_one_line_and_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    write_results()
    with contextlib.closing(sqlite3.connect(connection.DATABASE)) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.commit()
    other = connection.DATABASE.rename("other.db").read_bytes()
    Path("mlruns").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(OSError, match=f"MLflow at {uri}: [^\n]+$"):
        publish("smoke", [STUDY])
    with pytest.raises(UserError, match=f"MLflow at {uri}: "):
        ui(5017)
    assert Path("other.db").read_bytes() == other
    assert not list(Path("mlruns").iterdir())


def test_an_address_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    write_results()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://[::1")
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI: https://\[::1: Invalid IPv6 URL"):
        publish("smoke", [STUDY])
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    connection.DATABASE.unlink()
    connection.DATABASE.mkdir()
    with pytest.raises(UserError, match=r"mlflow\.db: not a regular file; move it away"):
        publish("smoke", [STUDY])


def test_a_deleted_experiment_of_the_same_name_comes_back() -> None:
    write_results()
    publish("smoke", [STUDY])
    client = connection.connect()
    experiment = client.get_experiment_by_name(f"{STUDY} · smoke")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    publish("smoke", [STUDY])
    assert len(shown()) == 5
    assert publish("smoke", [STUDY]) == 0


def files() -> set[str]:
    return {str(path) for path in Path("mlartifacts").rglob("*") if path.is_file()}


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


def test_the_ui_is_for_this_machine_only() -> None:
    arguments, environment = connection.ui_command(5017)
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--allowed-hosts") + 1] == "localhost:5017,127.0.0.1:5017"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["PYTHONWARNINGS"] == "ignore"


def test_the_ui_answers_further_addresses_if_asked_to() -> None:
    arguments, _ = connection.ui_command(5017, "localhost:8080")
    hosts = arguments[arguments.index("--allowed-hosts") + 1]
    assert hosts == "localhost:5017,127.0.0.1:5017,localhost:8080"


@pytest.mark.parametrize("name", ["a%20b", "a b?c#d%3F\xe4"])
def test_the_database_stays_in_its_folder(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    project = tmp_path / name
    project.mkdir()
    monkeypatch.chdir(project)
    (project / "experiments").symlink_to(ROOT / "experiments")
    shutil.copy(empty_database, ".")
    write_results()
    before = {*tmp_path.iterdir()}
    code = f"from sepablate.tracking import publish; print(publish('smoke', [{STUDY!r}]))"
    done = fork_server.run(project, "-c", code, PYTHONPATH=str(ROOT))
    assert done.stdout == "5\n", done.stderr
    with sqlite3.connect(project / "mlflow.db") as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (5,)
    assert list((project / "mlartifacts" / STUDY).rglob("figure.svg"))
    assert {*tmp_path.iterdir()} == before


def test_nothing_stays_of_a_database_that_a_killed_command_began(empty_database: Path) -> None:
    assert {path.name for path in empty_database.parent.iterdir()} == {"mlflow.db", ".sepablate"}


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
