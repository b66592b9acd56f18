"""No room on the disk, no answer from MLflow, no finite loss: one line, and nothing is lost."""

import os
import re
import resource
import socket
import subprocess
from pathlib import Path

import pytest
from helpers.project import ROOT, TRAIN, contents, results, sepablate

from sepablate.store.files import NoSpace, write_atomically
from sepablate.tracking import live


def test_a_file_without_room_leaves_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    write_atomically(path, b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (0, 1, 500, 999):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(NoSpace, match=r"curve\.csv: no room for its 1000 bytes"):
                write_atomically(path, b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents(tmp_path) == {"curve.csv": b"before"}


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_stops_and_room_resumes_to_the_same_bytes(half: Path, finished: Path) -> None:
    runs = half / ".sepablate"
    runs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(runs)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        for size in ("64k", "2m"):
            subprocess.run(["mount", "-o", f"remount,size={size}", str(runs)], check=True)
            done = sepablate(half, *TRAIN)
            assert done.returncode == 1, done.stderr
            assert "no room for its" in done.stderr
            assert "bytes are free" in done.stderr
            assert "xception seed 0 has no room on the disk" in done.stderr
            assert "Traceback" not in done.stderr
            assert not (half / "results").exists()
        subprocess.run(["mount", "-o", "remount,size=200m", str(runs)], check=True)
        assert sepablate(half, *TRAIN).returncode == 0
        assert results(half) == results(finished)
    finally:
        subprocess.run(["umount", "-l", str(runs)], check=True)


@pytest.mark.slow
def test_an_mlflow_that_never_answers_costs_a_warning(
    half: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for it but the end, and that 5 s at most: see test_live."""
    assert live.PATIENCE <= 5
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        done = sepablate(half, *TRAIN[:2])
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("MLflow: ")
    assert results(half) == results(finished)


@pytest.mark.slow
def test_diverged_runs_are_recorded_and_shown(whole: Path) -> None:
    path = whole / "experiments/residual_learning_rate.py"
    text = (ROOT / "experiments/residual_learning_rate.py").read_text()
    path.write_text(re.sub(r"learning_rates=\(.*?\)", "learning_rates=(1e30,)", text))
    assert path.read_text() != text  # one rate, at which nothing converges
    for command in (("train", "no_residual_tuned"), ("study", "residual_learning_rate")):
        done = sepablate(whole, *command, "--no-mlflow")
        assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        rows = whole / f"results/smoke/runs/no_residual_tuned/seed-{seed}.csv"
        step, name, value = rows.read_text().splitlines()[-1].split(",")[3:]
        assert name == "final/diverged_at_step"
        assert float(step) == float(value) <= 3
    assert "diverged" in (whole / "results/smoke/residual_learning_rate/table.md").read_text()
