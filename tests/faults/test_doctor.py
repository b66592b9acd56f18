"""The doctor finds what is torn or gone, and never raises, whatever the folder holds."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.project import ROOT
from helpers.published import TINY, current, made
from helpers.records import STUDY, folder, write_results

from sepablate.provenance import doctor
from sepablate.store import layout
from sepablate.store.files import write_manifest
from sepablate.tracking import connection, publish

__all__ = ["current", "folder", "made"]


def lines() -> list[str]:
    return [finding.line for finding in doctor.examine()]


@pytest.fixture
def with_database(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MLflow's database, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, "mlflow.db")
    return Path("mlflow.db")


def test_a_whole_database_is_healthy(with_database: Path) -> None:
    before = with_database.read_bytes()
    assert lines() == []
    assert with_database.read_bytes() == before
    with_database.write_bytes(b"")  # MLflow fills it
    assert lines() == []


@pytest.mark.parametrize("damage", ["half", "garbage", "page", "schema"])
def test_a_torn_database_is_found_and_put_aside(with_database: Path, damage: str) -> None:
    whole = with_database.read_bytes()
    torn = {
        "half": whole[: len(whole) // 2],
        "garbage": b"garbage" * 1000,
        "page": whole[:4096] + os.urandom(4096) + whole[8192:],
        "schema": whole[:100] + bytes(3996) + whole[4096:],
    }[damage]
    with_database.write_bytes(torn)
    (line,) = lines()
    assert line.startswith("mlflow.db: damaged (")
    assert "doctor --repair" in line
    assert with_database.read_bytes() == torn
    (finding,) = doctor.examine(repair=True)
    assert finding.repaired
    assert "kept as mlflow.db.broken; `sepablate publish` makes a new one" in finding.line
    assert Path("mlflow.db.broken").read_bytes() == torn
    assert lines() == []


def test_settings_and_studies_that_cannot_be_read_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("banana")
    Path("experiments").mkdir()
    Path("experiments/mine.py").write_text("STUDY = Study()")
    settings, studies = lines()
    assert settings.startswith("params.yaml: choose a mapping")
    assert studies.startswith("experiments/mine.py:1: NameError")


def test_a_database_in_use_is_not_damaged(with_database: Path) -> None:
    with sqlite3.connect(with_database, isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert lines() == []


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_found(
    make: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.lock", "mlflow.db", "requirements.lock"):
        make(name)
        assert lines()[-1] == f"{name}: not a regular file; move it away"
        os.rename(name, f"old-{name}")


@pytest.mark.usefixtures("folder")
def test_artifacts_that_are_gone_are_found() -> None:
    write_results()
    table = layout.study_folder("smoke", STUDY) / layout.TABLE
    assert table.exists()
    publish("smoke", [STUDY])
    assert not [line for line in lines() if "mlartifacts" in line]
    shutil.rmtree(connection.ARTIFACTS)
    (line,) = [line for line in lines() if "mlartifacts" in line]
    assert "missing, but mlflow.db refers to it" in line
    doctor.examine(repair=True)
    assert not connection.DATABASE.exists()  # `publish` makes both again


@pytest.mark.usefixtures("current")
def test_results_that_are_gone_are_found() -> None:
    assert lines() == []
    (TINY / "residual_connections/figure.svg").unlink()
    (TINY / "controls_digests.json").write_text("{}")
    (TINY / "scorecard.svg").unlink()
    scorecard, gone, unreadable = sorted(lines(), reverse=True)
    assert gone.startswith(f"{TINY}/residual_connections/figure.svg: missing, but {TINY}/digests")
    assert gone.endswith("; `sepablate study residual_connections --scale tiny`")
    assert scorecard.endswith("; `sepablate report residual_connections --scale tiny`")
    assert unreadable.startswith(f"{TINY}/controls_digests.json: not the manifest of a report")
    assert unreadable.endswith("; `sepablate report STUDIES --scale tiny` writes it")


@pytest.mark.usefixtures("current")
def test_damaged_archives_and_runs_of_settings_are_found() -> None:
    runs = TINY / "settings/wide/runs/xception"
    shutil.copytree(TINY / "runs/xception", runs)
    write_manifest(runs, [path.name for path in runs.iterdir()])
    assert lines() == []
    path = next(runs.glob("seed-*.csv"))
    path.write_text(path.read_text() + "\n")
    archive = TINY / "runs.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-20])
    damaged, cut = sorted(lines(), reverse=True)
    assert damaged == f"{path}: damaged; `sepablate train robustness --scale tiny` renews it"
    assert cut.startswith(f"{archive}: not an archive of runs: ")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def too_long(path: Path) -> None:
    path.mkdir()
    (path / ("long" * 63)).write_text("")


SHAPES = {
    "a folder": lambda path: path.mkdir(),
    "a file": lambda path: path.write_text("x"),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": loop,
    "a deep nest": lambda path: path.write_text("[" * 5_000),
    "long names": too_long,
    "a pipe": os.mkfifo,
}
PLACES = (
    "params.yaml",
    "experiments",
    "experiments/mine.py",
    "dvc.lock",
    "experiments/dvc.lock",
    ".dvc/tmp/rwlock",
    ".dvc/cache/files/md5/ab",
    ".dvc/cache/files/md5/ab/" + "0" * 30,
    ".sepablate",
    ".sepablate/runs",
    ".sepablate/runs/c0ffee",
    ".sepablate/runs/c0ffee/done.json",
    "results",
    "results/smoke",
    "results/smoke/digests.json",
    "results/smoke/runs.tar.gz",
    "results/smoke/runs/xception/done.json",
    "data",
    "data/fashion-mnist",
    "data/fashion-mnist/t10k-labels-idx1-ubyte",
    "mlflow.db",
    "requirements.lock",
)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_of_a_file_makes_the_doctor_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    for number, place in enumerate(PLACES):
        project = tmp_path / str(number)
        path = project / place
        path.parent.mkdir(parents=True)
        SHAPES[shape](path)
        monkeypatch.chdir(project)
        for repair in (False, True):
            for finding in doctor.examine(repair):
                assert "\n" not in finding.line, (place, finding.line)


def test_the_project_s_own_folder_has_no_finding_of_this_kind() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert not [line for line in lines() if "digests.json" in line]
